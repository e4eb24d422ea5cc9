"""Train a module and keep its best weights: the Trainer, its callbacks, and continuing after a stop."""

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from common.callbacks import History, PatienceFromHalfTime, SeedEpochs
from common.checkpoints import save_checkpoint
from common.data import SpokenDigits
from common.run import UserError, say, shows_bars
from common.run.output import Run

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
        The measures of each epoch, see ``common.callbacks.History``.

    Raises:
        UserError: the loss is not finite, Lightning refuses the hardware flags, the disk is full, another process of
            the training failed or was killed, or ``last.ckpt`` cannot be continued.
    """
    folder = run.folder / checkpoints
    last = folder / "last.ckpt"
    history = History(folder / "history.csv", label, run.record)
    first_epoch, finished = _resume(last, run, history) if run.settings.resume and last.is_file() else (0, False)
    if not finished:
        trainer = _make_trainer(run, folder, label, history)
        try:
            trainer.fit(module, _Loaders(data, first_epoch), ckpt_path=last if first_epoch else None, weights_only=True)
        except (LookupError, RuntimeError) as error:
            if first_epoch and not history.started:  # for example of a model that was changed since
                raise UserError(f"--resume: {last} cannot be continued; start anew without --resume") from error
            reason = str(error).splitlines()[0] if str(error) else ""
            if reason.startswith("DataLoader worker"):
                raise UserError(f"{label}: {reason} Out of memory? Try --num-workers 0") from error
            if trainer.world_size == 1:
                raise
            message = f"{label}: one of {trainer.world_size} processes failed, which ended all ({reason})"
            raise UserError(message) from error
    module.load_state_dict(torch.load(folder / "best.ckpt", weights_only=True)["state_dict"])
    return history.epochs


def _resume(last: Path, run: Run, history: History) -> tuple[int, bool]:
    """Restore ``history``; returns the number of complete epochs and whether the training has ended."""
    try:
        checkpoint = torch.load(last, map_location="cpu", weights_only=True)
        history.load_state_dict(checkpoint["callbacks"]["History"])
        earlier, epochs, finished = checkpoint["run"], checkpoint["epoch"] + 1, checkpoint["finished"]
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"--resume: {last} cannot be read; start anew without --resume") from error
    run.refuse_other_run(last, earlier)
    say(f"{history.label}: " + ("trained already" if finished else f"resumed after epoch {epochs}"))
    return epochs, finished


def _make_trainer(run: Run, folder: Path, label: str, history: History) -> pl.Trainer:
    _quieten_lightning()
    settings = run.settings
    several = settings.devices * settings.num_nodes > 1
    try:
        return pl.Trainer(
            max_epochs=settings.epochs,
            **settings.hardware,
            # Only CUDA can synchronise the statistics; on CPUs each process keeps those of its own batches.
            sync_batchnorm=several and settings.accelerator != "cpu" and torch.cuda.is_available(),
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
            # One process ignores the variables that an earlier job of several may have left in the environment.
            plugins=[_WholeFiles(), *([] if several else [LightningEnvironment()])],
            enable_model_summary=False,
            enable_progress_bar=shows_bars(),
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, ModuleNotFoundError) as error:  # no such GPU, no tensorboard
        raise UserError(f"Lightning refuses the flags: {' '.join(str(error).split())}") from error


class _Loaders(pl.LightningDataModule):
    """Asks for the loaders when each of several processes knows its rank."""

    def __init__(self, data: SpokenDigits, epoch: int) -> None:
        super().__init__()
        self.data, self.epoch = data, epoch

    def train_dataloader(self) -> DataLoader:
        trainer = cast(pl.Trainer, self.trainer)
        return self.data.train_dataloader(trainer.world_size, trainer.global_rank, self.epoch)

    def val_dataloader(self) -> DataLoader:
        return self.data.val_dataloader()


class _Checkpoint(ModelCheckpoint):
    """Keeps the best score where a training is resumed in a folder that was moved. Lightning would forget it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})


class _WholeFiles(TorchCheckpointIO):
    """Complete checkpoints or none, see ``common.checkpoints.save_checkpoint``.

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
