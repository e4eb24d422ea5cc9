"""From samples to what the encoders see: scaling and log-mel spectrograms, whole batches on any device.

Axes: B batch, N samples, F mel bands, T frames.
"""

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

SAMPLE_RATE = 16_000  # Hz
SAMPLES = SAMPLE_RATE  # one second per clip
MEL_BANDS = 64
WINDOW, HOP = 400, 160  # samples: 25 ms every 10 ms
BINS = WINDOW // 2 + 1  # of 40 Hz
MEL_RANGE = (50.0, 8000.0)  # Hz
# Power below a hundredth of the clip's mean counts as silence: what lies deeper is the room, not the speech.
POWER_FLOOR = 1e-2


def to_float(wave: Tensor) -> Tensor:
    """Waveforms [B, N], float in [-1, 1] or int16, as float32 in [-1, 1]: [B, N].

    Raises:
        ValueError: another dtype or shape, or clips that are shorter than a window of the spectrogram.
    """
    if wave.ndim != 2 or wave.shape[1] < WINDOW or not (wave.dtype == torch.int16 or wave.is_floating_point()):
        expected = f"waveforms [B, N] with N >= {WINDOW}, float in [-1, 1] or int16"
        raise ValueError(f"expected {expected}, got {wave.dtype} of shape {tuple(wave.shape)}")
    return wave.float() / 32768 if wave.dtype == torch.int16 else wave.float()


def unit_power(wave: Tensor) -> Tensor:
    """Remove the mean of each clip and scale it to mean power 1, so that gain drops out: [..., N] -> [..., N]."""
    return F.layer_norm(wave, wave.shape[-1:], eps=1e-8)  # in one pass through memory


class LogMel(nn.Module):
    """Log-mel spectrogram of 64 bands, each the mean power of its frequencies, standardised over the whole clip.

    Shape:
        wave: [B, N] at 16 kHz. Returns [B, F, T] with T = N // 160 + 1, mean 0 and standard deviation 1 per clip.
    """

    window: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(WINDOW)
        self.register_buffer("window", window / window.norm(), persistent=False)  # noise keeps its power in every bin
        self.register_buffer("bands", mel_bands(), persistent=False)  # [F, bins]

    def forward(self, wave: Tensor) -> Tensor:
        frames = F.pad(unit_power(wave), (WINDOW // 2, WINDOW // 2)).unfold(1, WINDOW, HOP)  # [B, T, WINDOW]
        x = torch.fft.rfft(frames * self.window)
        # [B, T, bins]; several times faster than abs().square()
        power = torch.addcmul(x.real.square(), x.imag, x.imag)
        x = torch.log(power @ self.bands.T + POWER_FLOOR)  # [B, T, F]
        return F.layer_norm(x, x.shape[1:], eps=1e-6).transpose(1, 2)


def mel_bands() -> Tensor:
    """Weights of the frequency bins in each mel band: [F, bins], each band summing to 1.

    The lowest bands are narrower than a bin. The triangles are therefore drawn eight times as finely as the bins lie,
    and a bin weighs what the points that are nearest to it weigh; otherwise some bands would be empty.
    """
    fine = torchaudio.functional.melscale_fbanks(8 * (BINS - 1) + 1, *MEL_RANGE, MEL_BANDS, SAMPLE_RATE)  # [8 bins, F]
    nearest = torch.arange(len(fine)).add(4).div(8, rounding_mode="floor")
    bands = torch.zeros(BINS, MEL_BANDS).index_add_(0, nearest, fine)
    return (bands / bands.sum(dim=0)).T.contiguous()
