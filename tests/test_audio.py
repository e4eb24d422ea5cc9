"""Spectrograms put energy where it belongs; augmentations do what their decibels, samples and bins say."""

import math

import pytest
import torch

from common import augmentation
from common.audio import LogMel, mel_bands, to_float, unit_power
from common.augmentation import (
    random_channel,
    random_equaliser,
    random_gap,
    random_masks,
    random_noise,
    random_rates,
    random_shifts,
    warp,
)


def tone(frequency: float, batch: int = 1) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(16_000) / 16_000).repeat(batch, 1)


def test_to_float_maps_full_scale_to_one():
    assert to_float(torch.tensor([-32768, 0, 16384], dtype=torch.int16)).tolist() == [-1.0, 0.0, 0.5]


def test_unit_power_removes_offset_and_gain():
    wave = unit_power(3 * torch.randn(2, 16_000) + 5)
    torch.testing.assert_close(wave.mean(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(wave.square().mean(dim=1), torch.ones(2), atol=1e-3, rtol=0)


def test_mel_bands_are_means_of_bins_and_none_is_empty():
    bands = mel_bands()
    assert bands.shape == (64, 201)
    torch.testing.assert_close(bands.sum(dim=1), torch.ones(64))
    centres = (bands * torch.arange(201)).sum(dim=1) * 40  # Hz
    assert (centres.diff() > 0).all()


def test_log_mel_finds_a_tone_in_its_band_and_is_standardised():
    x = LogMel()(torch.cat([tone(300), tone(1000), tone(4000)]))
    assert x.shape == (3, 64, 101)
    torch.testing.assert_close(x.mean(dim=(1, 2)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=(1, 2)), torch.ones(3), atol=1e-2, rtol=0)
    mel = [2595 * math.log10(1 + f / 700) for f in (50, 300, 1000, 4000, 8000)]
    for row, at in zip(x, mel[1:4], strict=True):
        expected = (at - mel[0]) / (mel[4] - mel[0]) * 65 - 1
        assert abs(int(row.mean(dim=1).argmax()) - expected) <= 1


def test_log_mel_does_not_hear_gain():
    wave = torch.randn(2, 16_000) * 0.3
    torch.testing.assert_close(LogMel()(wave * 0.1), LogMel()(wave), atol=0.02, rtol=0.02)


def test_warp_shifts_by_whole_samples_and_does_nothing_at_rate_one():
    wave = torch.randn(1, 1000)
    wave[:, :50] = wave[:, -50:] = 0
    one, none = torch.ones(1, 1), torch.zeros(1, 1)
    torch.testing.assert_close(warp(wave, one, none)[:, :-1], wave[:, :-1], atol=1e-3, rtol=0)
    shifted = warp(wave, one, torch.full((1, 1), 40.0))
    torch.testing.assert_close(shifted[:, 40:-1], wave[:, :-41], atol=1e-3, rtol=0)


def test_warp_raises_the_pitch_by_the_rate():
    faster = warp(tone(1000), torch.full((1, 1), 1.1), torch.zeros(1, 1))
    middle = faster[0, 4000:12_000]  # 0.5 s: bins of 2 Hz
    assert abs(int(torch.fft.rfft(middle).abs().argmax()) * 2 - 1100) <= 2


def test_random_rates_and_shifts_fill_their_ranges_and_no_more():
    wave = torch.zeros(2000, 1)
    rates, shifts = random_rates(wave, 0.1), random_shifts(wave, 1600)
    assert 1 / 1.1 <= rates.min() < 0.92 < 1.09 < rates.max() <= 1.1
    assert -1600 <= shifts.min() < -1500 < 1500 < shifts.max() <= 1600


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_signal_to_noise_ratio_it_says(snr_db):
    spectrum = torch.fft.rfft(torch.randn(8, 16_000))
    noise = random_noise(spectrum, snr_db=(snr_db, snr_db))
    power = [x.abs().square().sum(dim=1) for x in (spectrum, noise)]
    torch.testing.assert_close(10 * torch.log10(power[0] / power[1]), torch.full((8,), snr_db), atol=1e-3, rtol=0)


def test_noise_falls_on_the_share_of_the_clips_wherever_they_stand():
    wave = torch.randn(400, 64)
    noisy = ((random_channel(wave, equaliser_db=0.0, noise_share=0.25) - wave).abs() > 1e-3).any(dim=1)
    assert noisy.sum() == 100
    assert 0 < noisy[:100].sum() < 60


def test_equaliser_gains_have_the_decibels_they_say():
    gains = random_equaliser(torch.zeros(2000, 129), 3.0)
    decibels = 20 * torch.log10(gains)
    # At 0 Hz every cosine is 1 and the k-th component weighs 1 / sqrt(k).
    expected = 3.0 * math.sqrt(sum(1 / k for k in range(1, augmentation.EQUALISER_COMPONENTS + 1)))
    assert abs(decibels[:, 0].std() / expected - 1) < 0.1
    assert (random_equaliser(torch.zeros(1, 129), 0.0) == 1).all()


def test_channel_without_curve_and_noise_changes_nothing():
    wave = torch.randn(3, 16_000)
    torch.testing.assert_close(random_channel(wave, equaliser_db=0.0, noise_share=0.0), wave, atol=1e-4, rtol=0)


def test_a_gap_is_of_neighbours_and_of_the_width_allowed():
    hidden = random_gap(500, 64, max_width=8) == 0  # [B, size]
    widths = hidden.sum(dim=1)
    assert widths.min() == 0
    assert widths.max() == 8
    starts_and_ends = torch.diff(torch.nn.functional.pad(hidden.int(), (1, 1)), dim=1).abs().sum(dim=1)
    assert starts_and_ends.max() == 2
    assert hidden[:, 0].any() and hidden[:, -1].any()


def test_masks_hide_whole_bands_and_whole_frames():
    masked = random_masks(torch.ones(200, 64, 101)) == 0  # [B, F, T]
    bands, frames = masked.all(dim=2), masked.all(dim=1)
    assert torch.equal(masked, bands.unsqueeze(2) | frames.unsqueeze(1))
    assert 8 < bands.sum(dim=1).max() <= 16 and 12 < frames.sum(dim=1).max() <= 24


def test_a_seed_repeats_every_augmentation():
    def augment() -> list[torch.Tensor]:
        torch.manual_seed(7)
        wave = torch.randn(4, 4000)
        warped = warp(wave, random_rates(wave), random_shifts(wave))
        return [warped, random_channel(wave), random_masks(torch.ones(4, 64, 50))]

    for first, second in zip(augment(), augment(), strict=True):
        assert torch.equal(first, second)
