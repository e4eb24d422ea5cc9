"""Augmentations change what their decibels, samples and bins say, and nothing else."""

import math

import pytest
import torch

from common.augmentation import (
    EQUALISER_COMPONENTS,
    random_channel,
    random_equaliser,
    random_gap,
    random_masks,
    random_noise,
    random_rates,
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
    middle = faster[0, 4000:12_000]  # 0.5 s: bins of 2 Hz
    assert abs(int(torch.fft.rfft(middle).abs().argmax()) * 2 - 1100) <= 2


def test_random_rates_and_shifts_fill_their_ranges_and_no_more():
    wave = torch.zeros(2000, 1)
    rates, shifts = random_rates(wave, 0.1), random_shifts(wave, 1600)
    assert 1 / 1.1 <= rates.min() < 0.92 < 1.09 < rates.max() <= 1.1
    assert -1600 <= shifts.min() < -1500 < 1500 < shifts.max() <= 1600


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_stated_signal_to_noise_ratio(snr_db):
    spectrum = torch.fft.rfft(torch.randn(64, 16_000))
    noise = random_noise(spectrum, snr_db=(snr_db, snr_db))
    power = [x.abs().square().sum(dim=1) for x in (spectrum, noise)]
    found = 10 * torch.log10(power[0] / power[1])  # that of the expectation: strongly coloured noise varies
    assert abs(found.mean() - snr_db) < 0.15 and (found - snr_db).abs().max() < 2


def test_noise_is_added_to_a_share_of_the_clips_at_any_position_in_the_batch():
    wave = torch.randn(400, 64)
    noisy = ((random_channel(wave, equaliser_db=0.0, noise_share=0.25) - wave).abs() > 1e-3).any(dim=1)
    assert noisy.sum() == 100
    assert 0 < noisy[:100].sum() < 60


def test_equaliser_gains_have_the_stated_decibels():
    gains = random_equaliser(torch.zeros(2000, 129), 3.0)
    decibels = 20 * torch.log10(gains)
    # At 0 Hz every cosine is 1 and the k-th component weighs 1 / sqrt(k).
    expected = 3.0 * math.sqrt(sum(1 / k for k in range(1, EQUALISER_COMPONENTS + 1)))
    assert abs(decibels[:, 0].std() / expected - 1) < 0.1
    assert (random_equaliser(torch.zeros(1, 129), 0.0) == 1).all()


def test_channel_without_equaliser_and_noise_changes_nothing():
    wave = torch.randn(3, 16_000)
    torch.testing.assert_close(random_channel(wave, equaliser_db=0.0, noise_share=0.0), wave, atol=1e-4, rtol=0)


def test_a_gap_has_neighbouring_zeros_and_the_allowed_width():
    hidden = random_gap(500, 64, max_width=8) == 0  # [B, size]
    widths = hidden.sum(dim=1)
    assert widths.min() == 0 and widths.max() == 8
    starts_and_ends = torch.diff(torch.nn.functional.pad(hidden.int(), (1, 1)), dim=1).abs().sum(dim=1)
    assert starts_and_ends.max() == 2
    assert hidden[:, 0].any() and hidden[:, -1].any()


def test_masks_hide_whole_bands_and_whole_frames():
    masked = random_masks(torch.ones(200, 64, 101)) == 0  # [B, F, T]
    bands, frames = masked.all(dim=2), masked.all(dim=1)
    assert torch.equal(masked, bands.unsqueeze(2) | frames.unsqueeze(1))
    assert 8 < bands.sum(dim=1).max() <= 16 and 12 < frames.sum(dim=1).max() <= 24
