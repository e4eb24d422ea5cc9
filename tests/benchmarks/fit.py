"""What does training cost beyond its arithmetic?

Compares an epoch of ``common.training.fit`` (Lightning, loading, logging, validation, checkpoints) with a bare loop of
the same forward, backward and optimizer steps and the same validation, on batches in memory. The two alternate, and the
ratio is taken in each round.

    python tests/benchmarks/fit.py                        3,000 clips of synthetic speech, no workers
    python tests/benchmarks/fit.py --num-workers 4        or any other flag of a task, such as --accelerator gpu
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from task_models import MODELS
from timing import interleave, ratio, show, timed

from common import data as common_data
from common.data import SpokenDigits
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.training import fit

common_data.MIN_STEPS = 1  # an epoch is one pass through the clips on both sides
REPEATS = 5


def bare_epoch(model: pl.LightningModule, batches: dict[str, list]) -> float:
    """Seconds of the second of two epochs that are arithmetic alone."""
    model.to(batches["train"][0].digit.device).train()
    optimizer = model.optimizer([{"params": model.parameters()}])
    for _ in range(2):
        started = time.perf_counter()
        for batch in batches["train"]:
            loss = model.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            for index, batch in enumerate(batches["val"]):
                model.validation_step(batch, index)
        model.train()
        loss.item()  # waits for a GPU
    return time.perf_counter() - started


def whole_epoch(model: pl.LightningModule, data: SpokenDigits, settings: Settings) -> float:
    """Mean seconds of the epochs of a training, except for the first."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Run(replace(settings, output_dir=Path(folder)), data.describe(), {}) as run,
    ):
        clock = timed(model, lambda: fit(model, data, run, "checkpoints", "model"))
    return statistics.mean(clock.epochs())


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    train = [batch for batch in data.loader("train") if len(batch.digit) == settings.batch_size]
    batches = {"train": train, "val": list(data.loader("val"))}
    clips = sum(len(batch.digit) for part in batches.values() for batch in part)
    table = [["", "bare loop", "Trainer.fit", "fit / bare loop"]]
    for name, make in MODELS.items():
        work = {
            "bare": lambda make=make: bare_epoch(make(), batches),
            "fit": lambda make=make: whole_epoch(make(), data, settings),
        }
        seconds = interleave(name, work, REPEATS)
        speeds = [f"{clips / statistics.median(seconds[key]):.0f} clips/s" for key in work]
        table.append([name, *speeds, ratio(seconds["fit"], seconds["bare"])])
    show(f"{data.corpus.name}, {clips} clips an epoch, {data.device}, --num-workers {settings.num_workers}", table)


if __name__ == "__main__":
    defaults = Settings(epochs=3, lr=1e-3, dataset="synthetic", ratio=0.1, num_workers=0)
    run_task(main, task_parser(__doc__, defaults))
