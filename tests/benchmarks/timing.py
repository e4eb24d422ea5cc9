"""What the benchmarks share: interleaved timing, ratios within rounds, tables.

Import it before ``common``: it puts the repository on the path, so that a benchmark can be run from any folder.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from common.run import align, set_up_output


def interleave(label: str, work: Mapping[str, Callable[[], float | None]], repeats: int) -> dict[str, list[float]]:
    """Time several functions in turn, A B A B, so that other load on the machine affects all of them alike.

    Args:
        label: of the progress bar.
        work: the functions; one that returns a number has timed itself, in seconds.

    Returns:
        The seconds of each function in each round. A first round warms up and does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    with tqdm(total=(repeats + 1) * len(work), desc=label, unit=" runs", leave=False) as progress:
        for _ in range(repeats + 1):
            for name, run in work.items():
                started = time.perf_counter()
                own = run()
                seconds[name].append(time.perf_counter() - started if own is None else own)
                progress.update()
    return {name: times[1:] for name, times in seconds.items()}


def repeatedly(run: Callable[[], object], seconds: float = 0.5) -> float:
    """Mean seconds of ``run``, which is called at least once, and until ``seconds`` have passed."""
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        run()
        count += 1
    return elapsed / count


def ratio(above: list[float], below: list[float]) -> str:
    """Median of the ratios within each round, with their range."""
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(pairs):.3g}x ({min(pairs):.3g} to {max(pairs):.3g})"


def show(title: str, table: list[list[str]]) -> None:
    """Print a table, whose first row is the head."""
    print("", title, "", *align(table), sep="\n", flush=True)


class Clock(Callback):
    """Records when the epochs of a training (with their validation) and its first step begin."""

    def __init__(self) -> None:
        self.times: list[float] = []  # seconds of time.perf_counter: the start of each epoch, and the end
        self.first_step = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.times.append(time.perf_counter())

    on_fit_end = on_train_epoch_start

    def on_train_batch_start(self, *_: object) -> None:
        self.first_step = self.first_step or time.perf_counter()

    def epochs(self) -> list[float]:
        """Seconds of each epoch but the first, in which workers start and memory is allocated."""
        return [end - start for start, end in itertools.pairwise(self.times)][1:]


def timed(module: pl.LightningModule, fit: Callable[[], object]) -> Clock:
    """Call ``fit``, which trains ``module``, and time it; nothing is printed from then on but warnings and errors."""
    clock = Clock()
    module.configure_callbacks = lambda: [clock]  # type: ignore[method-assign]
    set_up_output(True)
    fit()
    return clock
