"""Files that are never half-written, and tables that a person can read."""

from pathlib import Path

from common.errors import UserError


def align(table: list[list[str]]) -> list[str]:
    """Lines with the columns of ``table`` below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def model_name(key: str) -> str:
    """A model's key in the metrics as a person writes it: "contrastive_1d" -> "contrastive 1D"."""
    return key.replace("_", " ").replace("1d", "1D").replace("2d", "2D")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by a file that holds ``content``; a reader finds the old one or the new one, never a part.

    Raises:
        UserError: it cannot be written, because the disk is full for example; the old one is still there.
    """
    # One name for all: what a killed run leaves behind is overwritten by the next.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                temporary.write_text(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); is there room, and may you?") from error
