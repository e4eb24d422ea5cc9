"""Augmentations change what their decibels, samples and bins say, and nothing else."""

import math

import pytest
import torch

from common import augmentation
from common.augmentation import (
    EQUALISER_COMPONENTS,
    ROOM_SECONDS,
    VARIANTS,
    random_babble,
    random_bands,
    random_channel,
    random_equaliser,
    random_masks,
    random_noise,
    random_rates,
    random_rooms,
    random_shifts,
    warp,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)  # the bounds below are of probabilities


def test_warp_shifts_by_whole_samples_and_does_nothing_at_rate_one():
    wave = torch.randn(1, 1000)
    wave[:, :50] = wave[:, -50:] = 0
    one, none = torch.ones(1, 1), torch.zeros(1, 1)
    torch.testing.assert_close(warp(wave, one, none)[:, :-1], wave[:, :-1], atol=1e-3, rtol=0)
    shifted = warp(wave, one, torch.full((1, 1), 40.0))
    torch.testing.assert_close(shifted[:, 40:-1], wave[:, :-41], atol=1e-3, rtol=0)


def test_warp_raises_the_pitch_by_the_rate():
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000).unsqueeze(0)
    faster = warp(tone, torch.full((1, 1), 1.1), torch.zeros(1, 1))
    assert abs(int(torch.fft.rfft(faster[0, 4000:12_000]).abs().argmax()) * 2 - 1100) <= 2  # 0.5 s: bins of 2 Hz


def test_random_rates_and_shifts_fill_their_ranges_and_no_more():
    wave = torch.zeros(2000, 1)
    rates, shifts = random_rates(wave), random_shifts(wave)
    assert 1 / 1.1 <= rates.min() < 0.92 < 1.09 < rates.max() <= 1.1
    assert -1600 <= shifts.min() < -1500 < 1500 < shifts.max() <= 1600


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_stated_signal_to_noise_ratio(snr_db):
    spectrum = torch.fft.rfft(torch.randn(64, 16_000))
    noise = random_noise(spectrum, snr_db=(snr_db, snr_db))
    power = [x.abs().square().sum(dim=1) for x in (spectrum, noise)]
    found = 10 * torch.log10(power[0] / power[1])  # that of the expectation: strongly coloured noise varies
    assert abs(found.mean() - snr_db) < 0.15 and (found - snr_db).abs().max() < 2


@pytest.fixture
def only(monkeypatch):
    """A function that leaves one of the changes of a channel, for a share of the clips."""

    def leave(change: str, share: float) -> None:
        monkeypatch.setattr(augmentation, "EQUALISER_DB", 0.0)
        for other in ("NOISE", "ROOM", "BABBLE", "BAND"):
            monkeypatch.setattr(augmentation, f"{other}_SHARE", share if other == change else 0.0)

    return leave


@pytest.mark.parametrize("change", ["NOISE", "ROOM", "BABBLE", "BAND"])
def test_a_share_of_the_clips_at_any_position_in_the_batch_is_changed(only, change):
    only(change, 0.25)
    wave = torch.randn(400, 640)
    changed = ((random_channel(wave, room=True) - wave).abs() > 1e-3).any(dim=1)
    assert changed.sum() == 100
    assert 0 < changed[:100].sum() < 60
    if change != "NOISE":
        torch.testing.assert_close(random_channel(wave), wave, atol=1e-4, rtol=0)


def test_rooms_start_with_the_direct_sound_and_decay_at_their_reverberation_times():
    rooms = random_rooms(torch.zeros(1), 32_000)  # [variants, taps]
    assert rooms.shape == (VARIANTS, 32_000) and (rooms[:, 0] == 1).all() and not rooms[:, 1:30].any()
    energy = rooms.square().flip(1).cumsum(1).flip(1)[:, 40:]  # Schroeder's integral of the reflections
    decibels = 10 * torch.log10(energy / energy[:, :1])
    seconds = 3 * ((decibels < -25).int().argmax(1) - (decibels < -5).int().argmax(1)) / 16_000
    low, high = ROOM_SECONDS
    assert 0.8 * low < seconds.min() < 0.4 < seconds.max() < 1.2 * high and len(set(seconds.tolist())) == VARIANTS


def test_hardly_any_reverberation_of_the_end_comes_back_at_the_start(only):
    only("ROOM", 1.0)
    wave = torch.zeros(8, 16_000)
    wave[:, 15_000] = 1
    changed = random_channel(wave, room=True)
    assert changed[:, :14_990].abs().max() < 0.03 and changed[:, 15_050:].abs().max() > 0.1
    assert changed[:, :10_000].square().sum() < 0.1 * changed[:, 15_050:].square().sum()


def test_babble_is_made_of_the_other_clips_and_below_the_speech():
    """Clip i is a tone of i * 10 Hz."""
    time = torch.arange(16_000) / 16_000
    tones = torch.sin(2 * math.pi * 10 * torch.arange(1, 41).unsqueeze(1) * time)
    spectrum, rows, others = torch.fft.rfft(tones), torch.arange(16), torch.arange(16, 40)
    babble = random_babble(spectrum, rows, others)
    power = babble.abs().square()
    found = 10 * torch.log10(spectrum[rows].abs().square().sum(dim=1) / power.sum(dim=1))
    assert -0.1 < found.min() < 10 < 15 < found.max() < 25.1
    heard = power[:, 10:410:10] > 1e-3 * power.max(dim=1, keepdim=True).values  # [rows, clips]
    assert not heard[:, rows].any() and 3 <= heard.sum(dim=1).min() <= heard.sum(dim=1).max() <= 6


def test_bands_pass_the_middle_and_not_the_edges():
    gains = random_bands(torch.zeros(500, 8001, dtype=torch.complex64))  # a bin per Hz
    assert gains[:, 1000:2000].min() > 0.99 and gains[:, 7900:].max() < 0.01 and gains[:, 0].max() < 0.15
    edges = (gains > 0.5).sum(dim=1)
    assert edges.min() < 2600 and edges.max() > 6500


def test_equaliser_gains_have_the_stated_decibels():
    gains = random_equaliser(torch.zeros(2000, 129), 3.0)
    decibels = 20 * torch.log10(gains)
    # At 0 Hz every cosine is 1 and the k-th component weighs 1 / sqrt(k).
    expected = 3.0 * math.sqrt(sum(1 / k for k in range(1, EQUALISER_COMPONENTS + 1)))
    assert abs(decibels[:, 0].std() / expected - 1) < 0.1
    assert (random_equaliser(torch.zeros(1, 129), 0.0) == 1).all()


def test_masks_hide_whole_bands_and_whole_frames_of_each_clip_by_itself():
    log_mel = torch.ones(200, 64, 101)
    masked = random_masks(log_mel) == 0  # [B, F, T]
    assert (log_mel == 1).all(), "the clips themselves stay"
    bands, frames = masked.all(dim=2), masked.all(dim=1)
    assert torch.equal(masked, bands.unsqueeze(2) | frames.unsqueeze(1))
    assert 8 < bands.sum(dim=1).max() <= 16 and 12 < frames.sum(dim=1).max() <= 24
    assert len(bands.unique(dim=0)) > 100
