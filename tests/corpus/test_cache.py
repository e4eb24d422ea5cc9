"""Any recording of a spoken digit becomes one second at 16 kHz, once, and each row of the cache belongs to its clip."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.audio import SAMPLES
from common.corpus import Corpus, cache, open_folder
from common.corpus.cache import CachedCorpus, open_cache, read_clip, standardise
from common.run import UserError


@pytest.fixture
def corpus(tmp_path, write_tones) -> Corpus:
    """24 clips."""
    return open_folder(write_tones(tmp_path / "tones", ["01", "02", "03"], digits=[0, 7], repetitions=4))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def assert_rows_match(cached: CachedCorpus, corpus: Corpus) -> None:
    assert len(cached.waves) == len(cached.clips) and cached.waves.dtype == np.int16
    for clip, wave in zip(cached.clips, cached.waves, strict=True):
        np.testing.assert_array_equal(wave, standardise(*read_clip(corpus.root / clip.path)), err_msg=clip.path)


def test_each_row_is_its_clip_decoded_once(corpus, folder, monkeypatch):
    cached = open_cache(corpus, folder)
    assert cached.clips == corpus.clips and cached.skipped == {} and isinstance(cached.waves, np.memmap)
    assert_rows_match(cached, corpus)
    assert len({wave.tobytes() for wave in cached.waves}) == 24, "each tone is different"
    monkeypatch.setattr(cache, "_build", None)
    again = open_cache(corpus, folder)
    assert again.clips == cached.clips and np.array_equal(again.waves, cached.waves)


def test_unreadable_files_are_reported_and_shift_no_other_row(corpus, folder, capfd):
    (corpus.root / "01/0_01_0.wav").write_bytes(b"")
    (corpus.root / "01/7_01_3.wav").unlink()
    os.mkfifo(corpus.root / "01/7_01_3.wav")  # opening it would wait forever
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


def test_a_corpus_that_cannot_be_read_is_an_error(corpus, folder):
    for clip in corpus.clips:
        (corpus.root / clip.path).write_text("not audio")
    for _ in range(2):
        with pytest.raises(UserError, match="tones: none of its 24 clips can be read"):
            open_cache(corpus, folder)


def test_a_copied_and_touched_corpus_is_the_same_and_changed_contents_are_another(
    corpus, folder, tmp_path, monkeypatch
):
    key = open_cache(corpus, folder).key
    copy = open_folder(shutil.copytree(corpus.root, tmp_path / "elsewhere/tones"))
    for clip in copy.clips:
        os.utime(copy.root / clip.path, (0, 0))
    assert open_cache(copy, folder).key == key
    path = corpus.root / corpus.clips[13].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one sample, so that the size and both ends remain
    path.write_bytes(content)
    cached = open_cache(corpus, folder)
    assert_rows_match(cached, corpus)
    monkeypatch.setattr(cache, "RECIPE", cache.RECIPE + 1)
    others = [open_cache(changed, folder).key for changed in (corpus, corpus.take(0.5, 1))]
    assert len({key, cached.key, *others}) == 4


@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing_and_is_never_taken_for_a_cache(corpus, folder, monkeypatch, problem):
    with monkeypatch.context() as patch, pytest.raises(problem):
        patch.setattr(cache.os, "fsync", lambda _: (_ for _ in ()).throw(problem))
        open_cache(corpus, folder)
    assert [path.suffix for path in folder.iterdir()] in ([], [".lock"])
    assert_rows_match(open_cache(corpus, folder), corpus)


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-2],
    "other clips": lambda content: content.replace(b"(24, 16000)", b"(23, 16000)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_built_again(corpus, folder, damage):
    (corpus.root / corpus.clips[0].path).write_text("not audio")
    expected = open_cache(corpus, folder)
    path = folder / f"{expected.key}.npy"
    content = path.read_bytes()
    path.unlink()  # the memory map is of the old file
    path.write_bytes(DAMAGE[damage](content))
    cached = open_cache(corpus, folder)
    assert cached.clips == expected.clips and cached.skipped == expected.skipped and path.read_bytes() == content
    assert_rows_match(cached, corpus)


def sine(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_resampling_gives_the_samples_of_the_same_sine_at_16_khz(rate):
    wave = standardise(sine(1000, 0.5, rate), rate)
    assert wave.shape == (16_000,) and wave.dtype == np.int16 and np.abs(wave).max() == 32767
    middle = wave[6000:10_000] / np.abs(wave[6000:10_000]).max()  # without the ends, which the filter changes
    np.testing.assert_allclose(middle, 2 * sine(1000, 0.25, 16_000), atol=0.005)


@pytest.mark.parametrize("rate", [4001, 44_099, 383_999])
def test_odd_rates_keep_frequency_and_duration(rate):
    wave = standardise(sine(1000, 0.5, rate), rate)
    assert abs(int(np.abs(np.fft.rfft(wave)).argmax()) - 1000) <= 1  # in steps of 1 Hz
    np.testing.assert_allclose(np.flatnonzero(np.abs(wave) > 1000)[[0, -1]], [4000, 12_000], atol=40)


def test_channels_are_averaged_and_a_constant_offset_is_removed():
    left, right = sine(500, 0.7, 16_000), sine(1500, 0.7, 16_000)
    wave = standardise(np.stack([left, right + 0.4], axis=1), 16_000).astype(int)
    assert np.abs(wave - standardise((left + right) / 2, 16_000)).max() <= 1


@pytest.mark.parametrize("second, expected", [(-1.0, 1.0), (-0.9, 1.0), (-0.2, 0.4), (0.5, 0.75)])
def test_where_the_mix_cancels_most_of_the_signal_the_stronger_channel_is_taken(second, expected):
    """A balanced cable, or a plug with a swapped pole, records a voice and its inverse."""
    noise = 3e-4 * np.random.default_rng(0).standard_normal((2, 8000))
    first = sine(440, 0.5, 16_000)
    stereo = standardise(np.stack([first + noise[0], second * first + noise[1] + 0.3], axis=1), 16_000)
    mono = standardise(expected * first, 16_000)
    assert abs(np.corrcoef(stereo[4000:12_000], mono[4000:12_000])[0, 1]) > 0.999  # the sign does not matter


@pytest.mark.parametrize("samples", [2, 4801, 15_999])
def test_a_short_clip_is_centred_in_zeros(samples):
    alternating = np.where(np.arange(samples) % 2, 0.25, -0.25)
    sounding = np.flatnonzero(standardise(alternating - alternating.mean(), 16_000))
    assert len(sounding) == samples and sounding[0] == (SAMPLES - samples) // 2


def test_the_loudest_second_has_the_most_energy_and_not_the_highest_peak():
    clip = 1e-3 * np.where(np.arange(48_000) % 2, 1, -1)
    clip[1000:1010] *= 1000  # a click
    clip[30_000:42_000] *= 300  # a word
    wave = np.abs(standardise(clip, 16_000).astype(int))
    assert wave.min() > 0 and (wave > 20_000).sum() == 12_000


@pytest.mark.parametrize(
    "samples, rate, problem",
    [
        (np.zeros(0), 16_000, "no samples"),
        (np.full(16_000, 0.5), 16_000, "silent"),
        (1e-6 * sine(440, 0.5, 16_000), 16_000, "silent"),
        (np.append(sine(440, 0.5, 16_000), np.inf), 16_000, "not finite"),
        (np.float32(3e38) * np.abs(sine(440, 0.5, 16_000)).astype(np.float32), 16_000, "too large"),
        (sine(440, 0.5, 16_000), 2**31 - 1, "2147483647 Hz"),
        (sine(440, 31, 16_000), 16_000, "longer than 30 s"),
    ],
)
def test_what_cannot_be_a_spoken_digit_is_refused_with_its_reason(samples, rate, problem):
    with pytest.raises(ValueError, match=problem):
        standardise(samples, rate)


def cut(name: str, content: bytearray) -> bytes:
    """What a stopped recorder, a stream or a broken copy leaves of a sound file."""
    if name.endswith("flac") and "stream" in name:  # no length in the header
        content[21] &= 0xF0
        content[22:26] = bytes(4)
    elif name.endswith("wav"):
        sizes = content.index(b"data") + 4
        content[sizes : sizes + 4] = bytes(4) if "stopped" in name else b"\xff" * 4
    else:
        del content[len(content) * 2 // 3 :]
    return bytes(content)


@pytest.mark.parametrize("name", ["stream.flac", "cut.flac", "cut.ogg", "cut.mp3", "stopped.wav", "stream.wav"])
def test_what_is_there_is_read_whatever_length_the_header_tells(tmp_path, name):
    path, whole = tmp_path / name, 0.1 * np.random.default_rng(0).standard_normal(144_000)
    soundfile.write(path, whole, 48_000)
    path.write_bytes(cut(name, bytearray(path.read_bytes())))
    samples, rate = read_clip(path)
    assert rate == 48_000 and (0.5 if "cut" in name else 1) * len(whole) <= len(samples) <= len(whole)
    if "ogg" not in name and "mp3" not in name:
        np.testing.assert_allclose(samples[:, 0], whole[: len(samples)], atol=1e-4)
