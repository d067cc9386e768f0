"""Local Beam jobs for which memory or threads run out: they fail, where Beam would wait for ever.

A thread of Beam's or gRPC's that gets no other one says so in the log and ends. What waits for what
it would have done goes on waiting.
"""

import logging
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from components.errors import SkipstreamError

# What Python says where there is no memory, or no more threads may be. The last line of a traceback
# may name numpy's or Arrow's kind of MemoryError; of a worker's, Beam makes a text.
_SIGN = re.compile(r"can't start new thread|^(?:\w+\.)*\w*MemoryError\b", re.MULTILINE)
# What a thread of Beam's says that waits for another one, when that ended for whatever reason.
LOST = "Channel closed prematurely"
# Wakes the main thread, whatever it waits for. Others who send it to us are not heard, as always.
_SIGNAL = signal.SIGURG

_found: list[str] = []  # In this process.


class _Woken(BaseException):
    """No `except Exception` on its way is to stop it."""


def sign_in(text: str) -> str | None:
    """What a text says of memory or threads that ran out, if anything."""
    found = _SIGN.search(text)
    return found[0] if found else None


def was_seen() -> bool:
    """Whether a thread has got none: what other threads say from then on follows from that."""
    return bool(_found)


def error(said: str) -> SkipstreamError:
    """The failure in one line; `said` is what `sign_in` found."""
    return SkipstreamError(
        f"out of memory or threads: {said}: give it more, or less text at a time"
    )


@contextmanager
def fails() -> Iterator[None]:
    """Let the block fail as soon as a thread within it gets no other one.

    Only the main thread can be woken: in another one, nothing is changed. An error that is on its
    way up already goes on.

    Raises:
        SkipstreamError: A thread got none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = False
    one_at_a_time = threading.Lock()

    def notice(text: str) -> bool:
        if said := sign_in(text):
            _found.append(said)
            with one_at_a_time:
                if not over:
                    signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
        return bool(said)

    def wake(number: int, frame: FrameType | None) -> None:
        if _found and not over and sys.exception() is None:
            raise _Woken

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notice(logging.Formatter().format(record))

    def excepthook(arguments: threading.ExceptHookArgs) -> None:
        if not notice(f"{arguments.exc_type.__name__}: {arguments.exc_value}") and not was_seen():
            hook(arguments)

    handler, loggers = Handler(), [logging.getLogger(name) for name in ("apache_beam", "grpc")]
    hook, threading.excepthook = threading.excepthook, excepthook
    before = signal.signal(_SIGNAL, wake)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except _Woken:
        raise error(_found[0]) from None
    finally:
        over = True
        with one_at_a_time:  # After who has just found that it is not.
            pass
        for logger in loggers:
            logger.removeHandler(handler)
        threading.excepthook = hook
        signal.signal(_SIGNAL, signal.SIG_DFL if before is None else before)
