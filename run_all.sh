#!/usr/bin/env bash
# Run all five tasks in the current folder: ./run_all.sh RATIO EPOCHS [more flags for every task]
# With --seeds 1,2,3 once for each seed, in the folders seed1, seed2 and seed3, and show means over the seeds.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # started as `sh run_all.sh`
set -u
here=$(dirname "$(readlink -f "$0")")  # also where a link to this file was called

if [ $# -lt 2 ] || [ "${1#-}" != "$1" ] || [ "${2#-}" != "$2" ]; then
    echo "usage: ./run_all.sh RATIO EPOCHS [--seeds 1,2,3] [more flags for every task], as in ./run_all.sh 0.01 1" >&2
    [ "${1:-}" = --help ] || [ "${1:-}" = -h ]
    exit $((2 * $?))
fi
flags=(--ratio "$1" --epochs "$2" "${@:3}")
absolute() { if [[ $1 == /* || -z $1 ]]; then printf %s "$1"; else printf %s "$PWD/$1"; fi; }
seeds= others=() before=
for flag in "${@:3}"; do
    if [[ $before == --data-dir ]]; then
        flag=$(absolute "$flag")  # each seed has a folder of its own
    elif [[ $flag == --data-dir=* ]]; then
        flag=--data-dir=$(absolute "${flag#*=}")
    fi
    if [[ $before == --seeds || $flag == --seeds=* ]]; then
        seeds=${flag#--seeds=}
        if ! [[ $seeds =~ ^[0-9]+(,[0-9]+)*$ ]]; then
            echo "run_all.sh: error: --seeds: expected whole numbers such as 1,2,3, got $seeds" >&2
            exit 2
        fi
        seeds=$(for seed in ${seeds//,/ }; do echo $((10#$seed)); done)  # 01 is 1
        if [ -n "$(sort <<<"$seeds" | uniq -d)" ]; then
            echo "run_all.sh: error: --seeds: a seed is named twice, which would tell nothing new" >&2
            exit 2
        fi
    elif [[ $flag != --seeds ]]; then
        others+=("$flag")
    fi
    before=$flag
    if [[ $flag == --label-ratio* || $flag == --augment* || $flag == --task[12]-checkpoint* ]]; then
        echo "run_all.sh: error: ${flag%%=*} is a flag of some tasks only; run them one by one" >&2
        exit 2
    fi
    if [[ $flag == --output-dir* ]]; then
        echo "run_all.sh: error: --output-dir would mix the five tasks; run it from the folder to fill instead" >&2
        exit 2
    fi
done

# The active environment if it has what the tasks need, else the project's own, which uv makes if it is not there.
if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("pytorch_lightning"))'; then
    python=(python)
elif command -v uv >/dev/null; then
    python=(uv run --project "$here" python)
else
    echo "run_all.sh: error: no active environment with pytorch-lightning and no uv; try: pip install uv" >&2
    exit 1
fi

if [ -n "$seeds" ]; then
    mkdir -p data  # one cache and one download for all
    folders=()
    for seed in $seeds; do
        mkdir -p "seed$seed"
        [ -e "seed$seed/data" ] || ln -s ../data "seed$seed/data"
        echo "=== seed $seed"
        (cd "seed$seed" && bash "$here/run_all.sh" "$1" "$2" ${others[@]+"${others[@]}"} --seed "$seed") || exit
        folders+=("seed$seed")
        # All seeds are of one corpus, even if a network comes and goes.
        if grep -q '"corpus": "synthetic' "seed$seed/task1_supervised/metrics.json" && [[ " ${others[*]-} " != *" --data"* ]]; then
            others+=(--dataset synthetic)
        fi
    done
    echo
    PYTHONPATH=$here exec "${python[@]}" -m common.report.seeds "${folders[@]}"
fi

seconds=()
for task in 1 2 3 4 5; do
    echo
    echo "=== task$task.py ${flags[*]}"
    started=$SECONDS
    "${python[@]}" "$here/task$task.py" "${flags[@]}"
    code=$?
    if [ $code -eq 2 ] && [ $task = 1 ]; then  # a wrong argument: it has been named
        exit 2
    fi
    if [ $code -ne 0 ]; then
        echo "run_all.sh: error: task$task.py failed with exit code $code; the tasks after it were not run" >&2
        exit $code
    fi
    seconds+=($((SECONDS - started)))
    rm -f report.html  # of an earlier run, whose results are being replaced
    # The first task settles which corpus there is: a network that comes and goes must not change it half-way.
    if [ $task = 1 ] && grep -q '"corpus": "synthetic' task1_supervised/metrics.json && [[ " ${flags[*]} " != *" --data"* ]]; then
        flags+=(--dataset synthetic)
    fi
done
echo
PYTHONPATH=$here "${python[@]}" -m common.report "${seconds[@]}"
