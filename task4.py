"""Task 4: do embeddings that were learned without speaker labels tell people apart?

Takes the contrastive encoders of task 2 to the test speakers, who were not in their training. Identification: half of
each speaker's clips are enrolled, and the others are identified by their nearest neighbours among them; also with other
digits enrolled than queried, where only the voice can help. Verification: are two query clips of one speaker? The equal
error rate (EER) is the share of errors at the threshold where false accepts and false rejects are equally frequent. The
controls are untrained encoders, and mean and standard deviation over time of the log-mel bands, which learned nothing.

    python task4.py                                     after task2.py
    python task4.py --task2-checkpoint PATH.ckpt

Writes task4_biometrics/metrics.json, metrics.txt, {1d,2d,concat}_confusion.png and det.png, the detection error
trade-off.
"""

from pathlib import Path

from common.checkpoints import load
from common.data import SpokenDigits
from common.evaluate import Embeddings, calibrated, embed
from common.networks import ContrastiveNetwork, Embedder, LogMelStatistics
from common.plots import draw_confusion, draw_det
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.speaker_space import to_speaker_space
from common.speakers import halves, identify, split_by_digit, verify

CONTROLS = ("untrained", "logmel")


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    model = load(settings.task2_checkpoint, ContrastiveNetwork, data)
    run = Run(settings, data.describe(), model.embedder.sizes(), model.embedder)
    run.open()

    # Two controls: what needs no training at all, and the same encoders before theirs.
    untrained = calibrated(Embedder(), data.loader("train"))
    train, test = (embed_all(model.embedder, untrained, data, part) for part in ("train", "test"))
    test = to_speaker_space(train, test)
    enrolment, query = halves(test, settings.seed)
    other_digits = split_by_digit(test)
    results, curves = {}, {}
    for name in ("1d", "2d", "concat", *CONTROLS):
        results[name], predicted = identify(enrolment, query, name, settings.seed, names=data.speakers)
        if other_digits:
            results[name] |= identify(*other_digits, name, settings.seed, "text_independent", data.speakers)[0]
        curves[name] = curve = verify(query, name)
        results[name] |= {"eer": curve.eer, "eer_ci95": curve.eer_ci95} if curve else {"eer": None}
        if name not in CONTROLS:
            path, title = run.folder / f"{name}_confusion.png", f"Speaker identification, {name}"
            caption = f"{data.caption('test')}, {len(query.digit):,} queries"
            draw_confusion(path, query.speaker, predicted, title, caption, data.speakers)
    caption = f"{data.caption('test')}, all pairs of {len(query.digit):,}"
    draw_det(run.folder / "det.png", curves, "Speaker verification: detection error trade-off", caption)
    run.write_metrics("Speaker identification by k-NN on contrastive embeddings", results)


def embed_all(trained: Embedder, untrained: Embedder, data: SpokenDigits, part: str) -> Embeddings:
    """The embeddings of one set by the trained encoders, and by the controls."""
    result = embed(trained, data.loader(part))
    controls = {
        "untrained": embed(untrained, data.loader(part)).z["concat"],
        "logmel": embed(LogMelStatistics(), data.loader(part)).z["logmel"],
    }
    return result._replace(z=result.z | controls)


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task4_biometrics"))
    run_task(main, task_parser(__doc__, defaults, "task2_checkpoint"))
