"""The encoders keep their contract: two convolutions, 32 -> 64 channels, 128 dimensions, about 69K parameters."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.encoders import Embedder, Encoder1D, Encoder2D, filter_wave, gabor_filters


def test_two_layers_of_32_and_64_channels_and_69k_parameters_together():
    total = 0
    for encoder, first in ((Encoder1D(), 1), (Encoder2D(), 64)):  # the mel bands are the channels of a spectrogram
        convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
        assert [(c.in_channels, c.out_channels) for c in convolutions] == [(first, 32), (32, 64)]
        total += sum(p.numel() for p in encoder.parameters())
    assert 68_000 <= total <= 70_000


@pytest.mark.parametrize(("encoder", "shape"), [(Encoder1D, (16_000,)), (Encoder2D, (64, 101))])
def test_embeddings_are_the_same_with_and_without_a_channel_axis(encoder, shape):
    model, x = encoder().eval(), torch.randn(3, *shape)
    z = model(x)
    assert z.shape == (3, 128)
    torch.testing.assert_close(model(x.unsqueeze(1)), z)


def test_waveform_encoder_ignores_gain_and_offset():
    model, wave = Encoder1D().eval(), torch.randn(2, 16_000)
    torch.testing.assert_close(model(0.1 * wave + 0.1), model(wave), rtol=1e-2, atol=1e-2)


def test_gabor_filters_respond_to_their_own_band():
    filters = gabor_filters(32, 256)
    torch.testing.assert_close(filters.norm(dim=1), torch.ones(32))
    peaks = torch.fft.rfft(filters, n=16_000).abs().argmax(dim=1)  # one bin per Hz
    assert (peaks.diff() > 0).all()
    assert 60 < peaks[0] < 200
    assert 7000 < peaks[-1] < 7700


@pytest.mark.parametrize("samples", [400, 15_999, 16_000])
def test_waves_are_filtered_as_by_a_strided_convolution(samples):
    wave, filters = torch.randn(3, samples), torch.randn(5, 256, requires_grad=True)
    expected = F.conv1d(wave.unsqueeze(1), filters.unsqueeze(1), stride=40, padding=128)
    found = filter_wave(wave, filters, stride=40).squeeze(2)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((x * weight).sum(), filters)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-2, rtol=1e-4)


def test_copied_weights_are_equal_and_not_shared():
    first, second = Embedder(), Embedder(("2d",))
    second.copy_weights(first)
    a, b = (each.encoders["2d"].state_dict() for each in (first, second))
    assert all(torch.equal(value, b[key]) and value.data_ptr() != b[key].data_ptr() for key, value in a.items())
