"""Cost against size: 3,000, 10,000 and 30,000 synthetic clips should cost the same per clip, in the same memory.

    python tests/benchmarks/scaling.py                  ten minutes on 2 cores
    python tests/benchmarks/scaling.py --folder DIR     keeps the caches in DIR/data/cache for the next time

Each size trains and tests task 1's 2D classifier without workers, in a process of its own: once to build the cache,
then again and again, the sizes in turn. The table gives the medians of these later runs.

cache       seconds to open or build the cache in the first run
start       seconds after the imports until the first step
per clip    milliseconds per clip and epoch, training and validation, the first epoch aside
peak        resident memory at its highest, MB; counts the pages of the cache that were read, which the system may drop
anonymous   what the process itself holds, at its highest, MB (sampled; Linux)
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

from timing import show, timed
from tqdm import tqdm

from common.data import SpokenDigits
from common.evaluate import predict_digits
from common.modules import DigitClassifier
from common.run.cli import keep_freed_memory, task_parser
from common.run.output import describe_run
from common.training import fit

ALL_CLIPS = 30_000
SIZES = (3_000, 10_000, 30_000)
COLUMNS = {"start": 2, "per clip": 3, "peak": 0, "anonymous": 0}  # with their decimals


def train(clips: int) -> dict[str, float]:
    """A run of task 1 with one encoder; see the table above."""
    started = time.perf_counter()
    anonymous: list[float] = []
    threading.Thread(target=_watch, args=(anonymous,), daemon=True).start()
    flags = ["--dataset", "synthetic", "--ratio", str(clips / ALL_CLIPS), "--num-workers", "0"]
    args = task_parser("", "", epochs=2, lr=4e-3).parse_args(flags)
    keep_freed_memory()  # as every script does
    data = SpokenDigits(args)
    opened = time.perf_counter()
    model = DigitClassifier(("2d",), lr=args.lr)
    run = describe_run(args, data, model.embedder.sizes())
    clock = timed(model, lambda: fit(model, data, args, Path("checkpoints"), "2d", run))
    predict_digits(model, data.loader("test"))
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
    """What the kernel says of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) / 1024


def train_alone(clips: int, folder: Path) -> dict[str, float]:
    """``train`` in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(clips)]
    return json.loads(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main(folder: Path, sizes: list[int], repeats: int) -> None:
    runs = {clips: [] for clips in sizes}
    with tqdm(total=len(sizes) * (1 + repeats), unit=" runs", leave=False) as progress:
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
    parser.add_argument("--folder", type=Path, help="where caches are kept; a temporary folder without it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=int, metavar="CLIPS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(train(args.child)))
    elif args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
        main(args.folder, args.sizes, args.repeats)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder), args.sizes, args.repeats)
