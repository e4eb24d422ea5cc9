"""The synthetic corpus: the same on every run, sixty people, AudioMNIST's layout."""

import hashlib
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from common.corpus import synthetic
from common.run.console import UserError

# Every variant and accent is among them; so are the words with an r, whose beats some voices carry from word to word.
SAMPLE = [(speaker, digit, int(speaker) % 50) for speaker in synthetic.SPEAKERS for digit in (0, 3, 7)]


class Clip(NamedTuple):
    speaker: str
    digit: int
    repetition: int


@pytest.fixture
def espeak():
    pytest.importorskip("espeakng_loader")


def digest(clip) -> str:
    samples, _ = synthetic.speak(*clip)
    return hashlib.sha256(samples.tobytes()).hexdigest()


def spectrum(clip) -> np.ndarray:
    """The word's mean log spectrum (32,) in equal bands up to half the sample rate, its level removed."""
    samples, _ = synthetic.speak(*clip)
    bands = np.array_split(np.abs(np.fft.rfft(samples, 2**15)) ** 2, 32)
    levels = np.log([band.mean() for band in bands])
    return levels - levels.mean()


def test_same_samples_in_any_order(espeak):
    forwards = [digest(clip) for clip in SAMPLE]
    shuffled = np.random.default_rng(0).permutation(len(SAMPLE))
    again = {index: digest(SAMPLE[index]) for index in shuffled}
    assert forwards == [again[index] for index in range(len(SAMPLE))]


def test_same_samples_in_a_fresh_process(espeak):
    clips = SAMPLE[::17]
    script = (
        "import hashlib; from common.corpus.synthetic import speak\n"
        f"for clip in {clips!r}: print(hashlib.sha256(speak(*clip)[0].tobytes()).hexdigest())"
    )
    root = Path(synthetic.__file__).parents[2]
    fresh = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert fresh.stdout.split() == [digest(clip) for clip in clips]


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & {*multiprocessing.get_all_start_methods()}))
def test_same_samples_in_workers_started_after_the_library(espeak, method):
    expected = [digest(clip) for clip in SAMPLE[:6]]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(digest, SAMPLE[:6]) == expected


def test_sixty_people_of_whom_twelve_are_women():
    voices = {speaker: synthetic.voice(speaker) for speaker in synthetic.SPEAKERS}
    assert len(set(voices.values())) == 60
    for gender, count in ("female", 12), ("male", 48):
        assert len({voice.espeak_name for voice in voices.values() if voice.gender == gender}) == count
    women = {speaker for speaker, voice in voices.items() if voice.gender == "female"}
    assert women == {"12", "26", "28", "36", "43", "47", "52", "56", "57", "58", "59", "60"}
    assert min(voices[speaker].pitch for speaker in women) > max(
        voice.pitch for voice in voices.values() if voice.gender == "male"
    )


def test_length_level_and_form(espeak):
    for clip in SAMPLE:
        samples, sample_rate = synthetic.speak(*clip)
        assert samples.dtype == np.float32 and samples.ndim == 1 and sample_rate == 22050
        assert 0.2 <= len(samples) / sample_rate <= 1.05, clip
        assert 0.05 < np.abs(samples).max() <= 1, clip


def test_repetitions_differ(espeak):
    clips = [synthetic.speak("01", 7, repetition)[0] for repetition in range(synthetic.REPETITIONS)]
    assert len({clip.tobytes() for clip in clips}) == synthetic.REPETITIONS
    assert len({len(clip) for clip in clips}) > 25
    peaks = [np.abs(clip).max() for clip in clips]
    assert max(peaks) > 2 * min(peaks)


def test_speakers_sound_more_different_than_repetitions(espeak):
    speakers = synthetic.SPEAKERS[::5]
    spectra = np.array([[spectrum((speaker, 5, repetition)) for repetition in range(4)] for speaker in speakers])
    within = np.linalg.norm(spectra[:, :1] - spectra[:, 1:], axis=-1)
    pairs = np.triu_indices(len(speakers), k=1)
    between = np.linalg.norm(spectra[pairs[0], 0] - spectra[pairs[1], 0], axis=-1)
    assert between.mean() > 1.5 * within.mean()


def test_digits_sound_different(espeak):
    spectra = np.array([[spectrum(("05", digit, repetition)) for repetition in range(4)] for digit in range(10)])
    distance = np.linalg.norm(spectra[:, None, 0] - spectra[None, :, 1], axis=-1)
    assert (distance.argmin(axis=1) == np.arange(10)).mean() >= 0.8


@pytest.mark.parametrize("clip", [("00", 0, 0), ("61", 0, 0), ("1", 0, 0), ("01", 10, 0), ("01", -1, 0), ("01", 0, 50)])
def test_what_does_not_exist_is_refused(clip, tmp_path):
    with pytest.raises(ValueError):
        synthetic.speak(*clip)


def test_corpus_has_the_layout_and_says_what_it_is(espeak, tmp_path):
    clips = [Clip("01", 0, 0), Clip("01", 9, 49), Clip("60", 3, 7)]
    synthetic.write_corpus(tmp_path, clips)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    sound = {"data/01/0_01_0.wav", "data/01/9_01_49.wav", "data/60/3_60_7.wav"}
    assert written == sound | {"SYNTHETIC.txt", "data/synthetic_meta.txt"}

    info = soundfile.info(tmp_path / "data/60/3_60_7.wav")
    assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, 22050)
    stored, _ = soundfile.read(tmp_path / "data/60/3_60_7.wav", dtype="float32")
    np.testing.assert_allclose(stored, synthetic.speak("60", 3, 7)[0], atol=1 / 32768)

    marker = (tmp_path / "SYNTHETIC.txt").read_text()
    assert "not AudioMNIST" in marker and "espeak-ng" in marker and synthetic.VERSION in marker
    meta = json.loads((tmp_path / "data/synthetic_meta.txt").read_text())
    assert list(meta) == list(synthetic.SPEAKERS)
    assert meta["60"]["gender"] == "female" and meta["01"]["voice"] == synthetic.voice("01").espeak_name


def test_corpus_is_continued_and_not_rewritten(espeak, tmp_path):
    kept = tmp_path / "data/02/1_02_3.wav"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"already there")
    synthetic.write_corpus(tmp_path, [Clip("02", 1, 3), Clip("02", 1, 4)])
    assert kept.read_bytes() == b"already there"
    assert soundfile.info(tmp_path / "data/02/1_02_4.wav").frames > 0


def test_interrupted_write_leaves_no_clip(espeak, tmp_path, monkeypatch):
    def write_half(file, content):
        file.write_text("RIFF")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(KeyboardInterrupt):
        synthetic._write_clip(tmp_path / "0_01_0.wav", "01", 0, 0)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_clip(espeak, tmp_path, full_disk):
    with full_disk(10_000), pytest.raises(OSError, match="too large"):
        synthetic._write_clip(tmp_path / "1_01_0.wav", "01", 1, 0)
    assert list(tmp_path.iterdir()) == []


def test_corpus_with_a_clip_that_does_not_exist_writes_nothing(espeak, tmp_path):
    with pytest.raises(ValueError):
        synthetic.write_corpus(tmp_path, [Clip("01", 0, 0), Clip("99", 0, 0)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["package", "library"])
def test_missing_espeak_tells_what_to_install(broken, tmp_path, monkeypatch):
    if broken == "package":
        monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    else:
        loader = type(sys)("espeakng_loader")
        loader.get_library_path = lambda: str(tmp_path / "no-library.so")
        monkeypatch.setitem(sys.modules, "espeakng_loader", loader)
    monkeypatch.setattr(synthetic, "_library", synthetic._library.__wrapped__)  # forget the library already loaded
    root = tmp_path / "corpus"
    for attempt in (
        lambda: synthetic.speak("01", 0, 0),
        lambda: synthetic.write_corpus(root, [Clip("01", 0, 0)]),
    ):
        with pytest.raises(UserError, match=r"espeakng-loader.*uv sync --group synthetic") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not root.exists()


def test_importing_the_module_needs_no_espeak():
    script = "import sys, common.corpus.synthetic; sys.exit('espeakng_loader' in sys.modules)"
    root = Path(synthetic.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root).returncode == 0
