"""Load what an earlier task trained, and refuse what would spoil the results of this one."""

import inspect
import io
import sys
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import torch

from common.data import SpokenDigits
from common.networks import ContrastiveNetwork, DigitNetwork
from common.run import UserError, printable, write_atomically

MAX_BYTES = 64_000_000  # uncompressed; twenty times what the tasks write
Network = TypeVar("Network", DigitNetwork, ContrastiveNetwork)


def load(
    path: str | Path, kind: type[Network], data: SpokenDigits | None = None, formats: tuple[str, ...] | None = None
) -> Network:
    """Load the network in a ``best.ckpt``, on the CPU and in eval mode.

    The file is read with ``weights_only=True``, so that it cannot run code, and a small file cannot fill the memory.

    Args:
        kind: DigitNetwork or ContrastiveNetwork, or the Lightning module that trains it.
        data: what the module will be tested on; without it, nothing is checked against its training.
        formats: those that a DigitNetwork must have, if it matters.

    Raises:
        UserError: no such file, not a checkpoint of this kind, weights that are not finite, or a model whose training
            included a speaker whom ``data`` is going to test.
    """
    path = Path(path)
    remedy = f"make it with `python {'task1.py' if issubclass(kind, DigitNetwork) else 'task2.py'}` or name another"
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; {remedy}")
    try:
        checkpoint = read_checkpoint(path)
        if checkpoint["class"] != kind.trained_as:
            raise TypeError("a checkpoint of another class")
        arguments = checkpoint["hyper_parameters"]
        if formats and tuple(arguments["formats"]) != formats:
            raise TypeError("a classifier of other formats")
        module = kind(**{name: arguments[name] for name in inspect.signature(kind).parameters if name in arguments})
        module.load_state_dict(checkpoint["state_dict"])
        if isinstance(module, DigitNetwork):
            module.temperature = float(checkpoint.get("temperature", 1.0))
            if not 0 < module.temperature < float("inf"):
                raise ValueError("not a temperature")
        if data is not None:
            corpus, speakers = printable(checkpoint["run"]["corpus"]), set(checkpoint["run"]["train_speakers"])
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"{path}: not a checkpoint of a {kind.trained_as} of this version; {remedy}") from error
    if not all(torch.isfinite(value).all() for value in module.state_dict().values()):
        raise UserError(f"{path}: its weights are not finite; {remedy}")
    if data is not None and corpus != data.corpus.name:
        print(f"Note: {path} was trained on {corpus}, this run is on {data.corpus.name}.", file=sys.stderr)
    elif data is not None and (known := speakers & set(data.names("test"))):
        raise UserError(f"{path}: {len(known)} test speakers were in its training; use its --fold")
    return module.eval()


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a complete checkpoint or none, so that the earlier one can be read whenever a run ends.

    Raises:
        UserError: the disk is full.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_atomically(path, content.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Raises errors of many kinds if it is none, or is larger than any of ours."""
    with zipfile.ZipFile(path) as file:
        if sum(part.file_size for part in file.infolist()) > MAX_BYTES:
            raise ValueError("larger than any checkpoint of these tasks")
    return torch.load(path, map_location="cpu", weights_only=True)
