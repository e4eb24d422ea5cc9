"""The command line of the scripts: every flag with its type, default and help, seeding, and errors of one line."""

import argparse
import ctypes
import math
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from common.run import UserError, printable, set_up_output

OF_SOME_TASKS = {"label_ratio", "augment", "task1_checkpoint", "task2_checkpoint"}


def a_path(text: str) -> Path:
    """An argument type: a path; an empty one, as of an unset variable, would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    """An argument type: a number of ``kind`` from ``low`` to ``high``."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # nan is never inside
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {name} from {low:.10g} to {high:.10g}, got {text[:60]!r}")
        return value

    return parse


def _flag(default: Any, kind: Callable[[str], Any] | tuple[str, ...], text: str) -> Any:
    accepted = {"choices": kind} if isinstance(kind, tuple) else {"type": kind}
    return field(default=default, metadata={"help": text} | accepted)


def _switch(text: str) -> Any:
    return field(default=False, metadata={"help": text, "action": "store_true"})


_RATIO = number(float, 1e-6, 1)


# The upper limits are more than anybody means: such a number is a slip, and would fill the memory or never end.
@dataclass(frozen=True)
class Settings:
    """A field for each flag, ``--batch-size`` for ``batch_size``. A task without the flag has the default."""

    epochs: int = _flag(0, number(int, 1, 10**6), "at most; each has at least 24 steps; tasks 3 and 4 train nothing")
    lr: float = _flag(0.0, number(float, 1e-9, 1000), "peak learning rate; tasks 3 and 4 train nothing")
    # BatchNorm and the contrastive loss compare the clips of a batch, so one clip is not enough.
    batch_size: int = _flag(64, number(int, 2, 10**6), "clips per step and process")
    num_workers: int | None = _flag(
        None, number(int, 0, 1024), "loader processes (default: up to 4, on cores that training leaves free)"
    )
    seed: int = _flag(42, number(int, 0, 2**32 - 1), "of the choice of clips, the split and the training")

    ratio: float = _flag(1.0, _RATIO, "fraction of the clips to use, stratified")
    data_dir: Path | None = _flag(None, a_path, "folder with speakers' folders or with all clips")
    dataset: str = _flag("auto", ("auto", "audiomnist", "synthetic"), "auto is AudioMNIST or else synthetic speech")
    fold: int | None = _flag(None, number(int, 1, 5), "a published fold of AudioMNIST, 1 to 5")
    label_ratio: float = _flag(1.0, _RATIO, "fraction of the training and validation clips whose labels are used")
    augment: str = _flag("both", ("both", "none", "waveform", "spectrogram"), "which format of the clips is augmented")

    accelerator: str = _flag(
        "auto", ("auto", "cpu", "gpu", "mps"), "auto is CUDA or else the CPU; mps, a Mac's GPU, has never been run"
    )
    devices: int = _flag(1, number(int, 1, 1024), "processes per machine")
    num_nodes: int = _flag(1, number(int, 1, 1024), "machines")
    strategy: str = _flag("auto", ("auto", "ddp"), "how several processes work together")
    precision: str = _flag("32-true", ("32-true", "16-mixed", "bf16-mixed"), "of the arithmetic")

    resume: bool = _switch("continue a run that was stopped, after its last complete epoch")
    logger: str = _flag("csv", ("csv", "tensorboard"), "tensorboard: write its files beside history.csv")
    quiet: bool = _switch("print nothing but warnings and errors")
    output_dir: Path = _flag(Path("output"), a_path, "where checkpoints and metrics go")
    task1_checkpoint: Path = _flag(Path("task1_supervised"), a_path, "output folder of task 1")
    task2_checkpoint: Path = _flag(Path("task2_contrastive/checkpoints/best.ckpt"), a_path, "encoders of task 2")

    @property
    def data(self) -> dict[str, Any]:
        """The keyword arguments of common.data.SpokenDigits."""
        names = "data_dir dataset ratio seed fold label_ratio batch_size num_workers accelerator"
        arguments = {name: getattr(self, name) for name in names.split()}
        return arguments | {"processes": self.devices * self.num_nodes}

    @property
    def hardware(self) -> dict[str, Any]:
        """The keyword arguments of pl.Trainer that say what trains."""
        names = "accelerator devices num_nodes strategy precision"
        return {name: getattr(self, name) for name in names.split()}


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a wrong argument with exit code 2 and one line that names it."""

    def __init__(self, description: str | None) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=layout, allow_abbrev=False)

    def add_settings(self, defaults: Settings, names: Collection[str]) -> None:
        """Add flags for these fields of ``Settings``."""
        for each in fields(Settings):
            if each.name in names:
                default = getattr(defaults, each.name)
                text = each.metadata["help"] + (f" (default: {default})" if default else "")
                flag = f"--{each.name.replace('_', '-')}"
                self.add_argument(flag, default=default, **each.metadata | {"help": text})

    def refuse_contradictions(self, flags: dict[str, Any]) -> None:
        """End with an error if two flags exclude each other."""
        if flags.get("data_dir") and flags["dataset"] != "auto":
            self.error(f"argument --dataset: {flags['dataset']} and --data-dir are two sources; leave one out")
        if flags.get("accelerator") == "mps" and flags["precision"] == "16-mixed":
            self.error("argument --precision: 16-mixed is not possible with --accelerator mps; leave it out")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)[:400]} (--help lists the flags)\n")


def task_parser(description: str | None, defaults: Settings, *more: str) -> Parser:
    """The flags of a task: the fields of ``Settings`` that all tasks have, and ``more`` of them."""
    parser = Parser(description)
    parser.add_settings(defaults, {each.name for each in fields(Settings)} - OF_SOME_TASKS | {*more})
    return parser


def run_task(main: Callable[[Settings], None], parser: Parser) -> None:
    """Run a task with the settings of the command line, see ``run``."""
    run(lambda **flags: main(Settings(**flags)), parser)


def run(main: Callable[..., None], parser: Parser) -> None:
    """Parse the command line, seed everything, and call ``main`` with the flags as keyword arguments.

    An error that the user can correct is one line on stderr and exit code 1; Ctrl-C is exit code 130.
    """
    flags = vars(parser.parse_args())
    parser.refuse_contradictions(flags)
    keep_freed_memory()
    try:
        set_up_output(flags.get("quiet", False), find_rank(flags.get("devices", 1), flags.get("num_nodes", 1)))
        if "seed" in flags:
            import torch  # here, so that --help needs no seconds

            torch.manual_seed(flags["seed"])
        main(**flags)
    except (KeyboardInterrupt, SystemExit) as end:
        if KeyboardInterrupt not in (type(end), type(end.__context__)):  # Lightning makes an exit of a Ctrl-C
            raise
        advice = "; to continue, add --resume" if flags.get("epochs") else ""
        print(f"{parser.prog}: interrupted{advice}", file=sys.stderr)
        sys.exit(130)
    except (UserError, OSError) as error:  # the latter for example on a full disk
        sys.exit(f"{parser.prog}: error: {printable(str(error))}")


def find_rank(devices: int, num_nodes: int) -> int:
    """The rank of this process among those of a run; one process has rank 0, whatever the environment says.

    Raises:
        UserError: torchrun started another number of processes than the flags ask for.
    """
    variables, processes = os.environ, devices * num_nodes
    if "TORCHELASTIC_RUN_ID" in variables:
        if (started := variables.get("WORLD_SIZE", "1")) != str(processes):
            flags = f"--devices {devices} --num-nodes {num_nodes}"
            raise UserError(f"torchrun started {started} process(es), but {flags} means {processes}; make them equal")
        return int(variables.get("RANK", 0))
    if processes == 1:
        return 0
    return int(variables.get("NODE_RANK", 0)) * devices + int(variables.get("LOCAL_RANK", 0))  # as Lightning sets them


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones.

    Every step needs the same few large tensors. glibc returns blocks of their size to the system at once, and getting
    them back, page by page, takes a third of the time of a training step on CPUs.
    """
    trim_threshold, mmap_threshold = -1, -3  # parameters of mallopt, from glibc's malloc.h
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**30)
