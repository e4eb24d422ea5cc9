"""Does a clip cost the same time, and a run the same memory, with 3,000, 10,000 and 30,000 synthetic clips?

    python tests/benchmarks/scaling.py                  ten minutes on 2 cores

Task 1's 2D classifier is trained and tested without workers, each time in a process of its own: once to build the
cache, then --repeats times, the sizes in turn. The table gives the medians of these later runs.

cache       seconds to open or build the cache in the first run
start       seconds after the imports until the first step
per clip    milliseconds per clip and epoch, training and validation, without the first epoch
peak        highest resident memory, MB; it includes the pages of the cache that were read, which the system may drop
anonymous   highest memory of the process without such pages, MB (sampled; Linux)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from task_models import digit_classifier
from timing import show, timed
from tqdm import tqdm

from common.data import SpokenDigits
from common.evaluate import predict_digits
from common.run.cli import Settings, keep_freed_memory
from common.run.output import Run
from common.training import fit

ALL_CLIPS = 30_000
SIZES = (3_000, 10_000, 30_000)
COLUMNS = {"start": 2, "per clip": 3, "peak": 0, "anonymous": 0}  # with their decimals


def train(clips: int) -> dict[str, float]:
    """Train and test one classifier of task 1 and measure what the table shows."""
    started = time.perf_counter()
    anonymous: list[float] = []
    threading.Thread(target=_watch, args=(anonymous,), daemon=True).start()
    settings = Settings(epochs=2, dataset="synthetic", ratio=clips / ALL_CLIPS, num_workers=0)
    keep_freed_memory()  # as every script does
    data = SpokenDigits(**settings.data)
    opened = time.perf_counter()
    model = digit_classifier("2d")
    with Run(settings, data.describe(), {}) as run:
        clock = timed(model, lambda: fit(model, data, run, "checkpoints", "2d"))
    predict_digits(model.network, data.loader("test"))
    return {
        "cache": opened - started,
        "start": clock.first_step - started,
        "per clip": 1000 * statistics.mean(clock.epochs()) / (len(data.split.train) + len(data.split.val)),
        "peak": _megabytes("VmHWM"),
        "anonymous": max(anonymous),
    }


def _watch(anonymous: list[float]) -> None:
    while True:
        anonymous.append(_megabytes("RssAnon"))
        time.sleep(0.02)


def _megabytes(key: str) -> float:
    """A memory size of this process, from /proc/self/status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) / 1024


def train_alone(clips: int, folder: str) -> dict[str, float]:
    """Call ``train`` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(clips)]
    return json.loads(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main(sizes: list[int], repeats: int) -> None:
    runs: dict[int, list[dict[str, float]]] = {clips: [] for clips in sizes}
    progress = tqdm(total=len(sizes) * (1 + repeats), unit=" runs", leave=False)
    with tempfile.TemporaryDirectory() as folder, progress:
        for _ in range(1 + repeats):
            for clips in sizes:
                progress.set_description(f"{clips:,} clips")
                runs[clips].append(train_alone(clips, folder))
                progress.update()
    rows = [["clips", "cache", *COLUMNS]]
    for clips, (first, *later) in runs.items():
        medians = {key: statistics.median(run[key] for run in later) for key in COLUMNS}
        cells = [f"{medians[key]:.{decimals}f}" for key, decimals in COLUMNS.items()]
        rows.append([f"{clips:,}", f"{first['cache']:.1f}", *cells])
    show(f"Task 1, 2D encoder, {os.cpu_count()} cores", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=int, metavar="CLIPS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(train(args.child)))
    else:
        main(args.sizes, args.repeats)
