"""Task 4: do embeddings that were learned without speaker labels tell people apart?

Takes the contrastive encoders of task 2 to the test speakers, who were not in their training. Identification: half of
each speaker's clips are enrolled, and the others are identified by their nearest neighbours among them; also with other
digits enrolled than queried, where only the voice can help. Verification: are an enrolled clip and a query of one
speaker? The equal error rate (EER) is the share of errors at the threshold where false accepts and false rejects are
equally frequent. Everything is measured again with queries over other microphones, one for each clip. The controls are
mean and standard deviation over time of the log-mel bands, which learned nothing, untrained encoders, and those of task
1, which learned the digits from labels. The row "fusion" compares both embeddings and the log-mel statistics together.

    python task4.py                                     after task2.py, and task1.py for its control
    python task4.py --task2-checkpoint PATH.ckpt

Writes task4_biometrics/metrics.json, metrics.txt, {1d,2d,concat}_confusion.png, det.png, the detection error trade-off,
and speakers.png, the models side by side.
"""

import sys
from pathlib import Path

from common.checkpoints import load
from common.conditions import other_microphones
from common.data import SpokenDigits
from common.evaluate import calibrated, embed
from common.networks import ContrastiveNetwork, DigitNetwork, Embedder, VoiceEmbedder
from common.plots import draw_accuracies, draw_confusion, draw_det, measured
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.speaker_space import fit_spaces, fuse
from common.speakers import halves, recognise

ROWS = {  # of the metrics: the embeddings that are compared, each in its own space
    "1d": ("1d",),
    "2d": ("2d",),
    "concat": ("1d", "2d"),
    "fusion": ("1d", "2d", "logmel"),
    "logmel": ("logmel",),
}
QUESTIONS = {"same microphone": "text_independent", "other microphones": "mismatch_text_independent"}


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    model, untrained = load(settings.task2_checkpoint, ContrastiveNetwork, data), Embedder()
    supervised = load_supervised(settings, data)
    with Run(settings, data.describe(), model.embedder.sizes(), model.embedder, supervised.get("supervised")) as run:
        if run.finished:
            return

        embedders = {"trained": VoiceEmbedder(model.embedder), "untrained": calibrated(untrained, data.loader("train"))}
        found = {}
        for kind, embedder in (embedders | supervised).items():
            spaces = fit_spaces(embed(embedder, data.loader("train")))
            clean = embed(embedder, data.loader("test"))
            changed = embed(embedder, map(other_microphones(), data.loader("test")))
            for name, parts in (ROWS if kind == "trained" else {kind: ("1d", "2d")}).items():
                same, other = (each._replace(z={name: fuse(spaces, each, parts)}) for each in (clean, changed))
                found[name] = recognise(same, other, name, settings.seed, data.speakers)
        results = {name: each.results for name, each in found.items()}
        query = halves(clean, settings.seed)[1]
        for name in ("1d", "2d", "concat", "fusion"):
            results[name] |= found[name].compare(found["logmel"], "logmel")
        for name in ("1d", "2d", "concat"):
            path, title = run.folder / f"{name}_confusion.png", f"Speaker identification, {name}"
            caption = f"{data.caption('test')}, {len(query.digit):,} queries"
            draw_confusion(path, query.speaker, found[name].predicted, title, caption, data.speakers)
        caption = f"{data.caption('test')}, all pairs of an enrolled clip and a query"
        curves = {name: each.curve for name, each in found.items()}
        draw_det(run.folder / "det.png", curves, "Speaker verification: detection error trade-off", caption)
        if chance := results["1d"]["text_independent_chance"]:
            series = {
                label: {name: measured(row, key) for name, row in results.items()} for label, key in QUESTIONS.items()
            }
            caption = f"{data.caption('test')}, 95% intervals over speakers; chance is {chance:.3f}"
            title = "Speaker identification with other digits than enrolled"
            draw_accuracies(run.folder / "speakers.png", series, title, caption, {"chance": chance})
        run.write_metrics("Speaker identification by k-NN on contrastive embeddings", results)


def load_supervised(settings: Settings, data: SpokenDigits) -> dict[str, Embedder]:
    """Both encoders of task 1, if they are there."""
    supervised = Embedder(augment="none")
    try:
        for name in supervised.encoders:
            path = settings.task1_checkpoint / f"{name}_checkpoints/best.ckpt"
            supervised.copy_weights(load(path, DigitNetwork, data, (name,)).embedder)
    except UserError as error:
        print(f"Note: without the control of encoders that learned from labels: {error}", file=sys.stderr)
        return {}
    return {"supervised": supervised}


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task4_biometrics"))
    run_task(main, task_parser(__doc__, defaults, "task1_checkpoint", "task2_checkpoint"))
