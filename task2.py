"""Task 2: what do the encoders learn without labels, from the two formats of a clip alone?

Trains both encoders together so that the waveform embedding and the log-mel embedding of one clip find each other
among those of other clips (InfoNCE). Then probes the frozen embeddings: a logistic regression on the training
speakers' digits is tested on speakers who were in neither training. The control is the same probe on the untrained
encoders: what it reaches is not due to training.

    python task2.py                          100 epochs on the whole corpus
    python task2.py --ratio 0.01 --epochs 1  a quick look
    python task2.py --augment none           without augmentation, or with one kind of it

Writes task2_contrastive/checkpoints/best.ckpt, metrics.json, metrics.txt, curves.png and probes.png.
"""

from functools import partial
from pathlib import Path

from torch.optim import AdamW

from common.data import SpokenDigits
from common.evaluate import Embeddings, embed, linear_probe
from common.losses import info_nce
from common.modules import ContrastiveModel
from common.networks import Embedder
from common.plots import draw_bars, draw_learning_curves
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.speakers import store_whitening
from common.training import fit


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    loss = partial(info_nce, temperature=0.2)  # between the 1D and the 2D projections of a batch
    optimizer = partial(AdamW, fused=True)
    model = ContrastiveModel(settings.lr, settings.augment, loss=loss, optimizer=optimizer)
    run = Run(settings, data.describe(), model.embedder.sizes())
    run.open()

    untrained = probe(*embed_sets(model.embedder, data))
    history = fit(model, data, run, "checkpoints", label="contrastive")
    train, val, test = embed_sets(model.embedder, data)
    store_whitening(run.folder / "checkpoints" / "best.ckpt", train)  # for common.voice.identify
    trained = probe(train, val, test)

    draw_learning_curves(run.folder / "curves.png", history, "Contrastive loss", data.caption("train", "val"))
    bars, title = {"untrained": untrained, "trained": trained}, "Linear probes: digits from frozen embeddings"
    draw_bars(run.folder / "probes.png", bars, title, data.caption("test"))
    results = trained | {f"untrained_{name}": result for name, result in untrained.items()}
    run.write_metrics("Linear probes of contrastive embeddings", results)


def embed_sets(embedder: Embedder, data: SpokenDigits) -> list[Embeddings]:
    return [embed(embedder, data.loader(name)) for name in ("train", "val", "test")]


def probe(train: Embeddings, val: Embeddings, test: Embeddings) -> dict[str, dict]:
    """Probe each format and both together."""
    return {name: linear_probe(name, train, val, test) for name in ("1d", "2d", "concat")}


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task2_contrastive"), epochs=100, lr=3e-3)
    run_task(main, task_parser(__doc__, defaults, "augment"))
