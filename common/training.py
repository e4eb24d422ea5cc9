"""Train and keep the best weights: the one place that makes a Lightning Trainer."""

import logging
import warnings
from argparse import Namespace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from common.callbacks import History, PatienceFromHalfTime, Progress, SeedEpochs, StopAtNaN, StoreRun
from common.checkpoints import save_checkpoint
from common.data import SpokenDigits
from common.run.console import UserError, say
from common.run.output import refuse_other_run

PATIENCE = 10  # epochs without a lower validation loss


def make_trainer(args: Namespace, checkpoint_dir: Path, name: str, run: dict) -> pl.Trainer:
    """A Trainer that keeps the weights of the epoch with the lowest validation loss in ``checkpoint_dir/best.ckpt``.

    Validation accuracy would not do: its speakers are trained on, so it reaches 1.0 early and ranks nothing after.
    """
    _quieten_lightning()
    history = History(checkpoint_dir / "history.csv")
    several = args.devices * args.num_nodes > 1
    return pl.Trainer(
        max_epochs=args.epochs,
        accelerator=args.accelerator,
        devices=args.devices,
        num_nodes=args.num_nodes,
        strategy=args.strategy,
        precision=args.precision,
        # Only CUDA has synchronised statistics; on CPUs each process keeps those of its own batches.
        sync_batchnorm=several and args.accelerator != "cpu" and torch.cuda.is_available(),
        logger=TensorBoardLogger(checkpoint_dir, "", "tensorboard") if args.logger == "tensorboard" else False,
        log_every_n_steps=1,  # nothing is logged more often than each epoch, but fewer steps are warned about
        callbacks=[
            ModelCheckpoint(checkpoint_dir, "best", monitor="val_loss", enable_version_counter=False),
            # After the best, whose score it holds: a run that is killed between the two repeats the epoch.
            ModelCheckpoint(checkpoint_dir, "last", enable_version_counter=False, save_on_train_epoch_end=True),
            StopAtNaN(name, args.lr),
            PatienceFromHalfTime("val_loss", patience=PATIENCE, check_finite=False),
            SeedEpochs(args.seed),
            history,
            Progress(name, history),
            StoreRun(name, run),
        ],
        plugins=[_WholeFiles()],
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )


def fit(
    module: pl.LightningModule, data: SpokenDigits, args: Namespace, checkpoint_dir: Path, name: str, run: dict
) -> list[dict[str, float]]:
    """Train ``module`` on ``data`` and leave the best epoch's weights in it and in ``checkpoint_dir/best.ckpt``.

    With ``--resume`` an earlier training goes on after its last whole epoch, which ``last.ckpt`` holds, and ends as it
    would have ended; one that had ended is not repeated.

    Args:
        name: what the model is called in the log and in its checkpoint.
        run: see common.run.output.describe_run; stored in the checkpoint.

    Returns:
        What was measured after each epoch, see ``History``.

    Raises:
        UserError: Lightning refuses the hardware flags, the disk is full, the loss is no longer a number, or
            ``last.ckpt`` is of another run.
    """
    last = checkpoint_dir / "last.ckpt"
    earlier = _read_last(last, run) if args.resume and last.exists() else None
    if earlier:
        place = "trained already" if earlier["finished"] else f"resumed after epoch {earlier['epoch'] + 1}"
        say(f"{name}: {place}")
    history = earlier["history"] if earlier else []
    if not (earlier and earlier["finished"]):
        try:
            trainer = make_trainer(args, checkpoint_dir, name, run)
        except (MisconfigurationException, ValueError) as error:  # such as a GPU that is not there
            raise UserError(f"Lightning refuses the hardware flags: {' '.join(str(error).split())}") from error
        record = next(callback for callback in trainer.callbacks if isinstance(callback, History))
        try:
            trainer.fit(module, data, ckpt_path=last if earlier else None, weights_only=True)
        except SystemExit as error:
            if trainer.interrupted:  # Lightning makes an exit of Ctrl-C
                raise KeyboardInterrupt from error
            raise
        except Exception as error:
            if earlier and record.started is None:  # what is amiss in it depends on which part Lightning restores
                raise UserError(f"--resume: {last} cannot be continued; start anew without --resume") from error
            if trainer.world_size == 1 or not isinstance(error, RuntimeError):
                raise
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{name}: one of {trainer.world_size} processes failed, which ended all ({reason})"
            ) from error
        history = record.epochs
    best = torch.load(checkpoint_dir / "best.ckpt", weights_only=True)
    module.load_state_dict(best["state_dict"])
    return history


def _read_last(path: Path, run: dict) -> dict:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found = {key: checkpoint[key] for key in ("run", "finished", "epoch")}
        found["history"] = checkpoint["callbacks"]["History"]["epochs"]
        # Lightning would go on without these, as if the training were new.
        [_], [schedule] = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
        schedule["last_epoch"], checkpoint["loops"]["fit_loop"]
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"--resume: {path} cannot be read; start anew without --resume") from error
    refuse_other_run(path, found["run"], run)
    return found


class _WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoints, never half-written."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        save_checkpoint(checkpoint, Path(path))


def _quieten_lightning() -> None:
    # Which devices there are and tips for other products; warnings about a run's own faults stay.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for advice in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*LeafSpec.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", advice)
