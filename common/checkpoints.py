"""Load what an earlier task trained, and refuse what would spoil the results of this one."""

import io
import sys
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from common.data import SpokenDigits
from common.evaluate import Embeddings
from common.modules import ContrastiveModel, DigitClassifier
from common.run.console import UserError, printable
from common.run.files import write_atomically
from common.speakers import Whitening

MAX_BYTES = 64_000_000  # uncompressed; twenty times what the tasks write
Module = TypeVar("Module", DigitClassifier, ContrastiveModel)


def load(path: str | Path, kind: type[Module], data: SpokenDigits | None = None) -> Module:
    """Load the module in a ``best.ckpt``, on the CPU and in eval mode.

    The file is read with ``weights_only=True``, so that it cannot run code, and a small file cannot fill the memory.

    Args:
        kind: DigitClassifier or ContrastiveModel.
        data: what the module will be tested on; without it, nothing is checked against its training.

    Raises:
        UserError: no such file, not a checkpoint of this kind, weights that are not finite, or a model whose training
            included a speaker whom ``data`` is going to test.
    """
    path = Path(path)
    remedy = f"make it with `python {'task2.py' if kind is ContrastiveModel else 'task1.py'}` or name another"
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; {remedy}")
    try:
        checkpoint = _read(path)
        if checkpoint["class"] != kind.__name__:
            raise TypeError("a checkpoint of another class")
        module = kind(**checkpoint["hyper_parameters"])
        module.load_state_dict(checkpoint["state_dict"])
        if data is not None:
            corpus, speakers = printable(checkpoint["run"]["corpus"]), set(checkpoint["run"]["train_speakers"])
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"{path}: not a checkpoint of a {kind.__name__} of this version; {remedy}") from error
    if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
        raise UserError(f"{path}: its weights are not finite; {remedy}")
    if data is not None and corpus != data.corpus.name:
        print(f"Note: {path} was trained on {corpus}, this run is on {data.corpus.name}.", file=sys.stderr)
    elif data is not None and (known := speakers & set(data.names("test"))):
        raise UserError(f"{path}: {len(known)} test speakers were in its training; use its --fold")
    return module.eval()


def load_whitening(path: Path) -> Whitening:
    """The whitening of both embeddings that ``store_whitening`` added to task 2's checkpoint.

    Raises:
        UserError: it is not there, because the training was stopped before its end.
    """
    whitening = Whitening()
    try:
        whitening.mean_, whitening.covariance_ = (part.double().numpy() for part in _read(path)["whitening"])
    except Exception as error:
        message = f"{path}: no statistics of its training embeddings; make it with `python task2.py`"
        raise UserError(message) from error
    return whitening


@rank_zero_only
def store_whitening(path: Path, train: Embeddings) -> None:
    """Fit the whitening of both embeddings and add it to task 2's checkpoint, for ``common.voice.identify``."""
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
    return torch.load(path, map_location="cpu", weights_only=True)
