"""Numbers that a change of the code's structure may not move, computed once and written down.

The waveforms and weights are sines rather than random numbers, so that they are the same with every version of torch.
"""

import pytest
import torch

from common.augmentation import Augmentation
from common.encoders import Embedder
from common.models import DigitClassifier

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
    module = Embedder().eval()
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
    expected = [[8.649274, -2.110542], [7.510897, -0.098566], [6.032347, -0.212245], [5.43981, 2.104101]]
    assert_near(z["1d"][:, [0, 100]], expected)
    expected = [[2.135748, 5.791987], [4.823653, 16.720045], [9.648901, 19.255976], [8.218655, 14.450028]]
    assert_near(z["2d"][:, [0, 100]], expected)


def test_embeddings_of_augmented_clips(embedder, waves):
    torch.manual_seed(1)
    z = embedder.encode(embedder.views(waves, Augmentation()))  # in eval mode: BatchNorm would magnify differences
    expected = [[8.100494, -1.13835], [9.148976, -1.199884], [5.962065, -0.205785], [5.444654, 1.700833]]
    assert_near(z["1d"][:, [0, 100]], expected, NORMAL_NUMBERS)
    expected = [[-2.410184, 14.007228], [1.002355, 18.833195], [2.509941, 25.817446], [3.481201, 14.967176]]
    assert_near(z["2d"][:, [0, 100]], expected, NORMAL_NUMBERS)


def test_first_logits_of_a_seed(waves):
    torch.manual_seed(3)
    logits = DigitClassifier(("1d", "2d")).eval()(waves)
    assert_near(logits[[0, 1, 2, 3], [0, 3, 6, 9]], [0.444854, -0.517969, 0.286891, 0.688049])
