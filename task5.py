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

from common.augmentation import Augmentation
from common.data import SpokenDigits
from common.evaluate import classifier_metrics, embed, load_embedder, predict_digits
from common.intervals import compare
from common.models import DigitClassifier, FrozenDigitClassifier
from common.plots import draw_classifier
from common.run.cli import Settings, run_task, task_parser
from common.run.output import Run, store_temperature
from common.training import fit

DEFAULTS = Settings(output_dir=Path("task5_finetune"), epochs=50, lr=1e-2)
FORMATS = {"1d": ("1d",), "2d": ("2d",), "concat": ("1d", "2d")}
AUGMENTATION = Augmentation(rooms=True)  # of fine-tuning, as in task 1; frozen encoders embed the clips as they are
LOSS = CrossEntropyLoss(label_smoothing=0.1)
OPTIMIZER = partial(AdamW, fused=True)
ENCODER_LR = 0.1  # of --lr: pretrained encoders move slowly


def main(settings: Settings) -> None:
    data = SpokenDigits(**settings.data)
    data.augment_validation(AUGMENTATION)
    pretrained = load_embedder(settings.task2_checkpoint, data)
    # All are made before the first is trained: a configuration starts from the same weights whatever ran before it.
    models: dict[str, DigitClassifier] = {}
    for name, formats in FORMATS.items():
        models[f"{name}_frozen"] = FrozenDigitClassifier(formats, settings.lr, LOSS, OPTIMIZER)
        models[f"{name}_finetuned"] = DigitClassifier(formats, AUGMENTATION, settings.lr, ENCODER_LR, LOSS, OPTIMIZER)
    for model in models.values():
        model.network.embedder.copy_weights(pretrained)
    with Run(settings, data.describe(), pretrained.sizes(), pretrained) as run:
        if run.finished:
            return
        # Frozen encoders give the same embeddings in every epoch, so they are computed once.
        embedded = {part: embed(pretrained, data.loader(part)).z for part in ("train", "val", "test")}
        histories, tests, results = {}, {}, {}
        for key, model in models.items():
            name, mode = key.split("_")
            inputs = data
            if mode == "frozen":
                inputs = data.with_embeddings({part: z[name] for part, z in embedded.items()})
            histories[key] = fit(model, inputs, run, f"{key}_checkpoints", label=f"{mode} {name}")
            val, test = (predict_digits(model.network, data.loader(part)) for part in ("val", "test"))
            results[key] = classifier_metrics(val, test, data.speakers)
            store_temperature(run.folder / f"{key}_checkpoints/best.ckpt", results[key]["temperature"])
            tests[key] = test
        for name in FORMATS:
            tuned, frozen = tests[f"{name}_finetuned"], tests[f"{name}_frozen"]
            results[f"{name}_finetuned"] |= compare(tuned.correct, frozen.correct, tuned.speaker.numpy(), "frozen")
        run.write_metrics("Fine-tuning of contrastive encoders for digits", results)

        for key in models:
            draw_classifier(run.folder, key, histories[key], tests[key], data)


if __name__ == "__main__":
    run_task(main, task_parser(__doc__, DEFAULTS, "label_ratio", "task2_checkpoint"))
