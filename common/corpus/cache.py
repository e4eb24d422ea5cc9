"""Decode every clip once, into a file of int16 waveforms that all tasks map into memory.

``KEY.npy`` holds the waveforms and ``KEY.json`` the clips that could not be read. The key is a hash of the processing
and of the names and contents of the clips, so a copied corpus is the same corpus, and a changed one has another cache.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from filelock import FileLock

from common.audio import SAMPLE_RATE, SAMPLES
from common.corpus import Clip, Corpus, synthetic
from common.run import UserError, printable, progress_bar, write_atomically

RECIPE = 2  # raise it when the processing changes, so that caches of the old one are not read
RATE_RANGE = (4_000, 384_000)  # Hz; speech below it is not intelligible, and no recorder goes above it
MAX_SECONDS = 30  # a longer file is not one spoken digit
MAX_SAMPLES = MAX_SECONDS * RATE_RANGE[1]  # of all channels, which have to fit into memory
CANCELLED = 0.1  # share of a channel's power below which channels have cancelled each other


class CachedCorpus(NamedTuple):
    """The readable clips of a corpus and their waveforms."""

    clips: tuple[Clip, ...]
    waves: np.ndarray  # [clips, SAMPLES] int16, memory-mapped
    skipped: dict[str, str]  # path -> reason
    key: str  # changes with the clips and with the processing


def open_cache(corpus: Corpus, folder: Path) -> CachedCorpus:
    """Open the cache of ``corpus`` in ``folder``; build it first if there is none or only a damaged one.

    Raises:
        UserError: no clip of the corpus can be read.
        OSError: the cache cannot be written, for example because the disk is full.
    """
    path = folder / f"{_key(corpus)}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # another run may be building the same cache
        try:
            cached = _load(corpus, path)
        except (OSError, EOFError, TypeError, ValueError):  # missing or damaged
            _build(corpus, path)
            cached = _load(corpus, path)
    for clip, reason in list(cached.skipped.items())[:5]:
        print(printable(f"Skipped {clip}: {reason}"), file=sys.stderr)
    if not cached.clips:
        raise UserError(f"{corpus.name}: none of its {len(corpus.clips)} clips can be read; check the files above")
    if cached.skipped:
        print(f"{len(cached.skipped)} of {len(corpus.clips)} clips of {corpus.name} were skipped", file=sys.stderr)
    return cached


def _load(corpus: Corpus, path: Path) -> CachedCorpus:
    """Map the cache in ``path`` into memory. Raises OSError, EOFError, TypeError or ValueError if it is no cache."""
    skipped = dict(json.loads(path.with_suffix(".json").read_bytes()))
    waves = np.load(path, mmap_mode="r")
    clips = tuple(clip for clip in corpus.clips if clip.path not in skipped)
    if waves.dtype != np.int16 or waves.shape != (len(corpus.clips), SAMPLES):
        raise ValueError("damaged")
    return CachedCorpus(clips, waves[: len(clips)], skipped, path.stem)


def _build(corpus: Corpus, path: Path) -> None:
    """Write the readable clips into the first rows of ``path``, in their order; the rows that are left are zero."""
    shape, skipped = (len(corpus.clips), SAMPLES), {}
    pool = ThreadPoolExecutor(usable_cores())  # decoding, resampling and espeak leave the interpreter to others
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file, progress_bar(f"Reading {corpus.name}", shape[0], "clips") as progress:
            # Not a writable memory map: on a full disk it would end the process without a message.
            np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": shape})
            waves = pool.map(lambda clip: _read(corpus.root, clip), corpus.clips)
            for clip, wave in zip(corpus.clips, waves, strict=True):
                if isinstance(wave, str):
                    skipped[clip.path] = wave
                else:
                    file.write(wave.tobytes())
                progress.update()
            file.truncate(file.tell() + len(skipped) * SAMPLES * 2)
            os.fsync(file.fileno())  # otherwise a power failure might leave zeros in a cache that looks complete
        partial.replace(path)
        write_atomically(
            path.with_suffix(".json"), json.dumps(skipped, indent=1)
        )  # last: with it the cache is complete
    finally:
        pool.shutdown(cancel_futures=True)
        partial.unlink(missing_ok=True)


def usable_cores() -> int:
    """The number of cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(root: Path | None, clip: Clip) -> np.ndarray | str:
    """The waveform of one clip, [SAMPLES] int16, or the reason why it cannot be read."""
    try:
        samples, rate = synthetic.speak(*clip[:3]) if root is None else read_clip(root / clip.path)
        return standardise(samples, rate)
    except (ValueError, RuntimeError) as error:  # the latter of espeak-ng
        return str(error)


def _key(corpus: Corpus) -> str:
    total = hashlib.sha256(f"{RECIPE} {SAMPLES} {synthetic.VERSION if corpus.root is None else 'files'}".encode())
    for clip in corpus.clips:
        content = b""
        if corpus.root is not None:
            with contextlib.suppress(ValueError):  # a file that cannot be opened counts as empty
                # All of it, as an edited file may keep its size: AudioMNIST's 950 MB take SHA-256 two seconds.
                content = hashlib.sha256(_content(corpus.root / clip.path)).digest()
        total.update(clip.path.encode("utf-8", "surrogateescape") + b"\n" + content)
    return total.hexdigest()[:16]


def read_clip(path: Path) -> tuple[np.ndarray, int]:
    """Read a sound file as float32 [frames, channels] and its rate in Hz.

    A recorder that was stopped, or a stream, leaves a wrong length in the header, and a copy may have been cut off. So
    what is there is read, whatever the header says.

    Raises:
        ValueError: it cannot be opened or read as sound, or is larger than any recording of a spoken digit.
    """
    content = _content(path)
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


class Stream(soundfile.SoundFile):
    """A sound file that is read to its end. Of a file that can seek, soundfile reads what the header promises."""

    def seekable(self) -> bool:
        return False


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
            raise ValueError("it is not a file")
        if status.st_size > 8 * MAX_SAMPLES:
            raise ValueError(f"its {status.st_size / 1e6:.0f} MB are too many for a spoken digit")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"it cannot be opened ({error.strerror})") from error


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
