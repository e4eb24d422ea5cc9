"""Task 4: do embeddings that were learned without speaker labels tell people apart?

Takes the contrastive encoders of task 2 to the test speakers, whom they never heard. Identification: half of each
speaker's clips are enrolled, the others are named by their nearest neighbours among them; also with other digits
enrolled than queried, where only the voice can help. Verification: do two query clips come from one speaker? The
equal error rate (EER) says how often that goes wrong where both mistakes are equally likely.

    python task4.py                                     after task2.py
    python task4.py --task2-checkpoint PATH.ckpt

Writes task4_biometrics/metrics.json, metrics.txt, {1d,2d,concat}_confusion.png and det.png, the detection error
trade-off.
"""

from argparse import Namespace

from common.checkpoints import load_contrastive
from common.data import SpokenDigits
from common.evaluate import embed
from common.plots.results import draw_confusion, draw_det
from common.run.cli import run, task_parser
from common.run.console import model_name
from common.run.output import describe_run, start_output, write_metrics
from common.speakers import halves, identify, split_by_digit, verify, whiten


def main(args: Namespace) -> None:
    data = SpokenDigits(args)
    model = load_contrastive(args, data)
    run_info = describe_run(args, data, model.embedder.sizes())
    start_output(args.output_dir, run_info)

    train, test = (embed(model.embedder, data.loader(name)) for name in ("train", "test"))
    test = whiten(train, test)
    enrolment, query = halves(test, args.seed)
    other_digits = split_by_digit(test)
    caption = f"{data.caption('test')}, {len(query.digit):,} asked"
    results, curves = {}, {}
    for name in ("1d", "2d", "concat"):
        results[name], named = identify(enrolment, query, name, args.seed)
        path, title = args.output_dir / f"{name}_confusion.png", f"Speaker identification, {model_name(name)}"
        draw_confusion(path, query.speaker, named, data.speakers, "speaker", title, caption)
        if other_digits:
            results[name] |= identify(*other_digits, name, args.seed, prefix="text_independent")[0]
        curves[name] = verify(query, name)
        results[name]["eer"] = curves[name].eer if curves[name] else None
    caption = f"{data.caption('test')}, all pairs of {len(query.digit):,}"
    draw_det(args.output_dir / "det.png", curves, "Speaker verification: detection error trade-off", caption)
    write_metrics(args.output_dir, "Speaker identification by k-NN on contrastive embeddings", results, run_info)


if __name__ == "__main__":
    run(main, task_parser(__doc__, "task4_biometrics", reads=("task2",)))
