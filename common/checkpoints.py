"""Load what an earlier task trained, and refuse what would spoil this one's results."""

import sys
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
import torch

from common.data import SpokenDigits
from common.errors import UserError, printable
from common.modules import ContrastiveModel, DigitClassifier

MAX_BYTES = 64_000_000  # unpacked; twenty times what the tasks write

Module = TypeVar("Module", bound=pl.LightningModule)


def load_contrastive(args: Namespace, data: SpokenDigits) -> ContrastiveModel:
    """The model of task 2 that ``--task2-checkpoint`` names, in eval mode; errors as in ``load_module``."""
    return load_module(ContrastiveModel, "contrastive", args.task2_checkpoint, data, "--task2-checkpoint", "task2.py")


def load_supervised(args: Namespace, data: SpokenDigits, name: str) -> DigitClassifier:
    """The "1d" or "2d" model of task 1 below ``--task1-checkpoint``, in eval mode; errors as in ``load_module``."""
    path = args.task1_checkpoint / f"{name}_checkpoints" / "best.ckpt"
    return load_module(DigitClassifier, f"supervised {name}", path, data, "--task1-checkpoint", "task1.py")


def load_module(cls: type[Module], name: str, path: Path, data: SpokenDigits, flag: str, script: str) -> Module:
    """Rebuild the module that ``common.training.fit`` stored under ``name``.

    The file is read with ``weights_only=True``: a checkpoint cannot run code. Nor can a small one fill the memory.

    Args:
        data: what the module is going to be tested on.
        flag, script: which flag named the file and which script makes such files, for the error message.

    Raises:
        UserError: no such file, not a checkpoint, a checkpoint of something else, one with weights that are no
            numbers, or one whose training heard a speaker whom ``data`` is going to test.
    """
    remedy = f"make it with `python {script}` or name another with {flag}"
    if not path.is_file():
        raise UserError(f"{flag}: there is no {path}; {remedy}")
    try:
        checkpoint = _read(path)
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"{flag}: {path} is not a readable checkpoint; {remedy}") from error
    try:
        model, run = checkpoint["model"], checkpoint["run"]
        # What is no text might be made to take for ever to show.
        if not (isinstance(model, str) and isinstance(run["corpus"], str)):
            raise TypeError
        if model != name:
            raise UserError(f"{flag}: {path} holds a {model[:40]} model, not a {name} one; {remedy}")
        module = cls(**checkpoint["hyper_parameters"])
        module.load_state_dict(checkpoint["state_dict"])
        if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
            raise UserError(f"{flag}: {path} holds weights that are no finite numbers; {remedy}")
        _check_origin(run, data, flag)
    except UserError:
        raise
    except Exception as error:  # and so does a checkpoint of something else
        raise UserError(f"{flag}: {path} does not hold this version's {name} model; {remedy}") from error
    return module.eval()


def _read(path: Path) -> dict:
    with zipfile.ZipFile(path) as file:
        if sum(part.file_size for part in file.infolist()) > MAX_BYTES:
            raise ValueError("larger than any checkpoint of these tasks")
    with warnings.catch_warnings(action="ignore"):  # which a strange file may cause; it is refused anyway
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict):
        raise TypeError("not the contents of a checkpoint")
    return checkpoint


def _check_origin(run: dict, data: SpokenDigits, flag: str) -> None:
    if run["corpus"] != data.corpus.name:
        print(
            f"Note: {flag} was trained on {printable(run['corpus'])[:80]}, this run is on {data.corpus.name}.",
            file=sys.stderr,
        )
    elif heard := set(run["train_speakers"]) & set(data.names("test")):
        raise UserError(f"{flag}: {len(heard)} test speakers were in its training; use its --fold")
