"""What a run says to the person at the terminal: errors of one line, progress, tables."""

import sys

from tqdm import tqdm

_quiet = False


class UserError(Exception):
    """Something the user can mend: the message is one line that says what is wrong and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def shortened(name: str, length: int) -> str:
    """``name`` as one line of at most ``length`` characters."""
    name = printable(name)
    return name if len(name) <= length else f"{name[: length - 1]}…"


def printable(text: str) -> str:
    """``text`` as one line: names of files may hold line ends, terminal codes and bytes that are no characters."""
    shown = (c if c.isprintable() else " " if c.isspace() else "?" for c in text)
    return " ".join("".join(shown).split())


def set_quiet(quiet: bool) -> None:
    """Whether to say nothing from now on; warnings and errors, which do not pass through here, are always shown."""
    global _quiet
    _quiet = quiet


def say(text: str) -> None:
    """Print a line about what is done."""
    if not _quiet:
        print(text)


def progress_bar(name: str, total: int, unit: str, done: int = 0, announce: bool = True) -> tqdm:
    """A bar on a terminal's stderr. Elsewhere a disabled one, instead of which a line says what begins.

    Args:
        name: what is being done.
        total, unit: how many of what there are to do.
        done: how many have been done before.
        announce: whether to write that line; not where other lines tell how far things are.
    """
    terminal = sys.stderr.isatty()
    if announce and not terminal and not _quiet:
        print(f"{name}: {total} {unit}", file=sys.stderr)
    return tqdm(total=total, initial=done, desc=name, unit=f" {unit}", file=sys.stderr, disable=_quiet or not terminal)


def align(table: list[list[str]]) -> list[str]:
    """Lines with the columns of ``table`` below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def model_name(key: str) -> str:
    """A model's key in the metrics as a person writes it: "contrastive_1d" -> "contrastive 1D"."""
    return key.replace("_", " ").replace("1d", "1D").replace("2d", "2D")
