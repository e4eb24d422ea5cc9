"""Files that a run writes: complete or absent, and recognised by the next run."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.run.console import UserError

PARTIAL = ".audio-tasks-partial-"  # begins the names of temporary folders
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


@contextlib.contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in ``parent``, so that what becomes complete in it can be renamed to where it belongs.

    Folders that killed runs left behind are removed when they are a day old: no run works for so long in one.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for abandoned in parent.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):  # another run may remove it at the same time
            if time.time() - abandoned.stat().st_mtime > 24 * 3600:
                shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def is_own_picture(path: Path) -> bool:
    """Whether ``path`` is a picture that a task drew."""
    with path.open("rb") as file:
        return PICTURE_MARK in file.read(256)


def read_json(path: Path, default: Any) -> Any:
    """What a JSON file holds; ``default`` where it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return default
