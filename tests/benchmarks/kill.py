"""Kill a task again and again, at random moments, and see whether the next run makes up for it.

Each round starts a task in an empty folder, kills it with SIGKILL (anywhere between reading the corpus and writing the
metrics), kills a second run at a later moment in half of the rounds, and lets a last run finish. Half of the rounds go
on with --resume, the others start anew. The metrics (but for the seconds) and the weights must then be those of an
undisturbed run, nothing else may lie in the folder, and no metrics file may ever have been in parts.

    python tests/benchmarks/kill.py                  60 rounds of task 1
    python tests/benchmarks/kill.py --task 5 --rounds 20

Prints a table and ends with exit code 1 if anything was lost. Linux and macOS.
"""

import argparse
import json
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from timing import show
from tqdm import tqdm

import common.checkpoints
import common.corpus.synthetic
import common.evaluate

REPOSITORY = Path(__file__).resolve().parents[2]
DIRECTORIES = {1: "task1_supervised", 2: "task2_contrastive", 5: "task5_finetune"}


def start(task: int, folder: Path, *flags: str) -> int:
    """Run a task in a forked process; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = [f"task{task}.py", "--ratio", "0.01", "--dataset", "synthetic", "--epochs", "3", *flags]
        runpy.run_path(str(REPOSITORY / sys.argv[0]), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def results(folder: Path) -> dict:
    """What a run left below ``folder``: metrics without their seconds, weights, and names of files."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["run"].pop("seconds")
    weights = {
        path.relative_to(folder).as_posix(): {
            key: value.numpy().tobytes()
            for key, value in common.checkpoints.torch.load(path, weights_only=True)["state_dict"].items()
        }
        for path in folder.rglob("*.ckpt")
    }
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {"metrics": metrics, "weights": weights, "files": files}


def place_of_death(folder: Path, output: Path) -> str:
    """Which part of its work a killed run had come to."""
    if (output / "metrics.json").exists():
        json.loads((output / "metrics.json").read_text())  # must be whole
        return "after the metrics"
    if (output / "metrics.txt").exists():
        return "between the metrics files"
    if any(output.glob("*/.*.partial")):
        return "while writing a checkpoint"
    if any(output.glob("*/last.ckpt")):
        return "in training, after an epoch"
    if output.exists():
        return "in the first epoch"
    if any((folder / "data").rglob(".*/*")):
        return "in the cache build"
    return "before the cache"


def main(args: argparse.Namespace) -> int:
    rng = random.Random(args.seed)
    deaths, lost = Counter(), []
    with tempfile.TemporaryDirectory() as place:
        reference = Path(place) / "reference"
        reference.mkdir()
        if args.task == 5 and finish(start(2, reference)) != 0:
            sys.exit((reference / "log").read_text())
        started = time.monotonic()
        if finish(start(args.task, reference)) != 0:
            sys.exit((reference / "log").read_text())
        duration = time.monotonic() - started
        expected = results(reference / DIRECTORIES[args.task])
        for number in tqdm(range(args.rounds), desc="killing"):
            folder = Path(place) / f"round{number}"
            folder.mkdir()
            if args.task == 5:
                shutil.copytree(reference / DIRECTORIES[2], folder / DIRECTORIES[2])
            output, resume = folder / DIRECTORIES[args.task], ["--resume"] if number % 2 else []
            for attempt in range(1 + (number // 2) % 2):
                child = start(args.task, folder, *(resume if attempt else []))
                time.sleep(rng.uniform(0, duration))
                os.kill(child, signal.SIGKILL)
                finish(child)
                deaths[place_of_death(folder, output)] += 1
            code = finish(start(args.task, folder, *resume))
            if code != 0 or results(output) != expected:
                lost.append(f"round {number}: exit code {code}\n{(folder / 'log').read_text()[-2000:]}")
            leftovers = [path.name for path in (folder / "data/cache").iterdir()]
            if len([name for name in leftovers if not name.startswith(".")]) != 1:
                lost.append(f"round {number}: caches {leftovers}")
            shutil.rmtree(folder)
    table = [["killed", "times"], *([name, str(count)] for name, count in deaths.most_common())]
    show(f"task {args.task}: {args.rounds} rounds, {sum(deaths.values())} kills, {len(lost)} lost", table)
    print(*lost, sep="\n")
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=int, choices=DIRECTORIES, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(parser.parse_args()))
