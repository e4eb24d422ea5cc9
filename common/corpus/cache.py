"""Decode every clip once: a memory-mapped array of int16 waveforms on disk, shared by all tasks.

One second at 16 kHz per clip. The cache is named after what it was made from (files, sizes, times, settings), built
beside its final place and renamed into it, so a half-built cache is never read and two runs that build the same one
at the same moment both end with a whole one. One that was damaged later is built again.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from common.audio import SAMPLE_RATE, SAMPLES
from common.corpus import synthetic
from common.corpus.clips import Clip, Corpus
from common.run.console import UserError, printable, progress_bar

RECIPE = 1  # raise when the processing changes, so that old caches are not read
CHUNK = 32  # clips per job: about 1 MB
RATE_RANGE = (4_000, 384_000)  # Hz; below it speech is not intelligible, above it no recorder goes
MAX_SECONDS = 30  # a longer file is not one spoken digit
MAX_SAMPLES = MAX_SECONDS * RATE_RANGE[1]  # in all channels together: what a worker may have to hold in memory
LOUD_SHARE = 0.01  # skipping more than this share of the clips deserves a loud warning


class CachedCorpus(NamedTuple):
    """The readable clips of a corpus and their waveforms."""

    clips: tuple[Clip, ...]
    waves: np.ndarray  # [clips, SAMPLES] int16, memory-mapped
    skipped: dict[str, str]  # path -> reason
    key: str  # changes with the files and with what is done to them


def open_cache(corpus: Corpus, folder: Path) -> CachedCorpus:
    """Open the cache of ``corpus`` below ``folder``, building it first if it is not there.

    Raises:
        UserError: no clip of the corpus can be read, or the disk is full.
    """
    place = folder / _key(corpus)
    cached = _load(corpus, place)
    if cached is None:
        place = _writable(folder) / place.name
        cached = _load(corpus, place)
    if cached is None:
        _build(corpus, place)
        cached = _load(corpus, place)
    if cached is None:
        raise UserError(f"{place}: somebody changed this cache while it was opened; run again")
    _report(corpus, cached.skipped)
    return cached


def _load(corpus: Corpus, place: Path) -> CachedCorpus | None:
    """The cache in ``place``; ``None`` where there is none or only a damaged one."""
    try:
        skipped = json.loads((place / "skipped.json").read_text())
        file = place / "waves.int16"
        # An empty file, of a corpus that nobody can read, cannot be mapped.
        waves = np.memmap(file, np.int16, mode="r") if file.stat().st_size else np.empty(0, np.int16)
        waves = waves.reshape(-1, SAMPLES)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(skipped, dict):
        return None
    clips = tuple(clip for clip in corpus.clips if clip.path not in skipped)
    return CachedCorpus(clips, waves, skipped, place.name) if len(clips) == len(waves) else None


def standardise(samples: np.ndarray, rate: int) -> np.ndarray:
    """Bring a recording to the form that every model sees.

    Mix to mono, resample to 16 kHz, remove the mean, scale the peak to 1, and cut or pad to one second: a shorter clip
    is centred in zeros, a longer one keeps the second that has the most energy.

    Args:
        samples: [frames] or [frames, channels], float.
        rate: sampling rate of ``samples`` in Hz.

    Returns:
        [SAMPLES] int16.

    Raises:
        ValueError: no samples, values that are not finite, silence, or a rate or length that is not a spoken digit's.
    """
    _check(len(samples), rate)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite, or becomes so, is refused
        mono = samples.mean(axis=1) if samples.ndim == 2 else samples
        if not np.isfinite(mono).all():
            raise ValueError("it holds values that are not finite")
        wave = _resample(mono, rate)
        wave = _loudest_second(wave - wave.mean())
    peak = np.abs(wave).max()
    if not np.isfinite(peak):
        raise ValueError("it holds values too large to calculate with")
    if peak < 1e-5:  # below the last bit of 16
        raise ValueError("it is silent")
    before = (SAMPLES - len(wave)) // 2
    padded = np.zeros(SAMPLES, dtype=np.int16)
    padded[before : before + len(wave)] = np.round(wave * (32767 / peak))
    return padded


def read_clip(path: Path) -> tuple[np.ndarray, int]:
    """Read a sound file as float32 [frames, channels] and its rate in Hz; errors as in ``open_clip``."""
    with open_clip(path) as file:
        return file.read(file.frames, dtype="float32", always_2d=True), file.samplerate


@contextlib.contextmanager
def open_clip(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a sound file that may be a spoken digit, of which nothing but the header has been read.

    Raises:
        ValueError: it is not a file, or no spoken digit by its rate, length or number of channels.
        OSError, RuntimeError: it cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, for ever
        raise ValueError("it is not a file")
    with soundfile.SoundFile(os.fsencode(path)) as file:  # soundfile itself cannot encode every name
        _check(file.frames, file.samplerate)
        if file.frames * file.channels > MAX_SAMPLES:
            raise ValueError(f"it has {file.channels} channels, too many for one spoken digit")
        yield file


def _check(frames: int, rate: int) -> None:
    if not RATE_RANGE[0] <= rate <= RATE_RANGE[1]:
        raise ValueError(f"its sampling rate is {rate} Hz")
    if frames == 0:
        raise ValueError("it holds no samples")
    if frames > MAX_SECONDS * rate:
        raise ValueError(f"it lasts {frames / rate:.0f} s, too long for one spoken digit")


def _resample(wave: np.ndarray, rate: int) -> np.ndarray:
    if rate == SAMPLE_RATE:
        return wave
    from scipy.signal import resample_poly  # slow to import, and only needed while a cache is built

    # Exact for the rates in use. The filter for an odd one, such as 383,999 Hz, would take 400 MB; this is off by a
    # millionth at most.
    ratio = Fraction(SAMPLE_RATE, rate).limit_denominator(1000)
    return resample_poly(wave, ratio.numerator, ratio.denominator)


def _loudest_second(wave: np.ndarray) -> np.ndarray:
    if len(wave) <= SAMPLES:
        return wave
    energy = np.concatenate(([0.0], np.cumsum(wave.astype(np.float64) ** 2)))
    start = int(np.argmax(energy[SAMPLES:] - energy[:-SAMPLES]))
    return wave[start : start + SAMPLES]


def _key(corpus: Corpus) -> str:
    lines = [f"{RECIPE} {SAMPLES} {corpus.root and corpus.root.resolve()}\n"]
    for clip in corpus.clips:
        lines.append(f"{clip.path} {_state(corpus.root / clip.path) if corpus.root else synthetic.VERSION}\n")
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:  # such as a link that leads nowhere; read_clip will say so
        return str(error.errno)
    # The time of change moves with the permissions too: a file that could not be read may be readable now.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _writable(folder: Path) -> Path:
    """``folder``, or where it cannot be written a folder of the user's own."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audio-deep-learning-tasks"
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"neither {folder} nor {home} can be written, one must hold the cache") from error
        return home


def _build(corpus: Corpus, place: Path) -> None:
    half_built = None
    try:
        _remove_abandoned(place.parent)
        half_built = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        skipped = {}
        with (half_built / "waves.int16").open("wb") as file:
            for waves, unreadable in _read_all(corpus):
                file.write(waves.tobytes())
                skipped |= unreadable
        (half_built / "skipped.json").write_text(json.dumps(skipped, indent=1))
        _move(corpus, half_built, place)
    except OSError as error:
        raise UserError(
            f"{place.parent}: cannot write the cache ({error.strerror}); is there room, and may you?"
        ) from error
    except BrokenProcessPool as error:
        raise UserError(f"{corpus.name}: a process that read clips was killed, perhaps for want of memory") from error
    finally:
        if half_built:
            shutil.rmtree(half_built, ignore_errors=True)


def _move(corpus: Corpus, half_built: Path, place: Path) -> None:
    try:
        half_built.rename(place)
    except OSError:
        if _load(corpus, place) is not None:  # another run was faster, and its cache is the same
            return
        if not (place.exists() or place.is_symlink()):
            raise
        # A damaged cache is in the way.
        with tempfile.TemporaryDirectory(
            prefix=f".{place.name}.", dir=place.parent, ignore_cleanup_errors=True
        ) as away:
            place.rename(Path(away) / place.name)
            half_built.rename(place)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a build that was killed left behind; one that is at work has written within the hour."""
    for half_built in folder.glob(".*"):
        with contextlib.suppress(OSError):  # another run may be removing it too
            if half_built.is_dir() and time.time() - max(map(_written, [half_built, *half_built.iterdir()])) > 3600:
                shutil.rmtree(half_built, ignore_errors=True)


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _read_all(corpus: Corpus) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
    """Read on all cores: for each chunk, in order, the waveforms that could be read and the reasons for the others."""
    jobs = [(corpus.root, corpus.clips[i : i + CHUNK]) for i in range(0, len(corpus.clips), CHUNK)]
    # Forked workers start in milliseconds; spawned ones would import the calling script and torch again.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    progress = progress_bar(f"Reading {corpus.name}", len(corpus.clips), "clips")
    # Not multiprocessing.Pool: that waits for ever for a worker that was killed, and can hang when it is given up.
    with progress, ProcessPoolExecutor(min(os.cpu_count() or 1, len(jobs)), context) as pool:
        for waves, unreadable in pool.map(_read_chunk, jobs):
            yield waves, unreadable
            progress.update(len(waves) + len(unreadable))


def _read_chunk(job: tuple[Path | None, tuple[Clip, ...]]) -> tuple[np.ndarray, dict[str, str]]:
    root, clips = job
    waves, unreadable = [], {}
    for clip in clips:
        try:
            samples, rate = synthetic.speak(*clip[:3]) if root is None else read_clip(root / clip.path)
            waves.append(standardise(samples, rate))
        except (ValueError, OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
            unreadable[clip.path] = printable(str(error)) or type(error).__name__
    return np.array(waves, dtype=np.int16).reshape(-1, SAMPLES), unreadable


def _report(corpus: Corpus, skipped: dict[str, str]) -> None:
    for path, reason in list(skipped.items())[:5]:
        print(f"Skipped {printable(path)}: {reason}", file=sys.stderr)
    if len(skipped) == len(corpus.clips):
        raise UserError(f"{corpus.name}: none of its {len(corpus.clips)} clips can be read; check the files above")
    if skipped:
        loud = "WARNING: " if len(skipped) > LOUD_SHARE * len(corpus.clips) else ""
        print(f"{loud}{len(skipped)} of {len(corpus.clips)} clips of {corpus.name} were skipped", file=sys.stderr)
