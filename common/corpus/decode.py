"""Decode one recording: any sound file becomes one second of int16 samples at 16 kHz."""

import io
import re
import stat
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from common.audio import SAMPLE_RATE, SAMPLES

RECIPE = 2  # raise it when the processing changes, so that caches of the old one are not read
RATE_RANGE = (4_000, 384_000)  # Hz; speech below it is not intelligible, and no recorder goes above it
MAX_SECONDS = 30  # a longer file is not one spoken digit
MAX_SAMPLES = MAX_SECONDS * RATE_RANGE[1]  # of all channels, which have to fit into the memory of a worker
CANCELLED = 0.1  # share of a channel's power below which channels have cancelled each other


class Stream(soundfile.SoundFile):
    """A sound file that is read to its end. Of a file that can seek, soundfile reads what the header promises."""

    def seekable(self) -> bool:
        return False


def read_clip(path: Path) -> tuple[np.ndarray, int]:
    """Read a sound file as float32 [frames, channels] and its rate in Hz.

    A recorder that was stopped, or a stream, leaves a wrong length in the header, and a copy may have been cut off. So
    what is there is read, whatever the header says.

    Raises:
        ValueError: it cannot be opened or read as sound, or is larger than any recording of a spoken digit.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
            raise ValueError("it is not a file")
        if status.st_size > 8 * MAX_SAMPLES:
            raise ValueError(f"its {status.st_size / 1e6:.0f} MB are too many for a spoken digit")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"it cannot be opened ({error.strerror})") from error
    if content.startswith(b"RIFF"):  # libsndfile reads no samples where their size is 0, and all where it is unknown
        content = re.sub(b"data\0{4}(?!LIST|id3 |fact|bext|cue |smpl|PEAK)", b"data\xff\xff\xff\xff", content, count=1)
    parts: list[np.ndarray] = []
    try:
        with Stream(io.BytesIO(content)) as file:
            while len(part := file.read(4096, dtype="float32", always_2d=True)):
                parts.append(part)
                if len(parts) * 4096 * file.channels > MAX_SAMPLES:
                    raise ValueError(f"its samples in {file.channels} channels are too many for a spoken digit")
    except soundfile.LibsndfileError as error:
        if not parts:
            raise ValueError(f"it cannot be read as sound ({error.error_string or 'damaged'})") from error
    return np.concatenate(parts or [np.zeros((0, 1))]), file.samplerate


def standardise(samples: np.ndarray, rate: int) -> np.ndarray:
    """Bring a recording, [frames] or [frames, channels] float at ``rate`` Hz, into the form that every model takes.

    Mix to mono, or take the strongest channel where the mix cancels it; resample to 16 kHz, remove the mean, scale the
    peak to the largest int16, and cut or pad to one second, [SAMPLES] int16: a shorter clip is centred in zeros, a
    longer one keeps the second with the most energy.

    Raises:
        ValueError: no samples, values that are not finite, silence, or a rate or length that is not a spoken digit's.
    """
    if not RATE_RANGE[0] <= rate <= RATE_RANGE[1]:
        raise ValueError(f"its sampling rate is {rate} Hz")
    if len(samples) == 0:
        raise ValueError("it holds no samples")
    if len(samples) > MAX_SECONDS * rate:
        raise ValueError(f"it is longer than {MAX_SECONDS} s, too long for one spoken digit")
    with np.errstate(over="ignore", invalid="ignore"):  # values that are or become infinite are refused below
        wave = samples.mean(axis=1) if samples.ndim == 2 else samples
        if samples.ndim == 2 and samples.var(axis=0).max() * CANCELLED > wave.var():  # one pole is swapped
            wave = samples[:, samples.var(axis=0).argmax()]
        if rate != SAMPLE_RATE:
            from scipy.signal import resample_poly  # slow to import, and only needed while a cache is built

            # Exact for the usual rates; for an odd one such as 44,099 Hz the exact filter would take much memory.
            ratio = Fraction(SAMPLE_RATE, rate).limit_denominator(1000)
            wave = resample_poly(wave, ratio.numerator, ratio.denominator)
        wave = wave - wave.mean()
        if len(wave) > SAMPLES:
            energy = np.concatenate(([0.0], np.cumsum(wave.astype(np.float64) ** 2)))
            start = int(np.argmax(energy[SAMPLES:] - energy[:-SAMPLES]))
            wave = wave[start : start + SAMPLES]
    peak = np.abs(wave).max()
    if not np.isfinite(peak):
        raise ValueError("it holds values that are not finite or too large to calculate with")
    if peak < 1e-5:  # below the last of 16 bits
        raise ValueError("it is silent")
    before = (SAMPLES - len(wave)) // 2
    padded = np.zeros(SAMPLES, dtype=np.int16)
    padded[before : before + len(wave)] = np.round(wave * (32767 / peak))
    return padded
