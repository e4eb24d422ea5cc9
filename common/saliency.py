"""What a digit classifier has learned: the shapes of its filters, and the regions of a clip that it decides by.

A region is a group of 8 mel bands during 50 ms. Occlusion silences one region after the other: the more probability the
true digit loses, the more the model relies on that region. It works alike for all models, whatever they make of a clip.

Axes: B batch, N samples, K frequency bins, F mel bands, T frames, G groups of mel bands, S stretches of 50 ms.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.audio import HOP, SAMPLE_RATE, WINDOW, LogMel, mel_bands, to_float
from common.data import Batch, SpokenDigits

GROUPS = 8
STRETCH, FADE = SAMPLE_RATE // 20, SAMPLE_RATE // 100  # samples: 50 ms, and 10 ms, because a sudden end is a click
SHARES = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)  # of the time-frequency bins of a clip that are occluded


class Explanation(NamedTuple):
    """What a model decides by in the first clip of each digit, and a test of that on all clips."""

    digit: np.ndarray  # [n] the digits that occur
    log_mel: np.ndarray  # [n, F, T]
    probability: np.ndarray  # [n] of the true digit
    drop: np.ndarray  # [n, G, S] of that probability, see ``occlusion``
    curves: dict[str, np.ndarray]  # {which regions are occluded first: [shares]}, see ``deletion_curve``
    clips: int  # behind each curve


def filter_shape(filters: Tensor) -> tuple[Tensor, Tensor]:
    """Centre frequency and bandwidth of filters at 16 kHz, in Hz: [C, size] -> [C], [C].

    Half of a filter's power lies below its centre, and half of it in the bandwidth, between the quartiles. A little
    power far away, such as at 0 Hz, moves the median less than a mean, and cannot make it jump like a peak.
    """
    power = torch.fft.rfft(filters, n=SAMPLE_RATE).abs().square()  # [C, K], one bin per Hz
    below = power.cumsum(dim=1) / power.sum(dim=1, keepdim=True)
    low, centre, high = ((below < share).sum(dim=1).float() for share in (0.25, 0.5, 0.75))  # [C] each
    return centre, high - low


def clips_of_each_digit(data: SpokenDigits, count: int) -> Batch:
    """Up to ``count`` test clips of each digit, of random speakers but always the same."""
    test = data.examples["test"]
    shuffled = np.random.default_rng(0).permutation(len(test))  # the corpus is sorted by speaker
    digit = test.digit.numpy()[shuffled]
    picked = np.concatenate([shuffled[digit == each][:count] for each in range(10)])
    return Batch(*(part.to(data.device) for part in test.__getitems__(picked.tolist())))


def split_regions(wave: Tensor) -> tuple[Tensor, Tensor]:
    """Bands [B, G, N] that add up to clips [B, N], and gates [S, N] that add up to 1: a region is a band times a gate.

    The short-time Fourier transform is linear, so its bins can be shared out among the bands and transformed back.
    """
    mel, samples = mel_bands(), wave.shape[1]  # [F, K]
    mel[0, 0] = 1  # the bin at 0 Hz is in no mel band
    shares = (mel / mel.sum(dim=0)).unflatten(0, (GROUPS, -1)).sum(dim=1).to(wave.device)  # [G, K]
    window = torch.hann_window(WINDOW, device=wave.device)
    spectrum = torch.stft(wave, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)  # [B, K, T]
    parts = [spectrum * share[:, None] for share in shares]
    bands = torch.stack([torch.istft(part, WINDOW, HOP, window=window, length=samples) for part in parts], dim=1)
    gates = torch.eye(-(-samples // STRETCH)).repeat_interleave(STRETCH, dim=1)[:, :samples]
    gates = F.avg_pool1d(gates, FADE + 1, stride=1, padding=FADE // 2, count_include_pad=False)
    return bands, gates.to(wave.device)


def region_energy(bands: Tensor, gates: Tensor) -> Tensor:
    """How loud each region is: [B, G, N], [S, N] -> [B, G, S]."""
    return (bands.square().flatten(0, 1) @ gates.T).unflatten(0, bands.shape[:2])


def probability(model: nn.Module, wave: Tensor, digit: Tensor) -> Tensor:
    """What a model gives the true digit: [B, N], [B] -> [B]."""
    return model(wave).softmax(dim=1).gather(1, digit[:, None])[:, 0]


def occlusion(model: nn.Module, bands: Tensor, gates: Tensor, digit: Tensor) -> Tensor:
    """How much the probability of the true digit drops when one region is silent: ..., [B] -> [B, G, S].

    Source:
        Zeiler and Fergus, "Visualizing and understanding convolutional networks", arXiv:1311.2901.
    """
    wave, energy = bands.sum(dim=1), region_energy(bands, gates)
    before, drop = probability(model, wave, digit), torch.zeros_like(energy)
    for clip, group, stretch in (regions.T for regions in energy.nonzero().split(64)):
        occluded = wave[clip] - bands[clip, group] * gates[stretch]  # [64, N]
        drop[clip, group, stretch] = before[clip] - probability(model, occluded, digit[clip])
    return drop


def deletion_curve(model: nn.Module, bands: Tensor, gates: Tensor, digit: Tensor, order: Tensor) -> np.ndarray:
    """Mean probability of the true digit when each of ``SHARES`` is silent: ..., [B], [B, G, S] -> [shares].

    Args:
        order: the regions with the highest numbers go first; each clip loses the same number.

    Source:
        Petsiuk et al., "RISE", arXiv:1806.07421.
    """
    rank = order.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view_as(order)
    points = []
    for share in SHARES:
        kept = (rank >= round(share * order[0].numel())).float()  # [B, G, S]
        gains = (kept.flatten(0, 1) @ gates).view_as(bands)  # [B, G, N]
        points.append(probability(model, (gains * bands).sum(dim=1), digit).mean().item())
    return np.array(points)


@torch.no_grad()
def explain(model: nn.Module, batch: Batch) -> Explanation:
    """Explain a digit classifier, waveforms [B, N] to logits [B, digits], on some clips. Its mode stays as it was.

    Two controls show what the explanation is worth: the loudest regions first, and a random order.
    """
    wave, digit, was_training = to_float(batch.waveform), batch.digit, model.training
    model.to(wave.device).eval()
    bands, gates = split_regions(wave)
    before, drop = probability(model, wave, digit), occlusion(model, bands, gates, digit)
    random = torch.rand(drop.shape, generator=torch.Generator().manual_seed(0))
    orders = {"important": drop, "loudest": region_energy(bands, gates), "random": random.to(drop.device)}
    curves = {name: deletion_curve(model, bands, gates, digit, order) for name, order in orders.items()}
    model.train(was_training)
    first = torch.stack([(digit == each).nonzero()[0, 0] for each in digit.unique()])
    shown = digit[first], LogMel().to(wave.device)(wave[first]), before[first], drop[first]
    digits, log_mel, p, drops = (part.cpu().numpy() for part in shown)
    return Explanation(digits, log_mel, p, drops, curves, len(digit))
