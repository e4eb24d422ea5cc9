"""What models decide by, measured on filters and models that are made to have a known answer."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from common.audio import MEL_BANDS
from common.batches import Batch, Examples
from common.modules import DigitClassifier
from common.saliency import (
    SHARES,
    cell_saliency,
    clips_of_each_digit,
    deletion_curve,
    explain,
    filter_shape,
    to_spectrum,
    to_wave,
)

FRAMES = 101


@pytest.fixture
def noise() -> torch.Tensor:
    return 0.1 * torch.randn(6, 16_000, generator=torch.Generator().manual_seed(5))


class Listener(nn.Module):
    """Gives digit 0 a logit that rises with the energy from 1 to 1.3 kHz between 0.4 and 0.5 s, and hears nothing else.

    Args:
        sign: -1 for a logit that falls.
    """

    def __init__(self, sign: int = 1) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(wave[:, 6400:8000]).abs().square()[:, 100:130].mean(dim=1)  # bins of 10 Hz
        level = self.sign * (power / 4 - 2)  # the mean power of the noise is 16
        return torch.stack([level, -level], dim=1)


# The cells that the listener hears, by the mel formula, and their neighbours.
REGION = torch.zeros(MEL_BANDS, FRAMES, dtype=torch.bool)
REGION[19:27, 39:52] = True


# --- filters


@pytest.mark.parametrize("centre, deviation", [(400, 0.002), (1000, 0.001), (5000, 0.0005)])
def test_a_sinusoid_under_a_gaussian_window_has_its_frequency_and_the_bandwidth_of_the_window(centre, deviation):
    time = (torch.arange(256) - 127.5) / 16_000
    wave = torch.cos(2 * math.pi * centre * time + 0.7) * torch.exp(-0.5 * (time / deviation) ** 2)
    found, bandwidth = filter_shape(torch.stack([wave, 3 * wave]))
    assert found.tolist() == pytest.approx([centre] * 2, abs=3)
    # The power spectrum is a Gaussian of deviation 1 / (sqrt(8) pi t), whose quartiles are 1.349 deviations apart.
    assert bandwidth.tolist() == pytest.approx([1.349 / (math.sqrt(8) * math.pi * deviation)] * 2, rel=0.05)


# --- cells


def test_full_gains_change_nothing_and_zero_gains_leave_silence(noise):
    wave = noise + 0.1  # an offset is at 0 Hz, which is in no mel band
    spectrum, full = to_spectrum(wave), torch.ones(6, MEL_BANDS, FRAMES)
    assert (to_wave(spectrum, full, 16_000) - wave).abs().max() < 1e-5
    assert to_wave(spectrum, 0 * full, 16_000).abs().max() < 1e-6
    full[:, 0] = 0
    assert to_wave(spectrum, full, 16_000).mean(dim=1).abs().max() < 0.01, "the offset is in the lowest band"


def test_a_cell_is_silenced_where_it_lies(noise):
    spectrum, gains = to_spectrum(noise), torch.ones(6, MEL_BANDS, FRAMES)
    gains[:, REGION] = 0
    lost = (to_spectrum(to_wave(spectrum, gains, 16_000) - noise)).abs().square().mean(dim=0)  # [K, T]
    inside = lost[25:33, 41:50].mean()  # bins of 40 Hz, from 1 to 1.3 kHz
    assert inside > 0.9 * spectrum[:, 25:33, 41:50].abs().square().mean()
    outside = torch.ones_like(lost, dtype=torch.bool)
    outside[19:40, 37:54] = False
    assert lost[outside].max() < 0.02 * inside


# --- saliency and deletion


@pytest.mark.parametrize("sign", [1, -1])
def test_the_cells_that_a_model_hears_are_salient_with_the_sign_that_they_have(noise, sign):
    found = sign * cell_saliency(Listener(sign), noise, torch.zeros(6, dtype=torch.int64))
    assert found.shape == (6, MEL_BANDS, FRAMES)
    inside, outside = found[:, REGION], found[:, ~REGION]
    assert (inside.sum(dim=1) > 4 * outside.abs().sum(dim=1)).all()
    assert (inside.amax(dim=1) > 5 * outside.abs().amax(dim=1)).all()


def test_saliencies_add_up_to_what_hearing_the_clip_adds_to_the_log_probability(noise):
    """So they do for a model of the energy, where the gradient at full gains would add up to twice as much."""

    class Energy(nn.Module):
        def forward(self, wave):
            level = wave.square().sum(dim=1) / 40
            return torch.stack([level, torch.full_like(level, 50)], dim=1)  # log p = level - 50 for low levels

    found = cell_saliency(Energy(), noise, torch.zeros(6, dtype=torch.int64))
    heard, silent = (Energy()(wave).log_softmax(dim=1)[:, 0] for wave in (noise, 0 * noise))
    torch.testing.assert_close(found.sum(dim=(1, 2)), heard - silent, rtol=0.05, atol=0)


def test_the_deletion_curve_falls_at_once_for_salient_cells_and_not_for_others(noise):
    model, digit = Listener(), torch.zeros(6, dtype=torch.int64)
    found = cell_saliency(model, noise, digit)
    plain = model(noise).softmax(dim=1)[:, 0].mean().item()
    curve, reverse = (deletion_curve(model, noise, digit, order) for order in (found, -found))
    assert curve.shape == reverse.shape == (len(SHARES),)
    assert curve[0] == pytest.approx(plain, abs=1e-4) and plain > 0.9, "silencing nothing changes nothing"
    assert curve[2] < 0.1, "2% of the cells hold all that the model hears"
    assert reverse[:-1].min() > plain - 0.02


# --- clips and models of the task


@pytest.fixture
def batch() -> Batch:
    wave = torch.randint(-9000, 9000, (5, 16_000), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    return Batch(wave, torch.tensor([3, 3, 7, 7, 7]), torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize("name", ["1d", "2d"])
def test_a_classifier_is_explained_on_the_first_clip_of_each_digit_and_stays_as_it_was(batch, name):
    model = DigitClassifier((name,)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = explain(model, batch), explain(model, batch)
    assert torch.equal(torch.get_rng_state(), state) and model.training and model.embedder.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert (first.saliency == again.saliency).all() and first.digit.tolist() == [3, 7] and first.clips == 5
    assert first.saliency.shape == first.log_mel.shape == (2, MEL_BANDS, FRAMES) and np.abs(first.saliency).max() > 0
    p = model.eval()(batch.waveform).softmax(dim=1).detach()
    assert first.probability == pytest.approx([p[0, 3].item(), p[2, 7].item()], rel=1e-4)
    assert list(first.curves) == ["salient", "loudest", "random"]
    for key, curve in first.curves.items():
        assert (curve == again.curves[key]).all() and np.isfinite(curve).all()
        assert curve[0] == pytest.approx(p.gather(1, batch.digit[:, None]).mean().item(), abs=1e-4)
    assert first.curves["salient"][2:].max() < first.curves["salient"][0], "even an untrained model is explained"


def test_loud_cells_are_silenced_first_in_the_control(noise):
    wave = noise.clone()
    wave[:, 8000:9600] *= 30
    batch = Batch(wave, torch.zeros(6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64))

    class Loud(nn.Module):
        def forward(self, wave):
            level = wave[:, 8000:9600].square().mean(dim=1) - 4
            return torch.stack([level, -level], dim=1)

    curves = explain(Loud(), batch).curves
    assert curves["loudest"][SHARES.index(0.2)] < 0.05 and curves["random"][SHARES.index(0.2)] > 0.9


def test_clips_are_taken_of_each_digit_that_there_is():
    digit = np.array([3] * 3 + [7] * 20)
    waves = np.arange(23, dtype=np.int16)[:, None]
    examples = {"test": Examples(waves, digit, np.arange(23) // 4, np.arange(23))}
    data = SimpleNamespace(examples=examples, device=torch.device("cpu"))
    state = np.random.get_state()[1].copy()
    few = clips_of_each_digit(data, 5)
    assert few.digit.tolist() == [3] * 3 + [7] * 5
    numbers = few.waveform[:, 0].tolist()
    assert len(set(numbers)) == 8 and numbers == clips_of_each_digit(data, 5).waveform[:, 0].tolist()
    assert all(digit[number] == each for number, each in zip(numbers, few.digit, strict=True))
    assert len(set(few.speaker.tolist())) > 3, "the clips of a digit are sorted by speaker"
    assert (np.random.get_state()[1] == state).all()


def test_every_clip_loses_the_same_share_of_its_cells_the_highest_numbers_first(noise):
    """Cells are numbered by their bands, so that the highest bands go first."""
    order = torch.arange(MEL_BANDS).view(1, -1, 1).expand(6, -1, FRAMES) * torch.tensor([1, 1, 1, 9, 9, 9]).view(
        6, 1, 1
    )
    waves = []

    class Recorder(nn.Module):
        def forward(self, wave):
            waves.append(wave)
            return wave[:, :2]

    deletion_curve(Recorder(), noise, torch.zeros(6, dtype=torch.int64), order.float())
    half = to_spectrum(waves[SHARES.index(0.5)]).abs().square().mean(dim=2)  # [B, K]
    whole = to_spectrum(noise).abs().square().mean(dim=2)
    assert len(waves) == len(SHARES)
    assert (half[:, :40].mean(dim=1) > 0.9 * whole[:, :40].mean(dim=1)).all(), "the lower half reaches to 1.8 kHz"
    assert (half[:, 50:].mean(dim=1) < 0.01 * whole[:, 50:].mean(dim=1)).all()
