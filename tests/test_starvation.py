"""A job that gets no more threads fails, whatever waits for the ones that did not start."""

import logging
import signal
import threading

import pytest

from components import starvation
from components.errors import SkipstreamError

NO_THREAD = RuntimeError("can't start new thread")


def dies() -> None:
    raise NO_THREAD


def says() -> None:
    try:
        raise NO_THREAD
    except RuntimeError:
        logging.getLogger("grpc._server").exception("Exception calling application")


@pytest.mark.parametrize("starved", [dies, says])
def test_what_waits_for_a_thread_that_died_fails(starved: object) -> None:
    before = signal.getsignal(signal.SIGUSR1), threading.excepthook
    message = "^out of memory or threads: can't start new thread: give it more"
    with pytest.raises(SkipstreamError, match=message), starvation.fails():
        threading.Thread(target=starved).start()
        assert not threading.Event().wait(60)
    assert (signal.getsignal(signal.SIGUSR1), threading.excepthook) == before


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
        logging.getLogger("apache_beam.x").error("another")
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
