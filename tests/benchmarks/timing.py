"""What the benchmarks share: interleaved timing, ratios of pairs, tables.

Importing it lets them find the package ``common`` from whatever folder they are run.
"""

import contextlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from common.run.console import align


def interleave(what: str, work: dict[str, Callable[[], float | None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round, A B A B, so that what else the machine does falls on all alike.

    A round before the first warms up and does not count.

    Args:
        what: what the progress bar calls it.
        work: what is timed; a piece that returns a number has timed itself, in seconds.
    """
    seconds = {name: [] for name in work}
    with tqdm(total=(repeats + 1) * len(work), desc=what, unit=" runs", leave=False) as progress:
        for _ in range(repeats + 1):
            for name, run in work.items():
                started = time.perf_counter()
                own = run()
                seconds[name].append(time.perf_counter() - started if own is None else own)
                progress.update()
    return {name: times[1:] for name, times in seconds.items()}


def repeatedly(run: Callable[[], object], seconds: float = 0.5) -> float:
    """Mean seconds of ``run``, which is called once and again until ``seconds`` are over."""
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        run()
        count += 1
    return elapsed / count


def ratio(above: list[float], below: list[float], unit: str = "x") -> str:
    """Median of the ratios within each round, with their range."""
    scale = 100 if unit == "%" else 1
    pairs = [scale * a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(pairs):.3g}{unit} ({min(pairs):.3g} to {max(pairs):.3g})"


def show(title: str, table: list[list[str]]) -> None:
    """Print a table; its first row is the head."""
    print("", title, "", *align(table), sep="\n", flush=True)


class Clock(Callback):
    """When the epochs of a ``fit`` (training and validation) and its first step began."""

    def __init__(self) -> None:
        self.marks: list[float] = []  # seconds of time.perf_counter: the start of each epoch, and the end
        self.first_step: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.marks.append(time.perf_counter())

    on_fit_end = on_train_epoch_start

    def on_train_batch_start(self, *_: object) -> None:
        self.first_step = self.first_step or time.perf_counter()

    def epochs(self) -> list[float]:
        """Seconds of each epoch but the first, in which workers start and memory is found."""
        return [end - start for start, end in itertools.pairwise(self.marks)][1:]


def timed(module: pl.LightningModule, fit: Callable[[], object]) -> Clock:
    """Watch ``fit`` train ``module``, without the lines that it prints."""
    clock = Clock()
    module.configure_callbacks = lambda: [clock]
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        fit()
    return clock
