"""What a run says while it works: bars on a terminal, plain lines elsewhere, nothing with ``--quiet``."""

import sys

from tqdm import tqdm

_quiet = False


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
