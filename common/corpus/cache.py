"""Decode every clip once, into one file of int16 waveforms that all tasks map into memory.

The file is named after what it was made from (files, sizes, times, settings). It is written under another name and
renamed when it is complete, so a half-built cache is never read, and two runs that build the same one do no harm.
"""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.audio import SAMPLES
from common.corpus import synthetic
from common.corpus.clips import Clip, Corpus
from common.corpus.decode import RECIPE, read_clip, standardise
from common.run.console import UserError, printable, progress_bar

CHUNK = 32  # clips that a worker reads at a time: about 1 MB


class CachedCorpus(NamedTuple):
    """The readable clips of a corpus and their waveforms."""

    clips: tuple[Clip, ...]
    waves: np.ndarray  # [clips, SAMPLES] int16, memory-mapped
    skipped: dict[str, str]  # path -> reason
    key: str  # changes with the files and with the processing


def open_cache(corpus: Corpus, folder: Path) -> CachedCorpus:
    """Open the cache of ``corpus`` in ``folder``; build it first if there is none or only a damaged one.

    Where ``folder`` cannot be written, the cache goes to the user's own cache folder.

    Raises:
        UserError: no clip of the corpus can be read, the cache cannot be written, or a worker process was killed.
    """
    name = f"{_key(corpus)}.waves"
    cached = _load(corpus, folder / name)
    if cached is None:
        file = _writable(folder) / name
        cached = _load(corpus, file) or _build(corpus, file)
    for path, reason in list(cached.skipped.items())[:5]:
        print(printable(f"Skipped {path}: {reason}"), file=sys.stderr)
    if not cached.clips:
        raise UserError(f"{corpus.name}: none of its {len(corpus.clips)} clips can be read; check the files above")
    if cached.skipped:
        print(f"{len(cached.skipped)} of {len(corpus.clips)} clips of {corpus.name} were skipped", file=sys.stderr)
    return cached


def _load(corpus: Corpus, path: Path) -> CachedCorpus | None:
    """The cache in ``path``, ``None`` if it is missing or damaged.

    The description of the skipped clips comes after room for all clips, a position that is known before it is read.
    """
    try:
        waves = np.memmap(path, np.int16, mode="r", shape=(len(corpus.clips), SAMPLES))
        with path.open("rb") as file:
            file.seek(waves.nbytes)
            skipped = dict(json.load(file))
    except (OSError, TypeError, ValueError, RecursionError):
        return None
    clips = tuple(clip for clip in corpus.clips if clip.path not in skipped)
    complete = len(clips) + len(skipped) == len(corpus.clips)
    return CachedCorpus(clips, waves[: len(clips)], skipped, path.stem) if complete else None


def _build(corpus: Corpus, path: Path) -> CachedCorpus:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    skipped = {}
    workers = min(os.cpu_count() or 1, len(corpus.clips) // CHUNK + 1)
    # Forked workers start in milliseconds; spawned ones import the calling script and torch again.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    try:
        # Remove what killed builds left behind; a build at work has written to its file within the hour.
        for abandoned in path.parent.glob(".*.waves.*.partial"):
            with contextlib.suppress(OSError):  # another run may remove it at the same time
                if time.time() - abandoned.stat().st_mtime > 3600:
                    abandoned.unlink()
        with (
            temporary.open("wb") as file,
            progress_bar(f"Reading {corpus.name}", len(corpus.clips), "clips") as progress,
            # Not multiprocessing.Pool, which waits forever for a worker that was killed.
            ProcessPoolExecutor(workers, context) as pool,
        ):
            read = functools.partial(_read, corpus.root)
            # The results have no name: leaving the loop drops them, and that cancels the work that is not yet begun.
            for clip, result in zip(corpus.clips, pool.map(read, corpus.clips, chunksize=CHUNK), strict=True):
                if isinstance(result, str):
                    skipped[clip.path] = result
                else:
                    file.write(result.tobytes())
                progress.update()
            file.seek(len(corpus.clips) * SAMPLES * np.dtype(np.int16).itemsize)
            file.write(json.dumps(skipped).encode())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot write the cache ({error.strerror}); disk full or no write permission?"
        ) from error
    except BrokenProcessPool as error:
        raise UserError(f"{corpus.name}: a process that read clips was killed; out of memory?") from error
    finally:
        temporary.unlink(missing_ok=True)
    cached = _load(corpus, path)
    if cached is None:
        raise UserError(f"{path}: the new cache cannot be read back; run again or check the disk")
    return cached


def _read(root: Path | None, clip: Clip) -> np.ndarray | str:
    """The waveform of one clip, [SAMPLES] int16, or the reason why it cannot be read."""
    try:
        samples, rate = synthetic.speak(*clip[:3]) if root is None else read_clip(root / clip.path)
        return standardise(samples, rate)
    except (ValueError, OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
        return str(error)


def _key(corpus: Corpus) -> str:
    lines = [f"{RECIPE} {SAMPLES} {corpus.root and corpus.root.resolve()}\n"]
    for clip in corpus.clips:
        state = synthetic.VERSION
        if corpus.root:
            try:
                status = (corpus.root / clip.path).stat()
                # The change time moves with the permissions too: a file that could not be read may be readable now.
                state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            except OSError as error:  # for example a broken link, which read_clip will report
                state = str(error.errno)
        lines.append(f"{clip.path} {state}\n")
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _writable(folder: Path) -> Path:
    users_own = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "audio-deep-learning-tasks")
    for candidate in (folder, users_own):
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
            path = candidate.expanduser()
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                return path
    raise UserError(f"the cache can be written neither to {folder} nor to {users_own}; make one of them writable")
