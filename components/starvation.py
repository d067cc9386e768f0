"""Local Beam jobs for which memory or threads run out: they fail, where Beam would wait for ever.

A thread of Beam's or gRPC's that gets no other one says so in the log and ends. What waits for what
it would have done goes on waiting.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from components.errors import SkipstreamError

# What Python says where there is no memory, or no more threads may be. MemoryError is the last line
# of a traceback, of which Beam makes a text.
SIGNS = ("can't start new thread", "\nMemoryError")
# What a thread of Beam's says that waits for another one, when that ended for whatever reason.
LOST = "Channel closed prematurely"
_LOGGED = "read_grpc_client_inputs"  # Beam's thread that logs what it ends with, and fails the job.
_SIGNAL = signal.SIGUSR1  # Wakes the main thread, whatever it waits for.


def error(said: str) -> SkipstreamError:
    """The failure in one line; `said` is one of SIGNS."""
    return SkipstreamError(
        f"out of memory or threads: {said.strip()}: give it more, or less text at a time"
    )


def sign_in(text: str) -> str | None:
    """The one of SIGNS that a text holds, if any."""
    return next((said for said in SIGNS if said in text), None)


@contextmanager
def fails() -> Iterator[None]:
    """Let the block fail as soon as a thread within it gets no other one.

    Only the main thread can be woken: in another one, nothing is changed.

    Raises:
        SkipstreamError: A thread got none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found: list[str] = []
    one_at_a_time = threading.Lock()

    def notice(text: str) -> bool:
        if said := sign_in(text):
            with one_at_a_time:
                if not found:
                    found.append(said)
                    signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
        return said is not None

    def wake(number: int, frame: FrameType | None) -> NoReturn:
        raise error(found[0])

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notice(logging.Formatter().format(record))

    def excepthook(arguments: threading.ExceptHookArgs) -> None:
        said = f"\n{arguments.exc_type.__name__}: {arguments.exc_value}"
        told = notice(said) or found  # After one of them, others fail.
        if not told and getattr(arguments.thread, "name", "") != _LOGGED:
            hook(arguments)

    handler, loggers = Handler(), [logging.getLogger(name) for name in ("apache_beam", "grpc")]
    hook, threading.excepthook = threading.excepthook, excepthook
    before = signal.signal(_SIGNAL, wake)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        with one_at_a_time:
            found.append("")  # Nobody is woken any more.
        for logger in loggers:
            logger.removeHandler(handler)
        threading.excepthook = hook
        signal.signal(_SIGNAL, signal.SIG_DFL if before is None else before)
