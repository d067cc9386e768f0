"""A job that gets no more threads fails, whatever waits for the ones that did not start."""

import logging
import os
import signal
import threading
from collections.abc import Callable

import pytest

from components import starvation
from components.errors import SkipstreamError


@pytest.fixture(autouse=True)
def nothing_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starvation, "_found", [])


def dies(error: Exception) -> None:
    raise error


def says(error: Exception) -> None:
    try:
        raise error
    except Exception:
        logging.getLogger("grpc._server").exception("Exception calling application")


@pytest.mark.parametrize("starved", [dies, says])
@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_what_waits_for_a_thread_that_died_fails(
    starved: Callable[[Exception], None], error: Exception
) -> None:
    before = signal.getsignal(signal.SIGURG), threading.excepthook
    message = f"^out of memory or threads: {str(error) or 'MemoryError'}: give it more"
    with pytest.raises(SkipstreamError, match=message), starvation.fails():
        threading.Thread(target=starved, args=[error]).start()
        assert not threading.Event().wait(60)
    assert (signal.getsignal(signal.SIGURG), threading.excepthook) == before


def test_no_code_on_the_way_swallows_it_and_no_other_error_is_replaced() -> None:
    thread = threading.Thread(target=dies, args=[MemoryError()])
    with pytest.raises(SkipstreamError, match="MemoryError"), starvation.fails():
        try:
            thread.start()
            threading.Event().wait(60)
        except Exception:
            pytest.fail("swallowed")
    with pytest.raises(ValueError, match="its own"), starvation.fails():
        try:
            raise ValueError("its own")
        finally:
            thread = threading.Thread(target=dies, args=[MemoryError()])
            thread.start()
            thread.join()
    os.kill(os.getpid(), signal.SIGURG)  # Another program's.


def test_other_failures_of_threads_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    monkeypatch.setattr(
        threading, "excepthook", lambda arguments: heard.append(arguments.exc_value)
    )
    other = ValueError("another")

    def fails() -> None:
        raise other

    with starvation.fails():
        thread = threading.Thread(target=fails)
        thread.start()
        thread.join()
        # As at the end of a job that failed for a reason of its own.
        logging.getLogger("apache_beam.x").error(f"another: {starvation.LOST}")
    assert heard == [other]


def test_in_a_thread_that_cannot_be_woken_nothing_is_changed() -> None:
    hooks: list[object] = []

    def inside() -> None:
        with starvation.fails():
            hooks.append(threading.excepthook)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert hooks == [threading.excepthook]
