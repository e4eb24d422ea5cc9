"""A run and its surroundings: errors of one line, progress, tables, and files that are complete or absent.

Nothing here is about audio or learning, and nothing takes long to import.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

PICTURE_MARK = b"Audio Deep Learning Tasks"  # in the metadata of each picture, near the beginning of the file
WIDTH = 100  # columns of the terminal that metrics.txt has to fit into
MOST_SHOWN = 12  # measures in metrics.txt: validation and test accuracy and ten more

_quiet, _rank, _started = False, 0, time.monotonic()


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


def set_up_output(quiet: bool = False, rank: int = 0) -> None:
    """Begin a run: decide what this process prints and writes, and start the clock of ``seconds``.

    With ``quiet`` no progress is printed, but warnings and errors are. Of the processes of a run only that of rank 0
    prints progress and writes files. Characters that the terminal's encoding lacks are escaped.
    """
    global _quiet, _rank, _started
    _quiet, _rank, _started = quiet, rank, time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's stream has no encoding
            stream.reconfigure(errors="backslashreplace")


def seconds() -> float:
    """Seconds since the run began; in a notebook one process has several."""
    return round(time.monotonic() - _started, 1)


def is_main_process() -> bool:
    """Whether this is the process that prints and writes: a run with several devices has others beside it."""
    return _rank == 0


def say(text: str, write: Callable[[str], object] = print) -> None:
    """Print a line of progress or results."""
    if is_main_process() and not _quiet:
        write(text)


def shows_bars() -> bool:
    """Whether progress bars are shown: on a terminal, unless ``--quiet`` was given."""
    return sys.stderr.isatty() and is_main_process() and not _quiet


def progress_bar(name: str, total: int, unit: str) -> tqdm:
    """A progress bar on stderr; where that is not a terminal, one line that announces the work."""
    if not shows_bars():
        say(f"{name}: {total} {unit}\n", sys.stderr.write)
    return tqdm(total=total, desc=name, unit=f" {unit}", file=sys.stderr, disable=not shows_bars())


def align(table: Sequence[Sequence[str]], between: str = "  ") -> list[str]:
    """The rows of ``table`` as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [between.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def model_name(key: str) -> str:
    """A model or a condition in the metrics as a person writes it: "contrastive_1d" -> "contrastive 1D"."""
    key = re.sub(r"_(\d+)(d[bB]|ms)\b", lambda part: f" {part[1]} {part[2].replace('db', 'dB')}", key)
    return key.replace("_", " ").replace("1d", "1D").replace("2d", "2D")


def measures(results: dict[str, dict]) -> list[str]:
    """What was measured of at least one of the models, without what ``score`` shows with it."""
    keys = dict.fromkeys(key for row in results.values() for key, value in row.items() if value is not None)
    return [key for key in keys if not key.endswith(("_ci95", "_clips", "worst_speaker", "worst_speaker_acc"))]


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
            shown += f", {numbers['worst_speaker_acc']:.3f} {shortened(numbers['worst_speaker'], 16)}"
    return shown


def table(results: dict[str, dict]) -> list[str]:
    """A row per model and a column per measure, those that matter most, in several blocks where a line is too long."""

    def order(key: str) -> tuple[bool, ...]:
        return key != "val_acc", key != "test_acc", not any(f"{key}_ci95" in row for row in results.values())

    keys = sorted(measures(results), key=order)[:MOST_SHOWN]
    lines: list[str] = []
    block = [["", *results]]  # columns
    for key in keys:
        column = [key, *(score(row, key) for row in results.values())]
        if len(block) > 1 and max(map(len, align(list(zip(*block, column, strict=True))))) > WIDTH:
            lines += [*align(list(zip(*block, strict=True))), ""]
            block = block[:1]
        block.append(column)
    return lines + align(list(zip(*block, strict=True)))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by a file that holds ``content``: a reader finds the old file or the new one, never a part.

    Of several processes only the main one writes.

    Raises:
        UserError: the file cannot be written, for example because the disk is full; the old one is still there.
    """
    if not is_main_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is always the same, so that the next run overwrites what a killed run left.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror}); disk full or no write permission?") from error


def read_json(path: Path, default: Any) -> Any:
    """What a JSON file holds; ``default`` where it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return default
