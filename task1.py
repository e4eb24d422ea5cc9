"""Task 1: how well can a small CNN learn the digits from labels alone?

Trains two digit classifiers from scratch, one on the waveform (1D) and one on the log-mel spectrogram (2D), and tests
them on speakers who are not in training, also in white noise, among other voices, in rooms and over a telephone's band.

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

from common.augmentation import Augmentation
from common.conditions import conditions
from common.data import SpokenDigits
from common.evaluate import classifier_metrics, predict_digits
from common.intervals import compare
from common.models import DigitClassifier
from common.plots import draw_classifier, draw_conditions
from common.plots.learned import draw_learned
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run, store_temperature
from common.saliency import clip_of_each_digit, explain
from common.training import fit

DEFAULTS = Settings(output_dir=Path("task1_supervised"), epochs=50, lr=4e-3)
AUGMENTATION = Augmentation(rooms=True)  # also rooms, other voices and narrow bands: none of them changes the word
# The smoothing is also in the validation loss, which would otherwise be lowest at the epoch that is most confident.
LOSS = CrossEntropyLoss(label_smoothing=0.1)
OPTIMIZER = partial(AdamW, fused=True)


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    data.augment_validation(AUGMENTATION)
    models = {
        name: DigitClassifier((name,), AUGMENTATION, settings.lr, loss=LOSS, optimizer=OPTIMIZER)
        for name in ("1d", "2d")
    }
    sizes = models["1d"].network.embedder.sizes() | models["2d"].network.embedder.sizes()
    with Run(settings, data.describe(), sizes) as run:
        if run.finished:
            return
        histories, tests, results = {}, {}, {}
        for name, model in models.items():
            histories[name] = fit(model, data, run, f"{name}_checkpoints", label=f"supervised {name}")
            val, test = (predict_digits(model.network, data.loader(part)) for part in ("val", "test"))
            results[name] = classifier_metrics(val, test, data.speakers)
            store_temperature(run.folder / f"{name}_checkpoints/best.ckpt", results[name]["temperature"])
            for key, condition in conditions(data.examples["test"]).items():
                heard = predict_digits(model.network, data.loader("test"), condition)
                results[name] |= heard.accuracy(key, data.speakers)
            tests[name] = test
        results["2d"] |= compare(tests["2d"].correct, tests["1d"].correct, tests["2d"].speaker.numpy(), "1d")
        run.write_metrics("Digit classification from scratch", results)

        for name in models:
            draw_classifier(run.folder, name, histories[name], tests[name], data)
        draw_conditions(run.folder / "conditions.png", results, data.caption("test"))
        explained = {name: explain(model.network, clip_of_each_digit(data)) for name, model in models.items()}
        filters = models["1d"].network.embedder.get_parameter("encoders.1d.filterbank.weight").squeeze(1)
        draw_learned(run.folder / "learned.png", filters, explained, data.caption("test"))


if __name__ == "__main__":
    run_task(main, task_parser(__doc__, DEFAULTS, "label_ratio"))
