"""The two Lightning modules: digit classification (tasks 1 and 5) and contrastive learning (task 2).

Both train in any ``pl.Trainer`` on any loader whose batches begin with (waveform, digit). Axes: B batch, N samples,
D embedding.
"""

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from common.audio import LogMel, to_float
from common.augmentation import random_channel, random_masks, random_rates, random_shifts, warp
from common.data import Batch, EmbeddedBatch
from common.encoders import EMBEDDING_DIM, Encoder1D, Encoder2D
from common.losses import gather, info_nce

DIGITS = 10
# The smoothing is also in the validation loss, which would otherwise be lowest at the epoch that is most confident.
smoothed_cross_entropy = nn.CrossEntropyLoss(label_smoothing=0.1)
ENCODERS: dict[str, type[Encoder1D] | type[Encoder2D]] = {"1d": Encoder1D, "2d": Encoder2D}


class Embedder(nn.Module):
    """Encoders with their front ends: waveforms in, one embedding per format out.

    In training mode each format sees its own augmentation of the clip, except for the speed, which they share. In eval
    mode nothing is augmented.

    Shape:
        wave: [B, N] at 16 kHz, float in [-1, 1] or int16. Returns {format: [B, 128]} for each of ``formats``.

    Raises:
        ValueError: waveforms of another dtype or shape.
    """

    def __init__(self, formats: Sequence[str] = ("1d", "2d"), augment: str = "both") -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: ENCODERS[name]() for name in formats})
        self.log_mel = LogMel()
        self.augments_waveform = augment in ("waveform", "both")
        self.augments_spectrogram = augment in ("spectrogram", "both")

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        wave = to_float(wave)
        # One speed for both formats: it shifts pitch and formants. Matching a clip with itself at another speed would
        # teach the encoders to ignore them, and they are what voices differ in.
        rates = random_rates(wave) if self.training and self.augments_waveform else None  # [B, 1]
        return {name: encoder(self._view(wave, rates, name)) for name, encoder in self.encoders.items()}

    def _view(self, wave: Tensor, rates: Tensor | None, name: str) -> Tensor:
        if rates is not None:
            wave = random_channel(warp(wave, rates, random_shifts(wave)))
        if name == "1d":
            return wave
        log_mel = self.log_mel(wave)  # [B, mel bands, frames]
        return random_masks(log_mel) if self.training and self.augments_spectrogram else log_mel

    def copy_weights(self, other: "Embedder") -> None:
        """Copy the weights and statistics of the encoders that ``other`` shares with this one."""
        for name, encoder in self.encoders.items():
            encoder.load_state_dict(other.encoders[name].state_dict())

    def sizes(self) -> dict[str, int]:
        """Number of parameters of each encoder."""
        return {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in self.encoders.items()}


class LogsEpochMeans(pl.LightningModule):
    """Logs ``train_loss``, ``val_loss`` and so on as means over the clips of an epoch.

    They are logged once per epoch: logging every step takes longer than training a linear layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Tensor] = {}  # [sum over clips, number of clips] of the present epoch

    def log_mean(self, stage: str, clips: int, **means: Tensor) -> None:
        """Add the means over the clips of a batch; ``stage`` is "train" or "val"."""
        for key, value in means.items():
            mean = value.detach()
            total = torch.stack([mean * clips, torch.full_like(mean, clips)])
            self.sums[f"{stage}_{key}"] = self.sums.get(f"{stage}_{key}", torch.zeros_like(total)) + total

    def on_validation_epoch_end(self) -> None:
        for name, (total, clips) in self.sums.items():
            self.log(name, total / clips, batch_size=int(clips), sync_dist=True)
        self.sums.clear()

    def on_train_epoch_end(self) -> None:
        self.on_validation_epoch_end()  # of a training without validation


class DigitClassifier(LogsEpochMeans):
    """A linear layer on the embeddings of one or both formats, trained together with the encoders or, if frozen, alone.

    Frozen encoders stay in eval mode, so that neither their weights nor their BatchNorm statistics move. Their
    embeddings can then be computed once: batches of type ``EmbeddedBatch`` skip the encoders.

    Args:
        formats: "1d", "2d" or both, whose embeddings are then concatenated.
        lr: peak learning rate of the linear layer, and of the encoders unless ``encoder_lr`` is given.
        encoder_lr: peak learning rate of encoders that are fine-tuned.
        frozen: train the linear layer alone.
        augment: one of common.augmentation.KINDS.
        loss: of logits [B, 10] and digits [B].
        optimizer: makes an optimizer of parameter groups.
    """

    def __init__(
        self,
        formats: Sequence[str],
        lr: float = 3e-3,
        encoder_lr: float | None = None,
        frozen: bool = False,
        augment: str = "both",
        loss: Callable[[Tensor, Tensor], Tensor] = smoothed_cross_entropy,
        optimizer: Callable[[list[dict]], Optimizer] = AdamW,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["loss", "optimizer"])
        self.formats, self.frozen, self.lr, self.encoder_lr = tuple(formats), frozen, lr, encoder_lr or lr
        self.loss, self.optimizer = loss, optimizer
        self.embedder = Embedder(self.formats, augment)
        width = EMBEDDING_DIM * len(self.formats)
        # Standardised embeddings let one learning rate fit every scale that the encoders' training produced.
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, DIGITS))
        if frozen:
            self.embedder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "DigitClassifier":
        super().train(mode)
        if self.frozen:
            self.embedder.eval()
        return self

    def forward(self, wave: Tensor) -> Tensor:
        """Digit logits of waveforms, see ``Embedder``: [B, N] -> [B, 10]."""
        return self.classify(torch.cat(list(self.embedder(wave).values()), dim=1))

    def classify(self, embedding: Tensor) -> Tensor:
        """Digit logits of embeddings: [B, D] -> [B, 10], D = 128 for each format."""
        return self.head(embedding)

    def predict_step(self, batch: Batch | EmbeddedBatch, index: int = 0) -> Tensor:
        """Digit logits of a batch, [B, 10]."""
        return self.classify(batch.embedding) if isinstance(batch, EmbeddedBatch) else self(batch[0])

    def training_step(self, batch: Batch | EmbeddedBatch, index: int = 0) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch | EmbeddedBatch, index: int = 0) -> None:
        self._step(batch, "val")

    def _step(self, batch: Batch | EmbeddedBatch, stage: str) -> Tensor:
        logits, digit = self.predict_step(batch), batch[1]  # [B, 10], [B]
        loss = self.loss(logits, digit)
        self.log_mean(stage, len(digit), loss=loss, acc=(logits.argmax(dim=1) == digit).float().mean())
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups: list[dict] = [{"params": self.head.parameters(), "lr": self.lr}]
        if not self.frozen:
            groups.append({"params": self.embedder.parameters(), "lr": self.encoder_lr})
        return one_cycle(self.optimizer(groups), self.trainer.estimated_stepping_batches)


class ContrastiveModel(LogsEpochMeans):
    """Both encoders, trained so that the two formats of a clip find each other among the clips of a batch.

    Projection heads stand between the embeddings and the loss, as in SimCLR (arXiv:2002.05709): the information that
    the loss discards is then lost behind the embedding, not in it.

    Args:
        lr: peak learning rate.
        augment: one of common.augmentation.KINDS.
        loss: of the projections of the two formats, [B, 64] each.
        optimizer: makes an optimizer of parameter groups.
    """

    def __init__(
        self,
        lr: float = 3e-3,
        augment: str = "both",
        loss: Callable[[Tensor, Tensor], Tensor] = info_nce,
        optimizer: Callable[[list[dict]], Optimizer] = AdamW,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["loss", "optimizer"])
        self.lr, self.loss, self.optimizer = lr, loss, optimizer
        self.embedder = Embedder(("1d", "2d"), augment)
        self.projections = nn.ModuleDict({name: projection_head() for name in self.embedder.encoders})

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        """The embeddings of waveforms, see ``Embedder``: [B, N] -> {"1d": [B, 128], "2d": [B, 128]}."""
        return self.embedder(wave)

    def training_step(self, batch: Batch, index: int = 0) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, index: int = 0) -> None:
        self._step(batch, "val")

    def _step(self, batch: Batch, stage: str) -> Tensor:
        embeddings = self(batch[0])  # {format: [B, D]}
        a, b = (gather(self.projections[name](z)) for name, z in embeddings.items())  # [processes * B, 64] each
        loss = self.loss(a, b)
        self.log_mean(stage, len(batch[0]), loss=loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [{"params": self.parameters(), "lr": self.lr}]
        return one_cycle(self.optimizer(groups), self.trainer.estimated_stepping_batches)


def projection_head(out_dim: int = 64) -> nn.Sequential:
    """[B, 128] -> [B, 64]."""
    return nn.Sequential(
        nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
        nn.BatchNorm1d(EMBEDDING_DIM),
        nn.ReLU(),
        nn.Linear(EMBEDDING_DIM, out_dim),
    )


def one_cycle(optimizer: Optimizer, steps: float) -> OptimizerLRScheduler:
    """The optimizer with a learning rate that rises to the ``lr`` of each group and falls to zero (arXiv:1708.07120).

    Args:
        steps: of the whole training.
    """
    if not 0 < steps < float("inf"):  # a training without an end has no cycle
        return {"optimizer": optimizer}
    schedule = OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        # A cycle of one step would consist of the lowest rate alone.
        total_steps=max(2, int(steps)),
        # OneCycleLR divides by the length of the rise, and counts a fifth of five steps as none.
        pct_start=0.2 if steps != 5 else 0.3,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
