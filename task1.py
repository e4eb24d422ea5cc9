"""Task 1: how well can a small CNN learn the digits from labels alone?

Trains two digit classifiers from scratch, one on the waveform (1D) and one on the log-mel spectrogram (2D), and tests
them on speakers who are not in training, also in white noise, among other voices, in rooms and over the telephone.

    python task1.py                          50 epochs on the whole corpus
    python task1.py --ratio 0.01 --epochs 1  a quick look
    python task1.py --label-ratio 0.05       with few labels, to compare with task 5

Writes task1_supervised/{1d,2d}_checkpoints/best.ckpt, metrics.json, metrics.txt, learning curves, confusion
matrices, conditions.png, and learned.png, which shows what the models decide by.
"""

from functools import partial
from pathlib import Path

from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from common.calibration import calibrate
from common.conditions import conditions
from common.data import SpokenDigits
from common.evaluate import predict_digits
from common.intervals import compare
from common.modules import DigitClassifier
from common.plots import draw_accuracies, draw_classifier, measured
from common.plots.learned import draw_learned
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.saliency import clips_of_each_digit, explain
from common.training import fit


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    loss, optimizer = CrossEntropyLoss(label_smoothing=0.1), partial(AdamW, fused=True)
    models = {name: DigitClassifier((name,), settings.lr, loss=loss, optimizer=optimizer) for name in ("1d", "2d")}
    run = Run(settings, data.describe(), models["1d"].embedder.sizes() | models["2d"].embedder.sizes())
    run.open()

    results, correct = {}, {}
    for name, model in models.items():
        history = fit(model, data, run, f"{name}_checkpoints", label=f"supervised {name}")
        val, test = (predict_digits(model, data.loader(part)) for part in ("val", "test"))
        results[name] = val.metrics("val", data.speakers) | test.metrics("test", data.speakers)
        results[name] |= calibrate(run.folder / f"{name}_checkpoints" / "best.ckpt", val, test)
        for key, condition in conditions(data.examples["test"]).items():
            results[name] |= predict_digits(model, data.loader("test"), condition).accuracy(key, data.speakers)
        correct[name] = test.correct
        draw_classifier(run.folder, name, history, test, data)
    results["2d"] |= compare(correct["2d"], correct["1d"], test.speaker.numpy(), "1d")
    keys = {"clean": "test"} | {key: key for key in conditions(data.examples["test"])}
    series = {name: {shown: measured(row, key) for shown, key in keys.items()} for name, row in results.items()}
    title = "Accuracy in noise, babble, rooms, on the telephone"
    caption = f"{data.caption('test')}, 95% intervals over speakers"
    draw_accuracies(run.folder / "conditions.png", series, title, caption, {"chance": 0.1})
    few = clips_of_each_digit(data, 5)
    explained = {name: explain(model, few) for name, model in models.items()}
    filters = models["1d"].embedder.get_parameter("encoders.1d.filterbank.weight").squeeze(1)
    draw_learned(run.folder / "learned.png", filters, explained, data.caption("test"))
    run.write_metrics("Digit classification from scratch", results)


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task1_supervised"), epochs=50, lr=4e-3)
    run_task(main, task_parser(__doc__, defaults, "label_ratio"))
