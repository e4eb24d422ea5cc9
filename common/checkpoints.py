"""Load what an earlier task trained, and refuse what would spoil the results of this one."""

import io
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.data import SpokenDigits
from common.encoders import EMBEDDING_DIM
from common.evaluate import Embeddings
from common.modules import ContrastiveModel, DigitClassifier
from common.run.console import UserError, printable
from common.run.files import write_atomically
from common.speakers import Whitening

MAX_BYTES = 64_000_000  # uncompressed; twenty times what the tasks write
Module = TypeVar("Module", DigitClassifier, ContrastiveModel)


def load_contrastive(path: Path, data: SpokenDigits | None = None) -> ContrastiveModel:
    """The model of task 2 in ``path``; errors as in ``load``."""
    return load(path, ContrastiveModel, data, "--task2-checkpoint", "task2.py")


def load_supervised(folder: Path, name: str, data: SpokenDigits | None = None) -> DigitClassifier:
    """The "1d" or "2d" model in the output folder of task 1; errors as in ``load``."""
    path = folder / f"{name}_checkpoints" / "best.ckpt"
    model = load(path, DigitClassifier, data, "--task1-checkpoint", "task1.py")
    if model.formats != (name,):
        formats = " and ".join(model.formats)
        raise UserError(f"--task1-checkpoint: {path} is a classifier of {formats}, not of {name}; run task1.py again")
    return model


def load(
    path: str | Path,
    kind: type[Module],
    data: SpokenDigits | None = None,
    flag: str = "checkpoint",
    script: str = "task1.py",
) -> Module:
    """Load the module in a ``best.ckpt``, on the CPU and in eval mode.

    The file is read with ``weights_only=True``, so that it cannot run code, and a small file cannot fill the memory.

    Args:
        kind: DigitClassifier or ContrastiveModel.
        data: what the module will be tested on; without it, nothing is checked against its training.
        flag, script: which flag named the file and which script makes such files, for the error message.

    Raises:
        UserError: no such file, not a checkpoint of this kind, weights that are not finite, or a model whose training
            included a speaker whom ``data`` is going to test.
    """
    path, remedy = Path(path), f"make it with `python {script}` or name another with {flag}"
    if not path.is_file():
        raise UserError(f"{flag}: there is no {path}; {remedy}")
    try:
        checkpoint = _read(path)
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"{flag}: {path} is not a readable checkpoint; {remedy}") from error
    try:
        name = checkpoint["class"]
        if name != kind.__name__:
            if name in ("DigitClassifier", "ContrastiveModel"):
                raise UserError(f"{flag}: {path} holds a {name}, not a {kind.__name__}; {remedy}")
            raise ValueError("a class of another program")
        module = kind(**checkpoint["hyper_parameters"])
        module.load_state_dict(checkpoint["state_dict"])
        if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
            raise UserError(f"{flag}: {path} holds weights that are not finite; {remedy}")
        if data is not None:
            _check_speakers(checkpoint["run"], data, flag)
    except UserError:
        raise
    except Exception as error:  # and so does a checkpoint of another version
        raise UserError(f"{flag}: {path} does not hold a {kind.__name__} of this version; {remedy}") from error
    return module.eval()


def load_whitening(path: Path) -> Whitening:
    """The whitening of both embeddings that ``store_whitening`` added to task 2's checkpoint.

    Raises:
        UserError: it is not there, because the training was stopped before its end.
    """
    whitening, width = Whitening(), 2 * EMBEDDING_DIM
    try:
        whitening.mean_, whitening.covariance_ = (part.double().numpy() for part in _read(path)["whitening"])
        if whitening.mean_.shape != (width,) or whitening.covariance_.shape != (width, width):
            raise ValueError("of other embeddings")
        if not (np.isfinite(whitening.mean_).all() and np.isfinite(whitening.covariance_).all()):
            raise ValueError("not finite")
    except Exception as error:
        message = f"{path} lacks the statistics of its training embeddings; make it with `python task2.py`"
        raise UserError(f"--task2-checkpoint: {message}") from error
    return whitening


@rank_zero_only
def store_whitening(path: Path, train: Embeddings) -> None:
    """Fit the whitening of both embeddings and add it to task 2's checkpoint, for ``common.voice.identify``.

    Raises:
        UserError: the disk is full.
    """
    checkpoint, whitening = _read(path), Whitening().fit(train.z["concat"])
    checkpoint["whitening"] = [torch.from_numpy(part).float() for part in (whitening.mean_, whitening.covariance_)]
    save_checkpoint(checkpoint, path)


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a complete checkpoint or none, so that the earlier one can be read whenever a run ends.

    Raises:
        UserError: the disk is full.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_atomically(path, content.getvalue())


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        if sum(part.file_size for part in file.infolist()) > MAX_BYTES:
            raise ValueError("larger than any checkpoint of these tasks")
    with warnings.catch_warnings(action="ignore"):  # a strange file may cause them; it is refused anyway
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict):
        raise TypeError("not the contents of a checkpoint")
    return checkpoint


def _check_speakers(run: dict[str, Any], data: SpokenDigits, flag: str) -> None:
    corpus = run["corpus"]
    if not isinstance(corpus, str):
        raise TypeError("not the name of a corpus")
    if corpus != data.corpus.name:
        print(
            f"Note: {flag} was trained on {printable(corpus)[:80]}, this run is on {data.corpus.name}.", file=sys.stderr
        )
    elif known := set(run["train_speakers"]) & set(data.names("test")):
        raise UserError(f"{flag}: {len(known)} test speakers were in its training; use its --fold")
