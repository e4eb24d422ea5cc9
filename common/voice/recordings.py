"""Read recordings of one spoken digit each, from sound files of any kind, in the form that the models take."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from common.audio import SAMPLES
from common.corpus.decode import read_clip, standardise
from common.data import Batch
from common.run.console import printable

BATCH = 256  # recordings at a time: 8 MB


def read_recording(path: str | Path) -> np.ndarray:
    """One recording as [16000] int16, see ``common.corpus.decode.standardise``.

    Args:
        path: WAV, FLAC, OGG, MP3 or another format that libsndfile reads; 4 to 384 kHz, at most 30 s.

    Raises:
        ValueError: it cannot be read, is silent, or has a rate or length that is not a spoken digit's.
    """
    try:
        return standardise(*read_clip(Path(path)))
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    except OSError as error:
        raise ValueError(f"it cannot be opened ({error.strerror})") from error
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise ValueError(f"it cannot be read as sound ({reason})") from error


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


def as_batches(waves: np.ndarray) -> list[Batch]:
    """Waveforms [n, 16000] int16 as a loader for ``embed`` or ``predict_digits``; the labels are -1 (unknown)."""
    parts = torch.from_numpy(waves).split(BATCH)
    return [Batch(part, *[torch.full((len(part),), -1)] * 2) for part in parts]


def apply(function: Callable[[np.ndarray], Iterable[Any]], paths: Sequence[Path]) -> Iterator[tuple[Path, str, Any]]:
    """Apply ``function``, which maps waveforms [n, 16000] int16 to n results, to recordings.

    Yields each path with "" and its result, or with its fault and ``None``. Faults are also printed on stderr.
    """
    for first in range(0, len(paths), BATCH):
        part = paths[first : first + BATCH]
        waves, faults = read_recordings(part)
        results = iter(function(waves) if len(waves) else ())
        for path, fault in zip(part, faults, strict=True):
            if fault:
                print(f"{printable(str(path))}: {fault}", file=sys.stderr)
            yield path, fault, None if fault else next(results)
