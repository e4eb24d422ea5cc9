"""Random changes that leave the word as it was, for whole batches on any device.

Everything draws from torch's global random numbers, so a seeded run repeats it. Axes: B batch, N samples, F mel bands,
T frames, K frequency bins of a clip's spectrum.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

from common.audio import SAMPLE_RATE

KINDS = ("none", "waveform", "spectrogram", "both")

MAX_SPEED = 0.1  # up to 10% faster or slower
MAX_SHIFT = SAMPLE_RATE // 10  # samples: 100 ms
EQUALISER_DB = 3.0  # standard deviation of each of the curve's components
EQUALISER_COMPONENTS = 5
VARIANTS = 8  # different rooms and noises in a batch; each clip draws its own levels
# Shares of the clips of a batch, and what they get. Chosen on a third of the training speakers of a corpus.
NOISE_SHARE, NOISE_SNR_DB = 0.5, (0.0, 40.0)
ROOM_NOISE_SNR_DB = (-5.0, 35.0)
NOISE_SLOPE = (-1.2, 0.3)  # exponent of amplitude over frequency: from traffic (-1.2) over white (0) to hiss
ROOM_SHARE = 0.5
ROOM_SECONDS = (0.15, 0.9)  # reverberation time
ROOM_DIRECT_DB = (-6.0, 12.0)  # direct sound over reverberation
ROOM_DELAY = 0.002  # seconds from the direct sound to the first reflection
BABBLE_SHARE, BABBLE_SNR_DB = 0.4, (0.0, 25.0)
BABBLE_VOICES = 6  # at most; at least 3
BAND_SHARE = 0.3
BAND_LOW, BAND_HIGH = (60.0, 400.0), (2500.0, 7000.0)  # Hz, of the edges
MASKS, MASK_BANDS, MASK_FRAMES = 2, 9, 13  # widths below these


@dataclass(frozen=True)
class Augmentation:
    """Changes clips at random, for training: their speed, timing and channel, and what the spectrogram shows.

    Args:
        kind: "waveform" and "spectrogram" change one format of a clip, "both" changes both, "none" neither.
        rooms: add rooms, other voices and bands as well, see ``random_channel``.

    Raises:
        ValueError: another kind.
    """

    kind: str = "both"
    rooms: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}, got {self.kind}")

    def waveforms(self, wave: Tensor, count: int) -> list[Tensor]:
        """Versions of each clip that differ in everything but the speed: [B, N] -> ``count`` times [B, N].

        Speed shifts pitch and formants. Matching a clip with itself at another speed would teach encoders to ignore
        these, and they are what voices differ in.
        """
        if self.kind not in ("waveform", "both"):
            return [wave] * count
        rates = random_rates(wave)
        return [random_channel(warp(wave, rates, random_shifts(wave)), self.rooms) for _ in range(count)]

    def spectrogram(self, log_mel: Tensor) -> Tensor:
        """Hide parts of log-mel spectrograms, see ``random_masks``: [B, F, T] -> [B, F, T]."""
        return random_masks(log_mel) if self.kind in ("spectrogram", "both") else log_mel


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


def random_channel(wave: Tensor, room: bool = False) -> Tensor:
    """Record each clip with another microphone and, with ``room``, in another room: [B, N] -> [B, N].

    A room adds reverberation and other voices to some of the clips, and its microphone may pass only a band, like a
    telephone. All of it happens between one Fourier transform and its inverse. Without ``room`` the spectrum is only
    multiplied by a smooth curve; either way, some clips get coloured noise.
    """
    size = wave.shape[1]
    length = size + (size // 4 if room else 0)  # most of the reverberation of the end dies away in zeros
    spectrum = torch.fft.rfft(wave, n=length)  # [B, K]
    gains = random_equaliser(spectrum, EQUALISER_DB)
    if room:
        rows, _ = _some(spectrum, ROOM_SHARE)
        spectrum[rows] *= _repeat(torch.fft.rfft(random_rooms(wave, size // 2), n=length), len(rows))
        rows, others = _some(spectrum, BABBLE_SHARE)
        spectrum[rows] += random_babble(spectrum, rows, others)
        rows, _ = _some(spectrum, BAND_SHARE)
        gains[rows] *= random_bands(spectrum[rows])
    spectrum *= gains
    rows, _ = _some(spectrum, NOISE_SHARE)
    spectrum[rows] += random_noise(spectrum[rows], ROOM_NOISE_SNR_DB if room else NOISE_SNR_DB)
    return torch.fft.irfft(spectrum, n=length)[:, :size]


def random_equaliser(spectrum: Tensor, standard_deviation_db: float) -> Tensor:
    """Smooth random gains [B, K]: cosines over the mel scale, the slower the stronger."""
    mel = torch.log1p(_frequencies(spectrum) / 700) / math.log1p(SAMPLE_RATE / 2 / 700)  # 0 to 1
    order = torch.arange(1, EQUALISER_COMPONENTS + 1, device=spectrum.device).unsqueeze(1)
    curves = torch.cos(math.pi * order * mel) / order.sqrt()  # [components, K]
    amount = torch.randn(len(spectrum), EQUALISER_COMPONENTS, device=spectrum.device) * standard_deviation_db
    return torch.exp(amount @ curves * (math.log(10) / 20))


def random_rooms(wave: Tensor, taps: int) -> Tensor:
    """Impulse responses of ``VARIANTS`` rooms: the direct sound, then noise that decays: [variants, taps].

    Source:
        Polack's model of late reverberation, as in Habets, "Single- and multi-microphone speech dereverberation", 2007.
    """
    response = torch.randn(VARIANTS, taps, device=wave.device)
    seconds = torch.exp(_uniform(response, *map(math.log, ROOM_SECONDS)))  # [variants, 1]
    time = torch.arange(taps, device=wave.device) / SAMPLE_RATE
    response *= torch.exp(-math.log(1000) * time / seconds) * (time > ROOM_DELAY)  # 60 dB are a factor of 1000
    response *= _gains(torch.ones_like(seconds), response.square().sum(dim=1, keepdim=True), ROOM_DIRECT_DB)
    response[:, 0] = 1
    return response


def random_babble(spectrum: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """The spectra of ``others``, several at once, at random levels below the clips of ``rows``: [rows, K]."""
    voices = int(torch.randint(3, BABBLE_VOICES + 1, ()))
    chosen = torch.rand(VARIANTS, len(others), device=spectrum.device).argsort(dim=1) < voices  # [variants, others]
    sums = chosen.float() @ torch.view_as_real(spectrum[others]).flatten(1)  # [variants, 2K]
    babble = _repeat(torch.view_as_complex(sums.unflatten(1, (-1, 2))), len(rows))
    return babble * _gains(_power(spectrum[rows]), _power(babble), BABBLE_SNR_DB)


def random_bands(spectrum: Tensor) -> Tensor:
    """Gains that pass a band: [B, K]."""
    frequency = _frequencies(spectrum)
    low, high = (torch.exp(_uniform(spectrum, *map(math.log, edge))) for edge in (BAND_LOW, BAND_HIGH))  # [B, 1], Hz
    return torch.sigmoid((frequency - low) / 30) * torch.sigmoid((high - frequency) / 100)


def random_noise(spectrum: Tensor, snr_db: tuple[float, float]) -> Tensor:
    """The spectra [B, K] of coloured noise for such clips, at signal-to-noise ratios drawn from ``snr_db``."""
    color = torch.exp(_uniform(spectrum, *NOISE_SLOPE) * torch.log(_frequencies(spectrum).clamp(min=50) / 1000))
    # The noise has the power of its expectation: complex normal numbers have the variance 1.
    color *= _gains(_power(spectrum), color.square().sum(dim=1, keepdim=True), snr_db)
    # Several clips share a noise, each in its own colour: drawing one for each would take as long as both transforms.
    noise = torch.empty_like(spectrum[:VARIANTS])
    # Each part has the variance 1/2. A Mac's GPU would give both parts of randn_like(noise) the variance 1.
    torch.view_as_real(noise).normal_(std=math.sqrt(0.5))
    return _repeat(noise, len(spectrum)) * color


def random_masks(log_mel: Tensor) -> Tensor:
    """SpecAugment (Park et al., arXiv:1904.08779): hide two stretches of bands and two of frames: [B, F, T].

    What is hidden becomes 0, the clip's mean.
    """
    for _ in range(MASKS):
        log_mel = mask_along_axis_iid(log_mel, MASK_BANDS, 0.0, axis=1)
        log_mel = mask_along_axis_iid(log_mel, MASK_FRAMES, 0.0, axis=2)
    return log_mel


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(like), 1, device=like.device)  # [B, 1]


def _some(batch: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Random rows of a batch, a share of all, and the other rows."""
    rows, count = torch.randperm(len(batch), device=batch.device), round(share * len(batch))
    return rows[:count], rows[count:]


def _repeat(variants: Tensor, count: int) -> Tensor:
    """``count`` rows: all variants, and again from the first one."""
    # An index, because a Mac's GPU cannot repeat complex numbers in torch 2.11.
    return variants[torch.arange(count, device=variants.device) % len(variants)]


def _frequencies(spectrum: Tensor) -> Tensor:
    return torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1], device=spectrum.device)  # [K], Hz


def _power(spectrum: Tensor) -> Tensor:
    return torch.view_as_real(spectrum).square().sum(dim=(1, 2)).unsqueeze(1)  # [B, 1]; faster than abs().square()


def _gains(signal: Tensor, other: Tensor, ratio_db: tuple[float, float]) -> Tensor:
    """Gains [B, 1] that put the powers ``other`` below those of ``signal``, by ratios drawn from ``ratio_db``."""
    ratio = 10 ** (_uniform(signal, *ratio_db) / 10)
    return (signal / ratio / other.clamp(min=1e-12)).sqrt()
