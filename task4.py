"""Task 4: do embeddings that were learned without speaker labels tell people apart?

Takes the contrastive encoders of task 2 to the test speakers, who were not in their training. Half of each speaker's
clips are enrolled and the others are queries; or half of the digits, so that only the voice can help. Identification:
the nearest enrolled clips name the speaker. Verification: is a query of the speaker whose enrolled embeddings have this
mean? The equal error rate (EER) is where false accepts and false rejects are equally frequent. Everything is measured
again with each query over a random microphone.

    python task4.py                                     after task2.py, and task1.py for its control
    python task4.py --task2-checkpoint PATH.ckpt

Writes task4_biometrics/metrics.json, metrics.txt, {1d,2d,concat}_confusion.png and speakers.png (the rows of the
metrics side by side).
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.base import TransformerMixin, clone
from sklearn.preprocessing import StandardScaler, normalize
from torch import nn

from common.conditions import other_microphones
from common.data import SpokenDigits
from common.encoders import Embedder, LogMelStatistics
from common.evaluate import embed, load_classifier, load_embedder, with_statistics_of
from common.plots import draw_confusion, draw_speakers
from common.run import UserError
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.speakers import DigitRemover, metrics, minus, recognise

DEFAULTS = Settings(output_dir=Path("task4_biometrics"))
K = 5  # nearest neighbours
# What scales the embeddings. The first uses no label; the second removes what the digits of the training clips add.
PLAIN = StandardScaler()
REMOVER = DigitRemover(C=0.1, power=0.3)
ROWS = {  # of the metrics: which embeddings are compared, side by side, and what scales them
    "1d": (["1d"], PLAIN),
    "2d": (["2d"], PLAIN),
    "concat": (["1d", "2d"], PLAIN),
    "1d_without_digits": (["1d"], REMOVER),
    "2d_without_digits": (["2d"], REMOVER),
    "concat_without_digits": (["1d", "2d"], REMOVER),
    "fusion_without_digits": (["1d", "2d", "logmel"], REMOVER),
    # Controls: mean and deviation of the bands, encoders that were not trained, and those of task 1.
    "logmel": (["logmel"], PLAIN),
    "logmel_without_digits": (["logmel"], REMOVER),
    "untrained": (["untrained_1d", "untrained_2d"], PLAIN),
    "untrained_without_digits": (["untrained_1d", "untrained_2d"], REMOVER),
    "supervised": (["supervised_1d", "supervised_2d"], PLAIN),
}


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    contrastive = load_embedder(settings.task2_checkpoint, data)
    supervised = load_supervised(settings, data)
    with Run(settings, data.describe(), contrastive.sizes(), contrastive, supervised) as run:
        if run.finished:
            return
        untrained = with_statistics_of(Embedder(), data.loader("train"))
        z = embed_sets(contrastive, data) | embed_sets(LogMelStatistics(), data)
        z |= embed_sets(untrained, data, "untrained_")
        if supervised:
            z |= embed_sets(supervised, data, "supervised_")
        train, test = data.examples["train"], data.examples["test"]
        answers, results = {}, {}
        for name, (parts, scaler) in ROWS.items():
            if parts[0] in z:  # task 1 may not have been run
                clean, changed = compared([z[part] for part in parts], train.digit.numpy(), scaler)
                answers[name] = recognise(clean, changed, test.digit.numpy(), test.speaker.numpy(), K, settings.seed)
                results[name] = metrics(answers[name], data.speakers)
        for name, answer in answers.items():
            control = "logmel_without_digits" if name.endswith("without_digits") else "logmel"
            if name != control:
                results[name] |= minus(answer, answers[control], "logmel")
        run.write_metrics("Speaker identification by k-NN on contrastive embeddings", results)

        draw_speakers(run.folder / "speakers.png", results, data.caption("test"))
        for name in ("1d", "2d", "concat"):
            true, predicted = answers[name]["test"].speaker, answers[name]["test"].predicted
            title, caption = f"Speaker identification, {name}", f"{data.caption('test')}, half of them queries"
            draw_confusion(run.folder / f"{name}_confusion.png", true, predicted, title, caption, data.speakers)


def embed_sets(embedder: nn.Module, data: SpokenDigits, prefix: str = "") -> dict[str, list[np.ndarray]]:
    """Each embedding of the training clips, the test clips, and these over other microphones: [n, D] each."""
    loaders = data.loader("train"), data.loader("test"), map(other_microphones(), data.loader("test"))
    sets = [embed(embedder, loader).z for loader in loaders]
    return {f"{prefix}{name}": [z[name] for z in sets] for name in sets[0]}


def compared(
    parts: list[list[np.ndarray]], digit: np.ndarray, scaler: TransformerMixin
) -> tuple[np.ndarray, np.ndarray]:
    """Test clips as they are compared, clean and over other microphones: the scaled embeddings side by side.

    Args:
        parts: of ``embed_sets``. With three, the last one weighs as much as the others together.
        digit: [n] of the training clips, from which the scaler may learn.
    """
    clean, changed = [], []
    for index, (train, test, other) in enumerate(parts):
        fitted = clone(scaler).fit(train, digit)
        weight = 2**0.5 if index == 2 else 1.0
        clean.append(weight * normalize(fitted.transform(test)))
        changed.append(weight * normalize(fitted.transform(other)))
    return np.hstack(clean), np.hstack(changed)


def load_supervised(settings: Settings, data: SpokenDigits) -> Embedder | None:
    """Both encoders of task 1, if they are there."""
    supervised = Embedder()
    try:
        for name in supervised.encoders:
            path = settings.task1_checkpoint / f"{name}_checkpoints/best.ckpt"
            supervised.copy_weights(load_classifier(path, data).embedder)
    except UserError as error:
        print(f"Note: without the control of encoders that learned from labels: {error}", file=sys.stderr)
        return None
    return supervised


if __name__ == "__main__":
    run_task(main, task_parser(__doc__, DEFAULTS, "task1_checkpoint", "task2_checkpoint"))
