"""Text files that are never half-written, and tables that a person can read."""

import os
from pathlib import Path


def align(table: list[list[str]]) -> list[str]:
    """Lines with the columns of ``table`` below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by a file that holds ``text``; a reader finds the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
