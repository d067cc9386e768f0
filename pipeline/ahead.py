"""Imports what the next stage needs while the one under way leaves time for it."""

import contextlib
import threading
from importlib import import_module

_NAME = "imports"


def under_way() -> bool:
    """Whether such a thread is at work in this process."""
    return any(thread.name == _NAME for thread in threading.enumerate())


class Imports:
    """A thread that imports a module. Python does not end before that has ended."""

    def __init__(self) -> None:
        """Nothing is imported yet."""
        self._thread: threading.Thread | None = None

    def begin(self, module: str) -> None:
        """Import a module. Where that fails, it fails again for whoever needs the module."""

        def load() -> None:
            with contextlib.suppress(BaseException):
                import_module(module)

        self._thread = threading.Thread(target=load, name=_NAME)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the end: two threads that import the same packages may see half of them."""
        if self._thread:
            self._thread.join()
            self._thread = None
