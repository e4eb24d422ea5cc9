"""Random changes that leave the word as it was, for whole batches on any device.

Everything draws from torch's global random numbers, so a seeded run repeats it. Axes: B batch, N samples, F mel bands,
T frames, K frequency bins of a clip's spectrum (N // 2 + 1).
"""

import math

import torch
from torch import Tensor

from common.audio import SAMPLE_RATE

KINDS = ("none", "waveform", "spectrogram", "both")

MAX_SPEED = 0.1  # up to 10% faster or slower
MAX_SHIFT = SAMPLE_RATE // 10  # samples: 100 ms
EQUALISER_DB = 3.0  # standard deviation of each of the curve's components
EQUALISER_COMPONENTS = 5
NOISE_SHARE = 0.5  # of the clips get noise
NOISES = 8  # different ones in a batch
NOISE_SNR_DB = (0.0, 40.0)
NOISE_SLOPE = (-1.2, 0.3)  # exponent of amplitude over frequency: from traffic (-1.2) over white (0) to hiss
MASKS, MASK_BANDS, MASK_FRAMES = 2, 8, 12


def random_rates(wave: Tensor, max_change: float = MAX_SPEED) -> Tensor:
    """A playing speed for each clip: [B, 1], log-uniform from 1 / (1 + max_change) to 1 + max_change."""
    return torch.exp(_uniform(wave, -1, 1) * math.log1p(max_change))


def random_shifts(wave: Tensor, max_shift: int = MAX_SHIFT) -> Tensor:
    """A delay in samples for each clip: [B, 1], uniform from -max_shift to max_shift."""
    return _uniform(wave, -max_shift, max_shift)


def warp(wave: Tensor, rate: Tensor, shift: Tensor) -> Tensor:
    """Play each clip ``rate`` times as fast about its middle, and ``shift`` samples later: [B, N] -> [B, N].

    Pitch and formants move with the speed. Samples are interpolated linearly; past its ends a clip keeps its outermost
    samples, which are zeros or the quiet around the word.
    """
    size = wave.shape[1]
    middle = (size - 1) / 2
    steps = torch.arange(size, dtype=wave.dtype, device=wave.device) - middle
    position = torch.addcmul(middle - shift * rate, steps, rate).clamp_(0, size - 1.001)  # [B, N]
    left = position.long()
    return torch.lerp(wave.gather(1, left), wave[:, 1:].gather(1, left), position.frac_())


def random_channel(wave: Tensor, equaliser_db: float = EQUALISER_DB, noise_share: float = NOISE_SHARE) -> Tensor:
    """Record each clip with another microphone in another room: [B, N] -> [B, N].

    Multiplies the spectrum by a smooth random curve and adds coloured noise to a share of the clips. Both happen
    between one Fourier transform and its inverse.
    """
    spectrum = torch.fft.rfft(wave)  # [B, K]
    spectrum *= random_equaliser(spectrum, equaliser_db)
    noisy = torch.randperm(len(wave), device=wave.device)[: round(noise_share * len(wave))]
    spectrum[noisy] += random_noise(spectrum[noisy])
    return torch.fft.irfft(spectrum, n=wave.shape[1])


def random_equaliser(spectrum: Tensor, standard_deviation_db: float) -> Tensor:
    """Smooth random gains [B, K]: cosines over the mel scale, the slower the stronger."""
    frequency = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1], device=spectrum.device)  # [K], Hz
    mel = torch.log1p(frequency / 700) / math.log1p(SAMPLE_RATE / 2 / 700)  # 0 to 1
    order = torch.arange(1, EQUALISER_COMPONENTS + 1, device=spectrum.device).unsqueeze(1)
    curves = torch.cos(math.pi * order * mel) / order.sqrt()  # [components, K]
    amount = torch.randn(len(spectrum), EQUALISER_COMPONENTS, device=spectrum.device) * standard_deviation_db
    return torch.exp(amount @ curves * (math.log(10) / 20))


def random_noise(spectrum: Tensor, snr_db: tuple[float, float] = NOISE_SNR_DB) -> Tensor:
    """The spectra [B, K] of coloured noise for such clips, at signal-to-noise ratios drawn from ``snr_db``."""
    frequency = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1], device=spectrum.device).clamp(min=50)  # [K], Hz
    color = torch.exp(_uniform(spectrum, *NOISE_SLOPE) * torch.log(frequency / 1000))  # [B, K]
    ratio = 10 ** (_uniform(spectrum, *snr_db) / 10)
    power = torch.view_as_real(spectrum).square().sum(dim=(1, 2)).unsqueeze(1)  # [B, 1]; faster than abs().square()
    # The noise has the power of its expectation: complex normal numbers have the variance 1.
    color *= (power / ratio / color.square().sum(dim=1, keepdim=True)).sqrt()
    # Several clips share a noise, each in its own colour: drawing one for each would take as long as both transforms.
    noise = torch.randn_like(spectrum[:NOISES])
    return noise.repeat(-(-len(spectrum) // NOISES), 1)[: len(spectrum)] * color


def random_masks(log_mel: Tensor) -> Tensor:
    """SpecAugment (Park et al., arXiv:1904.08779): hide two stretches of bands and two of frames: [B, F, T].

    What is hidden becomes 0, the clip's mean.
    """
    batch, bands, frames = log_mel.shape
    for _ in range(MASKS):
        log_mel = log_mel * random_gap(batch, bands, MASK_BANDS, log_mel.device).unsqueeze(2)
        log_mel = log_mel * random_gap(batch, frames, MASK_FRAMES, log_mel.device).unsqueeze(1)
    return log_mel


def random_gap(batch: int, size: int, max_width: int, device: torch.device | None = None) -> Tensor:
    """Rows of ones with 0 to ``max_width`` neighbouring zeros in each: [batch, size] float."""
    width = torch.randint(0, max_width + 1, (batch, 1), device=device)
    start = (torch.rand(batch, 1, device=device) * (size - width + 1)).long()
    index = torch.arange(size, device=device)
    return ((index < start) | (index >= start + width)).float()


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(like), 1, device=like.device)  # [B, 1]
