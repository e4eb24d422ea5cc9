"""Task 4: do embeddings that were learned without speaker labels tell people apart?

Takes the contrastive encoders of task 2 to the test speakers, who were not in their training. Half of each speaker's
clips are enrolled and the others are queries; or half of the digits, so that only the voice can help. Identification:
the nearest enrolled clips name the speaker. Verification: is a query of the speaker whose enrolled embeddings have this
mean? The equal error rate (EER) is where false accepts and false rejects are equally frequent. Everything is measured
again with each query over a random microphone.

    python task4.py                                     after task2.py, and task1.py for its control
    python task4.py --task2-checkpoint PATH.ckpt

Writes task4_biometrics/metrics.json, metrics.txt, {1d,2d,concat}_confusion.png, det.png (the detection error trade-off)
and speakers.png (the rows of the metrics side by side).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler, normalize
from torch import nn

from common.checkpoints import load
from common.conditions import other_microphones
from common.data import SpokenDigits
from common.evaluate import calibrated, embed
from common.networks import ContrastiveNetwork, DigitNetwork, Embedder, LogMelStatistics
from common.plots.results import draw_accuracies, draw_confusion, draw_det, measured
from common.run.cli import Settings, run_task, task_parser
from common.run.console import UserError
from common.run.output import Run
from common.speakers import Answers, DigitRemover, metrics, minus, recognise

K = 5  # nearest neighbours
# What scales the embeddings, and what is compared then, side by side. The first uses no label.
PLAIN = StandardScaler()
PLAIN_ROWS = {
    "1d": ["1d"],
    "2d": ["2d"],
    "concat": ["1d", "2d"],
    "logmel": ["logmel"],  # a control that learned nothing: mean and deviation of the bands over time
    "untrained": ["untrained_1d", "untrained_2d"],
    "supervised": ["supervised_1d", "supervised_2d"],  # by task 1, which learned the digits from labels
}
# The second removes what the digits add, and learns that from the digits of the training clips.
REMOVER = DigitRemover(C=0.1, power=0.3)
ROWS_WITHOUT_DIGITS = {
    "1d_without_digits": ["1d"],
    "2d_without_digits": ["2d"],
    "concat_without_digits": ["1d", "2d"],
    "fusion_without_digits": ["1d", "2d", "logmel"],
    "logmel_without_digits": ["logmel"],
    "untrained_without_digits": ["untrained_1d", "untrained_2d"],
}


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    contrastive = load(settings.task2_checkpoint, ContrastiveNetwork, data).embedder
    supervised = load_supervised(settings, data)
    run = Run(settings, data.describe(), contrastive.sizes(), contrastive, supervised)
    run.open()

    z = embed_sets(contrastive, data) | embed_sets(LogMelStatistics(), data)
    z |= embed_sets(calibrated(Embedder(), data.loader("train")), data, "untrained_")
    z |= embed_sets(supervised, data, "supervised_") if supervised else {}
    train, test = data.examples["train"], data.examples["test"]
    answers, results = {}, {}
    for name, clean, changed in rows(z, train.digit.numpy()):
        answers[name] = recognise(clean, changed, test.digit.numpy(), test.speaker.numpy(), K, settings.seed)
        results[name] = metrics(answers[name], data.speakers)
    for name, row in answers.items():
        control = "logmel" if name in PLAIN_ROWS else "logmel_without_digits"
        if name != control:
            results[name] |= minus(row, answers[control], control)
    run.write_metrics("Speaker identification by k-NN on contrastive embeddings", results)
    draw(run.folder, data, answers, results)


def draw(folder: Path, data: SpokenDigits, answers: dict[str, dict[str, Answers]], results: dict[str, dict]) -> None:
    """Draw who is taken for whom, detection error trade-offs, and the accuracies of all rows."""
    caption = data.caption("test")
    for name in ("1d", "2d", "concat"):
        path, title = folder / f"{name}_confusion.png", f"Speaker identification, {name}"
        true, predicted = answers[name]["test"].speaker, answers[name]["test"].predicted
        draw_confusion(path, true, predicted, title, f"{caption}, half of them queries", data.speakers)
    end, title = "_without_digits", "Speaker verification without the digits: detection error trade-off"
    curves = {name.removesuffix(end): row["test"].verification for name, row in answers.items() if name.endswith(end)}
    draw_det(folder / "det.png", curves, title, f"{caption}, half of them queries")
    if "text_independent" in answers["1d"]:
        keys = {"same microphone": "text_independent", "other microphones": "mismatch_text_independent"}
        series = {label: {name: measured(row, key) for name, row in results.items()} for label, key in keys.items()}
        title, caption = "Speakers identified by other digits than enrolled", f"{caption}, 95% intervals over speakers"
        lines = {"chance": results["1d"]["text_independent_chance"]}
        draw_accuracies(folder / "speakers.png", series, title, caption, lines)


def embed_sets(embedder: nn.Module, data: SpokenDigits, prefix: str = "") -> dict[str, list[np.ndarray]]:
    """Each embedding, by prefix and format, of the training clips, the test clips and these over other microphones."""
    loaders = data.loader("train"), data.loader("test"), map(other_microphones(), data.loader("test"))
    sets = [embed(embedder, loader).z for loader in loaders]
    return {f"{prefix}{name}": [z[name] for z in sets] for name in sets[0] if name != "concat"}


def rows(z: dict[str, list[np.ndarray]], digit: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The name of each row, and its embeddings of the test clips, clean and over other microphones: [n, D] each."""
    for scaler, table in ((PLAIN, PLAIN_ROWS), (REMOVER, ROWS_WITHOUT_DIGITS)):
        clean, changed = {}, {}
        for part, (train, same, other) in z.items():
            scaler.fit(train, digit)
            weight = 2**0.5 if part == "logmel" else 1.0  # in the fusion, it weighs as much as both encoders together
            clean[part], changed[part] = (weight * normalize(scaler.transform(test)) for test in (same, other))
        for name, parts in table.items():
            if parts[0] in z:  # task 1 may not have been run
                yield name, np.hstack([clean[part] for part in parts]), np.hstack([changed[part] for part in parts])


def load_supervised(settings: Settings, data: SpokenDigits) -> Embedder | None:
    """Both encoders of task 1, if they are there."""
    supervised = Embedder(augment="none")
    try:
        for name in supervised.encoders:
            path = settings.task1_checkpoint / f"{name}_checkpoints/best.ckpt"
            supervised.copy_weights(load(path, DigitNetwork, data, (name,)).embedder)
    except UserError as error:
        print(f"Note: without the control of encoders that learned from labels: {error}", file=sys.stderr)
        return None
    return supervised


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task4_biometrics"))
    run_task(main, task_parser(__doc__, defaults, "task1_checkpoint", "task2_checkpoint"))
