"""The two trainings, from top to bottom: digits from labels (tasks 1 and 5), and what two formats share (task 2).

Both are ordinary Lightning modules. They train in any ``pl.Trainer`` on any loader whose batches begin with
(waveform, digit). A step is: augment, network, loss, log. The networks are in ``common.encoders``, the random changes
in ``common.augmentation``, the contrastive loss in ``common.losses``.

Axes: B batch, N samples, F mel bands, T frames, D embedding.
"""

from collections.abc import Callable, Sequence

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from common.augmentation import Augmentation
from common.encoders import EMBEDDING_DIM, DigitNetwork, Embedder
from common.losses import gather, info_nce

NO_AUGMENTATION = Augmentation("none")
Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[list[dict]], Optimizer]


class DigitClassifier(pl.LightningModule):
    """Learns the digits of clips from their labels, with the encoders of one format or both.

    Args:
        formats: "1d", "2d" or both, whose embeddings are then side by side.
        augmentation: of the training clips.
        lr: peak learning rate of the linear layer.
        encoder_lr: peak learning rate of the encoders as a share of ``lr``; pretrained ones should move slowly.
        loss: of logits [B, 10] and digits [B].
        optimizer: makes an optimizer of groups of parameters.
    """

    def __init__(
        self,
        formats: Sequence[str],
        augmentation: Augmentation = NO_AUGMENTATION,
        lr: float = 3e-3,
        encoder_lr: float = 1.0,
        loss: Loss = nn.functional.cross_entropy,
        optimizer: MakeOptimizer = AdamW,
    ) -> None:
        super().__init__()
        self.network = DigitNetwork(formats)
        self.augmentation, self.loss = augmentation, loss
        self.lr, self.encoder_lr, self.optimizer = lr, encoder_lr, optimizer

    def forward(self, wave: Tensor) -> Tensor:
        """Digit logits of clips: [B, N] -> [B, 10]."""
        return self.network(wave)

    def training_step(self, batch: Sequence[Tensor], index: int = 0) -> Tensor:
        return self.step(batch, "train", self.augmentation)

    def validation_step(self, batch: Sequence[Tensor], index: int = 0) -> None:
        self.step(batch, "val", NO_AUGMENTATION)

    def step(self, batch: Sequence[Tensor], stage: str, augmentation: Augmentation) -> Tensor:
        wave, digit = batch[:2]  # [B, N], [B]
        views = self.network.embedder.views(wave, augmentation)  # {"1d": [B, N], "2d": [B, F, T]}
        logits = self.network.classify(self.network.embedder.encode(views))  # [B, 10]
        loss = self.loss(logits, digit)
        accuracy = (logits.argmax(dim=1) == digit).float().mean()
        log_mean(self, stage, len(digit), loss=loss, acc=accuracy)
        return loss

    def predict_step(self, batch: Sequence[Tensor], index: int = 0) -> Tensor:
        """Digit logits of a batch, [B, 10]."""
        return self(batch[0])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        head, encoders = self.network.head.parameters(), self.network.embedder.parameters()
        groups = [{"params": head, "lr": self.lr}, {"params": encoders, "lr": self.lr * self.encoder_lr}]
        return one_cycle(self.optimizer(groups), self.trainer.estimated_stepping_batches)


class FrozenDigitClassifier(DigitClassifier):
    """Trains the linear layer alone. Its batches begin with (embedding, digit): the embeddings are computed once.

    The encoders get no gradients and stay in eval mode: neither their weights nor their BatchNorm statistics move.
    """

    def __init__(self, formats: Sequence[str], lr: float, loss: Loss, optimizer: MakeOptimizer) -> None:
        super().__init__(formats, NO_AUGMENTATION, lr, 0.0, loss, optimizer)
        self.network.embedder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FrozenDigitClassifier":
        super().train(mode)
        self.network.embedder.eval()
        return self

    def step(self, batch: Sequence[Tensor], stage: str, augmentation: Augmentation) -> Tensor:
        embedding, digit = batch[:2]  # [B, D], [B]
        logits = self.network.head(embedding)  # [B, 10]
        loss = self.loss(logits, digit)
        accuracy = (logits.argmax(dim=1) == digit).float().mean()
        log_mean(self, stage, len(digit), loss=loss, acc=accuracy)
        return loss


class ContrastiveModel(pl.LightningModule):
    """Learns from pairs, without labels: the two formats of a clip find each other among the clips of a batch.

    A projection head stands between each embedding and the loss, as in SimCLR (arXiv:2002.05709): the information that
    the loss discards is then lost behind the embedding, not in it.

    Args:
        augmentation: of the training clips; it changes each format by itself.
        lr, optimizer: as for ``DigitClassifier``.
        loss: of the projections of the two formats, [B, 64] each.
    """

    def __init__(
        self,
        augmentation: Augmentation = NO_AUGMENTATION,
        lr: float = 3e-3,
        loss: Loss = info_nce,
        optimizer: MakeOptimizer = AdamW,
    ) -> None:
        super().__init__()
        self.embedder = Embedder(("1d", "2d"))
        self.projections = nn.ModuleDict({name: projection_head() for name in self.embedder.encoders})
        self.augmentation, self.loss = augmentation, loss
        self.lr, self.optimizer = lr, optimizer
        self.val_batch = 0  # clips in the first validation batch of the epoch

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        """The embeddings of clips: [B, N] -> {"1d": [B, 128], "2d": [B, 128]}."""
        return self.embedder(wave)

    def training_step(self, batch: Sequence[Tensor], index: int = 0) -> Tensor:
        return self.step(batch, "train", self.augmentation)

    def validation_step(self, batch: Sequence[Tensor], index: int = 0) -> None:
        # A smaller last batch has fewer negatives, so that its loss is lower for no merit.
        self.val_batch = len(batch[0]) if index == 0 else self.val_batch
        if len(batch[0]) == self.val_batch:
            self.step(batch, "val", NO_AUGMENTATION)

    def step(self, batch: Sequence[Tensor], stage: str, augmentation: Augmentation) -> Tensor:
        views = self.embedder.views(batch[0], augmentation)  # {"1d": [B, N], "2d": [B, F, T]}
        embeddings = self.embedder.encode(views)  # {format: [B, 128]}
        # With several processes, each compares its clips with those of all of them.
        a, b = (gather(self.projections[name](z)) for name, z in embeddings.items())  # [processes * B, 64] each
        loss = self.loss(a, b)
        log_mean(self, stage, len(batch[0]), loss=loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [{"params": self.parameters(), "lr": self.lr}]
        return one_cycle(self.optimizer(groups), self.trainer.estimated_stepping_batches)


def projection_head() -> nn.Sequential:
    """[B, 128] -> [B, 64]."""
    hidden = EMBEDDING_DIM
    return nn.Sequential(nn.Linear(EMBEDDING_DIM, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 64))


def log_mean(module: pl.LightningModule, stage: str, clips: int, **means: Tensor) -> None:
    """Log ``train_loss``, ``val_acc`` and so on as means over the clips of an epoch and of all processes."""
    measures = {f"{stage}_{key}": value for key, value in means.items()}
    module.log_dict(measures, on_step=False, on_epoch=True, batch_size=clips, sync_dist=True)


def one_cycle(optimizer: Optimizer, steps: float) -> OptimizerLRScheduler:
    """The optimizer with learning rates that rise to the ``lr`` of each group and fall to zero (arXiv:1708.07120)."""
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
