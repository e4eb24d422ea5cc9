"""Decode every clip once: a memory-mapped array of int16 waveforms on disk, shared by all tasks.

One second at 16 kHz per clip. The cache is named after what it was made from (files, sizes, times, settings), built
beside its final place and renamed into it, so a half-built cache is never read and two runs that build the same one
at the same moment both end with a whole one.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from common import synthetic
from common.corpus import Clip, Corpus
from common.errors import UserError

SAMPLE_RATE = 16_000  # Hz
SAMPLES = SAMPLE_RATE  # one second per clip
RECIPE = 1  # raise when the processing changes, so that old caches are not read
CHUNK = 32  # clips per job: about 1 MB
RATE_RANGE = (4_000, 384_000)  # Hz; below it speech is not intelligible, above it no recorder goes
MAX_SECONDS = 30.0  # a longer file is not one spoken digit, and would not fit in memory at any length
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
    if not (place / "skipped.json").is_file():
        place = _build(corpus, _writable(folder) / place.name)
    skipped = json.loads((place / "skipped.json").read_text())
    _report(corpus, skipped)
    waves = np.memmap(place / "waves.int16", dtype=np.int16, mode="r").reshape(-1, SAMPLES)
    return CachedCorpus(tuple(clip for clip in corpus.clips if clip.path not in skipped), waves, skipped, place.name)


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
    if not RATE_RANGE[0] <= rate <= RATE_RANGE[1]:
        raise ValueError(f"its sampling rate is {rate} Hz")
    if len(samples) == 0:
        raise ValueError("it holds no samples")
    if len(samples) > MAX_SECONDS * rate:
        raise ValueError(f"it lasts {len(samples) / rate:.0f} s, too long for one spoken digit")
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
    """Read at most MAX_SECONDS and a bit of a sound file as float32 [frames, channels] and its rate in Hz."""
    with soundfile.SoundFile(path) as file:
        limit = int(MAX_SECONDS * file.samplerate) + 1
        if file.frames > limit:
            raise ValueError(f"it lasts {file.frames / file.samplerate:.0f} s, too long for one spoken digit")
        return file.read(limit, dtype="float32", always_2d=True), file.samplerate


def _resample(wave: np.ndarray, rate: int) -> np.ndarray:
    if rate == SAMPLE_RATE:
        return wave
    from scipy.signal import resample_poly  # slow to import, and only needed while a cache is built

    divisor = np.gcd(rate, SAMPLE_RATE)
    return resample_poly(wave, SAMPLE_RATE // divisor, rate // divisor)


def _loudest_second(wave: np.ndarray) -> np.ndarray:
    if len(wave) <= SAMPLES:
        return wave
    energy = np.concatenate(([0.0], np.cumsum(wave.astype(np.float64) ** 2)))
    start = int(np.argmax(energy[SAMPLES:] - energy[:-SAMPLES]))
    return wave[start : start + SAMPLES]


def _key(corpus: Corpus) -> str:
    digest = hashlib.sha256(f"{RECIPE} {SAMPLES} {corpus.root and corpus.root.resolve()}\n".encode())
    for clip in corpus.clips:
        if corpus.root is None:
            digest.update(f"{clip.path} {synthetic.VERSION}\n".encode())
        else:
            status = (corpus.root / clip.path).stat()
            # The time of change moves with the permissions too: a file that could not be read may be readable now.
            digest.update(
                f"{clip.path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
    return digest.hexdigest()[:16]


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


def _build(corpus: Corpus, place: Path) -> Path:
    if (place / "skipped.json").is_file():  # built earlier in the folder that _writable chose
        return place
    _remove_abandoned(place.parent)
    half_built = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        skipped = {}
        with (half_built / "waves.int16").open("wb") as file:
            for waves, unreadable in _read_all(corpus):
                file.write(waves.tobytes())
                skipped |= unreadable
        (half_built / "skipped.json").write_text(json.dumps(skipped, indent=1))
        _move(half_built, place)
    except OSError as error:
        raise UserError(f"{place.parent}: cannot write the cache ({error.strerror}); free some space") from error
    except BrokenProcessPool as error:
        raise UserError(f"{corpus.name}: a process that read clips was killed, perhaps for want of memory") from error
    finally:
        shutil.rmtree(half_built, ignore_errors=True)
    return place


def _move(half_built: Path, place: Path) -> None:
    try:
        half_built.rename(place)
    except OSError:
        if not (place / "skipped.json").is_file():  # else another run was faster, and its cache is the same
            raise


def _remove_abandoned(folder: Path) -> None:
    """Remove what a build that was killed left behind; one that is at work has written within the hour."""
    for half_built in folder.glob(".*"):
        if (
            half_built.is_dir()
            and time.time() - max(f.stat().st_mtime for f in [half_built, *half_built.iterdir()]) > 3600
        ):
            shutil.rmtree(half_built, ignore_errors=True)


def _read_all(corpus: Corpus) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
    """Read on all cores: for each chunk, in order, the waveforms that could be read and the reasons for the others."""
    jobs = [(corpus.root, corpus.clips[i : i + CHUNK]) for i in range(0, len(corpus.clips), CHUNK)]
    # Forked workers start in milliseconds; spawned ones would import the calling script and torch again.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    progress = tqdm(total=len(corpus.clips), desc=f"Reading {corpus.name}", unit=" clips", file=sys.stderr)
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
            unreadable[clip.path] = " ".join(str(error).split()) or type(error).__name__
    return np.array(waves, dtype=np.int16).reshape(-1, SAMPLES), unreadable


def _report(corpus: Corpus, skipped: dict[str, str]) -> None:
    for path, reason in list(skipped.items())[:5]:
        print(f"Skipped {path}: {reason}", file=sys.stderr)
    if len(skipped) == len(corpus.clips):
        raise UserError(f"{corpus.name}: none of its {len(corpus.clips)} clips can be read; check the files above")
    if skipped:
        loud = "WARNING: " if len(skipped) > LOUD_SHARE * len(corpus.clips) else ""
        print(f"{loud}{len(skipped)} of {len(corpus.clips)} clips of {corpus.name} were skipped", file=sys.stderr)
