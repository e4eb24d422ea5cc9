"""Task 2: what do the encoders learn without labels, from the two formats of a clip alone?

Trains both encoders together so that the waveform embedding and the log-mel embedding of one clip find each other
among those of other clips (InfoNCE), as Wang and van den Oord do (arXiv:2103.06508). Then probes the frozen
embeddings: a logistic regression on the training speakers' digits is tested on speakers who were in neither training.
What the same probe reaches on untrained encoders, or on mean and standard deviation of the spectrogram over time, is
not due to training.

    python task2.py                          100 epochs on the whole corpus
    python task2.py --ratio 0.01 --epochs 1  a quick look
    python task2.py --augment none           without augmentation, or with one kind of it

Writes task2_contrastive/checkpoints/best.ckpt, metrics.json, metrics.txt, curves.png and probes.png.
"""

from functools import partial
from pathlib import Path

import numpy as np
from torch import nn
from torch.optim import AdamW

from common.data import SpokenDigits
from common.evaluate import Embeddings, calibrated, embed, linear_probe
from common.intervals import compare
from common.losses import info_nce
from common.modules import ContrastiveModel
from common.networks import LogMelStatistics
from common.plots import draw_accuracies, draw_learning_curves, measured
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.speaker_space import store_spaces
from common.training import fit


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    loss = partial(info_nce, temperature=0.2)  # between the 1D and the 2D projections of a batch
    optimizer = partial(AdamW, fused=True)
    model = ContrastiveModel(settings.lr, settings.augment, loss=loss, optimizer=optimizer)
    run = Run(settings, data.describe(), model.embedder.sizes())
    run.open()

    untrained = probe(embed_sets(calibrated(model.embedder, data.loader("train")), data), data)
    averages = embed_sets(LogMelStatistics(), data)
    (statistics, _), *_ = probe(averages, data).values()
    history = fit(model, data, run, "checkpoints", label="contrastive")
    embedded = embed_sets(model.embedder, data)
    voices = embedded[0]._replace(z=embedded[0].z | averages[0].z)
    store_spaces(run.folder / "checkpoints" / "best.ckpt", voices)  # for common.voice.identify

    results, controls = {}, {}
    for name, (result, correct) in probe(embedded, data).items():
        controls[name], control_correct = untrained[name]
        results[name] = result | compare(correct, control_correct, embedded[2].speaker, "untrained")
    draw_learning_curves(run.folder / "curves.png", history, "Contrastive loss", data.caption("train", "val"))
    models = {"trained": results, "untrained": controls}
    series = {label: {name: measured(row) for name, row in rows.items()} for label, rows in models.items()}
    lines = {"chance": 0.1, "log-mel statistics": statistics["test_acc"]}
    caption = f"{data.caption('test')}, 95% intervals over speakers"
    draw_accuracies(run.folder / "probes.png", series, "Linear probes: digits from frozen embeddings", caption, lines)
    results |= {f"untrained_{name}": result for name, result in controls.items()} | {"logmel": statistics}
    run.write_metrics("Linear probes of contrastive embeddings", results)


def embed_sets(embedder: nn.Module, data: SpokenDigits) -> list[Embeddings]:
    return [embed(embedder, data.loader(name)) for name in ("train", "val", "test")]


def probe(sets: list[Embeddings], data: SpokenDigits) -> dict[str, tuple[dict, np.ndarray]]:
    """Probe each embedding: its results, and which test clips are right, [n] bool."""
    train, val, test = sets
    probes = {name: linear_probe(name, train, val, test, data.speakers) for name in test.z}
    return {name: (result, predicted == test.digit) for name, (result, predicted) in probes.items()}


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task2_contrastive"), epochs=100, lr=3e-3)
    run_task(main, task_parser(__doc__, defaults, "augment"))
