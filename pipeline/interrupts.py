"""Ctrl-C and SIGTERM, which have to end a run even where a library swallows the exception."""

import signal
from types import FrameType
from typing import NoReturn

from components.places.place import hurry

_received: list[int] = []


def install() -> None:
    """Handle both from now on. A second signal ends the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


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


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _received.append(number)
    hurry()
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_DFL)
    raise KeyboardInterrupt
