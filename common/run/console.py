"""What a run says to the person at the terminal: one-line errors, progress and tables."""

import functools
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from tqdm import tqdm

Arguments = ParamSpec("Arguments")
_quiet = False


class UserError(Exception):
    """An error that the user can correct: one line that says what is wrong and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """``text`` on one line; file names may hold line breaks, terminal codes and bytes that are not characters."""
    shown = (c if c.isprintable() else " " if c.isspace() else "?" for c in text)
    return " ".join("".join(shown).split())


def shortened(text: str, length: int) -> str:
    """``text`` on one line of at most ``length`` characters."""
    text = printable(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def set_up_output(quiet: bool = False) -> None:
    """Prepare stdout and stderr: a closed one drops what it gets, and characters that its encoding lacks are escaped.

    With ``quiet`` no progress is printed from now on. Warnings and errors are always shown.
    """
    global _quiet
    _quiet = quiet
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (open until the process ends)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, write: Callable[[str], object] = print) -> None:
    """Print a line of progress or results."""
    if not _quiet:
        write(text)


def shows_bars() -> bool:
    """Whether progress bars are shown: on a terminal, unless ``--quiet`` was given."""
    return sys.stderr.isatty() and not _quiet


def progress_bar(name: str, total: int, unit: str) -> tqdm:
    """A progress bar on stderr; where that is not a terminal, one line that announces the work."""
    if not shows_bars():
        say(f"{name}: {total} {unit}\n", sys.stderr.write)
    return tqdm(total=total, desc=name, unit=f" {unit}", file=sys.stderr, disable=not shows_bars())


def align(table: list[list[str]], between: str = "  ") -> list[str]:
    """The rows of ``table`` as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [between.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def model_name(key: str) -> str:
    """A model or a condition in the metrics as a person writes it: "contrastive_1d" -> "contrastive 1D"."""
    key = re.sub(r"_(\d+)(d[bB]|ms)\b", lambda part: f" {part[1]} {part[2].replace('db', 'dB')}", key)
    return key.replace("_", " ").replace("1d", "1D").replace("2d", "2D")


def is_detail(key: str) -> bool:
    """Whether a number belongs to another one, with which ``score`` shows it."""
    size = re.search(r"_\d_clips$", key)  # eer_3_clips is a number of its own
    return key.endswith(("_ci95", "_clips", "worst_speaker", "worst_speaker_acc")) and not size


def is_number(value: object) -> bool:
    """Whether a value of a metrics file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def measures(results: dict[str, dict]) -> list[str]:
    """What was measured of at least one of the models, without what ``score`` shows with it."""
    keys = dict.fromkeys(key for row in results.values() for key in row)
    return [key for key in keys if not is_detail(key) and any(row.get(key) is not None for row in results.values())]


def score(numbers: dict, key: str) -> str:
    """One of a model's numbers with its 95% interval; test accuracy also with number of clips and worst speaker."""
    value = numbers.get(key)
    shown = "" if value is None else str(value)
    if isinstance(value, float):
        shown = f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:g}"
    if interval := numbers.get(f"{key}_ci95"):
        low, high = interval
        shown += f" [{low:.3f}, {high:.3f}]"
    if key == "test_acc" and "test_clips" in numbers:
        shown += f" n={numbers['test_clips']}"
        if "worst_speaker" in numbers:
            shown += f", {numbers['worst_speaker_acc']:.3f} {numbers['worst_speaker']}"
    return shown


def forgiving(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """``draw``, but a picture that fails is reported on stderr and the run goes on: its numbers matter more."""

    @functools.wraps(draw)
    def draw_or_report(*args: Arguments.args, **more: Arguments.kwargs) -> None:
        try:
            draw(*args, **more)
        except Exception as error:
            print(printable(f"{args[0]} could not be drawn: {error}"), file=sys.stderr)

    return draw_or_report
