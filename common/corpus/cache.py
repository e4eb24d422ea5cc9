"""Decode every clip once, into one file of int16 waveforms that all tasks map into memory.

The file is named after what it was made from (files, sizes, times, settings). It is built in a temporary folder and
renamed when it is complete, so a half-built cache is never read, and two runs that build the same one do no harm.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.audio import SAMPLES
from common.corpus import synthetic
from common.corpus.clips import Clip, Corpus
from common.corpus.decode import RECIPE, read_clip, standardise
from common.corpus.working import working_folder
from common.run import UserError, printable, progress_bar

CHUNK = 32  # clips that a worker reads at a time: about 1 MB


class CachedCorpus(NamedTuple):
    """The readable clips of a corpus and their waveforms."""

    clips: tuple[Clip, ...]
    waves: np.ndarray  # [clips, SAMPLES] int16, memory-mapped
    skipped: dict[str, str]  # path -> reason
    key: str  # changes with the files and with the processing


def open_cache(corpus: Corpus, folder: Path) -> CachedCorpus:
    """Open the cache of ``corpus`` in ``folder``; build it first if there is none or only a damaged one.

    Raises:
        UserError: no clip of the corpus can be read, the cache cannot be written, or a worker process was killed.
    """
    path = folder / f"{_key(corpus)}.waves"
    try:
        cached = _load(corpus, path)
    except (OSError, TypeError, ValueError):  # missing or damaged
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
    """Map the cache in ``path`` into memory. Raises OSError, TypeError or ValueError if it is missing or damaged."""
    waves = np.memmap(path, np.int16, mode="r", shape=(len(corpus.clips), SAMPLES))
    # The description of the skipped clips comes after room for all clips, a position that is known before it is read.
    with path.open("rb") as file:
        file.seek(waves.nbytes)
        skipped = dict(json.load(file))
    clips = tuple(clip for clip in corpus.clips if clip.path not in skipped)
    if len(clips) + len(skipped) != len(corpus.clips):
        raise ValueError("of other clips")
    return CachedCorpus(clips, waves[: len(clips)], skipped, path.stem)


def _build(corpus: Corpus, path: Path) -> None:
    skipped = {}
    try:
        with (
            working_folder(path.parent) as folder,
            progress_bar(f"Reading {corpus.name}", len(corpus.clips), "clips") as progress,
        ):
            with (folder / path.name).open("wb") as file:
                # The results have no name: leaving the loop drops them, and that cancels the work that is not begun.
                for clip, result in zip(corpus.clips, _read_all(corpus), strict=True):
                    if isinstance(result, str):
                        skipped[clip.path] = result
                    else:
                        file.write(result.tobytes())
                    progress.update()
                file.seek(len(corpus.clips) * SAMPLES * np.dtype(np.int16).itemsize)
                file.write(json.dumps(skipped).encode())
            (folder / path.name).replace(path)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot write the cache ({error.strerror}); disk full or no write permission?"
        ) from error
    except BrokenProcessPool as error:
        causes = 'out of memory, or a script without `if __name__ == "__main__":`'
        raise UserError(f"{corpus.name}: a process that read clips ended; {causes}?") from error


def _read_all(corpus: Corpus) -> Iterator[np.ndarray | str]:
    """What ``_read`` gives for each clip, read by a process on each core."""
    read = functools.partial(_read, corpus.root)
    workers = min(os.cpu_count() or 1, len(corpus.clips) // CHUNK + 1)
    # Forked workers start in milliseconds; spawned ones import the calling script and torch again.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    try:
        # Not multiprocessing.Pool, which waits forever for a worker that was killed.
        pool = ProcessPoolExecutor(workers, context, _end_with_parent)
    except OSError:  # its semaphores need a writable /dev/shm
        yield from map(read, corpus.clips)
        return
    with pool:
        yield from pool.map(read, corpus.clips, chunksize=CHUNK)


def _end_with_parent() -> None:
    """End this worker soon after its parent, also where that was killed. Otherwise it would wait for work forever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read(root: Path | None, clip: Clip) -> np.ndarray | str:
    """The waveform of one clip, [SAMPLES] int16, or the reason why it cannot be read."""
    try:
        samples, rate = synthetic.speak(*clip[:3]) if root is None else read_clip(root / clip.path)
        return standardise(samples, rate)
    except (ValueError, RuntimeError) as error:  # the latter of espeak-ng
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
