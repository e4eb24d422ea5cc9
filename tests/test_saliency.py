"""What models decide by, measured on filters and models that are made to have a known answer."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common.modules import DigitClassifier
from torch import nn

from common.audio import MEL_BANDS
from common.data import Batch, Examples
from common.saliency import (
    GROUPS,
    SHARES,
    clips_of_each_digit,
    deletion_curve,
    explain,
    filter_shape,
    occlusion,
    region_energy,
    split_regions,
)

STRETCHES = 20
HEARD = 2, 8  # the region that a listener hears: the centres of bands 16 to 23 lie from 0.72 to 1.16 kHz
ZEROS = torch.zeros(6, dtype=torch.int64)


@pytest.fixture
def noise() -> torch.Tensor:
    return 0.1 * torch.randn(6, 16_000, generator=torch.Generator().manual_seed(5))


def listen(wave: torch.Tensor) -> torch.Tensor:
    """A model whose logit of digit 0 rises with the energy from 0.8 to 1.1 kHz between 0.4 and 0.45 s."""
    power = torch.fft.rfft(wave[:, 6400:7200]).abs().square()[:, 40:55].mean(dim=1)  # bins of 20 Hz
    level = power / 2 - 2  # the mean power of the noise is 8
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
    assert bands.shape == (1, GROUPS, 15_900) and gates.shape == (STRETCHES, 15_900)
    torch.testing.assert_close((bands[:, :, None] * gates).sum(dim=(1, 2))[0], wave, rtol=0, atol=1e-5)
    energy = region_energy(bands, gates)[0, 1:]  # the offset is in the lowest band
    share = energy / energy.sum(dim=0)
    assert share[1, :10].min() > 0.9 and share[5, 10:].min() > 0.9 and bands[0, 0].mean() > 0.19


@pytest.mark.parametrize("sign", [1, -1])
@torch.no_grad()
def test_the_region_that_a_model_hears_explains_it_and_no_other_does(noise, sign):
    drop = sign * occlusion(lambda wave: sign * listen(wave), *split_regions(noise), ZEROS)
    heard = drop[:, *HEARD].clone()
    drop[:, *HEARD] = 0
    assert drop.shape == (6, GROUPS, STRETCHES) and heard.min() > 0.7 and drop.abs().max() < 0.05


@torch.no_grad()
def test_a_deletion_curve_falls_where_the_region_that_is_heard_comes_first(noise):
    order, given = torch.zeros(6, GROUPS, STRETCHES), []
    order[:3, *HEARD], order[3:, *HEARD] = 1, -1  # first in three clips, last in the others
    curve = deletion_curve(lambda wave: given.append(wave) or listen(wave), *split_regions(noise), ZEROS, order)
    p = listen(noise).softmax(dim=1)[:, 0]
    assert curve[0] == pytest.approx(p.mean().item(), abs=1e-4), "silence nowhere changes nothing"
    assert curve[1:] == pytest.approx([p[3:].sum().item() / 6] * (len(SHARES) - 1), abs=0.03)
    left = given[-1].square().sum(dim=1) / noise.square().sum(dim=1)
    assert len(given) == len(SHARES) and left.min() > 0.3 and left.max() - left.min() < 0.1, "equal shares are silent"


@pytest.mark.parametrize("name", ["1d", "2d"])
def test_a_classifier_is_explained_on_the_first_clip_of_each_digit_and_stays_as_it_was(noise, name):
    batch = Batch((9000 * noise).to(torch.int16), torch.tensor([7, 3, 3, 7, 7, 7]), ZEROS)
    torch.manual_seed(0)
    model = DigitClassifier((name,)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = explain(model, batch), explain(model, batch)
    assert torch.equal(torch.get_rng_state(), state) and model.training and model.embedder.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (first.drop == again.drop).all() and first.digit.tolist() == [3, 7] and first.clips == 6
    assert first.drop.shape == (2, GROUPS, STRETCHES) and first.log_mel.shape == (2, MEL_BANDS, 101)
    p = model.eval()(batch.waveform).softmax(dim=1).detach()
    assert first.probability == pytest.approx([p[1, 3].item(), p[0, 7].item()], rel=1e-4)
    mean = p.gather(1, batch.digit[:, None]).mean().item()
    assert {key: pytest.approx(mean, abs=1e-4) for key in first.curves} == {k: c[0] for k, c in first.curves.items()}
    assert first.curves["important"][1] < mean, "even an untrained model is explained"


def test_the_loudest_regions_are_silenced_first_in_one_control_and_any_in_the_other(noise):
    noise[:, 8000:9600] *= 30

    class Loud(nn.Module):
        def forward(self, wave):
            return torch.stack([wave[:, 8000:9600].square().mean(dim=1) - 4, 0 * wave[:, 0]], dim=1)

    curves = explain(Loud(), Batch(noise, ZEROS, ZEROS)).curves
    assert curves["loudest"][SHARES.index(0.1)] < 0.1 and curves["random"][SHARES.index(0.1)] > 0.9


def test_clips_are_taken_of_each_digit_that_there_is():
    digit = np.array([3] * 3 + [7] * 20)
    examples = {"test": Examples(np.arange(23, dtype=np.int16)[:, None], digit, np.arange(23) // 4, np.arange(23))}
    data = SimpleNamespace(examples=examples, device=torch.device("cpu"))
    few = clips_of_each_digit(data, 5)
    numbers = few.waveform[:, 0].tolist()
    assert few.digit.tolist() == [3] * 3 + [7] * 5 == digit[numbers].tolist() and len(set(numbers)) == 8
    assert numbers == clips_of_each_digit(data, 5).waveform[:, 0].tolist()
    assert len(set(few.speaker.tolist())) > 3, "the clips of a digit are sorted by speaker"
