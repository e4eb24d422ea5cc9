"""From cached samples to what the encoders see: scaling, log-mel spectrograms and augmentation, whole batches at once.

Everything here runs on the device that trains. Augmentations draw from torch's global random numbers, so a seeded run
repeats them. Axes: B batch, N samples, F mel bands, T frames.
"""

import torch
import torchaudio
from torch import Tensor, nn

from common.cache import SAMPLE_RATE

MEL_BANDS = 64
AUGMENTATIONS = ("none", "waveform", "spectrogram", "both")


def to_float(wave: Tensor) -> Tensor:
    """int16 samples to float32 in [-1, 1], any shape."""
    return wave.float() / 32768


class LogMel(nn.Module):
    """Log-mel spectrogram of 64 bands, standardised per clip so that level and microphone gain drop out.

    Windows of 25 ms every 10 ms.

    Shape:
        wave: [B, N] at 16 kHz. Returns [B, F, T] with T = N // 160 + 1, mean 0 and standard deviation 1 per clip.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            SAMPLE_RATE, n_fft=512, win_length=400, hop_length=160, n_mels=MEL_BANDS, f_min=20.0
        )

    def forward(self, wave: Tensor) -> Tensor:
        x = torch.log(self.mel(wave) + 1e-5)  # [B, F, T]
        return (x - x.mean(dim=(1, 2), keepdim=True)) / (x.std(dim=(1, 2), keepdim=True) + 1e-5)


def augment_waveform(wave: Tensor) -> Tensor:
    """Shift, scale and add noise to every clip of a batch: [B, N] -> [B, N]."""
    wave = random_shift(wave, max_shift=SAMPLE_RATE // 10)
    wave = random_gain(wave, max_db=6.0)
    return random_noise(wave, snr_db=(10.0, 50.0))


def augment_spectrogram(log_mel: Tensor) -> Tensor:
    """Hide up to two stretches of bands and two of frames of every clip of a batch: [B, F, T] -> [B, F, T]."""
    for _ in range(2):
        log_mel = random_mask(log_mel, dim=1, max_width=8)
        log_mel = random_mask(log_mel, dim=2, max_width=12)
    return log_mel


def random_shift(wave: Tensor, max_shift: int) -> Tensor:
    """Move each clip in time by up to ``max_shift`` samples either way; zeros come in from the side."""
    shift = torch.randint(-max_shift, max_shift + 1, (len(wave), 1), device=wave.device)
    source = torch.arange(wave.shape[1], device=wave.device) - shift  # [B, N]
    inside = (source >= 0) & (source < wave.shape[1])
    return wave.gather(1, source.clamp(0, wave.shape[1] - 1)) * inside


def random_gain(wave: Tensor, max_db: float) -> Tensor:
    """Scale each clip by up to ``max_db`` decibels either way."""
    gain_db = (torch.rand(len(wave), 1, device=wave.device) * 2 - 1) * max_db
    return wave * 10 ** (gain_db / 20)


def random_noise(wave: Tensor, snr_db: tuple[float, float]) -> Tensor:
    """Add white noise to each clip at a signal-to-noise ratio drawn from ``snr_db`` (decibels)."""
    low, high = snr_db
    snr = low + (high - low) * torch.rand(len(wave), 1, device=wave.device)
    signal = wave.square().mean(dim=1, keepdim=True).sqrt()
    return wave + torch.randn_like(wave) * signal * 10 ** (-snr / 20)


def random_mask(log_mel: Tensor, dim: int, max_width: int) -> Tensor:
    """SpecAugment: in each clip set 0 to ``max_width`` neighbouring bands (dim 1) or frames (dim 2) to 0, the mean.

    Source:
        Park et al., "SpecAugment", arXiv:1904.08779.
    """
    size, batch = log_mel.shape[dim], len(log_mel)
    width = torch.randint(0, max_width + 1, (batch, 1), device=log_mel.device)
    start = (torch.rand(batch, 1, device=log_mel.device) * (size - width + 1)).long()
    place = torch.arange(size, device=log_mel.device)
    hidden = (place >= start) & (place < start + width)  # [B, size]
    return log_mel.masked_fill(hidden.unsqueeze(2 if dim == 1 else 1), 0.0)
