"""What the five scripts have in common on the command line: flags, seeding, and errors that a person can read."""

import argparse
import contextlib
import ctypes
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytorch_lightning as pl

from common.errors import UserError

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

TASK1_DIR = Path("task1_supervised")
TASK2_CHECKPOINT = Path("task2_contrastive/checkpoints/best.ckpt")


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a wrong argument with exit code 2 and one line that names it."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=_Formatter, allow_abbrev=False)

    def parse_args(self, *args, **kwargs) -> argparse.Namespace:
        parsed = super().parse_args(*args, **kwargs)
        if parsed.data_dir is not None and parsed.dataset != "auto":
            self.error(f"argument --dataset: {parsed.dataset} and --data-dir are two sources; leave one out")
        return parsed

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def task_parser(
    description: str,
    output_dir: str,
    epochs: int | None = None,
    lr: float | None = None,
    reads: tuple[str, ...] = (),
    learns_from_labels: bool = False,
) -> Parser:
    """The flags of a task.

    Args:
        description: the script's docstring.
        output_dir: the default of ``--output-dir``.
        epochs, lr: the defaults of a task that trains; ``None`` for one that does not.
        reads: "task1" and "task2", for the tasks whose checkpoints are read.
        learns_from_labels: whether ``--label-ratio`` has a meaning.
    """
    parser = Parser(description)
    training = parser.add_argument_group("training")
    unused = "accepted so that one set of flags drives all five tasks; nothing is trained here"
    epochs_help = "passes over the training clips, at most" if epochs else unused
    training.add_argument("--epochs", type=_whole(1), default=epochs, metavar="INT", help=epochs_help)
    lr_help = "peak learning rate" if lr else unused
    training.add_argument("--lr", type=_learning_rate, default=lr, metavar="FLOAT", help=lr_help)
    # BatchNorm and the contrastive loss compare the clips of a batch: one alone has nothing to be compared with.
    training.add_argument("--batch-size", type=_whole(2), default=64, metavar="INT", help="clips per step")
    workers_help = "processes that load batches"
    training.add_argument("--num-workers", type=_whole(0), default=4, metavar="INT", help=workers_help)
    if learns_from_labels:
        label_help = "fraction of the training clips whose labels are used, stratified; validation and test stay whole"
        training.add_argument("--label-ratio", type=_ratio, default=1.0, metavar="FLOAT", help=label_help)
    add_data_flags(parser)
    _add_hardware_flags(parser)
    files = parser.add_argument_group("files")
    output_help = "where checkpoints and metrics go"
    resume_help = "go on after the last epoch of a run that was stopped; what is finished is not trained again"
    files.add_argument("--resume", action="store_true", help=resume_help if epochs else unused)
    files.add_argument("--output-dir", type=Path, default=Path(output_dir), metavar="DIR", help=output_help)
    if "task1" in reads:
        help_text = "output directory of task1.py"
        files.add_argument("--task1-checkpoint", type=Path, default=TASK1_DIR, metavar="DIR", help=help_text)
    if "task2" in reads:
        help_text = "encoders that task2.py trained"
        files.add_argument("--task2-checkpoint", type=Path, default=TASK2_CHECKPOINT, metavar="PATH", help=help_text)
    return parser


def _add_hardware_flags(parser: argparse.ArgumentParser) -> None:
    hardware = parser.add_argument_group("hardware", "handed to Lightning's Trainer by the tasks that train")
    accelerators = ("auto", "cpu", "gpu", "mps", "tpu")
    hardware.add_argument("--accelerator", choices=accelerators, default="auto", help="what trains")
    devices_help = "processes per machine, each with its own device and --batch-size"
    hardware.add_argument("--devices", type=_whole(1), default=1, metavar="INT", help=devices_help)
    hardware.add_argument("--num-nodes", type=_whole(1), default=1, metavar="INT", help="machines")
    strategy_help = "how they work together, such as ddp"
    hardware.add_argument("--strategy", default="auto", metavar="NAME", help=strategy_help)
    precisions = ("32-true", "16-mixed", "bf16-mixed")
    hardware.add_argument("--precision", choices=precisions, default="32-true", help="of the arithmetic")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which clips are used and how they are split."""
    data = parser.add_argument_group("data")
    ratio_help = "fraction of the clips to use, above 0 and at most 1"
    data.add_argument("--ratio", type=_ratio, default=1.0, metavar="FLOAT", help=ratio_help)
    folder_help = "folder that holds the speaker folders; without it see --dataset"
    data.add_argument("--data-dir", type=Path, metavar="DIR", help=folder_help)
    dataset_help = "auto: AudioMNIST from data/AudioMNIST or a download, else synthetic speech"
    data.add_argument("--dataset", choices=("auto", "audiomnist", "synthetic"), default="auto", help=dataset_help)
    fold_help = "test and validate on the speakers of this fold of the AudioMNIST paper"
    data.add_argument("--fold", type=_whole(1, 5), metavar="{1..5}", help=fold_help)
    seed_help = "of the choice of clips, the split and the training; the same seed repeats a run"
    data.add_argument("--seed", type=_whole(0, 2**32 - 1), default=42, metavar="INT", help=seed_help)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Docstring as it stands, and the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return super()._get_help_string(action) if action.default is not None else action.help


def run(main: Callable[[argparse.Namespace], None], parser: Parser) -> None:
    """Parse the command line, seed everything and run ``main``; what goes wrong is told in one line."""
    args = parser.parse_args()
    _keep_freed_memory()
    try:
        pl.seed_everything(args.seed, workers=True, verbose=False)
        main(args)
    except UserError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except KeyboardInterrupt:
        way_on = "; to go on, add --resume" if parser.get_default("epochs") else ""
        print(f"{parser.prog}: interrupted; no metrics were written{way_on}", file=sys.stderr)
        sys.exit(130)


def _keep_freed_memory() -> None:
    """Keep the memory of tensors that are done with for the next ones.

    Every step needs the same few large tensors. glibc hands blocks of their size back to the system at once, and to be
    given them again, page by page, takes a third of the time of a training step on CPUs.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems' C libraries
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected a whole number {limits}, got {text!r}")
        return value

    return parse


def _ratio(text: str) -> float:
    return _number(text, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def _learning_rate(text: str) -> float:
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


def _number(text: str, allowed: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value
