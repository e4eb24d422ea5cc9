"""What happens between the steps of a training: seeds, patience, records, progress."""

import csv
import io
import time
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping

from common.run.console import UserError, progress_bar, say, set_quiet
from common.run.files import write_atomically


class PatienceFromHalfTime(EarlyStopping):
    """Early stopping that begins to count when half of the epochs are over.

    Before, the learning rate is high and the loss wanders: with few clips, ten epochs without a new lowest say nothing.
    """

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch < trainer.max_epochs // 2:
            self.wait_count = 0
        super().on_validation_end(trainer, module)


class SeedEpochs(Callback):
    """Every epoch draws from a seed of its own, whatever was drawn before it; each process draws differently."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        seeds = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))


class StoreRun(Callback):
    """Tells in each checkpoint which model it is, of which run, and whether its training has ended."""

    def __init__(self, name: str, run: dict) -> None:
        self.name, self.run = name, run

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["model"] = self.name
        checkpoint["run"] = self.run
        checkpoint["finished"] = trainer.should_stop or trainer.current_epoch + 1 >= trainer.max_epochs


class StopAtNaN(Callback):
    """Ends the training where the loss is no longer a number, before a checkpoint is made of it."""

    def __init__(self, name: str, lr: float) -> None:
        self.name, self.lr = name, lr

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: dict, *_: object) -> None:
        self.losses.append(outputs["loss"].detach())  # to look at each now would make a GPU wait

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        wrong = (~torch.isfinite(torch.stack(self.losses))).nonzero()
        if len(wrong):
            place = f"at step {int(wrong[0]) + 1} of epoch {trainer.current_epoch + 1}"
        elif not torch.isfinite(trainer.callback_metrics["val_loss"]):
            place = f"in the validation of epoch {trainer.current_epoch + 1}"
        else:
            return
        raise UserError(f"{self.name}: the loss is not a finite number {place}; --lr {self.lr:g} is probably too high")


class History(Callback):
    """What was measured after each epoch: ``epochs``, and a CSV file with a line for each.

    Each is a dict of train_loss, val_loss, where there are labels also train_acc and val_acc, lr (of the last step),
    epoch (from 1) and seconds. It is a part of the checkpoints, so that a resumed run's is whole. ``started`` is when
    the epoch began, None before the first.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.epochs = path, []
        self.started: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        measured = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        seconds = round(time.monotonic() - self.started, 2)
        self.epochs.append({"epoch": trainer.current_epoch + 1} | measured | {"lr": lr, "seconds": seconds})
        if trainer.is_global_zero:
            text = io.StringIO()
            table = csv.DictWriter(text, self.epochs[-1], lineterminator="\n")
            table.writeheader()
            table.writerows(self.epochs)
            write_atomically(self.path, text.getvalue())

    def state_dict(self) -> dict:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict) -> None:
        self.epochs = list(state["epochs"])


class Progress(Callback):
    """A bar over all steps on a terminal, a line per epoch elsewhere."""

    def __init__(self, name: str, history: History) -> None:
        self.name, self.history = name, history

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            set_quiet(True)
        total, done = trainer.num_training_batches * trainer.max_epochs, trainer.global_step
        self.bar = progress_bar(self.name, total, "steps", done, announce=False)

    def on_train_batch_end(self, *_: object) -> None:
        self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epoch = self.history.epochs[-1]
        place = f"epoch {epoch['epoch']}/{trainer.max_epochs}"
        measured = "  ".join(f"{key} {value:.4f}" for key, value in epoch.items() if key.endswith(("_acc", "_loss")))
        self.bar.set_postfix_str(f"{place}  val_loss {epoch['val_loss']:.4f}")
        if self.bar.disable:
            say(f"{self.name}  {place}  {measured}  {epoch['seconds']:.1f} s")

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.bar.close()
