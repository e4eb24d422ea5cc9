"""Task 1: how well can a small CNN learn the digits from labels alone?

Trains two digit classifiers from scratch, one on the waveform (1D) and one on the log-mel spectrogram (2D), and tests
them on speakers whom they never heard, also under white noise at 20, 10 and 0 dB.

    python task1.py                          50 epochs on the whole corpus
    python task1.py --ratio 0.01 --epochs 1  a quick look
    python task1.py --label-ratio 0.05       with few labels, to compare with task 5

Writes task1_supervised/{1d,2d}_checkpoints/best.ckpt, metrics.json, metrics.txt, learning curves, confusion matrices
and a few clips to listen to in the report.
"""

from argparse import Namespace

from common.data import SpokenDigits
from common.evaluate import predict_digits, score_digits, score_in_noise
from common.modules import DigitClassifier
from common.plots.results import draw_digit_training
from common.report.examples import write_examples
from common.run.cli import run, task_parser
from common.run.output import describe_run, start_output, write_metrics
from common.training import fit


def main(args: Namespace) -> None:
    data = SpokenDigits(args)
    models = {name: DigitClassifier((name,), lr=args.lr) for name in ("1d", "2d")}
    run_info = describe_run(args, data, models["1d"].embedder.sizes() | models["2d"].embedder.sizes())
    start_output(args.output_dir, run_info, args.resume)

    results, heard = {}, {}
    for name, model in models.items():
        history = fit(model, data, args, args.output_dir / f"{name}_checkpoints", f"supervised {name}", run_info)
        val, test = (predict_digits(model, data.loader(key)) for key in ("val", "test"))
        results[name] = score_digits(val, "val") | score_digits(test, "test")
        for snr_db in (20, 10, 0):
            results[name] |= score_in_noise(model, data.loader("test"), snr_db)
        draw_digit_training(args.output_dir, name, history, test, data)
        heard[name] = test.predicted.numpy()
    write_examples(args.output_dir / "examples.json", data, heard)
    write_metrics(args.output_dir, "Digit classification from scratch", results, run_info)


if __name__ == "__main__":
    run(main, task_parser(__doc__, "task1_supervised", epochs=50, lr=4e-3, learns_from_labels=True))
