"""Task 5: are contrastive encoders a better start for learning the digits?

Puts a linear layer on the contrastive encoders of task 2 and trains it on the labels in 6 configurations: 1D, 2D or
both embeddings, with the encoders frozen (the layer alone is trained) or fine-tuned. Each configuration starts from
its own copy of the encoders. Compare with task 1, which starts from nothing.

    python task5.py                                     after task2.py
    python task5.py --task2-checkpoint PATH.ckpt
    python task5.py --label-ratio 0.05                  with few labels, where a good start matters most

Writes task5_finetune/{1d,2d,concat}_{frozen,finetuned}_checkpoints/best.ckpt, learning curves, confusion matrices,
metrics.json and metrics.txt.
"""

from argparse import Namespace

from common.checkpoints import load_contrastive
from common.data import SpokenDigits
from common.evaluate import embed, predict_digits, score_digits
from common.modules import DigitClassifier
from common.plots.results import draw_digit_training
from common.run.cli import run, task_parser
from common.run.output import describe_run, start_output, write_metrics
from common.training import fit

FORMATS = {"1d": ("1d",), "2d": ("2d",), "concat": ("1d", "2d")}


def main(args: Namespace) -> None:
    data = SpokenDigits(args)
    pretrained = load_contrastive(args, data).embedder
    run_info = describe_run(args, data, pretrained.sizes())
    start_output(args.output_dir, run_info, args.resume)

    # Frozen encoders give the same embeddings in every epoch: computing them once is enough.
    embedded = {name: embed(pretrained, data.loader(name)) for name in ("train", "val", "test")}
    results = {}
    for name, formats in FORMATS.items():
        frozen_data = data.with_inputs({key: part.z[name] for key, part in embedded.items()})
        for mode, inputs in (("frozen", frozen_data), ("finetuned", data)):
            # Encoders that know something already are moved gently: a tenth of the new layer's learning rate.
            model = DigitClassifier(formats, args.lr, encoder_lr=args.lr / 10, frozen=mode == "frozen")
            model.embedder.copy_weights(pretrained)
            key, title = f"{name}_{mode}", f"{mode} {name}"
            history = fit(model, inputs, args, args.output_dir / f"{key}_checkpoints", title, run_info)
            val, test = (predict_digits(model, inputs.loader(part)) for part in ("val", "test"))
            results[key] = score_digits(val, "val") | score_digits(test, "test")
            draw_digit_training(args.output_dir, key, history, test, data)
    write_metrics(args.output_dir, "Fine-tuning of contrastive encoders for digits", results, run_info)


if __name__ == "__main__":
    run(main, task_parser(__doc__, "task5_finetune", epochs=50, lr=1e-2, reads=("task2",), learns_from_labels=True))
