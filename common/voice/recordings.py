"""Anybody's recordings, one digit each, brought to the form that the models see."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from common.audio import SAMPLES
from common.corpus.cache import read_clip, standardise
from common.data import Batch
from common.run.console import printable

BATCH = 256  # recordings at a time: 8 MB


def read_recording(path: Path) -> np.ndarray:
    """One recording as [16000] int16, see ``common.corpus.cache.standardise``.

    WAV, FLAC, OGG, MP3 and whatever else libsndfile reads; 4 to 384 kHz, up to 30 s.

    Raises:
        ValueError: it cannot be read, is silent, or is no spoken digit by its rate or length; the message says which.
    """
    try:
        return standardise(*read_clip(path))
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    except OSError as error:
        raise ValueError(f"it cannot be opened ({error.strerror})") from error
    except RuntimeError as error:  # soundfile's, whose message holds the path once more
        raise ValueError(f"it cannot be read as sound ({str(error).rpartition(': ')[2].rstrip('.')})") from error


def read_recordings(paths: Iterable[Path]) -> tuple[np.ndarray, list[str]]:
    """The recordings that can be used, [n, 16000] int16, and for each path what is wrong with it or ""."""
    waves, faults = [], []
    for path in paths:
        try:
            waves.append(read_recording(path))
            faults.append("")
        except ValueError as error:
            faults.append(printable(str(error)))
    return np.array(waves, dtype=np.int16).reshape(-1, SAMPLES), faults


def as_batches(waves: np.ndarray) -> list[Batch]:
    """Waveforms [n, 16000] int16 without labels (-1), as ``common.evaluate.embed`` and ``outputs`` take them."""
    parts = [torch.from_numpy(waves[i : i + BATCH]) for i in range(0, len(waves), BATCH)]
    return [Batch(part, *[torch.full((len(part),), -1)] * 2) for part in parts]


def report_faults(paths: Sequence[Path], faults: Sequence[str]) -> bool:
    """Write a line to stderr for each recording that has a fault; whether there was one."""
    for path, fault in zip(paths, faults, strict=True):
        if fault:
            print(f"{printable(str(path))}: {fault}", file=sys.stderr)
    return any(faults)
