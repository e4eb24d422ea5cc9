"""The synthetic corpus: the same on every run, sixty people, AudioMNIST's layout."""

import hashlib
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from common.corpus import (
    AUDIOMNIST_SPEAKERS,
    audiomnist_names,
    synthetic,
)
from common.run import UserError

pytest.importorskip("espeakng_loader")

# Every variant and accent is among them, and so are the words with an r, whose beats some voices would carry from word
# to word.
SAMPLE = [(speaker, digit, int(speaker) % 50) for speaker in AUDIOMNIST_SPEAKERS for digit in (0, 3, 7)]
CLIPS = {clip[:3]: clip for clip in audiomnist_names()}


def digest(clip: tuple[str, int, int]) -> str:
    samples, _ = synthetic.speak(*clip)
    return hashlib.sha256(samples.tobytes()).hexdigest()


def spectrum(clip: tuple[str, int, int]) -> np.ndarray:
    """The word's mean log spectrum [32] in equal bands up to half the sample rate, without its level."""
    samples, _ = synthetic.speak(*clip)
    bands = np.array_split(np.abs(np.fft.rfft(samples, 2**15)) ** 2, 32)
    levels = np.log([band.mean() for band in bands])
    return levels - levels.mean()


def test_words_do_not_depend_on_those_before_and_have_the_right_length_and_level():
    forwards = [synthetic.speak(*clip) for clip in SAMPLE]
    backwards = [synthetic.speak(*clip) for clip in reversed(SAMPLE)]
    for clip, (samples, sample_rate), (again, _) in zip(SAMPLE, forwards, reversed(backwards), strict=True):
        assert samples.tobytes() == again.tobytes(), clip
        assert samples.dtype == np.float32 and samples.ndim == 1 and sample_rate == 16_000
        assert 0.3 <= len(samples) / sample_rate <= 1 and 0.1 < np.abs(samples).max() < 0.8, clip


def test_threads_and_another_process_speak_the_same_samples():
    expected = [digest(clip) for clip in SAMPLE[:24]]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, SAMPLE[:24])) == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(digest, SAMPLE[:6]) == expected[:6]


def test_sixty_people_of_whom_twelve_are_women():
    voices = {speaker: synthetic.Voice(speaker) for speaker in AUDIOMNIST_SPEAKERS}
    women = {speaker: voice for speaker, voice in voices.items() if voice.pitch >= 157}
    assert list(women) == ["12", "26", "28", "36", "43", "47", "52", "56", "57", "58", "59", "60"]
    men = [voice for speaker, voice in voices.items() if speaker not in women]
    assert len({voice.name for voice in women.values()}) == 12 and len({voice.name for voice in men}) == 48
    assert max(voice.pitch for voice in men) <= 153
    with pytest.raises(ValueError):
        synthetic.Voice("61")


def test_speakers_differ_more_than_repetitions():
    speakers = AUDIOMNIST_SPEAKERS[::5]
    spectra = np.array([[spectrum((speaker, 5, repetition)) for repetition in range(4)] for speaker in speakers])
    within = np.linalg.norm(spectra[:, :1] - spectra[:, 1:], axis=-1)
    assert within.min() > 0, "each repetition is different"
    pairs = np.triu_indices(len(speakers), k=1)
    between = np.linalg.norm(spectra[pairs[0], 0] - spectra[pairs[1], 0], axis=-1)
    assert between.mean() > 1.5 * within.mean()


def test_a_missing_espeak_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(synthetic, "_library", synthetic._library.__wrapped__)  # forget the library already loaded
    with pytest.raises(UserError, match=r"espeakng-loader.*uv sync --group synthetic") as caught:
        synthetic.speak("01", 0, 0)
    assert "\n" not in str(caught.value)
