"""Task 5: are contrastive encoders a better start for learning the digits?

Puts a linear layer on the contrastive encoders of task 2 and trains it on the labels in 6 configurations: 1D, 2D or
both embeddings, with the encoders frozen (only the linear layer is trained) or fine-tuned. Each configuration starts
from its own copy of the encoders. Compare with task 1, which starts from random weights.

    python task5.py                                     after task2.py
    python task5.py --task2-checkpoint PATH.ckpt
    python task5.py --label-ratio 0.05                  with few labels, where pretraining matters most

Writes task5_finetune/{1d,2d,concat}_{frozen,finetuned}_checkpoints/best.ckpt, learning curves, confusion matrices,
metrics.json and metrics.txt.
"""

from functools import partial
from pathlib import Path

from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from common.calibration import calibrate
from common.checkpoints import load
from common.data import SpokenDigits
from common.evaluate import embed, predict_digits
from common.intervals import compare
from common.modules import DigitClassifier
from common.networks import ContrastiveNetwork
from common.plots import draw_classifier
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run
from common.training import fit

FORMATS = {"1d": ("1d",), "2d": ("2d",), "concat": ("1d", "2d")}


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    pretrained = load(settings.task2_checkpoint, ContrastiveNetwork, data).embedder
    loss, optimizer = CrossEntropyLoss(label_smoothing=0.1), partial(AdamW, fused=True)
    # All are made before the first is trained: a configuration starts from the same weights whatever ran before it.
    models = {
        f"{name}_{mode}": DigitClassifier(
            formats,
            lr=settings.lr,
            encoder_lr=settings.lr / 10,  # pretrained encoders move slowly
            frozen=mode == "frozen",
            loss=loss,
            optimizer=optimizer,
        )
        for name, formats in FORMATS.items()
        for mode in ("frozen", "finetuned")
    }
    run = Run(settings, data.describe(), pretrained.sizes(), pretrained)
    run.open()

    # Frozen encoders give the same embeddings in every epoch, so they are computed once.
    embedded = {part: embed(pretrained, data.loader(part)).z for part in ("train", "val", "test")}
    results, correct = {}, {}
    for key, model in models.items():
        name, mode = key.split("_")
        model.embedder.copy_weights(pretrained)
        inputs = data.with_embeddings({part: z[name] for part, z in embedded.items()}) if model.frozen else data
        history = fit(model, inputs, run, f"{key}_checkpoints", label=f"{mode} {name}")
        val, test = (predict_digits(model, inputs.loader(part)) for part in ("val", "test"))
        results[key] = val.metrics("val", data.speakers) | test.metrics("test", data.speakers)
        results[key] |= calibrate(run.folder / f"{key}_checkpoints" / "best.ckpt", val, test)
        correct[key] = test.correct
        if mode == "finetuned":
            results[key] |= compare(test.correct, correct[f"{name}_frozen"], test.speaker.numpy(), "frozen")
        draw_classifier(run.folder, key, history, test, data)
    run.write_metrics("Fine-tuning of contrastive encoders for digits", results)


if __name__ == "__main__":
    defaults = Settings(output_dir=Path("task5_finetune"), epochs=50, lr=1e-2)
    run_task(main, task_parser(__doc__, defaults, "label_ratio", "task2_checkpoint"))
