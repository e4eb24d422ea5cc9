"""What models decide by, measured on filters and models that are made to have a known answer."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from common.audio import MEL_BANDS
from common.data import Batch, Examples
from common.encoders import DigitNetwork
from common.saliency import GROUPS, clip_of_each_digit, explain, filter_shape, split_regions

STRETCHES = 20
HEARD = 2, 8  # the region that a listener hears: the centres of bands 16 to 23 lie from 0.72 to 1.16 kHz
ZEROS = torch.zeros(6, dtype=torch.int64)


@pytest.fixture
def noise() -> torch.Tensor:
    return 0.1 * torch.randn(6, 16_000, generator=torch.Generator().manual_seed(5))


class Listener(nn.Module):
    """Its logit of digit 0 rises with the energy from 0.8 to 1.1 kHz between 0.4 and 0.45 s, or falls."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(wave[:, 6400:7200]).abs().square()[:, 40:55].mean(dim=1)  # bins of 20 Hz
        level = self.sign * (power / 2 - 2)  # the mean power of the noise is 8
        return torch.stack([level, -level], dim=1)


@pytest.mark.parametrize("centre, deviation", [(400, 0.002), (1000, 0.001), (5000, 0.0005)])
def test_a_sinusoid_under_a_gaussian_window_has_its_frequency_and_the_bandwidth_of_the_window(centre, deviation):
    time = (torch.arange(256) - 127.5) / 16_000
    wave = torch.cos(2 * math.pi * centre * time + 0.7) * torch.exp(-0.5 * (time / deviation) ** 2)
    found, bandwidth = filter_shape(torch.stack([wave, 3 * wave]))
    assert found.tolist() == pytest.approx([centre] * 2, abs=3)
    # The power spectrum is a Gaussian of deviation 1 / (sqrt(8) pi t), whose quartiles are 1.349 deviations apart.
    assert bandwidth.tolist() == pytest.approx([1.349 / (math.sqrt(8) * math.pi * deviation)] * 2, rel=0.05)


def test_regions_add_up_to_the_clip_and_lie_where_their_names_say():
    time = torch.arange(15_900) / 16_000  # the last stretch is cut short
    wave = 0.2 + torch.where(time < 0.5, torch.sin(2 * math.pi * 1100 * time), torch.sin(2 * math.pi * 5000 * time))
    bands, gates = split_regions(wave.unsqueeze(0))
    regions = (bands[:, :, None] * gates)[0]  # [G, S, N]
    assert regions.shape == (GROUPS, STRETCHES, 15_900)
    torch.testing.assert_close(regions.sum(dim=(0, 1)), wave, rtol=0, atol=1e-5)
    energy = regions[1:].square().sum(dim=2)  # the offset is in the lowest band
    share = energy / energy.sum(dim=0)
    assert share[1, :10].min() > 0.9 and share[5, 10:].min() > 0.9 and bands[0, 0].mean() > 0.19


@pytest.mark.parametrize("sign", [1, -1])
def test_the_region_that_a_model_hears_explains_it_and_no_other_does(noise, sign):
    drop = sign * explain(Listener(sign), Batch(noise, ZEROS, ZEROS)).drop
    heard = drop[:, *HEARD].copy()
    drop[:, *HEARD] = 0
    assert drop.shape == (6, GROUPS, STRETCHES) and heard.min() > 0.7 and np.abs(drop).max() < 0.05


@pytest.mark.parametrize("name", ["1d", "2d"])
def test_a_classifier_is_explained_without_chance_and_its_weights_stay(noise, name):
    batch = Batch((9000 * noise).to(torch.int16), torch.tensor([7, 3, 3, 7, 7, 7]), ZEROS)
    model = DigitNetwork((name,)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = explain(model, batch), explain(model, batch)
    assert torch.equal(torch.get_rng_state(), state) and (first.drop == again.drop).all()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert first.digit.tolist() == batch.digit.tolist() and first.log_mel.shape == (6, MEL_BANDS, 101)
    p = model(batch.waveform).softmax(dim=1).detach()[range(6), batch.digit]
    assert first.probability == pytest.approx(p.numpy(), rel=1e-4)


def test_one_clip_is_taken_of_each_digit_that_there_is():
    digit = np.array([3] * 3 + [7] * 20)
    examples = Examples(np.arange(23, dtype=np.int16)[:, None], digit, np.arange(23) // 4, np.arange(23))
    data = SimpleNamespace(examples={"test": examples}, device=torch.device("cpu"))
    clips = clip_of_each_digit(data)
    assert clips.digit.tolist() == [3, 7] == digit[clips.waveform[:, 0].tolist()].tolist()
    assert torch.equal(clips.waveform, clip_of_each_digit(data).waveform)
