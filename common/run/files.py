"""Files that a run writes: complete or absent, and recognised by the next run."""

from pathlib import Path

from common.run.console import UserError

PICTURE_MARK = b"Audio Deep Learning Tasks"  # in the metadata of each picture, near the beginning of the file


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by a file that holds ``content``: a reader finds the old file or the new one, never a part.

    Raises:
        UserError: the file cannot be written, for example because the disk is full; the old one is still there.
    """
    # The name is always the same, so that the next run overwrites what a killed run left.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); disk full or no write permission?") from error


def is_own_picture(path: Path) -> bool:
    """Whether ``path`` is a picture that a task drew."""
    with path.open("rb") as file:
        return PICTURE_MARK in file.read(256)
