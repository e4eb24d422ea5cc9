"""Task 3: what do the embeddings look like?

Draws the test clips' embeddings in the plane with t-SNE: the supervised encoders of task 1 and the contrastive ones of
task 2, each in both formats, coloured by digit and by speaker. A model's two plots share one layout, so that they can
be compared point by point.

    python task3.py                                     after task1.py and task2.py
    python task3.py --task2-checkpoint PATH.ckpt --task1-checkpoint DIR

Writes 8 plots task3_visualization/{supervised,contrastive}_{1d,2d}_{digit,speaker}.png, all of them side by side in
overview.png, and metrics.txt, their list.
"""

from argparse import Namespace

from common.checkpoints import load_contrastive, load_supervised
from common.data import SpokenDigits
from common.evaluate import embed
from common.plots.scatter import draw_embeddings, draw_overview, tsne
from common.run.cli import run, task_parser
from common.run.console import model_name
from common.run.output import describe_run, start_output, write_listing


def main(args: Namespace) -> None:
    data = SpokenDigits(args)
    contrastive = load_contrastive(args, data).embedder
    embedders = {
        "supervised_1d": load_supervised(args, data, "1d").embedder,
        "supervised_2d": load_supervised(args, data, "2d").embedder,
        "contrastive_1d": contrastive,
        "contrastive_2d": contrastive,
    }
    run_info = describe_run(args, data, contrastive.sizes())
    start_output(args.output_dir, run_info)

    layouts = {}
    for model, embedder in embedders.items():
        test = embed(embedder, data.loader("test"))
        layouts[model], perplexity = tsne(test.z[model[-2:]], args.seed, name=model)  # [n, 2]
    caption = f"{data.caption('test')}; t-SNE with perplexity {perplexity:.0f}"
    colorings = {"digit": (test.digit, "0123456789"), "speaker": (test.speaker, data.speakers)}
    plots = []
    for model, layout in layouts.items():
        for coloring, labels in colorings.items():
            plots.append(f"{model}_{coloring}.png")
            title = f"Embeddings by {coloring}, {model_name(model)}"
            draw_embeddings(args.output_dir / plots[-1], layout, *labels, coloring, title, caption)
    draw_overview(args.output_dir / "overview.png", layouts, colorings, "Embeddings by digit and by speaker", caption)
    plots.append("overview.png")
    write_listing(args.output_dir, "t-SNE plots of test embeddings", plots, run_info)


if __name__ == "__main__":
    run(main, task_parser(__doc__, "task3_visualization", reads=("task1", "task2")))
