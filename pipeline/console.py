"""Keeps TensorFlow's start-up noise from the user, and nothing else.

TensorFlow's C++ code writes straight to file descriptor 2, and what it says before its logging is
set up heeds no environment variable: `TF_CPP_MIN_LOG_LEVEL` comes too late for it. So descriptor 2
becomes a pipe to a process of its own that passes on all but the noise. Unlike a thread it does so
even when this process aborts, and it serves child processes as well. Python's own `sys.stderr`
keeps the terminal, so progress bars stay what they are.

Whoever sets `TF_CPP_MIN_LOG_LEVEL` asks for TensorFlow's messages, and gets them all.
"""

import contextlib
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# As absl writes it: severity, month and day, time, thread, file:line].
_PREFIX = rb"\d{4} \d\d:\d\d:\d+\.\d+ +\d+ \S+:\d+\] "
_NOISE = (
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    rb"I" + _PREFIX,
    # The second line of an "I" message.
    rb"To enable the following instructions: .* rebuild TensorFlow with the appropriate compiler",
    # What a dataset ended with, which TensorFlow raises as well; the second line names a node.
    rb"W" + _PREFIX.replace(rb"\S+", rb"local_rendezvous\.cc") + rb"Local rendezvous is aborting",
    rb"\s+\[\[\{\{node ",
)
_NOISE_WITHOUT_GPU = (rb"E" + _PREFIX + rb"failed call to cuInit: ",)
_SYNC = b"\0skipstream sync\0"
_PATIENCE_SECONDS = 0.1  # Longest that the start of a line waits for its end.
_DRAIN_SECONDS = 2.0
_ACKNOWLEDGE = 3  # The descriptor that the filter answers on.


def filter_stderr() -> Callable[[], None]:
    """Put the filter on descriptor 2, for the rest of the process.

    Returns:
        A function that waits until all that was written to descriptor 2 is on the terminal, so
        that what `sys.stderr` prints next comes behind it.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or sys.stderr is None:
        return lambda: None
    sys.stderr.flush()
    terminal = os.dup(2)
    source, sink = os.pipe()
    acknowledged, acknowledge = os.pipe()
    # Ctrl-C reaches every process of the terminal; the filter has to outlive the last message.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", __file__],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, 0),
                (os.POSIX_SPAWN_DUP2, terminal, 1),
                (os.POSIX_SPAWN_DUP2, acknowledge, _ACKNOWLEDGE),
            ],
        )
    finally:
        signal.signal(signal.SIGINT, interrupt)
    os.close(source)
    os.close(acknowledge)
    os.dup2(sink, 2)
    sys.stderr = open(  # noqa: SIM115 - as long as the process; no close warns at its exit.
        terminal,
        "w",
        buffering=1,
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        closefd=False,
    )

    def drain() -> None:
        with contextlib.suppress(BrokenPipeError):  # It was killed: nothing to wait for.
            os.write(sink, _SYNC)
            if select.select([acknowledged], [], [], _DRAIN_SECONDS)[0]:
                os.read(acknowledged, 1)

    return drain


def is_noise(line: bytes, *, gpu: bool) -> bool:
    r"""Whether a line says nothing that a user could act on.

    Args:
        line: What was written to descriptor 2, up to a newline.
        gpu: Whether this machine has an NVIDIA device, which makes its failure worth a line.

    >>> is_noise(b"I0000 00:00:1795430076.727391    3656 port.cc:153] oneDNN is on.\n", gpu=False)
    True
    >>> is_noise(b"W0000 00:00:1795430076.727391    3656 gpu.cc:1] Cannot dlopen.\n", gpu=False)
    False
    """
    patterns = _NOISE if gpu else _NOISE + _NOISE_WITHOUT_GPU
    return any(re.match(pattern, line) for pattern in patterns)


def _has_gpu() -> bool:
    return any(any(Path("/dev").glob(name)) for name in ("nvidia*", "nvmap", "dxg"))


def _pass_on() -> None:
    """The filter process: descriptor 0 to descriptor 1, until its last writer is gone."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    gpu = _has_gpu()
    text = b""
    while True:
        if text and not select.select([0], [], [], _PATIENCE_SECONDS)[0]:
            _print(text, gpu)  # A prompt or a progress bar, whose newline may never come.
            text = b""
        chunk = os.read(0, 1 << 16)
        *drained, text = (text + chunk).split(_SYNC)
        for part in drained:
            _print(part, gpu)
            os.write(_ACKNOWLEDGE, b".")
        end = text.rfind(b"\n") + 1 if chunk else len(text)
        _print(text[:end], gpu)
        text = text[end:]
        if not chunk:
            return


def _print(text: bytes, gpu: bool) -> None:
    lines = text.splitlines(keepends=True)
    rest = memoryview(b"".join(line for line in lines if not is_noise(line, gpu=gpu)))
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    _pass_on()
