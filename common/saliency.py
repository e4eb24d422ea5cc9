"""What a digit classifier has learned: the shapes of its filters, and the parts of a clip that it decides by.

Every model is explained on one plane, whatever its input is. A clip is cut into cells of one mel band and one frame,
each with a gain between 0 (silent) and 1. The gains scale the short-time Fourier transform of the clip, whose inverse
is the waveform that the model hears, and gradients flow back along the same way.

Axes: B batch, N samples, K frequency bins, F mel bands, T frames.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common.audio import HOP, MEL_BANDS, SAMPLE_RATE, WINDOW, LogMel, mel_bands, to_float
from common.batches import Batch
from common.data import SpokenDigits
from common.evaluate import batches_for

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the cells of a clip that are silenced
DRAWS = 4  # of random gains; four times as many move no point of a deletion curve by more than 0.04


class Explanation(NamedTuple):
    """What a model decides by in one clip of each digit, and a test of that on all clips.

    A curve is the mean probability of the true digit after each of ``SHARES`` of the cells has been silenced.
    """

    digit: np.ndarray  # [n] the digits that occur
    log_mel: np.ndarray  # [n, F, T] the first clip of each
    saliency: np.ndarray  # [n, F, T] see ``cell_saliency``
    probability: np.ndarray  # [n] that the model gives the true digit
    curves: dict[str, np.ndarray]  # {which cells are silenced first: [shares]}
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


def to_spectrum(wave: Tensor) -> Tensor:
    """Short-time Fourier transform with the frames of ``LogMel``: [B, N] float -> [B, K, T] complex."""
    window = torch.hann_window(WINDOW, device=wave.device)
    return torch.stft(wave, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)


def to_wave(spectrum: Tensor, gains: Tensor, samples: int) -> Tensor:
    """The waveform of a spectrum whose cells are scaled: [B, K, T] complex, [B, F, T] -> [B, samples]."""
    window = torch.hann_window(WINDOW, device=spectrum.device)
    # One plain matrix product: a Mac's GPU is not to be trusted with one whose first matrix is repeated for each clip.
    bins = gains.transpose(1, 2).reshape(-1, MEL_BANDS) @ _bands_of_bins().T.to(gains)  # [B * T, K]
    bins = bins.view(len(gains), -1, spectrum.shape[1]).transpose(1, 2)  # [B, K, T]
    return torch.istft(spectrum * bins, WINDOW, HOP, window=window, length=samples)


def _bands_of_bins() -> Tensor:
    """How much each frequency bin belongs to each mel band: [K, F], each bin summing to 1."""
    bands = mel_bands()  # [F, K]
    bands[0, 0] = 1  # The bin at 0 Hz is in no band. It goes with the lowest, so that silence can be complete.
    return (bands / bands.sum(dim=0)).T


def cell_saliency(model: nn.Module, wave: Tensor, digit: Tensor) -> Tensor:
    """How much each cell speaks for the digit: [B, N], [B] -> [B, F, T], in nats of its log probability.

    A cell's gain has the gradient d log p / d gain. Its integral from 0 to 1 is what log p gains when the cell is heard
    rather than silent, so we average the gradient over random gains of all cells, uniform in [0, 1]. That is also the
    mean over what else is heard. A path on which all gains rise together, as in integrated gradients, would tell
    nothing here: the encoders ignore the level of a clip, so nothing changes along it.

    Sources:
        Simonyan et al., arXiv:1312.6034, for gradients as saliency; Smilkov et al., "SmoothGrad", arXiv:1706.03825, for
        their mean over noise; Sundararajan et al., "Integrated gradients", arXiv:1703.01365, for the integral.
    """
    spectrum, generator = to_spectrum(wave), torch.Generator().manual_seed(0)
    gradients: list[Tensor] = []
    for _ in range(DRAWS):
        gains = _random_cells(spectrum, generator).requires_grad_()
        log_p = model(to_wave(spectrum, gains, wave.shape[1])).log_softmax(dim=1)  # [B, digits]
        gradients += torch.autograd.grad(log_p.gather(1, digit[:, None]).sum(), gains)
    return torch.stack(gradients).mean(dim=0)


def _random_cells(spectrum: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1], the same on any device: [B, K, T] -> [B, F, T]."""
    cells = torch.rand(len(spectrum), MEL_BANDS, spectrum.shape[2], generator=generator)
    return cells.to(spectrum.device)


@torch.no_grad()
def deletion_curve(model: nn.Module, wave: Tensor, digit: Tensor, order: Tensor) -> Tensor:
    """Mean probability of the true digit as ever more cells fall silent: [B, N], [B], [B, F, T] -> [shares].

    Args:
        order: the cells with the highest numbers go first; each clip loses the same number.

    Source:
        Petsiuk et al., "RISE", arXiv:1806.07421.
    """
    spectrum, cells = to_spectrum(wave), order[0].numel()
    rank = order.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view_as(order)
    points = []
    for share in SHARES:
        kept = (rank >= round(share * cells)).float()
        p = model(to_wave(spectrum, kept, wave.shape[1])).softmax(dim=1)
        points.append(p.gather(1, digit[:, None]).mean())
    return torch.stack(points)


def explain(model: nn.Module, batch: Batch) -> Explanation:
    """Explain a digit classifier, waveforms [B, N] to logits [B, digits], on some clips. Its mode stays as it was.

    Two controls show what the saliency is worth: cells in random order, and the loudest first.
    """
    for waveform, digit, _ in batches_for(model, [batch]):
        wave = to_float(waveform)
        found = cell_saliency(model, wave, digit)
        spectrum = to_spectrum(wave)
        loudness = _bands_of_bins().T.to(wave) @ spectrum.abs().square()
        random = _random_cells(spectrum, torch.Generator().manual_seed(1))
        orders = {"salient": found, "loudest": loudness, "random": random}
        curves = {name: deletion_curve(model, wave, digit, order).cpu().numpy() for name, order in orders.items()}
        digits = digit.unique()
        shown = [int((digit == each).nonzero()[0]) for each in digits]
        with torch.no_grad():
            p = model(wave[shown]).softmax(dim=1).gather(1, digit[shown, None])[:, 0]
            log_mel = LogMel().to(wave.device)(wave[shown])
    digits, log_mel, cells, p = (each.cpu().numpy() for each in (digits, log_mel, found[shown], p))
    return Explanation(digits, log_mel, cells, p, curves, len(digit))
