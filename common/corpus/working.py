"""A temporary folder, until cache and source do without one."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".audio-tasks-partial-"  # begins the names of temporary folders


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
