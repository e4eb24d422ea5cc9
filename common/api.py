"""Training and loading from Python, as the tasks do it, without a command line."""

from argparse import Namespace
from pathlib import Path
from typing import TypeVar

from common.checkpoints import load_any, store_spread
from common.data import SpokenDigits
from common.evaluate import embed
from common.modules import ContrastiveModel, DigitClassifier
from common.run.output import describe_run
from common.training import fit

Model = TypeVar("Model", DigitClassifier, ContrastiveModel)


def train(model: Model, data: SpokenDigits, folder: str | Path, epochs: int = 50) -> Model:
    """Train a model and give it back with the weights of its best epoch, that of the lowest validation loss.

    ``folder/best.ckpt`` holds them too, and is what task 1 or task 2 would have left: the other tasks,
    `python -m common.voice.predict` and `python -m common.voice.identify` take it.

    Args:
        epochs: at most so many; early stopping as in the tasks.

    Raises:
        UserError: the loss is no longer a number (the model's ``lr`` is too high), or the disk is full.
    """
    folder = Path(folder)
    args = Namespace(**vars(data.args) | {"epochs": epochs, "lr": model.lr, "output_dir": folder})
    run = describe_run(args, data, model.embedder.sizes())
    contrastive = isinstance(model, ContrastiveModel)
    fit(model, data, args, folder, "contrastive" if contrastive else _name(model), run)
    if contrastive:
        store_spread(folder / "best.ckpt", embed(model.embedder, data.loader("train")))
    return model.eval()


def _name(model: DigitClassifier) -> str:
    return f"{'frozen' if model.frozen else 'supervised'} {'concat' if len(model.formats) > 1 else model.formats[0]}"


def load(path: str | Path) -> DigitClassifier | ContrastiveModel:
    """The model in a ``best.ckpt`` of task 1, 2 or 5 or of ``train``, on the CPU and in eval mode.

    The file is read as data and cannot run code. Whom the model heard in its training is not checked.

    Raises:
        UserError: there is no such file, or it is not such a checkpoint.
    """
    return load_any(Path(path))
