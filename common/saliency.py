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


class Explanation(NamedTuple):
    """What a model decides by in some clips."""

    digit: np.ndarray  # [B]
    log_mel: np.ndarray  # [B, F, T]
    probability: np.ndarray  # [B] of the true digit
    drop: np.ndarray  # [B, G, S] of that probability when a region is silent


def clip_of_each_digit(data: SpokenDigits) -> Batch:
    """One test clip of each digit, of random speakers but always the same."""
    test = data.examples["test"]
    shuffled = np.random.default_rng(0).permutation(len(test))  # the corpus is sorted by speaker
    _, first = np.unique(test.digit.numpy()[shuffled], return_index=True)
    return Batch(*(part.to(data.device) for part in test.__getitems__(shuffled[first].tolist())))


@torch.no_grad()
def explain(model: nn.Module, batch: Batch) -> Explanation:
    """Explain a digit classifier, waveforms [B, N] to logits [B, digits]; it is left in eval mode.

    Source:
        Zeiler and Fergus, "Visualizing and understanding convolutional networks", arXiv:1311.2901.
    """
    wave, digit = to_float(batch.waveform), batch.digit
    model.to(wave.device).eval()

    def probability(clips: Tensor) -> Tensor:
        return model(clips).softmax(dim=1).gather(1, digit[:, None])[:, 0]  # [B] of the true digit

    bands, gates = split_regions(wave)
    regions = (band * gate for band in bands.unbind(dim=1) for gate in gates)  # [B, N] each
    occluded = torch.stack([probability(wave - region) for region in regions], dim=1)  # [B, G * S]
    before = probability(wave)
    drop = (before[:, None] - occluded).unflatten(1, (GROUPS, len(gates)))
    parts = digit, LogMel().to(wave.device)(wave), before, drop
    return Explanation(*(part.cpu().numpy() for part in parts))


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


def filter_shape(filters: Tensor) -> tuple[Tensor, Tensor]:
    """Centre frequency and bandwidth of filters at 16 kHz, in Hz: [C, size] -> [C], [C].

    Half of a filter's power lies below its centre, and half of it in the bandwidth, between the quartiles. A little
    power far away, such as at 0 Hz, moves the median less than a mean, and cannot make it jump like a peak.
    """
    power = torch.fft.rfft(filters, n=SAMPLE_RATE).abs().square()  # [C, K], one bin per Hz
    below = power.cumsum(dim=1) / power.sum(dim=1, keepdim=True)
    low, centre, high = ((below < share).sum(dim=1).float() for share in (0.25, 0.5, 0.75))  # [C] each
    return centre, high - low
