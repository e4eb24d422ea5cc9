"""The command line of the scripts: a parser for the settings, seeding, and errors of one line."""

import argparse
import contextlib
import ctypes
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pytorch_lightning as pl

from common.run.console import UserError, printable, set_quiet
from common.run.settings import Settings

OF_SOME_TASKS = ("label_ratio", "augment", "task1_checkpoint", "task2_checkpoint")


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a wrong argument with exit code 2 and one line that names it."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=_Formatter, allow_abbrev=False)

    def add_settings(self, defaults: Settings, names: Sequence[str]) -> None:
        """Add flags for these fields of ``Settings``."""
        for field in dataclasses.fields(Settings):
            if field.name in names:
                flag = f"--{field.name.replace('_', '-')}"
                self.add_argument(flag, default=vars(defaults)[field.name], **field.metadata)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for text in sys.argv[1:] if args is None else args:
            if text.startswith("--") and text.endswith("=--"):  # argparse takes the value for an empty list
                self.error(f"argument {text[:-3]}: expected a value, got '--'")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)[:400]} (--help lists the flags)\n")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The docstring as it stands, and the default of each flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def task_parser(description: str | None, defaults: Settings, *more: str) -> Parser:
    """The flags of a task: the fields of ``Settings`` that all tasks have, and ``more`` of them."""
    parser = Parser(description)
    names = [field.name for field in dataclasses.fields(Settings)]
    parser.add_settings(defaults, [name for name in names if name in more or name not in OF_SOME_TASKS])
    return parser


def run_task(main: Callable[[Settings], None], parser: Parser) -> None:
    """Run a task with the settings of the command line, as ``run`` does."""
    run(lambda **flags: main(Settings(**flags)), parser)


def run(main: Callable[..., None], parser: Parser) -> None:
    """Parse the command line, seed everything, and call ``main`` with the flags as keyword arguments.

    An error that the user can correct is one line on stderr and exit code 1; Ctrl-C is exit code 130.
    """
    flags = vars(parser.parse_args())
    if flags.get("data_dir") and flags["dataset"] != "auto":
        parser.error(f"argument --dataset: {flags['dataset']} and --data-dir are two sources; leave one out")
    keep_freed_memory()
    set_quiet(flags.get("quiet", False))
    try:
        pl.seed_everything(flags.get("seed", 0), workers=True, verbose=False)
        main(**flags)
    except UserError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except OSError as error:  # for example a disk that is full when a picture is saved
        path = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{parser.prog}: error: {printable(f'{path}{error.strerror or error}')}")
    except KeyboardInterrupt:
        advice = "; to continue, add --resume" if flags.get("epochs") else ""
        print(f"{parser.prog}: interrupted; no metrics were written{advice}", file=sys.stderr)
        sys.exit(130)


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones.

    Every step needs the same few large tensors. glibc returns blocks of their size to the system at once, and getting
    them back, page by page, takes a third of the time of a training step on CPUs.
    """
    trim_threshold, mmap_threshold = -1, -3  # parameters of mallopt, from glibc's malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):  # the C libraries of other systems
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**30)
