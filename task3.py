"""Task 3: what do the embeddings look like?

Draws the test clips' embeddings in the plane with t-SNE: the supervised encoders of task 1 and the contrastive ones of
task 2, each in both formats, coloured by digit and by speaker. A model's two plots share one layout, so that they can
be compared point by point.

    python task3.py                                     after task1.py and task2.py
    python task3.py --task2-checkpoint PATH.ckpt --task1-checkpoint DIR

Writes 8 plots task3_visualization/{supervised,contrastive}_{1d,2d}_{digit,speaker}.png, all of them side by side in
overview.png, map.json, the same points with their sounds for the report, and metrics.txt, the list of the plots.
"""

from pathlib import Path

from torch import nn

from common.data import SpokenDigits
from common.evaluate import embed, load_classifier, load_embedder, predict_digits, tsne
from common.plots.embeddings import draw_embeddings, write_map
from common.run import say
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run

DEFAULTS = Settings(output_dir=Path("task3_visualization"))
PERPLEXITY = 30.0  # about how many neighbours a point has; fewer where there are too few clips


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    folder = settings.task1_checkpoint
    classifiers = {name: load_classifier(folder / f"{name}_checkpoints/best.ckpt", data) for name in ("1d", "2d")}
    contrastive = load_embedder(settings.task2_checkpoint, data)
    with Run(settings, data.describe(), contrastive.sizes(), contrastive, nn.ModuleDict(classifiers)) as run:
        if run.finished:
            return
        embeddings = {}  # {model: [n, 128]}
        for name, classifier in classifiers.items():
            embeddings[f"supervised_{name}"] = embed(classifier.embedder, data.loader("test")).z[name]
        test = embed(contrastive, data.loader("test"))
        embeddings |= {f"contrastive_{name}": test.z[name] for name in classifiers}

        perplexity = max(1.0, min(PERPLEXITY, (len(test.digit) - 1) / 3))
        layouts = {}  # {model: [n, 2]}
        for model, z in embeddings.items():
            say(f"t-SNE of {model}: {len(z)} clips")
            layouts[model] = tsne(z, perplexity, settings.seed)

        caption = f"{data.caption('test')}; t-SNE with perplexity {perplexity:.0f}"
        colorings = {"digit": (test.digit, "0123456789"), "speaker": (test.speaker, data.speakers)}
        draw_embeddings(run.folder / "overview.png", layouts, colorings, caption)
        for model, layout in layouts.items():
            for coloring, labels in colorings.items():
                draw_embeddings(run.folder / f"{model}_{coloring}.png", {model: layout}, {coloring: labels}, caption)
        predicted = {name: predict_digits(each, data.loader("test")).predicted for name, each in classifiers.items()}
        write_map(run.folder / "map.json", data, settings.seed, layouts, predicted)
        pictures = [f"{model}_{coloring}.png" for model in layouts for coloring in colorings]
        run.write_table("t-SNE plots of test embeddings", {name: {} for name in (*pictures, "overview.png")})


if __name__ == "__main__":
    run_task(main, task_parser(__doc__, DEFAULTS, "task1_checkpoint", "task2_checkpoint"))
