"""Compare the training epochs of this checkout with those of another one, such as an earlier commit.

    git worktree add ../earlier cb25e38
    python tests/benchmarks/epochs.py ../earlier

Runs the scripts of tasks 1, 2 and 5 of both checkouts on synthetic speech, both at a time, but lets them train in turn:
one epoch here, one there. So other load on the machine, which changes within seconds, affects both alike. Seconds are
medians over the epochs but the first and the last, the ratios are taken within each turn. An epoch ends with its
validation.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import ratio, show
from tqdm import tqdm

HERE = Path(__file__).resolve().parents[2]
# Of each script, the trainings that follow each other.
TRAININGS = {
    "task1.py": ["task 1, 1D", "task 1, 2D"],
    "task2.py": ["task 2"],
    "task5.py": [f"task 5, {name} {mode}" for name in ("1D", "2D", "both") for mode in ("frozen", "fine-tuned")],
}
# Runs a script whose trainings wait for a line before each epoch, and answer with its seconds.
RUNNER = """
import os, runpy, sys, time
import pytorch_lightning as pl

answers, initialise = os.fdopen(os.dup(1), "w"), pl.Trainer.__init__
os.dup2(2, 1)  # what the script prints

class TakeTurns(pl.Callback):
    def on_train_epoch_start(self, trainer, module):
        sys.stdin.readline()
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):
        print(time.perf_counter() - self.started, file=answers, flush=True)

def with_turns(self, *args, callbacks=(), **options):
    initialise(self, *args, callbacks=[*callbacks, TakeTurns()], **options)

pl.Trainer.__init__ = with_turns
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(checkout: Path, script: str, folder: Path, flags: list[str]) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", RUNNER, str(checkout / script), *flags]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def epoch_seconds(process: subprocess.Popen) -> float:
    """Let a script train for one epoch."""
    print(file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        sys.exit(f"{process.args[3]} failed with exit code {process.wait()}")
    return float(answer)


def main(other: Path, fraction: float, epochs: int) -> None:
    checkouts = {"other": other.resolve(), "here": HERE}
    flags = ["--ratio", str(fraction), "--epochs", str(epochs), "--num-workers", "0", "--dataset", "synthetic"]
    table = [["epoch of", "other, s", "here, s", "times as fast"]]
    total = epochs * sum(map(len, TRAININGS.values()))
    with tempfile.TemporaryDirectory() as parent, tqdm(total=total, desc="epochs") as progress:
        for script, trainings in TRAININGS.items():
            processes = {name: start(path, script, Path(parent, name), flags) for name, path in checkouts.items()}
            sums: dict[str, list[float]] = {name: [0.0] * (epochs - 2) for name in processes}
            for training in trainings:
                seconds: dict[str, list[float]] = {name: [] for name in processes}
                for _ in range(epochs):
                    for name, process in processes.items():
                        seconds[name].append(epoch_seconds(process))
                    progress.update()
                # At the ends, one script reads the clips or evaluates while the other one trains.
                kept = {name: times[1:-1] for name, times in seconds.items()}
                sums = {name: [a + b for a, b in zip(sums[name], kept[name], strict=True)] for name in processes}
                table.append(row(training, kept))
            if len(trainings) > 1:
                table.append(row(f"{script.removesuffix('.py')}, together", sums))
            for process in processes.values():
                process.communicate()
    show(f"{round(30_000 * fraction)} synthetic clips, {epochs - 2} turns, {os.cpu_count()} cores", table)


def row(label: str, seconds: dict[str, list[float]]) -> list[str]:
    medians = [f"{statistics.median(times):.2f}" for times in seconds.values()]
    return [label, *medians, ratio(seconds["other"], seconds["here"])]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--ratio", dest="fraction", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
