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

from torch import nn
from torch.optim import AdamW

from common.augmentation import Augmentation
from common.data import SpokenDigits
from common.encoders import LogMelStatistics
from common.evaluate import embed, linear_probe, with_statistics_of
from common.intervals import compare
from common.losses import info_nce
from common.models import ContrastiveModel
from common.plots import draw_learning_curves, draw_probes
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.training import fit

DEFAULTS = Settings(output_dir=Path("task2_contrastive"), epochs=100, lr=3e-3)
LOSS = partial(info_nce, temperature=0.2)
OPTIMIZER = partial(AdamW, fused=True)
PROBE_C = [10.0**exponent for exponent in range(-5, 4)]  # inverse regularisation; chosen on validation


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    # No rooms: they make the recognition of digits robust, but embeddings that ignore them tell voices apart worse.
    augmentation = Augmentation(settings.augment, rooms=False)
    model = ContrastiveModel(augmentation, settings.lr, LOSS, OPTIMIZER)
    with Run(settings, data.describe(), model.embedder.sizes()) as run:
        if run.finished:
            return
        untrained = with_statistics_of(model.embedder, data.loader("train"))
        history = fit(model, data, run, "checkpoints", label="contrastive")

        trained, correct = probe(model.embedder, data)
        control, control_correct = probe(untrained, data)
        statistics, _ = probe(LogMelStatistics(), data)
        for name, result in trained.items():
            result |= compare(correct[name], control_correct[name], data.examples["test"].speaker.numpy(), "untrained")
        results = trained | {f"untrained_{name}": result for name, result in control.items()} | statistics
        run.write_metrics("Linear probes of contrastive embeddings", results)

        draw_learning_curves(run.folder / "curves.png", history, "Contrastive loss", data.caption("train", "val"))
        draw_probes(run.folder / "probes.png", results, data.caption("test"))


def probe(embedder: nn.Module, data: SpokenDigits) -> tuple[dict, dict]:
    """Probe each embedding of clips: {embedding: metrics}, and {embedding: which test clips are right, [n] bool}."""
    train, val, test = (embed(embedder, data.loader(part)) for part in ("train", "val", "test"))
    results, correct = {}, {}
    for name in test.z:
        results[name], correct[name] = linear_probe(name, train, val, test, PROBE_C, data.speakers)
    return results, correct


if __name__ == "__main__":
    run_task(main, task_parser(__doc__, DEFAULTS, "augment"))
