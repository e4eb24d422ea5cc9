"""Train a module and keep its best weights: the Trainer, its callbacks, and continuing after a stop."""

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import RandomSampler

from common.data import ORDER, SpokenDigits, epoch_seed
from common.run import UserError, say, shows_bars, write_atomically
from common.run.output import Run, save_checkpoint

PATIENCE = 10  # epochs without a lower validation loss


def fit(
    module: pl.LightningModule, data: SpokenDigits, run: Run, checkpoints: str, label: str
) -> list[dict[str, float]]:
    """Train ``module`` and leave the weights of its best epoch in it and in ``best.ckpt``.

    The best epoch has the lowest validation loss. Validation accuracy would not do: its speakers are trained on, so
    that it reaches 1.0 early and ranks nothing after that. With ``--resume`` an earlier training continues after its
    last complete epoch, which ``last.ckpt`` holds, and ends as an undisturbed one; one that had ended is not repeated.

    Args:
        checkpoints: name of the folder in the run's folder where best.ckpt, last.ckpt and history.csv go.
        label: names the training in progress lines and errors.

    Returns:
        The measures of each epoch, see ``History``.

    Raises:
        UserError: the loss is not finite, Lightning refuses the hardware flags, the disk is full, or ``last.ckpt`` is
            of another run.
    """
    folder = run.folder / checkpoints
    last = folder / "last.ckpt"
    history = History(folder / "history.csv", label, run.record)
    resuming = run.settings.resume and last.is_file()
    if not (resuming and history.restore(last, run)):
        trainer = _make_trainer(run, data, folder, history)
        train, val = data.train_dataloader(epoch=len(history.epochs)), data.val_dataloader()
        trainer.fit(module, train, val, ckpt_path=last if resuming else None, weights_only=True)
    module.load_state_dict(torch.load(folder / "best.ckpt", weights_only=True)["state_dict"])
    return history.epochs


def _make_trainer(run: Run, data: SpokenDigits, folder: Path, history: "History") -> pl.Trainer:
    _quieten_lightning()
    settings = run.settings
    several = settings.devices * settings.num_nodes > 1
    # One process is one process, whatever ranks an earlier job has left in the environment.
    alone = [] if several else [LightningEnvironment()]
    try:
        return pl.Trainer(
            max_epochs=settings.epochs,
            # Lightning's own "auto" would take a Mac's GPU.
            **settings.hardware | {"accelerator": data.device.type},
            # Only CUDA can synchronise the statistics; on CPUs each process keeps those of its own batches.
            sync_batchnorm=several and data.device.type == "cuda",
            logger=TensorBoardLogger(folder, "", "tensorboard") if settings.logger == "tensorboard" else False,
            log_every_n_steps=1,  # nothing is logged more often than once per epoch, but few steps cause a warning
            callbacks=[
                _Checkpoint(folder, "best", monitor="val_loss", enable_version_counter=False),
                # Saved after best.ckpt, whose score it records; a kill between the two repeats the epoch on --resume.
                _Checkpoint(folder, "last", enable_version_counter=False, save_on_train_epoch_end=True),
                PatienceFromHalfTime("val_loss", patience=PATIENCE, check_finite=False),
                SeedEpochs(settings.seed),
                history,
                *([TQDMProgressBar(refresh_rate=20, leave=False)] if shows_bars() else []),
            ],
            plugins=[_WholeFiles(), *alone],
            enable_model_summary=False,
            enable_progress_bar=shows_bars(),
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, ModuleNotFoundError) as error:  # no such GPU, no tensorboard
        raise UserError(f"Lightning refuses the flags: {' '.join(str(error).split())}") from error


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
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch, trainer.global_rank))  # of the augmentation

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        sampler = getattr(trainer.train_dataloader, "sampler", None)
        if isinstance(sampler, RandomSampler):  # the order of the next epoch
            sampler.generator.manual_seed(epoch_seed(self.seed, trainer.current_epoch + 1, ORDER))


class History(Callback):
    """Records the measures of each epoch in ``epochs``, in a CSV file and in the checkpoints, and prints them.

    An epoch is a dict of epoch (from 1), train_loss, val_loss, where there are labels also train_acc and val_acc, lr
    (of the last step) and seconds. An epoch whose loss is not finite ends the training with an error, unsaved.
    Checkpoints also get the ``record`` of the run, and whether the training has ended.
    """

    def __init__(self, path: Path, label: str, record: dict[str, Any]) -> None:
        self.path, self.label, self.record = path, label, record
        self.epochs: list[dict[str, float]] = []
        self.started = 0.0  # when the present epoch began

    def restore(self, last: Path, run: Run) -> bool:
        """Take the epochs of an earlier training from ``last.ckpt``; returns whether it has ended.

        Raises:
            UserError: it cannot be read, or is of another run.
        """
        try:
            checkpoint = torch.load(last, map_location="cpu", weights_only=True)
            self.epochs, earlier, finished = (checkpoint[key] for key in ("history", "run", "finished"))
        except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
            raise UserError(f"--resume: {last} cannot be read; start anew without --resume") from error
        run.refuse_other_run(last, earlier)
        say(f"{self.label}: " + ("trained already" if finished else f"resumed after epoch {len(self.epochs)}"))
        return finished

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not all(torch.isfinite(value) for value in trainer.callback_metrics.values()):
            epoch, lr = trainer.current_epoch + 1, self.record["arguments"]["lr"]
            raise UserError(f"{self.label}: the loss is not finite in epoch {epoch}; --lr {lr:g} is probably too high")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.on_validation_end(trainer, module)  # the training loss is known only now
        measures = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        seconds = round(time.monotonic() - self.started, 2)
        self.epochs.append({"epoch": trainer.current_epoch + 1} | measures | {"lr": lr, "seconds": seconds})
        rows = [",".join(map(str, epoch.values())) for epoch in self.epochs]
        write_atomically(self.path, "\n".join([",".join(self.epochs[0]), *rows, ""]))
        values = "  ".join(f"{key} {value:.4f}" for key, value in measures.items())
        line = f"{self.label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}  {seconds:.1f} s"
        say(line, trainer.print)  # above Lightning's progress bar

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"], checkpoint["run"] = self.epochs, self.record
        checkpoint["finished"] = trainer.should_stop or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)


class _Checkpoint(ModelCheckpoint):
    """Keeps the best score where a training is resumed in a folder that was moved. Lightning would forget it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})


class _WholeFiles(TorchCheckpointIO):
    """Complete checkpoints or none, see ``common.run.output.save_checkpoint``.

    Lightning's own writer goes through the system's temporary folder. Where that is on another file system the
    checkpoint is copied into place: 5 of 12 kills left a damaged one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_checkpoint(checkpoint, Path(path))


def _quieten_lightning() -> None:
    # Its lines about devices and its tips for other products; warnings about faults of a run stay.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for advice in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*LeafSpec.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", advice)
