"""The synthetic corpus: the same on every run, sixty people, AudioMNIST's layout."""

import hashlib
import multiprocessing
import sys

import numpy as np
import pytest
import soundfile

from common.corpus import acoustics, synthetic
from common.corpus.clips import AUDIOMNIST_SPEAKERS, SYNTHETIC_MARKER, SYNTHETIC_NAME, audiomnist_names, open_folder
from common.run.console import UserError

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
        assert samples.dtype == np.float32 and samples.ndim == 1 and sample_rate == 22050
        assert 0.3 <= len(samples) / sample_rate <= 1 and 0.1 < np.abs(samples).max() < 0.8, clip


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & {*multiprocessing.get_all_start_methods()}))
def test_another_process_speaks_the_same_samples(method):
    """A spawned one starts afresh, a forked one inherits the library."""
    expected = [digest(clip) for clip in SAMPLE[:6]]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(digest, SAMPLE[:6]) == expected


def test_sixty_people_of_whom_twelve_are_women():
    voices = {speaker: synthetic.Voice(speaker) for speaker in AUDIOMNIST_SPEAKERS}
    women = {speaker: voice for speaker, voice in voices.items() if voice.pitch >= 157}
    assert list(women) == ["12", "26", "28", "36", "43", "47", "52", "56", "57", "58", "59", "60"]
    men = [voice for speaker, voice in voices.items() if speaker not in women]
    assert len({voice.name for voice in women.values()}) == 12 and len({voice.name for voice in men}) == 48
    assert max(voice.pitch for voice in men) <= 153
    with pytest.raises(ValueError):
        synthetic.Voice("61")


def test_a_speaker_stays_in_one_place_and_others_are_elsewhere():
    places = {speaker: synthetic._place(speaker) for speaker in AUDIOMNIST_SPEAKERS}
    synthetic._place.cache_clear()
    for speaker in ("01", "60"):  # made again, after others
        again, first = vars(synthetic._place(speaker)), vars(places[speaker])
        assert all(np.array_equal(again[name], first[name]) for name in first)
    # The speech band of the microphones with their rooms, in dB without its mean: [speakers, spots, bands]
    bands = np.linspace(400, 4000, 25) * acoustics.SIZE / 22050
    power = np.array([np.abs(place.responses[:, : int(bands[-1])]) ** 2 for place in places.values()])
    levels = 10 * np.log10(np.add.reduceat(power, bands[:-1].astype(int), axis=2))
    levels -= levels.mean(axis=2, keepdims=True)
    own = levels.mean(axis=1)
    within = (levels - own[:, None]).std()
    pairs = np.triu_indices(len(own), k=1)
    assert within > 0.3, "each spot sounds different"
    assert (own[pairs[0]] - own[pairs[1]]).std(axis=1).min() > 0.5, "no two places sound alike"
    assert (own - own.mean(axis=0)).std() > 1.2 * within, "a place differs more from others than its spots do"


def test_rooms_begin_with_the_direct_sound_and_echo_within_a_tenth_of_a_second():
    for seed in range(20):
        for path in acoustics.draw_paths(np.random.default_rng(seed), 22050):
            echoes = np.flatnonzero(path)
            assert path[0] >= 1 and 15 <= len(echoes) <= 26 and echoes[-1] < 0.1 * 22050
            assert path[echoes[1:]].max() < 1.8 and path.min() == 0


def test_background_is_audible_and_speech_stands_out():
    ratios = []
    for speaker, digit, repetition in SAMPLE:
        place, noiseless = (acoustics.Place(int(speaker), 22050, synthetic._chatter()) for _ in range(2))
        noiseless.steady, noiseless.chatter = np.zeros_like(place.steady), np.zeros_like(place.chatter)
        word = synthetic._say(synthetic.WORDS[digit], synthetic.Voice(speaker).name, 120, 50, 50)
        whole, speech = (one.record(word, 1.0, np.random.default_rng(repetition)) for one in (place, noiseless))
        spoken = len(word) / len(speech)  # the ratio is of the word, not of the quiet around it
        ratios.append(10 * np.log10(np.mean(speech**2) / spoken / np.mean((whole - speech) ** 2)))
    assert 14 < np.mean(ratios) < 20 and min(ratios) > 0 and max(ratios) < 40
    assert np.mean((np.array(ratios) > 8) & (np.array(ratios) < 30)) > 0.9


def test_speakers_differ_more_than_repetitions():
    speakers = AUDIOMNIST_SPEAKERS[::5]
    spectra = np.array([[spectrum((speaker, 5, repetition)) for repetition in range(4)] for speaker in speakers])
    within = np.linalg.norm(spectra[:, :1] - spectra[:, 1:], axis=-1)
    assert within.min() > 0, "each repetition is different"
    pairs = np.triu_indices(len(speakers), k=1)
    between = np.linalg.norm(spectra[pairs[0], 0] - spectra[pairs[1], 0], axis=-1)
    assert between.mean() > 1.5 * within.mean()


def test_a_written_corpus_has_the_layout_of_audiomnist_and_says_what_it_is(tmp_path):
    clips = [CLIPS["01", 0, 0], CLIPS["01", 9, 49], CLIPS["60", 3, 7]]
    kept = tmp_path / "data" / clips[0].path
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"already there")
    (tmp_path / SYNTHETIC_MARKER).touch()
    synthetic.write_corpus(tmp_path, clips)
    corpus = open_folder(tmp_path)
    assert corpus.name == SYNTHETIC_NAME and list(corpus.clips) == clips and corpus.root == tmp_path / "data"
    assert kept.read_bytes() == b"already there", "an interrupted run is continued"
    info = soundfile.info(tmp_path / "data/60/3_60_7.wav")
    assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, 22050)
    stored, _ = soundfile.read(tmp_path / "data/60/3_60_7.wav", dtype="float32")
    np.testing.assert_allclose(stored, synthetic.speak("60", 3, 7)[0], atol=1 / 32768)
    marker = (tmp_path / "SYNTHETIC.txt").read_text()
    assert "Not AudioMNIST" in marker and "espeak-ng" in marker and synthetic.VERSION in marker


def test_a_missing_espeak_tells_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(synthetic, "_library", synthetic._library.__wrapped__)  # forget the library already loaded
    with pytest.raises(UserError, match=r"espeakng-loader.*uv sync --group synthetic") as caught:
        synthetic.write_corpus(tmp_path / "corpus", [CLIPS["01", 0, 0]])
    assert "\n" not in str(caught.value) and not (tmp_path / "corpus").exists()
