"""The networks in plain PyTorch: two encoders, and what stands before and behind them.

The encoders are 2-layer CNNs, 32 -> 64 channels, with 128-dim embeddings and 68,224 parameters together. Both have the
same structure. The first layer sees 16 to 45 ms of the signal, the second a fifth of a second, and the pooling keeps
the mean and the maximum of every channel over time.

Axes: B batch, N samples, F mel bands, T frames, C channels, D embedding. Frames are the width of images of height 1,
[B, C, 1, T], because PyTorch has the faster memory layout, in which the channels of a frame are neighbours ("channels
last"), for images: forward and backward take two thirds of the time of 1D convolutions on two CPU cores.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.audio import POWER_FLOOR, SAMPLE_RATE, LogMel, to_float, unit_power
from common.augmentation import Augmentation

EMBEDDING_DIM = 128
CONTIGUOUS_ON = {"mps"}  # kinds of devices, see ``in_order``


class Encoder1D(nn.Module):
    """Waveform encoder: a learned filterbank with log energies, then a dilated convolution over its frames.

    Shape:
        wave: [B, N] or [B, 1, N] samples at 16 kHz, of any scale. Returns [B, 128].
    """

    def __init__(self) -> None:
        super().__init__()
        self.filterbank = nn.Conv1d(1, 32, kernel_size=256, stride=40, padding=128, bias=False)
        with torch.no_grad():
            self.filterbank.weight.copy_(gabor_filters(32, 256).unsqueeze(1))
        self.norm1 = nn.BatchNorm2d(32)
        self.conv = nn.Conv2d(32, 64, kernel_size=(1, 5), dilation=(1, 4), padding=(0, 8), bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.project = nn.Linear(2 * 64, EMBEDDING_DIM)

    def forward(self, wave: Tensor) -> Tensor:
        x = unit_power(wave.squeeze(1) if wave.ndim == 3 else wave)  # [B, N]
        # Equal to self.filterbank(x).unsqueeze(2), and faster.
        x = filter_wave(x, self.filterbank.weight.squeeze(1), stride=40)  # [B, 32, 1, 400 per second]
        # Log energies of 20 ms every 10 ms: they carry the speech sounds, and loudness becomes an offset.
        x = torch.log(F.avg_pool2d(x.square(), (1, 8), stride=(1, 4)) + POWER_FLOOR)  # [B, 32, 1, T]
        x = F.relu(self.norm2(self.conv(self.norm1(x))))  # [B, 64, 1, T]
        return self.project(mean_and_max(x))  # [B, D]


class Encoder2D(nn.Module):
    """Log-mel encoder: filters over all 64 bands and 3 frames, then a dilated convolution over time.

    Shape:
        log_mel: [B, 64, T] or [B, 1, 64, T], see common.audio.LogMel. Returns [B, 128].
    """

    def __init__(self) -> None:
        super().__init__()
        # The position of a formant on the frequency axis tells vowels apart, so the kernel spans all 64 mel bands. This
        # equals nn.Conv2d(1, 32, (64, 3)), but with the bands as channels it is several times faster.
        self.conv1 = nn.Conv2d(64, 32, kernel_size=(1, 3), stride=(1, 2), padding=(0, 1), bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=(1, 5), dilation=(1, 2), padding=(0, 4), bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.project = nn.Linear(2 * 64, EMBEDDING_DIM)

    def forward(self, log_mel: Tensor) -> Tensor:
        x = in_order((log_mel.squeeze(1) if log_mel.ndim == 4 else log_mel).unsqueeze(2))  # [B, F, 1, T]
        x = F.relu(self.norm1(self.conv1(x)))  # [B, 32, 1, T]
        x = F.relu(self.norm2(self.conv2(x)))  # [B, 64, 1, T]
        return self.project(mean_and_max(x))  # [B, D]


class Embedder(nn.Module):
    """Encoders with their front ends: waveforms in, one embedding per format out.

    Args:
        formats: "1d" (the waveform), "2d" (the log-mel spectrogram) or both.

    Shape:
        wave: [B, N] at 16 kHz, float in [-1, 1] or int16. Returns {format: [B, 128]} for each of ``formats``.

    Raises:
        ValueError: waveforms of another dtype or shape.
    """

    def __init__(self, formats: Sequence[str] = ("1d", "2d")) -> None:
        super().__init__()
        kinds = {"1d": Encoder1D, "2d": Encoder2D}
        self.encoders = nn.ModuleDict({name: kinds[name]() for name in formats})
        self.log_mel = LogMel()

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        return self.encode(self.views(wave, Augmentation("none")))

    def views(self, wave: Tensor, augmentation: Augmentation) -> dict[str, Tensor]:
        """What each encoder sees of clips [B, N]: for "1d" waveforms [B, N], for "2d" spectrograms [B, F, T].

        Each format sees a change of its own, at one speed for both.
        """
        # In single precision whatever the Trainer's: half precision would lose quiet sounds and overflow at loud ones.
        with torch.autocast(wave.device.type, enabled=False):
            waves = augmentation.waveforms(to_float(wave), len(self.encoders))
            views = dict(zip(self.encoders, waves, strict=True))
            if "2d" in views:
                views["2d"] = augmentation.spectrogram(self.log_mel(views["2d"]))
        return views

    def encode(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """The embedding of each view: {format: [B, 128]}."""
        return {name: self.encoders[name](view) for name, view in views.items()}

    def copy_weights(self, other: "Embedder") -> None:
        """Copy the weights and statistics of the encoders that ``other`` shares with this one."""
        for name in self.encoders.keys() & other.encoders.keys():
            self.encoders[name].load_state_dict(other.encoders[name].state_dict())

    def sizes(self) -> dict[str, int]:
        """Number of parameters of each encoder."""
        return {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in self.encoders.items()}


class DigitNetwork(nn.Module):
    """Encoders, and a linear layer on their embeddings side by side: clips [B, N] -> digit logits [B, 10]."""

    def __init__(self, formats: Sequence[str]) -> None:
        super().__init__()
        self.embedder = Embedder(formats)
        width = EMBEDDING_DIM * len(self.embedder.encoders)
        # Standardised embeddings let one learning rate fit every scale that the encoders' training produced.
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, 10))
        self.temperature = 1.0  # what logits are divided by for probabilities, see common.evaluate.fit_temperature

    def forward(self, wave: Tensor) -> Tensor:
        return self.classify(self.embedder(wave))

    def classify(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Digit logits [B, 10] of embeddings, {format: [B, 128]}."""
        return self.head(torch.cat(list(embeddings.values()), dim=1))


class LogMelStatistics(nn.Module):
    """What needs no training: mean and standard deviation over time of each log-mel band, as an embedding.

    It takes the place of an ``Embedder``: clips [B, N] -> {"logmel": [B, 128]}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = LogMel()

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        log_mel = self.log_mel(to_float(wave))  # [B, F, T]
        return {"logmel": torch.cat([log_mel.mean(dim=2), log_mel.std(dim=2)], dim=1)}


def filter_wave(wave: Tensor, filters: Tensor, stride: int) -> Tensor:
    """Convolve waveforms of one channel with filters: [B, N], [C, size] -> [B, C, 1, T], T = N // stride + 1.

    Equal to ``F.conv1d(wave.unsqueeze(1), filters.unsqueeze(1), stride=stride, padding=size // 2)`` for an even
    ``size``. A convolution with one input channel is slow, so ``stride`` samples become the channels of one with stride
    1: the first sample of each block is one channel, the second another.
    """
    size, frames = filters.shape[1], wave.shape[1] // stride + 1
    width = -(-size // stride)  # of a filter, in blocks
    left, total = size // 2, (frames + width - 1) * stride
    blocks = F.pad(wave, (left, total - left - wave.shape[1])).unflatten(1, (-1, stride))  # [B, blocks, stride]
    kernel = F.pad(filters, (0, width * stride - size)).unflatten(1, (width, stride))  # [C, width, stride]
    return F.conv2d(in_order(blocks.transpose(1, 2).unsqueeze(2)), in_order(kernel.transpose(1, 2).unsqueeze(2)))


def in_order(x: Tensor) -> Tensor:
    """``x``, which is contiguous on a Mac's GPU; elsewhere channels last is faster.

    What a convolution returns has the memory format of its input. On MPS, gradients of BatchNorm and of pooling are
    wrong, or the step fails, where that is channels last (PyTorch issues 175189 and 175190).
    """
    return x.contiguous() if x.device.type in CONTIGUOUS_ON else x


def mean_and_max(x: Tensor) -> Tensor:
    """Pool frames by their mean and their maximum: [B, C, 1, T] -> [B, 2C]."""
    # Backward of adaptive pooling takes half the time of that of mean() and amax().
    return torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], dim=1).flatten(1)


def gabor_filters(count: int, size: int) -> Tensor:
    """Sinusoids under Gaussian windows, 80 to 7600 Hz on the mel scale: [count, size], each of mean 0 and norm 1.

    A filterbank that starts from them needs fewer clips than a random one. The windows get shorter as the bands get
    wider, as far as ``size`` allows.

    Source:
        Zeghidour et al., "LEAF", arXiv:2101.08596, for Gabor filters as a learnable front end.
    """
    mel_low, mel_high = (2595 * torch.log10(1 + torch.tensor(f) / 700) for f in (80.0, 7600.0))
    edges = 700 * (10 ** (torch.linspace(mel_low, mel_high, count + 2) / 2595) - 1)  # [count + 2], Hz
    centre, bandwidth = edges[1:-1], (edges[2:] - edges[:-2]) / 2  # [count]
    deviation = (1 / (torch.pi * bandwidth)).clamp(max=size / SAMPLE_RATE / 5)  # of the windows, seconds
    time = (torch.arange(size) - (size - 1) / 2) / SAMPLE_RATE  # [size], seconds
    phase = torch.pi / 2 * torch.arange(count)  # neighbours a quarter period apart, so that they do not move as one
    carrier = torch.cos(2 * torch.pi * centre.unsqueeze(1) * time + phase.unsqueeze(1))
    filters = carrier * torch.exp(-0.5 * (time / deviation.unsqueeze(1)) ** 2)
    filters = filters - filters.mean(dim=1, keepdim=True)
    return filters / filters.norm(dim=1, keepdim=True)
