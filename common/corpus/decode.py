"""Decode one recording: any sound file becomes one second of int16 samples at 16 kHz."""

import os
import stat
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from common.audio import SAMPLE_RATE, SAMPLES

RECIPE = 1  # raise it when the processing changes, so that caches of the old one are not read
RATE_RANGE = (4_000, 384_000)  # Hz; speech below it is not intelligible, and no recorder goes above it
MAX_SECONDS = 30  # a longer file is not one spoken digit


def read_clip(path: Path) -> tuple[np.ndarray, int]:
    """Read a sound file as float32 [frames, channels] and its rate in Hz; its header is checked first.

    Raises:
        ValueError: it is not a regular file, or its rate, length or number of channels is not that of a spoken digit.
        OSError, RuntimeError: it cannot be opened; soundfile's errors are RuntimeErrors.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait forever
        raise ValueError("it is not a file")
    with soundfile.SoundFile(os.fsencode(path)) as file:  # soundfile itself cannot encode every name
        _check(file.frames, file.samplerate)
        if file.frames * file.channels > MAX_SECONDS * RATE_RANGE[1]:  # a worker has to hold all channels in memory
            raise ValueError(f"it has {file.channels} channels, too many for one spoken digit")
        return file.read(file.frames, dtype="float32", always_2d=True), file.samplerate


def standardise(samples: np.ndarray, rate: int) -> np.ndarray:
    """Bring a recording into the form that every model takes.

    Mix to mono, resample to 16 kHz, remove the mean, scale the peak to the largest int16, and cut or pad to one second:
    a shorter clip is centred in zeros, a longer one keeps the second with the most energy.

    Args:
        samples: [frames] or [frames, channels], float.
        rate: sampling rate of ``samples`` in Hz.

    Returns:
        [SAMPLES] int16.

    Raises:
        ValueError: no samples, values that are not finite, silence, or a rate or length that is not a spoken digit's.
    """
    _check(len(samples), rate)
    with np.errstate(over="ignore", invalid="ignore"):  # values that are or become infinite are refused below
        wave = samples.mean(axis=1) if samples.ndim == 2 else samples
        if not np.isfinite(wave).all():
            raise ValueError("it holds values that are not finite")
        if rate != SAMPLE_RATE:
            from scipy.signal import resample_poly  # slow to import, and only needed while a cache is built

            # Exact for the rates in use. For an odd rate such as 383,999 Hz the exact filter would take 400 MB; this
            # one is off by a millionth at most.
            ratio = Fraction(SAMPLE_RATE, rate).limit_denominator(1000)
            wave = resample_poly(wave, ratio.numerator, ratio.denominator)
        wave = wave - wave.mean()
        if len(wave) > SAMPLES:
            energy = np.concatenate(([0.0], np.cumsum(wave.astype(np.float64) ** 2)))
            start = int(np.argmax(energy[SAMPLES:] - energy[:-SAMPLES]))
            wave = wave[start : start + SAMPLES]
    peak = np.abs(wave).max()
    if not np.isfinite(peak):
        raise ValueError("it holds values too large to calculate with")
    if peak < 1e-5:  # below the last of 16 bits
        raise ValueError("it is silent")
    before = (SAMPLES - len(wave)) // 2
    padded = np.zeros(SAMPLES, dtype=np.int16)
    padded[before : before + len(wave)] = np.round(wave * (32767 / peak))
    return padded


def _check(frames: int, rate: int) -> None:
    if not RATE_RANGE[0] <= rate <= RATE_RANGE[1]:
        raise ValueError(f"its sampling rate is {rate} Hz")
    if frames == 0:
        raise ValueError("it holds no samples")
    if frames > MAX_SECONDS * rate:
        raise ValueError(f"it lasts {frames / rate:.0f} s, too long for one spoken digit")
