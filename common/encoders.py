"""The two encoders: 2-layer CNNs, 32 -> 64 channels, 128-dim embeddings, 68,224 parameters together.

Both follow the same plan. The first layer looks at short stretches of the signal, the second at a fifth of a second
or more, and the pooling keeps for every channel how strong it was on average and at its strongest moment.

Axes: B batch, N samples, F mel bands, T frames, C channels, D embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING_DIM = 128


class Encoder1D(nn.Module):
    """Waveform encoder: a learned filterbank with log energies, then a dilated convolution over its frames.

    Shape:
        wave: [B, N] or [B, 1, N] samples at 16 kHz in [-1, 1]. Returns [B, 128].
    """

    def __init__(self) -> None:
        super().__init__()
        # 16 ms filters every 5 ms: as long as a pitch period of a low voice, so single harmonics can be told apart.
        self.filterbank = nn.Conv1d(1, 32, kernel_size=256, stride=80, padding=128, bias=False)
        self.norm1 = nn.BatchNorm1d(32)
        self.conv = nn.Conv1d(32, 64, kernel_size=5, dilation=4, padding=8, bias=False)
        self.norm2 = nn.BatchNorm1d(64)
        self.project = nn.Linear(2 * 64, EMBEDDING_DIM)

    def forward(self, wave: Tensor) -> Tensor:
        x = wave if wave.ndim == 3 else wave.unsqueeze(1)  # [B, 1, N]
        # Energy in decibel-like units: what the ear hears, and loudness becomes an offset.
        x = F.avg_pool1d(self.filterbank(x).square(), 2)  # [B, 32, T]
        x = self.norm1(torch.log(x + 1e-5))
        x = F.relu(self.norm2(self.conv(x)))  # [B, 64, T]
        return self.project(mean_and_max(x))  # [B, D]


class Encoder2D(nn.Module):
    """Log-mel encoder: filters over all 64 bands and 3 frames, then a dilated convolution over time.

    Shape:
        log_mel: [B, 64, T] or [B, 1, 64, T], see common.features.LogMel. Returns [B, 128].
    """

    def __init__(self) -> None:
        super().__init__()
        # The kernel spans all bands: where on the frequency axis a formant lies is what tells vowels apart.
        self.conv1 = nn.Conv2d(1, 32, kernel_size=(64, 3), stride=(1, 2), padding=(0, 1), bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=(1, 5), dilation=(1, 2), padding=(0, 4), bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.project = nn.Linear(2 * 64, EMBEDDING_DIM)

    def forward(self, log_mel: Tensor) -> Tensor:
        x = log_mel if log_mel.ndim == 4 else log_mel.unsqueeze(1)  # [B, 1, F, T]
        x = F.relu(self.norm1(self.conv1(x)))  # [B, 32, 1, T]
        x = F.relu(self.norm2(self.conv2(x)))  # [B, 64, 1, T]
        return self.project(mean_and_max(x.squeeze(2)))  # [B, D]


def mean_and_max(x: Tensor) -> Tensor:
    """Pool frames by their mean and their maximum: [B, C, T] -> [B, 2C]."""
    return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)
