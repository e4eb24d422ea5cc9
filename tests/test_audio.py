"""Waveforms are scaled right or refused, and spectrograms put energy where it belongs."""

import math

import pytest
import torch
import torchaudio

from common.audio import POWER_FLOOR, LogMel, to_float, unit_power


def test_full_scale_of_int16_becomes_one_and_floats_keep_theirs():
    wave = torch.tensor([-32768, 0, 16384], dtype=torch.int16).repeat(1, 200)
    for same in (wave, wave.double() / 32768):
        assert to_float(same).dtype == torch.float32 and to_float(same)[0, :3].tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize("wave", [torch.zeros(2, 16_000, dtype=torch.int32), torch.zeros(2, 399), torch.zeros(16_000)])
def test_other_types_and_shapes_are_refused_in_one_line(wave):
    with pytest.raises(ValueError, match=r"^expected waveforms \[B, N\] .* got torch\.\w+ of shape \([\d, ]+\)$"):
        to_float(wave)


def test_log_mel_equals_torchaudios_with_eight_times_as_many_bins():
    """The mean difference is 0.014; a window of 360 samples makes it 0.024, a Hamming window 0.033."""
    t = torch.arange(16_000) / 16_000  # seconds
    sweeps = [(100, 400, 5), (300, 1500, 20), (3000, -1000, 10), (2000, 2000, 3)]
    wave = torch.stack(
        [torch.sin(2 * math.pi * (a + b * t) * t) * torch.exp(-c * (t - 0.5) ** 2) for a, b, c in sweeps]
    )
    transform = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=8 * 400, win_length=400, hop_length=160, f_min=50, f_max=8000, n_mels=64, pad_mode="constant"
    )
    power = transform(unit_power(wave)) / transform.spectrogram.window.square().sum()
    x = torch.log(power / transform.mel_scale.fb.sum(dim=0).unsqueeze(1) + POWER_FLOOR)  # means over bins, not sums
    expected = (x - x.mean(dim=(1, 2), keepdim=True)) / x.std(dim=(1, 2), keepdim=True)
    difference = (LogMel()(wave) - expected).abs()  # shapes differ with another hop or number of bands
    assert difference.mean() < 0.018


def test_log_mel_depends_on_neither_gain_nor_offset():
    wave = torch.randn(2, 16_000) * 0.3
    torch.testing.assert_close(LogMel()(wave * 0.1 + 0.2), LogMel()(wave), atol=0.02, rtol=0.02)
