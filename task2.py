"""Task 2: what do the encoders learn without labels, from the two formats of a clip alone?

Trains both encoders together so that the waveform embedding and the log-mel embedding of one clip find each other
among those of other clips (InfoNCE). Then probes the frozen embeddings: a logistic regression on the training
speakers' digits is tested on speakers whom neither it nor the encoders ever heard. The same probe on the untrained
encoders is the control: what it reaches owes nothing to training.

    python task2.py                          100 epochs on the whole corpus
    python task2.py --ratio 0.01 --epochs 1  a quick look
    python task2.py --augment none           without augmentation, or with one kind of it

Writes task2_contrastive/checkpoints/best.ckpt, metrics.json, metrics.txt, curves.png and probes.png.
"""

from argparse import Namespace

from common.augmentation import KINDS
from common.checkpoints import store_spread
from common.data import SpokenDigits
from common.evaluate import Embeddings, embed, linear_probe
from common.modules import ContrastiveModel, Embedder
from common.plots.results import draw_bars, draw_learning_curves
from common.run.cli import run, task_parser
from common.run.output import describe_run, start_output, write_metrics
from common.training import fit


def main(args: Namespace) -> None:
    data = SpokenDigits(args)
    model = ContrastiveModel(args.lr, args.augment)
    run_info = describe_run(args, data, model.embedder.sizes())
    start_output(args.output_dir, run_info, args.resume)

    untrained = probe(*embed_sets(model.embedder, data))
    checkpoint_dir = args.output_dir / "checkpoints"
    history = fit(model, data, args, checkpoint_dir, "contrastive", run_info)
    train, val, test = embed_sets(model.embedder, data)
    store_spread(checkpoint_dir / "best.ckpt", train)
    trained = probe(train, val, test)

    draw_learning_curves(args.output_dir / "curves.png", history, "Contrastive loss", data.caption("train", "val"))
    bars, title = {"untrained": untrained, "trained": trained}, "Linear probes: digits from frozen embeddings"
    draw_bars(args.output_dir / "probes.png", bars, "test_acc", title, data.caption("test"))
    results = trained | {f"untrained_{name}": result for name, result in untrained.items()}
    write_metrics(args.output_dir, "Linear probes of contrastive embeddings", results, run_info)


def embed_sets(embedder: Embedder, data: SpokenDigits) -> list[Embeddings]:
    return [embed(embedder, data.loader(name)) for name in ("train", "val", "test")]


def probe(*sets: Embeddings) -> dict[str, dict]:
    """Probe each format and both together."""
    return {name: linear_probe(name, *sets) for name in ("1d", "2d", "concat")}


if __name__ == "__main__":
    parser = task_parser(__doc__, "task2_contrastive", epochs=100, lr=3e-3)
    parser.add_argument("--augment", choices=KINDS, default="both", help="which form of the clips is augmented")
    run(main, parser)
