"""Load what an earlier task trained, and refuse what would spoil this one's results."""

import io
import sys
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.data import SpokenDigits
from common.encoders import EMBEDDING_DIM
from common.evaluate import Embeddings
from common.modules import ContrastiveModel, DigitClassifier
from common.run.console import UserError, printable
from common.run.files import write_atomically
from common.speakers import Spread, spread_of

MAX_BYTES = 64_000_000  # unpacked; twenty times what the tasks write

# What common.training.fit is told to call them.
CONTRASTIVE = {"contrastive": ContrastiveModel}
CLASSIFIERS = {
    f"{how} {formats}": DigitClassifier
    for how in ("supervised", "frozen", "finetuned")
    for formats in ("1d", "2d", "concat")
}


class Origin(NamedTuple):
    """Where a checkpoint comes from: the flag that names it and the script that makes it."""

    flag: str
    script: str

    @property
    def remedy(self) -> str:
        return f"make it with `python {self.script}` or name another with {self.flag}"


TASK1 = Origin("--task1-checkpoint", "task1.py")
TASK2 = Origin("--task2-checkpoint", "task2.py")


def load_contrastive(args: Namespace, data: SpokenDigits) -> ContrastiveModel:
    """The model of task 2 that ``--task2-checkpoint`` names, in eval mode; errors as in ``load_module``."""
    return load_module(CONTRASTIVE, args.task2_checkpoint, TASK2, data)[0]


def load_supervised(args: Namespace, data: SpokenDigits, name: str) -> DigitClassifier:
    """The "1d" or "2d" model of task 1 below ``--task1-checkpoint``, in eval mode; errors as in ``load_module``."""
    path = args.task1_checkpoint / f"{name}_checkpoints" / "best.ckpt"
    return load_module({f"supervised {name}": DigitClassifier}, path, TASK1, data)[0]


def load_classifier(path: Path) -> DigitClassifier:
    """A digit classifier of task 1 or 5, in eval mode, for recordings of anybody; errors as in ``load_module``."""
    return load_module(CLASSIFIERS, path, Origin("CHECKPOINT", "task1.py"))[0]


def load_any(path: Path) -> DigitClassifier | ContrastiveModel:
    """Whatever model task 1, 2 or 5 left in ``path``, in eval mode; errors as in ``load_module``."""
    return load_module(CLASSIFIERS | CONTRASTIVE, path, Origin("path", "task1.py"))[0]


def load_encoders(path: Path) -> tuple[ContrastiveModel, Spread]:
    """The model of task 2 in eval mode, and how the embeddings of both formats spread over its training clips.

    Raises:
        UserError: as in ``load_module``, or it was stored without a spread, see ``store_spread``.
    """
    module, checkpoint = load_module(CONTRASTIVE, path, TASK2)
    width = EMBEDDING_DIM * len(module.embedder.encoders)
    try:
        spread = Spread(*(part.double().numpy() for part in checkpoint["spread"]))
        if spread.mean.shape != (width,) or spread.covariance.shape != (width, width):
            raise ValueError
        if not all(np.isfinite(part).all() for part in spread):
            raise ValueError
    except Exception as error:  # of a training that was stopped before its end, or made by hand
        raise UserError(f"{TASK2.flag}: {path} does not tell how embeddings spread; {TASK2.remedy}") from error
    return module, spread


@rank_zero_only
def store_spread(path: Path, train: Embeddings) -> None:
    """Add to task 2's checkpoint how its training clips' embeddings spread.

    ``common.voice.identify`` whitens by it, and has no training clips.

    Raises:
        UserError: the disk is full.
    """
    checkpoint = _read(path)
    checkpoint["spread"] = [torch.from_numpy(part).float() for part in spread_of(train.z["concat"])]
    save_checkpoint(checkpoint, path)


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Write a checkpoint whole or not at all, so that whenever a run ends the earlier one can be read.

    Raises:
        UserError: the disk is full.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_atomically(path, content.getvalue())


def load_module(
    kinds: dict[str, type[pl.LightningModule]], path: Path, origin: Origin, data: SpokenDigits | None = None
) -> tuple[pl.LightningModule, dict]:
    """Rebuild the module that ``common.training.fit`` stored, and give all that was stored with it.

    The file is read with ``weights_only=True``: a checkpoint cannot run code. Nor can a small one fill the memory.

    Args:
        kinds: the names under which it may have been stored, and what each is.
        origin: which flag named the file and which script makes such files, for the error message.
        data: what the module is going to be tested on; without it, nothing is checked against its training.

    Raises:
        UserError: no such file, not a checkpoint, a checkpoint of something else, one with weights that are no
            numbers, or one whose training heard a speaker whom ``data`` is going to test.
    """
    flag, remedy = origin.flag, origin.remedy
    wanted = " or ".join(kinds) if len(kinds) < 3 else "digit"
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
        if model not in kinds:
            raise UserError(f"{flag}: {path} holds a {model[:40]} model, not a {wanted} one; {remedy}")
        module = kinds[model](**checkpoint["hyper_parameters"])
        module.load_state_dict(checkpoint["state_dict"])
        if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
            raise UserError(f"{flag}: {path} holds weights that are no finite numbers; {remedy}")
        if data is not None:
            _check_origin(run, data, flag)
    except UserError:
        raise
    except Exception as error:  # and so does a checkpoint of something else
        raise UserError(f"{flag}: {path} does not hold this version's {wanted} model; {remedy}") from error
    return module.eval(), checkpoint


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
