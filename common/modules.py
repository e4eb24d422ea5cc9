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

from common.augmentation import fixed_random_numbers
from common.batches import Batch, EmbeddedBatch
from common.losses import gather, info_nce
from common.networks import ContrastiveNetwork, DigitNetwork

# The smoothing is also in the validation loss, which would otherwise be lowest at the epoch that is most confident.
smoothed_cross_entropy = nn.CrossEntropyLoss(label_smoothing=0.1)


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


class DigitClassifier(DigitNetwork, LogsEpochMeans):
    """Trains a ``DigitNetwork``: the linear layer together with the encoders or, if they are frozen, alone.

    Args:
        formats, frozen, augment: see ``DigitNetwork``.
        lr: peak learning rate of the linear layer, and of the encoders unless ``encoder_lr`` is given.
        encoder_lr: peak learning rate of encoders that are fine-tuned.
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
        super().__init__(formats, frozen, augment)
        self.save_hyperparameters(ignore=["loss", "optimizer"])
        self.lr, self.encoder_lr = lr, encoder_lr or lr
        self.loss, self.optimizer = loss, optimizer

    def training_step(self, batch: Batch | EmbeddedBatch, index: int = 0) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch | EmbeddedBatch, index: int = 0) -> None:
        self._step(batch, "val", index)

    def _step(self, batch: Batch | EmbeddedBatch, stage: str, index: int = 0) -> Tensor:
        logits, digit = self.predict_step(batch), batch[1]  # [B, 10], [B]
        loss = self.loss(logits, digit)
        if stage == "val" and not isinstance(batch, EmbeddedBatch):
            # Half of the loss is that of augmented clips, each epoch in the same way. On clean clips alone the epoch
            # would be chosen that has learned least of noise and rooms.
            with fixed_random_numbers(index, logits.device):
                loss = (loss + self.loss(self(batch[0], augment=True), digit)) / 2
        self.log_mean(stage, len(digit), loss=loss, acc=(logits.argmax(dim=1) == digit).float().mean())
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups: list[dict] = [{"params": self.head.parameters(), "lr": self.lr}]
        if not self.frozen:
            groups.append({"params": self.embedder.parameters(), "lr": self.encoder_lr})
        return one_cycle(self.optimizer(groups), self.trainer.estimated_stepping_batches)


class ContrastiveModel(ContrastiveNetwork, LogsEpochMeans):
    """Trains a ``ContrastiveNetwork`` so that the two formats of a clip find each other among the clips of a batch.

    Args:
        lr: peak learning rate.
        augment: see ``ContrastiveNetwork``.
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
        super().__init__(augment)
        self.save_hyperparameters(ignore=["loss", "optimizer"])
        self.lr, self.loss, self.optimizer = lr, loss, optimizer
        self.val_batch = 0  # clips in the first validation batch of the epoch

    def training_step(self, batch: Batch, index: int = 0) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, index: int = 0) -> None:
        # A smaller last batch has fewer negatives, so that its loss is lower for no merit.
        self.val_batch = len(batch[0]) if index == 0 else self.val_batch
        if len(batch[0]) == self.val_batch:
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
