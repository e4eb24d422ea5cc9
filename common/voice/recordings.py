"""Read recordings of one spoken digit each, from sound files of any kind, in the form that the models take."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from common.audio import SAMPLES
from common.corpus.decode import read_clip, standardise
from common.data import Batch
from common.run.console import printable


def read_recording(path: str | Path) -> np.ndarray:
    """One recording, in any format that libsndfile reads, as [16000] int16, see ``common.corpus.decode.standardise``.

    Raises:
        ValueError: it cannot be read, is silent, or has a rate or length that is not a spoken digit's.
    """
    try:
        return standardise(*read_clip(Path(path)))
    except OSError as error:
        raise ValueError(f"it cannot be opened ({error.strerror})") from error
    except soundfile.LibsndfileError as error:
        raise ValueError(f"it cannot be read as sound ({error.error_string})") from error


def read_recordings(paths: Iterable[str | Path]) -> tuple[np.ndarray, list[str]]:
    """The recordings that can be used, [n, 16000] int16, and for each path its fault, or "" if it has none."""
    waves, faults = [], []
    for path in paths:
        try:
            waves.append(read_recording(path))
            faults.append("")
        except ValueError as error:
            faults.append(printable(str(error)))
    return np.array(waves, dtype=np.int16).reshape(-1, SAMPLES), faults


def answer(function: Callable[[list[Batch]], Iterable[dict]], paths: Sequence[Path]) -> list[dict]:
    """Apply ``function``, which maps a loader of n recordings to n answers, to sound files.

    Returns an answer for each path, with its ``file``. If it cannot be used, its ``error`` is also printed on stderr.
    """
    waves, faults = read_recordings(paths)
    batches = [Batch(part, *[torch.full((len(part),), -1)] * 2) for part in torch.from_numpy(waves).split(256)]
    remaining, answers = iter(function(batches) if len(waves) else ()), []
    for path, fault in zip(paths, faults, strict=True):
        if fault:
            print(f"{printable(str(path))}: {fault}", file=sys.stderr)
        answers.append({"file": str(path)} | ({"error": fault} if fault else next(remaining)))
    return answers
