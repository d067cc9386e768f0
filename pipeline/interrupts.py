"""Ctrl-C and SIGTERM, which have to end a run even where a library swallows the exception."""

import signal
import sys
from types import FrameType
from typing import NoReturn

from components.places.place import hurry

AGAIN_SECONDS = 1.0  # After which what was swallowed is raised again.
_received: list[int] = []


def install() -> None:
    """Handle both from now on. A second signal ends the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt_again)


def exit_code() -> int | None:
    """128 and the number of the signal that arrived, as shells count; None while there is none."""
    return 128 + _received[0] if _received else None


def check() -> None:
    """Raise if a signal arrived, also where what it raised then was lost.

    Raises:
        KeyboardInterrupt: It did.
    """
    if _received:
        raise KeyboardInterrupt


def heard() -> None:
    """Raise nothing any more: what was to end has ended."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _received.append(number)
    hurry()
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
    raise KeyboardInterrupt


def _interrupt_again(number: int, frame: FrameType | None) -> None:
    """Raise once more, unless the interrupt is on its way up, and this is code that cleans up.

    What is raised within a `__del__` is printed and lost, and TensorFlow's objects have many.
    """
    error = sys.exception()
    while error:
        if isinstance(error, KeyboardInterrupt):
            return
        error = error.__context__
    raise KeyboardInterrupt
