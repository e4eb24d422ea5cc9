"""Every clip is decoded once, and each row of the cache belongs to its clip, whatever happens to a build."""

import contextlib
import functools
import multiprocessing
import os
import select
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from benchmarks import fuzz_audio

from common.audio import SAMPLES
from common.corpus import Corpus, cache, open_folder
from common.corpus.cache import CachedCorpus, open_cache, read_clip, standardise
from common.run import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork")  # torch's threads are idle while the workers are started


@pytest.fixture
def corpus(tmp_path, write_tones, monkeypatch) -> Corpus:
    """24 clips, which the workers read in five chunks."""
    monkeypatch.setattr(cache, "CHUNK", 5)
    return open_folder(write_tones(tmp_path / "tones", ["01", "02", "03"], digits=[0, 7], repetitions=4))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def assert_rows_match(cached: CachedCorpus, corpus: Corpus) -> None:
    assert len(cached.waves) == len(cached.clips) and cached.waves.dtype == np.int16
    for clip, wave in zip(cached.clips, cached.waves, strict=True):
        np.testing.assert_array_equal(wave, standardise(*read_clip(corpus.root / clip.path)), err_msg=clip.path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def observe_build(monkeypatch, action) -> None:
    """Call ``action`` in the middle of the next build: after its first clip."""
    progress = SimpleNamespace(update=functools.cache(action))  # the cache calls it once
    monkeypatch.setattr(cache, "progress_bar", lambda *_: contextlib.nullcontext(progress))


def test_each_row_is_its_clip_decoded_once_into_one_file(corpus, folder):
    cached = open_cache(corpus, folder)
    assert cached.clips == corpus.clips and cached.skipped == {}
    assert_rows_match(cached, corpus)
    assert len({wave.tobytes() for wave in cached.waves}) == 24, "each tone is different"
    assert isinstance(cached.waves, np.memmap) and names(folder) == [f"{cached.key}.waves"]
    before = (folder / f"{cached.key}.waves").stat().st_ino
    again = open_cache(corpus, folder)
    assert again.clips == cached.clips and np.array_equal(again.waves, cached.waves)
    assert (folder / f"{cached.key}.waves").stat().st_ino == before, "the second time it is only opened"


def test_unreadable_files_are_reported_and_shift_no_other_row(corpus, folder, capfd):
    (corpus.root / "01/0_01_0.wav").write_bytes(b"")
    (corpus.root / "01/7_01_3.wav").write_text("not audio")
    soundfile.write(corpus.root / "02/7_02_1.wav", np.zeros(4800), 16_000)
    (corpus.root / "03/7_03_3.wav").write_bytes((corpus.root / "03/7_03_2.wav").read_bytes()[:20])
    bad = ["01/0_01_0.wav", "01/7_01_3.wav", "02/7_02_1.wav", "03/7_03_3.wav"]
    for _ in range(2):  # built, and opened again
        cached = open_cache(corpus, folder)
        assert list(cached.skipped) == bad and all(cached.skipped.values())
        assert cached.clips == tuple(clip for clip in corpus.clips if clip.path not in bad)
        assert_rows_match(cached, corpus)
        told = capfd.readouterr().err
        assert all(f"Skipped {path}: {cached.skipped[path]}\n" in told for path in bad)
        assert "silent" in cached.skipped["02/7_02_1.wav"] and "4 of 24 clips of tones were skipped" in told


def test_a_fuzzed_corpus_loses_no_file_without_a_word(tmp_path):
    report = fuzz_audio.sweep(tmp_path, 300, seed=0, seconds=120)
    assert (report.crashes, report.wrong) == ([], [])
    total = sum(report.counts.values(), Counter())
    assert total["files"] == 300 and all(total[key] > 5 for key in ("read", "skipped", "left alone"))
    assert len(report.counts) == len(fuzz_audio.MUTATIONS)


@pytest.mark.parametrize("change", ["content", "permissions", "choice", "recipe"])
def test_a_change_of_files_choice_or_processing_has_a_cache_of_its_own(corpus, folder, monkeypatch, change):
    """A file whose permissions were corrected may be readable now."""
    key = open_cache(corpus, folder).key
    path = corpus.root / corpus.clips[13].path
    if change == "content":  # of the same size
        path.write_bytes((corpus.root / corpus.clips[2].path).read_bytes())
    elif change == "permissions":
        path.chmod(0o600)
    elif change == "choice":
        corpus = corpus.take(0.5, 1)
    else:
        monkeypatch.setattr(cache, "RECIPE", cache.RECIPE + 1)
    cached = open_cache(corpus, folder)
    assert cached.key != key and cached.clips == corpus.clips and len(names(folder)) == 2
    assert_rows_match(cached, corpus)


def test_an_interrupted_build_is_never_taken_for_a_cache_and_leaves_nothing(corpus, folder, monkeypatch):
    during = []

    def interrupt():
        during.extend(names(folder))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        observe_build(patch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_cache(corpus, folder)
    assert len(during) == 1 and during[0].startswith(".audio-tasks-partial-") and names(folder) == []
    assert_rows_match(open_cache(corpus, folder), corpus)


@pytest.mark.skipif(sys.platform != "linux", reason="only forked workers inherit a patched function")
def test_a_killed_worker_is_an_error_of_one_line(corpus, folder, monkeypatch):
    monkeypatch.setattr(cache, "standardise", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(
        UserError, match=r"^tones: a process that read clips ended; out of memory, or a script without[^\n]*$"
    ):
        open_cache(corpus, folder)
    assert names(folder) == []


@pytest.mark.slow  # each process imports torch
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_build_works_however_processes_start(corpus, folder, monkeypatch, method):
    context = multiprocessing.get_context(method)
    monkeypatch.setattr(cache.multiprocessing, "get_context", lambda _: context)
    assert_rows_match(open_cache(corpus, folder), corpus)


def test_a_full_disk_is_an_error_of_one_line_and_leaves_other_caches_as_they_are(corpus, folder, full_disk):
    few = corpus.take(0.25, seed=0)
    before = open_cache(few, folder).waves.copy()
    problem = rf"^{folder}: cannot write the cache \([^\n]*\); disk full or no write permission\?$"
    with full_disk(500_000), pytest.raises(UserError, match=problem):  # 24 clips need 768 kB
        open_cache(corpus, folder)
    assert len(names(folder)) == 1
    assert np.array_equal(open_cache(few, folder).waves, before)
    assert_rows_match(open_cache(corpus, folder), corpus)


def test_two_runs_that_build_the_same_cache_at_once_both_have_it(corpus, folder, monkeypatch):
    other = []

    def build_too():
        monkeypatch.undo()
        other.append(open_cache(corpus, folder))

    observe_build(monkeypatch, build_too)
    mine = open_cache(corpus, folder)
    assert mine.key == other[0].key and names(folder) == [f"{mine.key}.waves"]
    assert_rows_match(mine, corpus)
    assert_rows_match(other[0], corpus)


def test_leftovers_of_a_killed_build_are_removed_after_a_day(corpus, folder):
    for name, age in ((".audio-tasks-partial-a", 25 * 3600), (".audio-tasks-partial-c", 60)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    cached = open_cache(corpus, folder)
    assert names(folder) == [".audio-tasks-partial-c", f"{cached.key}.waves"]


DAMAGE = {
    "empty": lambda content: b"",
    "a clip more": lambda content: content[: 2 * SAMPLES] + content,
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_built_again(corpus, folder, damage):
    (corpus.root / corpus.clips[0].path).write_text("not audio")
    expected = open_cache(corpus, folder)
    path = folder / f"{expected.key}.waves"
    content = path.read_bytes()
    path.unlink()  # the memory map is of the old file
    path.write_bytes(DAMAGE[damage](content))
    cached = open_cache(corpus, folder)
    assert cached.clips == expected.clips and cached.skipped == expected.skipped
    assert_rows_match(cached, corpus)
    assert path.read_bytes() == content and names(folder) == [path.name]


def test_workers_end_when_their_parent_is_killed():
    ended, alive = os.pipe()  # the second end is open as long as one of the processes lives

    def begin_and_be_killed():
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"), cache._end_with_parent)
        pool.submit(os.getpid).result()
        os.kill(os.getpid(), signal.SIGKILL)

    multiprocessing.get_context("fork").Process(target=begin_and_be_killed).start()
    os.close(alive)
    assert select.select([ended], [], [], 60)[0], "a worker still waits for work"
    os.close(ended)
