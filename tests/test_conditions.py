"""The conditions of the test: as loud, as late and as narrow as their names say, and the same for every model."""

import numpy as np
import pytest
import torch

from common.conditions import active_power, conditions, other_microphones, room_response
from common.data import Batch, Examples

RATE = 16_000


@pytest.fixture
def clips() -> Examples:
    """Twelve clips of four speakers: half a second of noise, each of its own kind, between silences."""
    rng = np.random.default_rng(0)
    waves = np.zeros((12, RATE))
    waves[:, 4000:12_000] = rng.standard_normal((12, 8000)) * 3000
    return Examples(waves.astype(np.int16), np.arange(12) % 10, np.arange(12) // 3, np.arange(12))


def batches(clips, size=5):
    return [clips.__getitems__(range(start, min(start + size, 12))) for start in range(0, 12, size)]


def changed(clips, key, size=5) -> np.ndarray:
    condition = other_microphones() if key == "microphone" else conditions(clips)[key]
    return np.concatenate([condition(batch).waveform.numpy() for batch in batches(clips, size)]) / 32768


def split(clips, key) -> tuple[np.ndarray, np.ndarray]:
    """The clean and the added part of each clip; the clean part is known up to its level."""
    clean, whole = clips.inputs / 32768, changed(clips, key)
    quiet = np.ones(RATE, dtype=bool)
    quiet[4000:12_000] = False
    speech = (whole[:, ~quiet] ** 2).mean(axis=1) - (whole[:, quiet] ** 2).mean(axis=1)  # power, [clips]
    signal = clean * np.sqrt(speech.clip(min=0) / (clean[:, ~quiet] ** 2).mean(axis=1))[:, None]
    return signal, whole - signal


def ratio_db(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return 10 * np.log10([active_power(one) / active_power(other) for one, other in zip(signal, noise, strict=True)])


@pytest.mark.parametrize("snr_db", [20, 10, 0])
def test_white_noise_is_white_and_as_far_below_the_speech_as_asked(clips, snr_db):
    signal, noise = split(clips, f"white_{snr_db}db")
    part = noise[:, :4000]
    ratio = ratio_db(signal, part)
    assert np.abs(ratio - snr_db).max() < 1.0 and abs(ratio.mean() - snr_db) < 0.3
    assert abs((part[:, 1:] * part[:, :-1]).mean() / (part**2).mean()) < 0.05


@pytest.mark.parametrize("snr_db", [20, 10])
def test_babble_is_made_of_other_speakers_and_as_far_below_the_speech_as_asked(clips, snr_db):
    signal, babble = split(clips, f"babble_{snr_db}db")
    assert np.abs(ratio_db(signal, babble) - snr_db).max() < 3
    clips.inputs[3:] = 0  # all but the first speaker are silent
    own = changed(clips, f"babble_{snr_db}db")[:3]
    for row in range(3):
        assert np.corrcoef(own[row], clips.inputs[row])[0, 1] > 0.9999, "nothing of his own voice is added"


@pytest.mark.parametrize("key", ["white_10db", "babble_10db", "reverb_600ms", "telephone", "microphone"])
def test_every_model_is_tested_on_the_same_sounds_and_none_is_cut(clips, key):
    first = changed(clips, key)
    assert np.array_equal(first, changed(clips, key, size=12)), "the size of the batches has no influence"
    assert np.abs(first).max() < 0.98 and np.abs(np.corrcoef(first[0], clips.inputs[0])[0, 1]) < 0.999


@pytest.mark.parametrize("seconds", [0.3, 0.6])
def test_a_room_has_its_reverberation_time_and_passes_the_direct_sound_first(clips, seconds):
    times = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        size = rng.uniform([3, 2.5, 2.3], [8, 6, 3.5])
        response = room_response(seconds, size, size * 0.4, size * rng.uniform(0.5, 0.6, 3))
        energy = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1] / (response**2).sum() + 1e-12)
        times.append(3 * (np.argmax(energy < -25) - np.argmax(energy < -5)) / RATE)  # from -5 to -25 dB (ISO 3382)
        assert len(response) == seconds * RATE and response[0] > 0.3 * np.abs(response).max()
    assert np.median(times) == pytest.approx(seconds, rel=0.2)
    tail = changed(clips, f"reverb_{1000 * seconds:.0f}ms")
    assert (tail[:, 12_400:13_000] ** 2).mean() > 1e-5 and (tail[:, :4000] ** 2).mean() < 1e-9


def test_the_reflections_of_a_cube_come_from_its_mirror_images():
    """In the middle of a cube, the first six images are one edge away, the next twelve at a diagonal of it."""
    response = room_response(0.4, np.full(3, 4.0), np.array([2.0, 2.0, 2.5]), np.full(3, 2.0))
    arrivals = np.flatnonzero(response)
    # Floor and ceiling are 3.5 and 4.5 m away, four walls sqrt(16.25) m; the direct way is 0.5 m.
    expected = [0, *(round((d - 0.5) / 343 * RATE) for d in (3.5, 16.25**0.5, 4.5))]
    assert arrivals[:4].tolist() == expected


def test_a_telephone_passes_its_band_alone():
    time = np.arange(RATE) / RATE
    tones = np.stack([np.sin(2 * np.pi * f * time) + np.sin(2 * np.pi * 1000 * time) for f in (100, 600, 3000, 6000)])
    waves = (tones * 8000).astype(np.int16)
    clips = Examples(waves, np.zeros(4, int), np.zeros(4, int), np.arange(4))
    batch = Batch(torch.from_numpy(waves), torch.zeros(4), torch.zeros(4))
    spectrum = np.abs(np.fft.rfft(conditions(clips)["telephone"](batch).waveform.numpy()[:, RATE // 2 :]))
    relative = [spectrum[i, f // 2] / spectrum[i, 500] for i, f in enumerate((100, 600, 3000, 6000))]
    assert relative[0] < 0.01 and relative[3] < 0.01 and min(relative[1:3]) > 0.8


def test_each_clip_has_a_microphone_of_its_own():
    noise = (np.random.default_rng(0).standard_normal(RATE) * 3000).astype(np.int16)
    clips = Examples(np.tile(noise, (12, 1)), np.zeros(12, int), np.zeros(12, int), np.arange(12))
    power = np.abs(np.fft.rfft(changed(clips, "microphone"))).reshape(12, -1)[:, 1:] ** 2
    bands = power.reshape(12, 40, 200).mean(axis=2)  # of 200 Hz
    gains = 10 * np.log10(bands / bands.mean(axis=1, keepdims=True))
    assert 2 < (gains - gains.mean(axis=0)).std() < 12, "dB"
    assert np.abs(np.corrcoef(gains) - np.eye(12)).max() < 0.99
