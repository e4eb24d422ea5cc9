"""Kill or interrupt a task at random moments and check that the next run makes up for it.

Each round starts a task in an empty folder and kills it with SIGKILL, or with --signal INT presses Ctrl-C, at any
moment between reading the corpus and writing the metrics. Half of the rounds then do so to a second run. The last run
is left to finish. Half of the rounds continue with --resume, the others start anew. In the end the metrics (except for
the seconds), the weights and the speaker space must be those of an undisturbed run, the output folder must hold the
same files and the cache must be equal. A killed run may leave metrics.json complete or absent, never in part. An
interrupted one must end within 10 seconds with exit code 130, or with 0 if it had finished.

    python tests/benchmarks/kill.py                  60 rounds of task 1
    python tests/benchmarks/kill.py --task 5 --rounds 20
    python tests/benchmarks/kill.py --signal INT

Prints a table and ends with exit code 1 if anything was lost. Linux and macOS.
"""

import argparse
import hashlib
import importlib
import json
import multiprocessing
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
from typing import Any

import torch
from timing import show
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[2]
OUTPUTS = {1: "task1_supervised", 2: "task2_contrastive", 5: "task5_finetune"}


def start(task: int, folder: Path, *flags: str) -> multiprocessing.process.BaseProcess:
    """Start a task in a forked process, whose modules are imported already."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(task, folder, *flags))
    process.start()
    return process


def _run(task: int, folder: Path, *flags: str) -> None:
    os.chdir(folder)
    with Path("log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = [f"task{task}.py", "--ratio", "0.01", "--dataset", "synthetic", "--epochs", "3", *flags]
    runpy.run_path(str(REPOSITORY / sys.argv[0]), run_name="__main__")


def finish(process: multiprocessing.process.BaseProcess) -> int:
    """Wait for a run; returns its exit code."""
    process.join()
    return process.exitcode or 0


def results(folder: Path, output: str) -> dict[str, Any]:
    """What a finished run has left in ``folder``, without what differs between equal runs."""
    files = sorted(path for path in (folder / output).rglob("*") if path.is_file())
    metrics = json.loads((folder / output / "metrics.json").read_text())
    metrics["run"].pop("seconds")
    tensors = {}
    for path in files:
        if path.suffix == ".ckpt":
            checkpoint = torch.load(path, weights_only=True)
            parts = [
                *checkpoint["state_dict"].values(),
                *(part for space in checkpoint.get("speaker_spaces", {}).values() for part in space.values()),
            ]
            tensors[path] = [part.numpy().tobytes() for part in parts]
    # Killed builds leave hidden files, which a run deletes when they are an hour old.
    caches = [path for path in (folder / "data/cache").iterdir() if not path.name.startswith(".")]
    return {
        "metrics": metrics,
        "tensors": {path.relative_to(folder): values for path, values in tensors.items()},
        "files": [path.relative_to(folder) for path in files],
        "caches": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in caches},
    }


def stage(folder: Path, output: Path) -> str:
    """How far a killed run had come. Raises ValueError if its metrics.json is incomplete."""
    cache = folder / "data/cache"
    if not any(cache.glob("*.waves")):
        return "in the cache build" if any(cache.glob(".audio-tasks-partial-*")) else "before the cache"
    if (output / "metrics.json").exists():
        json.loads((output / "metrics.json").read_text())
        return "after the metrics"
    if (output / "metrics.txt").exists():
        return "between the metrics files"
    if any(output.glob("*/.*.ckpt.partial")):
        return "while writing a checkpoint"
    return "in training, after an epoch" if any(output.glob("*/last.ckpt")) else "before the end of the first epoch"


def stop(process: multiprocessing.process.BaseProcess, kind: signal.Signals) -> str:
    """Send the signal and wait; returns what was wrong with the way in which the process ended."""
    started = time.monotonic()
    os.kill(process.pid or 0, kind)
    code, seconds = finish(process), time.monotonic() - started
    right = kind == signal.SIGKILL or (seconds < 10 and code in (0, 130))
    return "" if right else f"{seconds:.0f} s, exit code {code}"


def main(task: int, rounds: int, seed: int, kind: signal.Signals) -> int:
    for number in (2, task):
        importlib.import_module(f"task{number}")
    rng = random.Random(seed)
    stages: Counter[str] = Counter()
    lost = []
    with tempfile.TemporaryDirectory() as parent:
        reference = Path(parent, "reference")
        reference.mkdir()
        if task == 5 and finish(start(2, reference)) != 0:
            sys.exit((reference / "log").read_text())
        started = time.monotonic()
        if finish(start(task, reference)) != 0:
            sys.exit((reference / "log").read_text())
        duration = time.monotonic() - started
        expected = results(reference, OUTPUTS[task])
        for number in tqdm(range(rounds), desc="killing"):
            folder = Path(parent, f"round{number}")
            folder.mkdir()
            if task == 5:
                shutil.copytree(reference / OUTPUTS[2], folder / OUTPUTS[2])
            resume = ["--resume"] if number % 2 else []
            for attempt in range(1 + (number // 2) % 2):
                process = start(task, folder, *(resume if attempt else []))
                time.sleep(rng.uniform(0, duration))
                if wrong := stop(process, kind):
                    lost.append(f"round {number}: {wrong}\n{(folder / 'log').read_text()[-2000:]}")
                stages[stage(folder, folder / OUTPUTS[task])] += 1
            code = finish(start(task, folder, *resume))
            found = results(folder, OUTPUTS[task]) if code == 0 else {}
            differing = [key for key in expected if found.get(key) != expected[key]]
            if differing:
                log = (folder / "log").read_text()[-2000:]
                lost.append(f"round {number}: exit code {code}, different {', '.join(differing)}\n{log}")
            shutil.rmtree(folder)
    table = [["killed", "times"], *([name, str(count)] for name, count in stages.most_common())]
    show(f"task {task}: {rounds} rounds, {sum(stages.values())} kills, {len(lost)} lost", table)
    print(*lost, sep="\n")
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=int, choices=OUTPUTS, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    arguments = vars(parser.parse_args())
    sys.exit(main(kind=signal.Signals[f"SIG{arguments.pop('signal')}"], **arguments))
