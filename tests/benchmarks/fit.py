"""How much does training cost beyond its arithmetic?

Times an epoch of each model through ``common.training.fit`` (Lightning, data loading, logging, validation,
checkpoints) against a bare loop of the same forward, backward and optimizer steps, and the same validation, on batches
that are in memory. The two alternate, and the ratio is taken pair by pair.

    python tests/benchmarks/fit.py                        3,000 clips of synthetic speech, no workers
    python tests/benchmarks/fit.py --num-workers 4        any flag of a task
"""

import statistics
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from common.cli import run, task_parser
from common.data import SpokenDigits
from common.modules import ContrastiveModel, DigitClassifier
from common.text import align
from common.training import fit

REPEATS = 5
MODELS = {
    "task 1, 1D": lambda: DigitClassifier(("1d",)),
    "task 1, 2D": lambda: DigitClassifier(("2d",)),
    "task 2": ContrastiveModel,
}


def bare_loop(model: pl.LightningModule, data: SpokenDigits, args: Namespace, batches: dict[str, list]) -> None:
    """What ``fit`` computes in its epochs, and nothing else."""
    model.to(data.device).train()
    model.log = model.log_dict = lambda *_, **__: None
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    for _ in range(args.epochs):
        for batch in batches["train"]:
            loss = model.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            for batch in batches["val"]:
                model.validation_step(batch, 0)
        model.train()
    float(loss)  # waits for a GPU


def main(args: Namespace) -> None:
    data = SpokenDigits(args)
    full = [batch for batch in data.loader("train") if len(batch.digit) == args.batch_size]
    batches = {"train": full, "val": list(data.loader("val"))}
    clips = args.epochs * sum(len(batch.digit) for part in batches.values() for batch in part)
    rows = [["", "bare loop, clips/s", "Trainer.fit, clips/s", "fit / bare"]]
    progress = tqdm(total=len(MODELS) * (REPEATS + 1), file=sys.stderr)
    for name, make in MODELS.items():
        pairs = []
        for _ in range(REPEATS + 1):  # the first pair warms up
            with tempfile.TemporaryDirectory() as folder:
                bare = _seconds(bare_loop, make(), data, args, batches)
                whole = _seconds(fit, make(), data, args, Path(folder), name, {})
            pairs.append((bare, whole))
            progress.update()
        bare, whole = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
        ratio = statistics.median(whole / bare for bare, whole in pairs[1:])
        rows.append([name, f"{clips / bare:.0f}", f"{clips / whole:.0f}", f"{ratio:.3f}"])
    progress.close()
    print(f"\n{data.corpus.name}, {clips} clips in {args.epochs} epochs, on {data.device}, {args.num_workers} workers")
    print("\n".join(align(rows)))


def _seconds(function, *args) -> float:
    started = time.perf_counter()
    function(*args)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = task_parser(__doc__, "unused", epochs=2, lr=1e-3)
    parser.set_defaults(dataset="synthetic", ratio=0.1, num_workers=0)
    run(main, parser)
