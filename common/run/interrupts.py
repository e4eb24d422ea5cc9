"""Ctrl-C, which is heeded also where Python loses it."""

import threading
from typing import NoReturn

received = threading.Event()


def interrupt(*_: object) -> NoReturn:
    """Handle SIGINT: raise KeyboardInterrupt, and note it, because Python drops what is raised in a destructor."""
    received.set()
    raise KeyboardInterrupt
