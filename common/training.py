"""Train and keep the best weights: the one place that makes a Lightning Trainer."""

import io
import logging
import sys
import time
import warnings
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from common.data import SpokenDigits
from common.errors import UserError
from common.metrics import refuse_other_run
from common.text import write_atomically

PATIENCE = 10  # epochs without a lower validation loss


def make_trainer(args: Namespace, checkpoint_dir: Path, name: str, run: dict) -> pl.Trainer:
    """A Trainer that keeps the weights of the epoch with the lowest validation loss in ``checkpoint_dir/best.ckpt``.

    Validation accuracy would not do: its speakers are trained on, so it reaches 1.0 early and ranks nothing after.
    """
    _quieten_lightning()
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
        logger=False,
        callbacks=[
            ModelCheckpoint(checkpoint_dir, "best", monitor="val_loss", enable_version_counter=False),
            # After the best, whose score it holds: a run that is killed between the two repeats the epoch.
            ModelCheckpoint(checkpoint_dir, "last", enable_version_counter=False),
            _StopAtNaN(name, args.lr),
            _PatienceFromHalfTime("val_loss", patience=PATIENCE, check_finite=False),
            _SeedEpochs(args.seed),
            _Progress(name),
            _StoreRun(name, run),
        ],
        plugins=[_WholeFiles()],
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )


def fit(
    module: pl.LightningModule, data: SpokenDigits, args: Namespace, checkpoint_dir: Path, name: str, run: dict
) -> None:
    """Train ``module`` on ``data`` and leave the best epoch's weights in it and in ``checkpoint_dir/best.ckpt``.

    With ``--resume`` an earlier training goes on after its last whole epoch, which ``last.ckpt`` holds, and ends as it
    would have ended; one that had ended is not repeated.

    Args:
        name: what the model is called in the log and in its checkpoint.
        run: see common.metrics.describe_run; stored in the checkpoint.

    Raises:
        UserError: Lightning refuses the hardware flags, the disk is full, the loss is no longer a number, or
            ``last.ckpt`` is of another run.
    """
    last = checkpoint_dir / "last.ckpt"
    earlier = _read_last(last, run) if args.resume and last.exists() else None
    if earlier:
        place = "trained already" if earlier["finished"] else f"resumed after epoch {earlier['epoch'] + 1}"
        print(f"{name}: {place}")
    if not (earlier and earlier["finished"]):
        try:
            trainer = make_trainer(args, checkpoint_dir, name, run)
        except (MisconfigurationException, ValueError) as error:  # such as a GPU that is not there
            raise UserError(f"Lightning refuses the hardware flags: {' '.join(str(error).split())}") from error
        try:
            trainer.fit(module, data, ckpt_path=last if earlier else None, weights_only=True)
        except SystemExit as error:
            if trainer.interrupted:  # Lightning makes an exit of Ctrl-C
                raise KeyboardInterrupt from error
            raise
        except RuntimeError as error:
            if trainer.world_size == 1:
                raise
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{name}: one of {trainer.world_size} processes failed, which ended all ({reason})"
            ) from error
    best = torch.load(checkpoint_dir / "best.ckpt", weights_only=True)
    module.load_state_dict(best["state_dict"])


def _read_last(path: Path, run: dict) -> dict:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found = {key: checkpoint[key] for key in ("run", "finished", "epoch")}
    except Exception as error:  # a file that is not a checkpoint fails in as many ways as there are files
        raise UserError(f"--resume: {path} cannot be read; start anew without --resume") from error
    refuse_other_run(path, found["run"], run)
    return found


class _WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that whenever a run ends the earlier one is whole."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            write_atomically(Path(path), content.getvalue())
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); --resume goes on from there") from error


class _PatienceFromHalfTime(EarlyStopping):
    """Early stopping that begins to count when half of the epochs are over.

    Before, the learning rate is high and the loss wanders: with few clips, ten epochs without a new lowest say nothing.
    """

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch < trainer.max_epochs // 2:
            self.wait_count = 0
        super().on_validation_end(trainer, module)


class _SeedEpochs(Callback):
    """Every epoch draws from a seed of its own, whatever was drawn before it; each process draws differently."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        seeds = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))


class _StoreRun(Callback):
    def __init__(self, name: str, run: dict) -> None:
        self.name, self.run = name, run

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["model"] = self.name
        checkpoint["run"] = self.run
        checkpoint["finished"] = trainer.should_stop or trainer.current_epoch + 1 >= trainer.max_epochs


class _StopAtNaN(Callback):
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


class _Progress(Callback):
    """A bar over all steps on a terminal, a line per epoch elsewhere."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        total, done = trainer.num_training_batches * trainer.max_epochs, trainer.global_step
        terminal = sys.stderr.isatty() and trainer.is_global_zero
        self.bar = tqdm(total=total, initial=done, desc=self.name, unit=" steps", disable=not terminal)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, *_: object) -> None:
        self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = {key: f"{float(value):.4f}" for key, value in sorted(trainer.callback_metrics.items())}
        self.bar.set_postfix(metrics | {"epoch": trainer.current_epoch + 1})
        if self.bar.disable and trainer.is_global_zero:
            seconds = time.monotonic() - self.started
            shown = "  ".join(f"{key} {value}" for key, value in metrics.items())
            print(f"{self.name}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}  {seconds:.1f} s")

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.bar.close()


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
