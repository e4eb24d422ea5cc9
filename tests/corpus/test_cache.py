"""Every clip is decoded once, to one second at 16 kHz, and each row of the cache is the clip it is taken for."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from benchmarks import fuzz_audio

from common.audio import SAMPLES
from common.corpus import cache
from common.corpus.cache import open_cache, read_clip, standardise
from common.corpus.clips import Corpus, open_folder
from common.run.console import UserError


def sine(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def spectrum(wave: np.ndarray) -> np.ndarray:
    """Magnitudes (8001,) in steps of 1 Hz."""
    return np.abs(np.fft.rfft(wave.astype(np.float64)))


# --- standardise


@pytest.mark.parametrize("rate", [48_000, 44_100, 22_050, 16_000, 8_000])
def test_any_sampling_rate_keeps_frequency_and_duration(rate):
    wave = standardise(sine(1000, 0.5, rate), rate)
    assert wave.shape == (16_000,) and wave.dtype == np.int16
    assert abs(int(spectrum(wave).argmax()) - 1000) <= 1
    sounding = np.flatnonzero(np.abs(wave) > 1000)
    assert sounding[0] == pytest.approx(4000, abs=40) and sounding[-1] == pytest.approx(12_000, abs=40)


def test_frequencies_above_8_khz_do_not_come_back_as_lower_ones():
    wave = standardise(sine(11_000, 1.0, 48_000) + 0.1 * sine(1000, 1.0, 48_000), 48_000)
    magnitudes = spectrum(wave)
    assert magnitudes.argmax() == 1000 and magnitudes[5000] < 0.01 * magnitudes[1000]


def test_channels_are_mixed():
    stereo = np.stack([sine(500, 1.0, 16_000), sine(1500, 1.0, 16_000)], axis=1)
    magnitudes = spectrum(standardise(stereo, 16_000))
    assert magnitudes[500] == pytest.approx(magnitudes[1500], rel=0.01)
    assert magnitudes[500] > 100 * np.delete(magnitudes, [500, 1500]).max()


def test_a_constant_offset_is_removed():
    clean = sine(100, 1.0, 16_000)
    difference = standardise(clean + 0.4, 16_000).astype(int) - standardise(clean, 16_000)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("level", [1e-4, 0.03, 1.0, 7.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_peak_is_the_largest_int16(level, dtype):
    wave = standardise((level * sine(440, 0.4, 16_000)).astype(dtype), 16_000).astype(int)
    assert np.abs(wave).max() == 32767


@pytest.mark.parametrize("samples", [2, 4801, 15_999])
def test_a_short_clip_is_centred_in_zeros(samples):
    alternating = np.where(np.arange(samples) % 2, 0.25, -0.25)
    alternating -= alternating.mean()
    wave = standardise(alternating, 16_000)
    sounding = np.flatnonzero(wave)
    before, after = sounding[0], SAMPLES - 1 - sounding[-1]
    assert len(sounding) == samples and abs(int(before) - int(after)) <= 1


@pytest.mark.parametrize("start", [0, 1, 17_123, 32_000])
def test_a_long_clip_keeps_its_loudest_second(start):
    word = sine(440.5, 1.0, 16_000)
    clip = np.zeros(48_000)
    clip[start : start + 16_000] = word
    assert np.abs(standardise(clip, 16_000).astype(int) - standardise(word, 16_000)).max() <= 50


def test_the_loudest_second_is_the_one_with_the_most_energy_and_not_the_highest_peak():
    clip = 1e-3 * np.ones(48_000) * np.where(np.arange(48_000) % 2, 1, -1)
    clip[1000:1010] *= 1000  # a click
    clip[30_000:42_000] *= 300  # a word
    assert np.abs(standardise(clip, 16_000)).min() > 0
    assert (np.abs(standardise(clip, 16_000).astype(int)) > 20_000).sum() == 12_000


@pytest.mark.parametrize(
    "samples, rate",
    [
        (np.zeros(0), 16_000),
        (np.zeros((0, 2)), 16_000),
        (np.zeros(16_000), 16_000),
        (np.full(16_000, 0.5), 16_000),
        (np.ones(1), 16_000),
        (np.full(8000, np.nan), 16_000),
        (np.append(sine(440, 0.5, 16_000), np.inf), 16_000),
        (np.stack([sine(440, 0.5, 16_000), -sine(440, 0.5, 16_000)], axis=1), 16_000),
        (sine(440, 0.5, 16_000), 0),
        (sine(440, 0.5, 16_000), -16_000),
        (sine(440, 0.5, 16_000), 100),
        (sine(440, 0.5, 16_000), 2**31 - 1),
        (sine(440, 31, 16_000), 16_000),
    ],
)
def test_what_cannot_be_a_spoken_digit_is_refused(samples, rate):
    with pytest.raises(ValueError, match="it"):
        standardise(samples, rate)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_finite_values_that_overflow_are_refused_and_not_turned_into_silence():
    with pytest.raises(ValueError, match="it"):
        standardise(np.float32(3e38) * np.abs(sine(440, 0.5, 16_000)).astype(np.float32), 16_000)


# --- open_cache


@pytest.fixture
def corpus(tmp_path, write_tones) -> Corpus:
    """90 clips, more than two jobs of the pool."""
    return open_folder(write_tones(tmp_path / "tones", ["01", "02", "03"], repetitions=3))


def assert_rows_match(cached: cache.CachedCorpus, corpus: Corpus) -> None:
    assert len(cached.waves) == len(cached.clips)
    for clip, wave in zip(cached.clips, cached.waves, strict=True):
        np.testing.assert_array_equal(wave, standardise(*read_clip(corpus.root / clip.path)), err_msg=clip.path)


def forbid_reading(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(cache, "_read_all", refuse)
    monkeypatch.setattr(cache, "read_clip", refuse)


def test_each_row_is_its_clip(corpus, tmp_path):
    cached = open_cache(corpus, tmp_path / "cache")
    assert cached.clips == corpus.clips and cached.skipped == {}
    assert_rows_match(cached, corpus)
    assert len({wave.tobytes() for wave in cached.waves}) == 90, "each tone is another"


def test_unreadable_files_are_named_and_shift_no_other_row(corpus, tmp_path, capfd):
    (corpus.root / "01/0_01_0.wav").write_bytes(b"")
    (corpus.root / "01/9_01_2.wav").write_text("not audio")
    soundfile.write(corpus.root / "02/5_02_1.wav", np.zeros(4800), 16_000)
    (corpus.root / "03/9_03_2.wav").write_bytes((corpus.root / "03/9_03_1.wav").read_bytes()[:20])
    bad = {"01/0_01_0.wav", "01/9_01_2.wav", "02/5_02_1.wav", "03/9_03_2.wav"}
    for _ in range(2):  # built, and opened again
        cached = open_cache(corpus, tmp_path / "cache")
        assert set(cached.skipped) == bad and all(cached.skipped.values())
        assert cached.clips == tuple(clip for clip in corpus.clips if clip.path not in bad)
        assert_rows_match(cached, corpus)
        told = capfd.readouterr().err
        assert all(f"Skipped {path}: {cached.skipped[path]}" in told for path in bad)
        assert "silent" in cached.skipped["02/5_02_1.wav"] and "4 of 90" in told


def test_nothing_readable_is_an_error_of_one_line(corpus, tmp_path):
    for clip in corpus.clips:
        (corpus.root / clip.path).write_text("not audio")
    with pytest.raises(UserError, match="none of its 90 clips") as caught:
        open_cache(corpus, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_audio_is_read_once(corpus, tmp_path, monkeypatch):
    first = open_cache(corpus, tmp_path / "cache")
    forbid_reading(monkeypatch)
    second = open_cache(corpus, tmp_path / "cache")
    assert second.clips == first.clips and np.array_equal(first.waves, second.waves)


@pytest.mark.parametrize("change", ["content of the same size", "size at the same time"])
def test_a_changed_file_is_read_again(corpus, tmp_path, change):
    open_cache(corpus, tmp_path / "cache")
    path = corpus.root / corpus.clips[40].path
    before = path.stat()
    same_size = change.startswith("content")
    soundfile.write(path, sine(3000, 0.3 if same_size else 0.4, 16_000), 16_000, subtype="PCM_16")
    moment = before.st_mtime_ns + (1_000_000 if same_size else 0)
    os.utime(path, ns=(moment, moment))
    assert (path.stat().st_size == before.st_size) == same_size
    assert_rows_match(open_cache(corpus, tmp_path / "cache"), corpus)


def test_another_choice_of_clips_has_a_cache_of_its_own(corpus, tmp_path):
    open_cache(corpus, tmp_path / "cache")
    fewer = corpus.take(0.3, 1)
    cached = open_cache(fewer, tmp_path / "cache")
    assert cached.clips == fewer.clips
    assert_rows_match(cached, corpus)


def test_another_recipe_has_a_cache_of_its_own(corpus, tmp_path, monkeypatch):
    open_cache(corpus, tmp_path / "cache")
    monkeypatch.setattr(cache, "RECIPE", cache.RECIPE + 1)
    open_cache(corpus, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_file_that_can_be_read_after_all_is_not_skipped_for_ever(corpus, tmp_path, monkeypatch):
    """Such as one whose permissions were mended, which leaves its size and time of change as they were."""
    path = corpus.root / corpus.clips[7].path
    with monkeypatch.context() as patch:
        real = read_clip

        def denied(file):
            if file == path:
                raise PermissionError(13, "Permission denied")
            return real(file)

        patch.setattr(cache, "read_clip", denied)
        assert set(open_cache(corpus, tmp_path / "cache").skipped) == {corpus.clips[7].path}
    path.chmod(0o640)
    assert open_cache(corpus, tmp_path / "cache").skipped == {}


def test_an_unwritable_folder_is_replaced_by_the_users_own(corpus, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert_rows_match(open_cache(corpus, tmp_path / "cache"), corpus)
    assert (tmp_path / "home").is_dir()
    forbid_reading(monkeypatch)
    assert len(open_cache(corpus, tmp_path / "cache").clips) == 90


def test_no_writable_folder_at_all_is_an_error_that_a_user_can_read(corpus, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError) as caught:
        open_cache(corpus, tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_an_empty_corpus_is_an_error_that_a_user_can_read(corpus, tmp_path):
    with pytest.raises(UserError):
        open_cache(corpus.take(1e-6, 0), tmp_path / "cache")


def only_whole_caches(folder: Path) -> bool:
    return all(not path.name.startswith(".") and (path / "waves.int16").is_file() for path in folder.iterdir())


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("bug")])
def test_an_interrupted_build_is_never_taken_for_the_cache(corpus, tmp_path, monkeypatch, fault):
    with monkeypatch.context() as patch:
        chunks = list(cache._read_all(corpus))

        def stops(corpus):
            yield chunks[0]
            raise fault

        patch.setattr(cache, "_read_all", stops)
        expected = UserError if isinstance(fault, OSError) else type(fault)
        with pytest.raises(expected):
            open_cache(corpus, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert_rows_match(open_cache(corpus, tmp_path / "cache"), corpus)
    assert only_whole_caches(tmp_path / "cache")


@pytest.mark.parametrize("fault", ["KeyboardInterrupt()", "OSError(28, 'No space left on device')"])
def test_an_interrupted_build_ends_at_once(tmp_path, write_tones, repository, fault):
    """It must not wait for worker processes that wait for it."""
    folder = write_tones(tmp_path / "tones", ["01", "02", "03", "04"], digits=range(5), repetitions=20)
    script = textwrap.dedent(f"""
        import pathlib
        from common.corpus import cache
        from common.corpus.clips import open_folder
        real = cache._read_all
        def stops(corpus):
            yield next(iter(real(corpus)))
            raise {fault}
        cache._read_all = stops
        for attempt in range(3):
            try:
                cache.open_cache(open_folder(pathlib.Path({str(folder)!r})), pathlib.Path({str(tmp_path / "cache")!r}))
            except (KeyboardInterrupt, cache.UserError):
                print("ended", flush=True)
    """)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen([sys.executable, "-c", script], cwd=repository, start_new_session=True, **pipes)
    try:
        assert process.communicate(timeout=120)[0].split() == ["ended"] * 3
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert list((tmp_path / "cache").iterdir()) == []


def test_on_a_full_disk_no_cache_is_begun_and_the_others_stay(corpus, tmp_path, full_disk):
    few = corpus.take(0.2, seed=0)
    waves = open_cache(few, tmp_path / "cache").waves.copy()
    before = sorted((tmp_path / "cache").rglob("*"))
    with full_disk(1_000_000), pytest.raises(UserError) as caught:  # 90 clips need 2.9 MB
        open_cache(corpus, tmp_path / "cache")
    assert "cannot write the cache" in str(caught.value) and "\n" not in str(caught.value)
    assert sorted((tmp_path / "cache").rglob("*")) == before
    assert np.array_equal(open_cache(few, tmp_path / "cache").waves, waves)
    assert_rows_match(open_cache(corpus, tmp_path / "cache"), corpus)


def test_a_run_that_finds_another_one_faster_uses_its_cache(corpus, tmp_path, monkeypatch):
    real, others = cache._read_all, []

    def overtaken(corpus):
        yield from real(corpus)
        if not others:  # both have begun, and the other one ends first
            others.append(None)
            others[0] = open_cache(corpus, tmp_path / "cache")

    monkeypatch.setattr(cache, "_read_all", overtaken)
    mine = open_cache(corpus, tmp_path / "cache")
    assert_rows_match(mine, corpus)
    assert np.array_equal(mine.waves, others[0].waves)
    assert len(list((tmp_path / "cache").iterdir())) == 1 and only_whole_caches(tmp_path / "cache")


def test_two_processes_at_once_end_with_one_whole_cache(corpus, tmp_path, repository):
    script = textwrap.dedent(f"""
        import hashlib, pathlib, time
        from common.corpus.cache import open_cache
        from common.corpus.clips import open_folder
        corpus = open_folder(pathlib.Path({str(corpus.root)!r}))
        print("ready", flush=True)
        while not pathlib.Path({str(tmp_path / "go")!r}).exists():
            time.sleep(0.001)
        cached = open_cache(corpus, pathlib.Path({str(tmp_path / "cache")!r}))
        print(len(cached.clips), hashlib.sha256(cached.waves.tobytes()).hexdigest())
    """)
    command = [sys.executable, "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=repository, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0][0] == answers[1][0] and answers[0][0].startswith("90 ")
    assert len(list((tmp_path / "cache").iterdir())) == 1 and only_whole_caches(tmp_path / "cache")


def test_skipped_files_are_listed_beside_the_waveforms(corpus, tmp_path):
    (corpus.root / "01/0_01_0.wav").write_bytes(b"")
    open_cache(corpus, tmp_path / "cache")
    (place,) = (tmp_path / "cache").iterdir()
    assert list(json.loads((place / "skipped.json").read_text())) == ["01/0_01_0.wav"]


def test_what_a_killed_build_left_is_removed_and_what_is_at_work_is_not(corpus, tmp_path):
    for name, age in ((".old.x", 7200), (".new.x", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "waves.int16").touch()
        for path in (tmp_path / name / "waves.int16", tmp_path / name):
            os.utime(path, (time.time() - age,) * 2)
    open_cache(corpus, tmp_path)
    assert not (tmp_path / ".old.x").exists()
    assert (tmp_path / ".new.x").exists()


# --- bad files


def test_a_fuzzed_corpus_loses_no_file_without_a_word(tmp_path):
    report = fuzz_audio.sweep(tmp_path, 300, seed=0, seconds=120)
    assert (report.crashes, report.wrong) == ([], [])
    total = sum(report.counts.values(), Counter())
    assert total["files"] == 300 and all(total[key] > 5 for key in ("read", "skipped", "left alone"))
    assert len(report.counts) == len(fuzz_audio.MUTATIONS)


@pytest.mark.parametrize("name", ["a b", "Zoë", "李", "line\nend", "\udcff\udcfe"])
def test_a_clip_is_read_whatever_its_name_is_written_in(tmp_path, write_tones, name, capfd):
    folder = write_tones(tmp_path / "tones", ["01"], digits=range(2)).rename(tmp_path / name)
    (folder / "01").rename(folder / name)
    for clip in (folder / name).iterdir():
        clip.rename(clip.with_name(clip.name.replace("01", name)))
    (folder / name / f"5_{name}_1.wav").write_text("not audio")
    corpus = open_folder(folder)
    cached = open_cache(corpus, tmp_path / "cache")
    assert len(cached.clips) == 4 and set(cached.skipped) == {f"{name}/5_{name}_1.wav"}
    assert_rows_match(cached, corpus)
    assert capfd.readouterr().err.rstrip("\n").count("\n") == 2, "progress, the file, the warning: a line each"


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link to nowhere", "link to itself", "link too long"])
def test_what_is_no_file_is_skipped_with_its_reason(corpus, tmp_path, kind):
    path = corpus.root / "01/4_01_1.wav"
    path.unlink()
    links = {"device": "/dev/zero", "link to nowhere": "gone", "link to itself": path.name, "link too long": "x" * 300}
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(links[kind])
    cached = open_cache(open_folder(corpus.root), tmp_path / "cache")
    assert list(cached.skipped) == ["01/4_01_1.wav"] and cached.skipped["01/4_01_1.wav"]
    assert len(cached.clips) == 89


def test_what_a_broken_link_led_to_is_read_when_it_is_there(corpus, tmp_path):
    path = corpus.root / "01/4_01_1.wav"
    path.rename(tmp_path / "elsewhere.wav")
    path.symlink_to(tmp_path / "later.wav")
    assert len(open_cache(corpus, tmp_path / "cache").clips) == 89
    (tmp_path / "elsewhere.wav").rename(tmp_path / "later.wav")
    assert len(open_cache(corpus, tmp_path / "cache").clips) == 90


@pytest.mark.parametrize("rate, channels, seconds", [(48_000, 1024, 29), (384_000, 2, 29), (48_000, 1, 36_000)])
def test_a_file_too_large_for_a_digit_is_refused_by_its_header(tmp_path, monkeypatch, rate, channels, seconds):
    """Hundreds of megabytes and more, of which the disk holds none."""
    size = min(rate * seconds * channels * 2, 2**32 - 100)
    with (tmp_path / "large.wav").open("wb") as file:
        file.write(fuzz_audio.wav(b"", rate, channels, size=size))
        file.truncate(44 + size)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)  # calling it would be an error of another type
    with pytest.raises(ValueError, match="too"):
        read_clip(tmp_path / "large.wav")


def test_eight_channels_of_thirty_seconds_are_read(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(sine(440, 30, 48_000)[:, None], 8), 48_000)
    assert read_clip(tmp_path / "long.wav")[0].shape == (1_440_000, 8)


@pytest.mark.parametrize("subtype", fuzz_audio.WAV_SUBTYPES)
def test_every_encoding_of_a_wav_is_read(tmp_path, subtype):
    soundfile.write(tmp_path / "clip.wav", sine(500, 0.5, 8000), 8000, subtype=subtype)
    assert abs(spectrum(standardise(*read_clip(tmp_path / "clip.wav"))).argmax() - 500) <= 1


@pytest.mark.parametrize("rate", [4001, 37_799, 44_099, 383_999])
def test_odd_sampling_rates_keep_frequency_and_duration(rate):
    wave = standardise(sine(1000, 0.99, rate), rate)
    assert abs(int(spectrum(wave).argmax()) - 1000) <= 1
    assert np.ptp(np.flatnonzero(np.abs(wave) > 1000)) == pytest.approx(15_840, abs=40)


@pytest.mark.parametrize("bad, loud", [(1, False), (2, True)])
def test_skipping_more_than_a_hundredth_is_a_loud_warning(tmp_path, write_tones, capfd, bad, loud):
    corpus = open_folder(write_tones(tmp_path / "tones", ["01"], repetitions=10))
    for clip in corpus.clips[:bad]:
        (corpus.root / clip.path).write_bytes(b"")
    open_cache(corpus, tmp_path / "cache")
    assert (f"WARNING: {bad} of 100 clips" in capfd.readouterr().err) == loud


# --- damaged caches


def broken(text: str):
    return lambda place: (place / "skipped.json").write_text(text)


def resized(change: int):
    return lambda place: os.truncate(place / "waves.int16", (place / "waves.int16").stat().st_size + change)


def replaced_by_a_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("in the way")


def replaced_by_a_broken_link(place: Path) -> None:
    shutil.rmtree(place)
    place.symlink_to("nowhere")


DAMAGE = {
    "gone": shutil.rmtree,
    "empty": lambda place: [path.unlink() for path in place.iterdir()],
    "no list of the skipped": lambda place: (place / "skipped.json").unlink(),
    "no waveforms": lambda place: (place / "waves.int16").unlink(),
    "a file": replaced_by_a_file,
    "a broken link": replaced_by_a_broken_link,
    "an empty list": broken(""),
    "half a list": broken('{"01/0_01'),
    "another list": broken('{"05/0_05_1.wav": "it is bad"}'),
    "no list": broken("[]"),
    "a number": broken("7"),
    "bytes": lambda place: (place / "skipped.json").write_bytes(b"\xff\xfe"),
    "a list in a list": broken("[" * 100_000),
    "a clip less": resized(-2 * SAMPLES),
    "a clip more": resized(2 * SAMPLES),
    "a byte less": resized(-1),
    "nothing": lambda place: os.truncate(place / "waves.int16", 0),
    "folders for files": lambda place: [(path.unlink(), path.mkdir()) for path in list(place.iterdir())],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_built_again(corpus, tmp_path, damage, capfd):
    (corpus.root / corpus.clips[0].path).write_text("not audio")
    expected = open_cache(corpus, tmp_path / "cache")
    told = capfd.readouterr().err.rsplit("\r", 1)[-1].split("\n", 1)[1]  # after the progress
    (place,) = (tmp_path / "cache").iterdir()
    DAMAGE[damage](place)
    cached = open_cache(corpus, tmp_path / "cache")
    assert cached.clips == expected.clips and cached.skipped == expected.skipped
    assert_rows_match(cached, corpus)
    assert capfd.readouterr().err.endswith(told), "and nothing more is said"
    assert list((tmp_path / "cache").iterdir()) == [place] and only_whole_caches(tmp_path / "cache")


def test_a_run_goes_on_when_its_cache_is_removed(corpus, tmp_path):
    cached = open_cache(corpus, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    assert_rows_match(cached, corpus)
