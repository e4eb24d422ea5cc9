"""Numbers that a change of the code's structure may not move, computed once and written down.

The waveforms and weights are sines rather than random numbers, so that they are the same with every version of torch.
"""

import pytest
import torch

from common.audio import LogMel, to_float
from common.augmentation import random_channel, random_masks, random_rates, random_shifts, warp
from common.losses import info_nce
from common.modules import DigitClassifier
from common.networks import Embedder

ROUNDING = 2e-5  # processors differ in the order in which they add
NORMAL_NUMBERS = 5e-3  # they also differ in the fourth digit of torch.randn, which the augmentation draws from


@pytest.fixture
def waves() -> torch.Tensor:
    """Four rising tones with a bell-shaped envelope: [4, 16000] int16."""
    t = torch.arange(16_000, dtype=torch.float64) / 16_000
    frequency = torch.tensor([150.0, 400.0, 1100.0, 2900.0], dtype=torch.float64)[:, None]
    tone = 0.4 * torch.sin(2 * torch.pi * frequency * t * (1 + 0.3 * t)) * torch.exp(-8 * (t - 0.4) ** 2)
    wave = tone + 0.02 * torch.sin(2 * torch.pi * 37 * frequency * t)
    return (wave.float() * 32767).round().short()


@pytest.fixture
def embedder() -> Embedder:
    """Both encoders with fixed weights; the filterbank keeps its initial filters."""
    module = Embedder(("1d", "2d")).eval()
    with torch.no_grad():
        for number, (name, value) in enumerate(sorted(module.state_dict().items())):
            if value.is_floating_point() and "filterbank" not in name:
                n = torch.arange(value.numel(), dtype=torch.float64)
                sines = torch.sin(0.7 * n.square() + number).reshape(value.shape) / 2
                value.copy_(sines.abs() + 0.5 if "var" in name else sines)
    return module


def assert_near(found: torch.Tensor, expected: list | float, tolerance: float = ROUNDING) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected), atol=tolerance, rtol=tolerance)


def test_embeddings(embedder, waves):
    z = embedder(waves)
    expected = [[8.648894, -2.11043], [7.510039, -0.09883], [6.032736, -0.212514], [5.440795, 2.103565]]
    assert_near(z["1d"][:, [0, 100]], expected)
    expected = [[2.138252, 5.787219], [4.823664, 16.709997], [9.64454, 19.2416], [8.214859, 14.437336]]
    assert_near(z["2d"][:, [0, 100]], expected)


def test_embeddings_of_augmented_clips(embedder, waves):
    embedder.train().encoders.eval()  # BatchNorm over four clips would magnify the differences between processors
    torch.manual_seed(1)
    z = embedder(waves)
    expected = [[8.10006, -1.138681], [8.878989, -2.110913], [5.962443, -0.206063], [6.488265, 1.89163]]
    assert_near(z["1d"][:, [0, 100]], expected, NORMAL_NUMBERS)
    expected = [[-2.11428, 13.494804], [3.940742, 20.146757], [-3.95821, 21.81765], [3.305653, 18.482178]]
    assert_near(z["2d"][:, [0, 100]], expected, NORMAL_NUMBERS)


def test_log_mel(waves):
    x = LogMel()(to_float(waves))
    assert_near(x[[0, 1, 2, 3], [5, 20, 40, 60], [40, 50, 10, 90]], [3.534873, -0.345549, -0.270888, -0.245607])


def test_augmentation(waves):
    wave = to_float(waves)
    torch.manual_seed(2)
    augmented = random_channel(warp(wave, random_rates(wave), random_shifts(wave)))
    expected = [[-0.353711, -0.335421], [-0.249102, -0.079773], [0.460396, 0.201608], [-0.235258, 0.212328]]
    assert_near(augmented[:, [6400, 8000]], expected, NORMAL_NUMBERS)
    masked = random_masks(torch.ones(4, 64, 101))
    assert masked.sum(dim=(1, 2)).tolist() == [4455, 4293, 4950, 4956]


def test_info_nce():
    n = torch.arange(64.0).reshape(8, 8)
    assert_near(info_nce(torch.sin(n), torch.cos(1.3 * n), 0.2), 4.358259)


def test_first_logits_of_a_seed(waves):
    torch.manual_seed(3)
    logits = DigitClassifier(("1d", "2d")).eval()(waves)
    assert_near(logits[[0, 1, 2, 3], [0, 3, 6, 9]], [0.444779, -0.517946, 0.286936, 0.688084])
