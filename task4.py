"""Task 4: do embeddings that were learned without speaker labels tell people apart?

Takes the contrastive encoders of task 2 to the test speakers, who were not in their training. Identification: half of
each speaker's clips are enrolled, and the others are identified by their nearest neighbours among them; also with other
digits enrolled than queried, where only the voice can help. Verification: are an enrolled clip and a query of one
speaker? The equal error rate (EER) is the share of errors at the threshold where false accepts and false rejects are
equally frequent. Everything is measured again with queries over other microphones, one for each clip. The controls are
mean and standard deviation over time of the log-mel bands, which learned nothing, untrained encoders, and those of task
1, which learned the digits from labels.

    python task4.py                                     after task2.py, and task1.py for its control
    python task4.py --task2-checkpoint PATH.ckpt

Writes task4_biometrics/metrics.json, metrics.txt, {1d,2d,concat}_confusion.png, det.png, the detection error trade-off,
and speakers.png, the models side by side.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from common.checkpoints import load
from common.conditions import other_microphones
from common.data import SpokenDigits
from common.evaluate import Embeddings, calibrated, embed
from common.networks import ContrastiveNetwork, DigitNetwork, Embedder, LogMelStatistics
from common.plots import draw_bars, draw_confusion, draw_det
from common.run.cli import Settings, run_task, task_parser
from common.run.console import UserError
from common.run.output import Run
from common.speaker_space import to_speaker_space
from common.speakers import halves, recognise

QUESTIONS = {"same microphone": "text_independent_acc", "other microphones": "mismatch_text_independent_acc"}


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    model = load(settings.task2_checkpoint, ContrastiveNetwork, data)
    supervised = load_supervised(settings, data)
    run = Run(settings, data.describe(), model.embedder.sizes(), model.embedder)
    run.open()

    controls = {"logmel": LogMelStatistics(), "untrained": calibrated(Embedder(), data.loader("train"))} | supervised
    train = embed_all(model.embedder, controls, data, "train")
    tests = (embed_all(model.embedder, controls, data, "test", changed) for changed in (False, True))
    clean, changed = to_speaker_space(train, *tests)
    query = halves(clean, settings.seed)[1]
    found = {name: recognise(clean, changed, name, settings.seed, data.speakers) for name in clean.z}
    results = {name: each.results for name, each in found.items()}
    for name in ("1d", "2d", "concat"):
        results[name] |= found[name].compare(found["logmel"], "logmel")
        path, title = run.folder / f"{name}_confusion.png", f"Speaker identification, {name}"
        caption = f"{data.caption('test')}, {len(query.digit):,} queries"
        draw_confusion(path, query.speaker, found[name].predicted, title, caption, data.speakers)
    caption = f"{data.caption('test')}, all pairs of an enrolled clip and a query"
    curves = {name: each.curve for name, each in found.items()}
    draw_det(run.folder / "det.png", curves, "Speaker verification: detection error trade-off", caption)
    bars = {
        label: {name: {"test_acc": row[key], "test_acc_ci95": row[f"{key}_ci95"]} for name, row in results.items()}
        for label, key in QUESTIONS.items()
        if key in results["1d"]
    }
    caption = f"{data.caption('test')}, 95% intervals over speakers"
    chance = 1 / len(data.names("test"))
    title = "Speaker identification with other digits than enrolled"
    if bars:
        draw_bars(run.folder / "speakers.png", bars, title, caption, {"chance": chance})
    run.write_metrics("Speaker identification by k-NN on contrastive embeddings", results)


def load_supervised(settings: Settings, data: SpokenDigits) -> dict[str, Embedder]:
    """Both encoders of task 1, if they are there."""
    supervised = Embedder(augment="none")
    try:
        for name in supervised.encoders:
            path = settings.task1_checkpoint / f"{name}_checkpoints/best.ckpt"
            supervised.copy_weights(load(path, DigitNetwork, data).embedder)
    except UserError as error:
        print(f"Note: without the control of encoders that learned from labels: {error}", file=sys.stderr)
        return {}
    return {"supervised": supervised}


def embed_all(
    trained: Embedder, controls: dict[str, nn.Module], data: SpokenDigits, part: str, changed: bool = False
) -> Embeddings:
    """The embeddings of one set by the trained encoders and by the controls; ``changed`` by other microphones."""

    def batches() -> Iterable:  # anew for each, so that all hear the same microphones
        return map(other_microphones(), data.loader(part)) if changed else data.loader(part)

    result = embed(trained, batches())
    return result._replace(
        z=result.z | {name: list(embed(each, batches()).z.values())[-1] for name, each in controls.items()}
    )


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task4_biometrics"))
    run_task(main, task_parser(__doc__, defaults, "task1_checkpoint", "task2_checkpoint"))
