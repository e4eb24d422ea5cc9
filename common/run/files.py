"""Files that are never half-written."""

from pathlib import Path

from common.run.console import UserError


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
