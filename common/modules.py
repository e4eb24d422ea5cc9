"""The two Lightning modules: digit classification (tasks 1 and 5) and contrastive learning (task 2)."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.audio import LogMel, to_float
from common.augmentation import random_channel, random_masks, random_rates, random_shifts, warp
from common.data import Batch
from common.encoders import EMBEDDING_DIM, Encoder1D, Encoder2D
from common.losses import gather, info_nce

DIGITS = 10
# Of InfoNCE. A learned one falls to 0.04, where the loss sees little but the nearest strangers, and digits suffer.
TEMPERATURE = 0.2
# Also in the validation loss: without it that is lowest when the training is most confident, not when it is done.
LABEL_SMOOTHING = 0.1
ENCODERS = {"1d": Encoder1D, "2d": Encoder2D}


class Embedder(nn.Module):
    """Encoders with their front ends: cached waveforms in, one embedding per format out.

    In training mode the clip is augmented, except for its speed independently for each format; in eval mode it is not.

    Shape:
        wave: [B, N] int16 at 16 kHz. Returns {format: [B, 128]} for the formats given, "1d" and/or "2d".
    """

    def __init__(self, formats: tuple[str, ...], augment: str = "both") -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: ENCODERS[name]() for name in formats})
        self.log_mel = LogMel()
        self.augments_waveform = augment in ("waveform", "both")
        self.augments_spectrogram = augment in ("spectrogram", "both")

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        wave = to_float(wave)
        rates = random_rates(wave) if self.training and self.augments_waveform else None
        return {name: encoder(self._view(wave, rates, name)) for name, encoder in self.encoders.items()}

    def _view(self, wave: Tensor, rates: Tensor | None, name: str) -> Tensor:
        if rates is not None:
            # One speed for both formats: it shifts pitch and formants, and to match a clip with itself at another
            # speed would be to learn that these do not matter. They are what voices differ in.
            wave = random_channel(warp(wave, rates, random_shifts(wave)))
        if name == "1d":
            return wave
        log_mel = self.log_mel(wave)  # [B, F, T]
        return random_masks(log_mel) if self.training and self.augments_spectrogram else log_mel

    def copy_weights(self, other: "Embedder") -> None:
        """Take over the weights and statistics that ``other`` has for this one's formats; nothing is shared."""
        for name, encoder in self.encoders.items():
            encoder.load_state_dict(other.encoders[name].state_dict())

    def sizes(self) -> dict[str, int]:
        """Number of parameters of each encoder."""
        return {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in self.encoders.items()}


class _Trained(pl.LightningModule):
    """A module whose ``_measure`` gives the loss of a batch and, where there are labels, the accuracy ("acc").

    Their means over the clips of an epoch are logged as ``train_loss``, ``val_loss``, ``train_acc`` and ``val_acc``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Tensor] = {}  # by logged name, in the present epoch: [sum over clips, clips]

    def training_step(self, batch: Batch, _: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, _: int) -> None:
        self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        # Once an epoch, after its training too: what Lightning does to log a step takes longer than to train a head.
        for name, (total, clips) in self.sums.items():
            self.log(name, total / clips, batch_size=int(clips), sync_dist=True)
        self.sums.clear()

    def _step(self, batch: Batch, stage: str) -> Tensor:
        measured, clips = self._measure(batch), len(batch.digit)
        for measure, value in measured.items():
            name, mean = f"{stage}_{measure}", value.detach()
            self.sums[name] = self.sums.get(name, 0) + torch.stack([mean * clips, torch.full_like(mean, clips)])
        return measured["loss"]


class DigitClassifier(_Trained):
    """A linear layer on the embeddings of one or both formats, trained with the encoders or, if frozen, without them.

    A frozen encoder stays in eval mode, so neither its weights nor its BatchNorm statistics move, and the module is
    trained on batches of embeddings that were computed once. In use it takes waveforms either way.

    Args:
        formats: the formats whose embeddings are concatenated.
        lr: peak learning rate of the head, and of the encoders unless they have their own.
        encoder_lr: peak learning rate of encoders that are fine-tuned.
        frozen: train the head alone.
        augment: see common.augmentation.KINDS.
    """

    def __init__(
        self,
        formats: tuple[str, ...],
        lr: float = 3e-3,
        encoder_lr: float | None = None,
        frozen: bool = False,
        augment: str = "both",
    ) -> None:
        super().__init__()
        self.save_hyperparameters({"formats": list(formats), "frozen": frozen, "augment": augment})
        self.formats, self.frozen = tuple(formats), frozen
        self.lr, self.encoder_lr = lr, encoder_lr or lr
        self.embedder = Embedder(self.formats, augment)
        width = EMBEDDING_DIM * len(self.formats)
        # Standardised embeddings let one learning rate fit all, whatever scale the encoders' training left them at.
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, DIGITS))
        if frozen:
            self.embedder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "DigitClassifier":
        super().train(mode)
        if self.frozen:
            self.embedder.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Digit logits [B, 10] of waveforms [B, N] int16, or of embeddings [B, D] that were computed before."""
        if inputs.is_floating_point():
            return self.head(inputs)
        return self.head(torch.cat(list(self.embedder(inputs).values()), dim=1))

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        logits = self(batch.inputs)
        return {
            "loss": F.cross_entropy(logits, batch.digit, label_smoothing=LABEL_SMOOTHING),
            "acc": (logits.argmax(dim=1) == batch.digit).float().mean(),
        }

    def configure_optimizers(self) -> dict:
        groups = [{"params": self.head.parameters(), "lr": self.lr}]
        if not self.frozen:
            groups.append({"params": self.embedder.parameters(), "lr": self.encoder_lr})
        return one_cycle(self, groups)


class ContrastiveModel(_Trained):
    """Both encoders trained so that the two formats of a clip find each other among the clips of a batch.

    Projection heads stand between the embeddings and the loss, as in SimCLR (arXiv:2002.05709): what the loss throws
    away is then lost behind the embedding, not in it.
    """

    def __init__(self, lr: float = 3e-3, augment: str = "both") -> None:
        super().__init__()
        self.save_hyperparameters({"augment": augment})
        self.lr = lr
        self.embedder = Embedder(("1d", "2d"), augment)
        self.projections = nn.ModuleDict({name: projection_head() for name in self.embedder.encoders})

    def _measure(self, batch: Batch) -> dict[str, Tensor]:
        embeddings = self.embedder(batch.inputs)
        projected = {name: gather(self.projections[name](z)) for name, z in embeddings.items()}  # [B, 64]
        return {"loss": info_nce(projected["1d"], projected["2d"], TEMPERATURE)}

    def configure_optimizers(self) -> dict:
        return one_cycle(self, [{"params": self.parameters(), "lr": self.lr}])


def projection_head(out_dim: int = 64) -> nn.Sequential:
    """[B, 128] -> [B, 64]."""
    return nn.Sequential(
        nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
        nn.BatchNorm1d(EMBEDDING_DIM),
        nn.ReLU(),
        nn.Linear(EMBEDDING_DIM, out_dim),
    )


def one_cycle(module: pl.LightningModule, groups: list[dict]) -> dict:
    """AdamW with a learning rate that rises to each group's ``lr`` and falls to nothing (arXiv:1708.07120)."""
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    # Not Trainer.estimated_stepping_batches: that makes the workers read before a resumed run knows its epoch.
    steps = len(module.trainer.datamodule.train_dataloader()) * module.trainer.max_epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in groups],
        # OneCycleLR refuses fewer than two steps.
        total_steps=max(2, steps),
        # OneCycleLR divides by the length of the rise, and takes a fifth of five steps for none.
        pct_start=0.2 if steps != 5 else 0.3,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
