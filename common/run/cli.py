"""What the five scripts have in common on the command line: flags, seeding, and errors that a person can read."""

import argparse
import contextlib
import ctypes
import importlib.util
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytorch_lightning as pl
from pytorch_lightning.strategies import StrategyRegistry

from common.run.console import UserError, printable, set_quiet

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

TASK1_DIR = Path("task1_supervised")
TASK2_CHECKPOINT = Path("task2_contrastive/checkpoints/best.ckpt")

# More than anybody means: what is above is a slip of the hand, and would fill the memory or never end.
MOST_EPOCHS = MOST_CLIPS = 1_000_000
MOST_PROCESSES = 1024
MOST_LEARNING = 1000.0


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a wrong argument with exit code 2 and one line that names it."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=_Formatter, allow_abbrev=False)

    def parse_args(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        arguments = sys.argv[1:] if arguments is None else arguments
        for text in arguments:
            if re.fullmatch(r"--[^=]+=--", text):  # argparse may take it for an empty list
                self.error(f"argument {text[:-3]}: expected a value, got '--'")
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            self.error(f"unrecognized arguments: {shlex.join(unknown)}")
        if getattr(parsed, "data_dir", None) is not None and parsed.dataset != "auto":
            self.error(f"argument --dataset: {parsed.dataset} and --data-dir are two sources; leave one out")
        return parsed

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {_short(printable(message), 400)} (--help lists the flags)\n")


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
    training.add_argument("--epochs", type=_whole(1, MOST_EPOCHS), default=epochs, metavar="INT", help=epochs_help)
    lr_help = "peak learning rate" if lr else unused
    training.add_argument("--lr", type=_learning_rate, default=lr, metavar="FLOAT", help=lr_help)
    # BatchNorm and the contrastive loss compare the clips of a batch: one alone has nothing to be compared with.
    training.add_argument("--batch-size", type=_whole(2, MOST_CLIPS), default=64, metavar="INT", help="clips per step")
    workers_help = "processes that load batches"
    training.add_argument("--num-workers", type=_whole(0, MOST_PROCESSES), default=4, metavar="INT", help=workers_help)
    if learns_from_labels:
        label_help = "fraction of the training clips whose labels are used, stratified; validation and test stay whole"
        training.add_argument("--label-ratio", type=_ratio, default=1.0, metavar="FLOAT", help=label_help)
    add_data_flags(parser)
    _add_hardware_flags(parser)
    files = parser.add_argument_group("output and input")
    output_help = "where checkpoints and metrics go"
    resume_help = "go on after the last epoch of a run that was stopped; what is finished is not trained again"
    files.add_argument("--resume", action="store_true", help=resume_help if epochs else unused)
    logger_help = "tensorboard: write its files too, beside the history.csv of each model's epochs"
    logger_help = logger_help if epochs else unused
    files.add_argument("--logger", type=_logger, default="csv", metavar="{csv,tensorboard}", help=logger_help)
    files.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    files.add_argument("--output-dir", type=a_folder, default=Path(output_dir), metavar="DIR", help=output_help)
    if "task1" in reads:
        help_text = "output directory of task1.py"
        files.add_argument("--task1-checkpoint", type=a_folder, default=TASK1_DIR, metavar="DIR", help=help_text)
    if "task2" in reads:
        help_text = "encoders that task2.py trained"
        files.add_argument("--task2-checkpoint", type=a_path, default=TASK2_CHECKPOINT, metavar="PATH", help=help_text)
    return parser


def settings(**flags: object) -> argparse.Namespace:
    """The flags that the tasks share, with their defaults, for use from Python: ``settings(ratio=0.1)``.

    Loader processes are left out (``num_workers=0``): in a notebook they would cost more than they save.

    Raises:
        UserError: no such flag, or a value that the command line would refuse.
    """
    parser = task_parser("", "output", epochs=50, lr=3e-3, learns_from_labels=True)
    parser.error = _raise
    words = {"num_workers": 0} | {name: value for name, value in flags.items() if value is not None}
    arguments = []
    for name, value in words.items():
        flag = f"--{name.replace('_', '-')}"
        arguments += [flag] * value if isinstance(value, bool) else [f"{flag}={value}"]
    return parser.parse_args(arguments)


def _raise(message: str) -> NoReturn:
    raise UserError(_short(message, 400))


def _add_hardware_flags(parser: argparse.ArgumentParser) -> None:
    hardware = parser.add_argument_group("hardware", "handed to Lightning's Trainer by the tasks that train")
    accelerators = ("auto", "cpu", "gpu", "mps", "tpu")
    hardware.add_argument("--accelerator", choices=accelerators, default="auto", help="what trains")
    devices_help = "processes per machine, each with its own device and --batch-size"
    hardware.add_argument("--devices", type=_whole(1, MOST_PROCESSES), default=1, metavar="INT", help=devices_help)
    hardware.add_argument("--num-nodes", type=_whole(1, MOST_PROCESSES), default=1, metavar="INT", help="machines")
    strategy_help = "how they work together, such as ddp"
    hardware.add_argument("--strategy", type=_strategy, default="auto", metavar="NAME", help=strategy_help)
    precisions = ("32-true", "16-mixed", "bf16-mixed")
    hardware.add_argument("--precision", choices=precisions, default="32-true", help="of the arithmetic")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which clips are used and how they are split."""
    data = parser.add_argument_group("data")
    ratio_help = "fraction of the clips to use, above 0 and at most 1"
    data.add_argument("--ratio", type=_ratio, default=1.0, metavar="FLOAT", help=ratio_help)
    folder_help = "folder that holds the speakers' folders, or all clips; without it see --dataset"
    data.add_argument("--data-dir", type=a_folder, metavar="DIR", help=folder_help)
    dataset_help = "auto: AudioMNIST from data/AudioMNIST or a download, else synthetic speech"
    data.add_argument("--dataset", choices=("auto", "audiomnist", "synthetic"), default="auto", help=dataset_help)
    fold_help = "test and validate on the speakers of this fold of the AudioMNIST paper"
    data.add_argument("--fold", type=_whole(1, 5), metavar="{1..5}", help=fold_help)
    seed_help = "of the choice of clips, the split and the training; the same seed repeats a run"
    data.add_argument("--seed", type=_whole(0, 2**32 - 1), default=42, metavar="INT", help=seed_help)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Docstring as it stands, and the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return super()._get_help_string(action) if action.default not in (None, False) else action.help


def run(main: Callable[[argparse.Namespace], None], parser: Parser) -> None:
    """Parse the command line, seed everything and run ``main``; what goes wrong is told in one line."""
    args = parser.parse_args()
    keep_freed_memory()
    set_quiet(getattr(args, "quiet", False))
    try:
        pl.seed_everything(getattr(args, "seed", 0), workers=True, verbose=False)
        main(args)
    except UserError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except OSError as error:  # such as a disk that is full when a plot is saved
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{parser.prog}: error: {printable(f'{place}{error.strerror or error}')}")
    except KeyboardInterrupt:
        way_on = "; to go on, add --resume" if parser.get_default("epochs") else ""
        print(f"{parser.prog}: interrupted; no metrics were written{way_on}", file=sys.stderr)
        sys.exit(130)


def keep_freed_memory() -> None:
    """Keep the memory of tensors that are done with for the next ones.

    Every step needs the same few large tensors. glibc hands blocks of their size back to the system at once, and to be
    given them again, page by page, takes a third of the time of a training step on CPUs.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other systems' C libraries
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def a_folder(text: str) -> Path:
    """The path of a folder, there already or not: the type of an argument."""
    path = a_path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, {_quoted(text)} is a file")
    return path


def a_path(text: str) -> Path:
    """The path of a file or folder, there already or not: the type of an argument."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a path, got {text!r}")
    path = Path(text)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, through a file, a link to itself; with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise argparse.ArgumentTypeError(f"{_quoted(text)} cannot be a path ({reason})") from error
    return path


def _strategy(text: str) -> str:
    names = ["auto", *sorted(StrategyRegistry.available_strategies())]
    if text not in names:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(names[:5])}, ..., got {_quoted(text)}")
    return text


def _logger(text: str) -> str:
    if text not in ("csv", "tensorboard"):
        raise argparse.ArgumentTypeError(f"expected csv or tensorboard, got {_quoted(text)}")
    if text == "tensorboard" and not any(map(importlib.util.find_spec, ("tensorboard", "tensorboardX"))):
        raise argparse.ArgumentTypeError("tensorboard is not installed; try: uv pip install tensorboard")
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # Not all that int() takes: no 1_000, no digits of other scripts. The length spares it numbers without end.
        value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {_quoted(text)}")
        return value

    return parse


def _ratio(text: str) -> float:
    return _number(text, 1, "a number above 0 and at most 1")


def _learning_rate(text: str) -> float:
    return _number(text, MOST_LEARNING, f"a number above 0 and at most {MOST_LEARNING:g}")


def _number(text: str, high: float, expected: str) -> float:
    decimal = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    value = float(text) if decimal else math.nan
    if not 0 < value <= high:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {_quoted(text)}")
    return value


def _quoted(text: str) -> str:
    return repr(_short(text, 60))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
