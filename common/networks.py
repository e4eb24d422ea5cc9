"""The networks of the tasks in plain PyTorch: encoders with their front ends, and what stands on the embeddings.

``common.modules`` trains them. Axes: B batch, N samples, D embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.audio import LogMel, to_float
from common.augmentation import random_channel, random_masks, random_rates, random_shifts, warp
from common.batches import Batch, EmbeddedBatch
from common.encoders import EMBEDDING_DIM, Encoder1D, Encoder2D

DIGITS = 10
ENCODERS: dict[str, type[Encoder1D] | type[Encoder2D]] = {"1d": Encoder1D, "2d": Encoder2D}


class Embedder(nn.Module):
    """Encoders with their front ends: waveforms in, one embedding per format out.

    In training mode each format sees its own augmentation of the clip, except for the speed, which they share. In eval
    mode nothing is augmented, unless ``augment`` says so.

    Args:
        formats: "1d", "2d" or both.
        augment: one of common.augmentation.KINDS.
        room: augment with rooms, other voices and bands as well, see ``common.augmentation.random_channel``.

    Shape:
        wave: [B, N] at 16 kHz, float in [-1, 1] or int16. Returns {format: [B, 128]} for each of ``formats``.

    Raises:
        ValueError: waveforms of another dtype or shape.
    """

    def __init__(self, formats: Sequence[str] = ("1d", "2d"), augment: str = "both", room: bool = False) -> None:
        super().__init__()
        self.room = room
        self.encoders = nn.ModuleDict({name: ENCODERS[name]() for name in formats})
        self.log_mel = LogMel()
        self.augments_waveform = augment in ("waveform", "both")
        self.augments_spectrogram = augment in ("spectrogram", "both")

    def forward(self, wave: Tensor, augment: bool | None = None) -> dict[str, Tensor]:
        augment = self.training if augment is None else augment
        # In single precision whatever the Trainer's: half precision would lose quiet sounds and overflow at loud ones.
        with torch.autocast(wave.device.type, enabled=False):
            wave = to_float(wave)
            # One speed for both formats: it shifts pitch and formants. Matching a clip with itself at another speed
            # would teach the encoders to ignore them, and they are what voices differ in.
            rates = random_rates(wave) if augment and self.augments_waveform else None  # [B, 1]
            views = {name: self._view(wave, rates, name, augment) for name in self.encoders}
        return {name: encoder(views[name]) for name, encoder in self.encoders.items()}

    def _view(self, wave: Tensor, rates: Tensor | None, name: str, augment: bool) -> Tensor:
        if rates is not None:
            wave = random_channel(warp(wave, rates, random_shifts(wave)), self.room)
        if name == "1d":
            return wave
        log_mel = self.log_mel(wave)  # [B, mel bands, frames]
        return random_masks(log_mel) if augment and self.augments_spectrogram else log_mel

    def copy_weights(self, other: "Embedder") -> None:
        """Copy the weights and statistics of the encoders that ``other`` shares with this one."""
        for name in self.encoders.keys() & other.encoders.keys():
            self.encoders[name].load_state_dict(other.encoders[name].state_dict())

    def sizes(self) -> dict[str, int]:
        """Number of parameters of each encoder."""
        return {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in self.encoders.items()}


class LogMelStatistics(nn.Module):
    """What no training is needed for: mean and standard deviation over time of each log-mel band, as an embedding.

    Shape:
        wave: as for ``Embedder``. Returns {"logmel": [B, 128]}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = LogMel()

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        log_mel = self.log_mel(to_float(wave))  # [B, mel bands, frames]
        return {"logmel": torch.cat([log_mel.mean(dim=2), log_mel.std(dim=2)], dim=1)}


class VoiceEmbedder(nn.Module):
    """What voices are compared by: the embeddings of both formats, and log-mel statistics as a third.

    Shape:
        wave: as for ``Embedder``. Returns {"1d": [B, 128], "2d": [B, 128], "logmel": [B, 128]}.
    """

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder, self.statistics = embedder, LogMelStatistics()

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        return self.embedder(wave) | self.statistics(wave)


class DigitNetwork(nn.Module):
    """A linear layer on the embeddings of one or both formats.

    Frozen encoders stay in eval mode, so that neither their weights nor their BatchNorm statistics move. Their
    embeddings can then be computed once: batches of type ``EmbeddedBatch`` skip the encoders.

    Args:
        formats: "1d", "2d" or both, whose embeddings are then concatenated.
        frozen: do not train the encoders.
        augment: one of common.augmentation.KINDS.
    """

    trained_as = "DigitClassifier"  # the class that its checkpoints name

    def __init__(self, formats: Sequence[str], frozen: bool = False, augment: str = "both") -> None:
        super().__init__()
        self.formats, self.frozen = tuple(formats), frozen
        self.embedder = Embedder(self.formats, augment, room=True)
        width = EMBEDDING_DIM * len(self.formats)
        # Standardised embeddings let one learning rate fit every scale that the encoders' training produced.
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, DIGITS))
        self.temperature = 1.0  # what logits are divided by for probabilities, see common.calibration
        if frozen:
            self.embedder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "DigitNetwork":
        super().train(mode)
        if self.frozen:
            self.embedder.eval()
        return self

    def forward(self, wave: Tensor, augment: bool | None = None) -> Tensor:
        """Digit logits of waveforms, see ``Embedder``: [B, N] -> [B, 10]."""
        return self.classify(torch.cat(list(self.embedder(wave, augment).values()), dim=1))

    def classify(self, embedding: Tensor) -> Tensor:
        """Digit logits of embeddings: [B, D] -> [B, 10], D = 128 for each format."""
        return self.head(embedding)

    def predict_step(self, batch: Batch | EmbeddedBatch, index: int = 0) -> Tensor:
        """Digit logits of a batch, [B, 10]."""
        return self.classify(batch.embedding) if isinstance(batch, EmbeddedBatch) else self(batch[0])


class ContrastiveNetwork(nn.Module):
    """Both encoders, with a projection head on each.

    The heads stand between the embeddings and the loss, as in SimCLR (arXiv:2002.05709): the information that the loss
    discards is then lost behind the embedding, not in it.

    Args:
        augment: one of common.augmentation.KINDS.
    """

    trained_as = "ContrastiveModel"

    def __init__(self, augment: str = "both") -> None:
        super().__init__()
        # No rooms: they make the recognition of digits robust, but embeddings that ignore them tell voices apart worse.
        self.embedder = Embedder(("1d", "2d"), augment)
        self.projections = nn.ModuleDict({name: projection_head() for name in self.embedder.encoders})

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        """The embeddings of waveforms, see ``Embedder``: [B, N] -> {"1d": [B, 128], "2d": [B, 128]}."""
        return self.embedder(wave)


def projection_head(out_dim: int = 64) -> nn.Sequential:
    """[B, 128] -> [B, 64]."""
    return nn.Sequential(
        nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
        nn.BatchNorm1d(EMBEDDING_DIM),
        nn.ReLU(),
        nn.Linear(EMBEDDING_DIM, out_dim),
    )
