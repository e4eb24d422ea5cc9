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

from common.checkpoints import load
from common.data import SpokenDigits
from common.evaluate import embed, predict_digits, tsne
from common.networks import ContrastiveNetwork, DigitNetwork
from common.plots.embeddings import draw_embeddings, write_map
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    paths = {name: settings.task1_checkpoint / f"{name}_checkpoints/best.ckpt" for name in ("1d", "2d")}
    supervised = {name: load(path, DigitNetwork, data, (name,)) for name, path in paths.items()}
    contrastive = load(settings.task2_checkpoint, ContrastiveNetwork, data).embedder
    embedders = {
        "supervised_1d": supervised["1d"].embedder,
        "supervised_2d": supervised["2d"].embedder,
        "contrastive_1d": contrastive,
        "contrastive_2d": contrastive,
    }
    run = Run(settings, data.describe(), contrastive.sizes(), contrastive, nn.ModuleDict(supervised))
    run.open()

    layouts = {}
    for model, embedder in embedders.items():
        test = embed(embedder, data.loader("test"))
        layouts[model], perplexity = tsne(test.z[model[-2:]], settings.seed, name=model)  # [n, 2]

    caption = f"{data.caption('test')}; t-SNE with perplexity {perplexity:.0f}"
    colorings = {"digit": (test.digit, "0123456789"), "speaker": (test.speaker, data.speakers)}
    plots = []
    for model, layout in layouts.items():
        for coloring, labels in colorings.items():
            plots.append(f"{model}_{coloring}.png")
            draw_embeddings(run.folder / plots[-1], {model: layout}, {coloring: labels}, caption)
    plots.append("overview.png")
    draw_embeddings(run.folder / plots[-1], layouts, colorings, caption)
    predicted = {name: predict_digits(each, data.loader("test")).predicted.numpy() for name, each in supervised.items()}
    write_map(run.folder / "map.json", data, settings.seed, layouts, predicted)
    run.write_table("t-SNE plots of test embeddings", {name: {} for name in plots})


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task3_visualization"))
    run_task(main, task_parser(__doc__, defaults, "task1_checkpoint", "task2_checkpoint"))
