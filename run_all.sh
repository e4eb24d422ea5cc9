#!/usr/bin/env bash
# Run all five tasks in the current folder: ./run_all.sh RATIO EPOCHS [more flags for every task]
# With --seeds 1,2,3 once for each seed, in the folders seed1, seed2 and seed3, and show means over the seeds.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started as `sh run_all.sh`
set -u
here=$(dirname "$(readlink -f "$0")")  # also where a link to this file was called
fail() { echo "run_all.sh: error: $2" >&2; exit "$1"; }

[[ $# -ge 2 && $1 != -* && $2 != -* ]] ||
    fail 2 "expected ./run_all.sh RATIO EPOCHS [--seeds 1,2,3] [more flags for every task], as in ./run_all.sh 0.01 1"
ratio=$1 epochs=$2 seeds= more=()
shift 2
while [ $# -gt 0 ]; do
    name=${1%%=*} value=${1#*=}
    case $name in
        --output-dir) fail 2 "--output-dir would mix the five tasks; run it from the folder to fill instead" ;;
        --label-ratio | --augment | --task[12]-checkpoint) fail 2 "$name: not a flag of all tasks; run them singly" ;;
        --seeds | --data-dir) [[ $1 == *=* ]] || { value=${2-}; shift; } ;;
        *) more+=("$1") ;;
    esac
    if [[ $name == --seeds ]]; then
        [[ $value =~ ^[0-9]+(,[0-9]+)*$ ]] || fail 2 "--seeds: expected whole numbers such as 1,2,3, got '$value'"
        seeds=$(for seed in ${value//,/ }; do echo $((10#$seed)); done)  # 01 is 1
        [ -z "$(sort <<<"$seeds" | uniq -d)" ] || fail 2 "--seeds: a seed is named twice, which would tell nothing new"
    elif [[ $name == --data-dir ]]; then
        [[ -z $value || $value == /* ]] || value=$PWD/$value  # each seed has a folder of its own
        more+=(--data-dir "$value")
    fi
    shift
done

# The active environment if it has what the tasks need; else the project's own, which uv makes if it is not there.
needed="torch torchaudio pytorch_lightning torchmetrics sklearn matplotlib soundfile jinja2 filelock"
python=(python)
if ! python -P -c 'import sys, importlib.util as u; exit(not all(map(u.find_spec, sys.argv[1:])))' $needed 2>/dev/null; then
    command -v uv >/dev/null || fail 1 "no active environment with all that the tasks need, and no uv; try: pip install uv"
    python=(uv run --project "$here" python)
fi
# -P: a folder or file named `common` in the current folder must not hide the project's.
report() { PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} "${python[@]}" -P -m "$@"; }

# The first task settles which corpus there is: a network that comes and goes must not change it half-way.
keep_corpus() {
    if grep -q '"corpus": "synthetic' "$1/task1_supervised/metrics.json" && [[ " ${more[*]-} " != *" --data"* ]]; then
        more+=(--dataset synthetic)
    fi
}

for seed in $seeds; do
    mkdir -p data "seed$seed"  # one cache and one download for all
    [ -e "seed$seed/data" ] || ln -s ../data "seed$seed/data"
    echo "=== seed $seed"
    (cd "seed$seed" && bash "$here/run_all.sh" "$ratio" "$epochs" ${more[@]+"${more[@]}"} --seed "$seed") || exit
    keep_corpus "seed$seed"
done
[ -z "$seeds" ] || { report common.report.seeds $(printf 'seed%s ' $seeds); exit; }

for task in 1 2 3 4 5; do
    printf '\n=== task%s.py %s\n' "$task" "--ratio $ratio --epochs $epochs ${more[*]-}"
    "${python[@]}" "$here/task$task.py" --ratio "$ratio" --epochs "$epochs" ${more[@]+"${more[@]}"}
    code=$?
    [ $task$code != 12 ] || exit 2  # a wrong argument: it has been named
    [ $code = 0 ] || fail $code "task$task.py failed with exit code $code; the tasks after it were not run"
    rm -f report.html  # of an earlier run, whose results are being replaced
    [ $task != 1 ] || keep_corpus .
done
echo
report common.report
