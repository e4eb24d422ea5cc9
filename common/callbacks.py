"""What happens between the steps of a training: seeds, early stopping, history."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping

from common.run import UserError, say, write_atomically


class PatienceFromHalfTime(EarlyStopping):
    """Early stopping that begins to count when half of the epochs are over.

    Before that the learning rate is high and the loss fluctuates: with few clips, ten epochs without an improvement
    mean nothing.
    """

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch < (trainer.max_epochs or 0) // 2:
            self.wait_count = 0
        super().on_validation_end(trainer, module)


class SeedEpochs(Callback):
    """Seeds every epoch and process by its own number, so that a resumed training equals an undisturbed one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        seeds = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))


class History(Callback):
    """Records the measures of each epoch in ``epochs``, in a CSV file and in the checkpoints, and prints them.

    An epoch is a dict of epoch (from 1), train_loss, val_loss, where there are labels also train_acc and val_acc, lr
    (of the last step) and seconds. An epoch whose loss is not finite ends the training with an error, unsaved.

    Checkpoints also get the class of the module, the ``record`` of the run, and whether the training has ended.
    """

    def __init__(self, path: Path, label: str, record: dict[str, Any]) -> None:
        self.path, self.label, self.record = path, label, record
        self.epochs: list[dict[str, float]] = []
        self.started = 0.0  # when the present epoch began

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not all(torch.isfinite(value) for value in trainer.callback_metrics.values()):
            epoch, lr = trainer.current_epoch + 1, self.record["arguments"]["lr"]
            raise UserError(f"{self.label}: the loss is not finite in epoch {epoch}; --lr {lr:g} is probably too high")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        measures = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        seconds = round(time.monotonic() - self.started, 2)
        self.epochs.append({"epoch": trainer.current_epoch + 1} | measures | {"lr": lr, "seconds": seconds})
        if trainer.is_global_zero:
            rows = [",".join(map(str, epoch.values())) for epoch in self.epochs]
            write_atomically(self.path, "\n".join([",".join(self.epochs[0]), *rows, ""]))
        values = "  ".join(f"{key} {value:.4f}" for key, value in measures.items())
        line = f"{self.label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}  {seconds:.1f} s"
        say(line, trainer.print)  # by one process, and above Lightning's progress bar

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["class"] = type(module).__name__
        checkpoint["run"] = self.record
        checkpoint["finished"] = trainer.should_stop or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = list(state["epochs"])
