r"""Keeps TensorFlow's start-up noise from the user, and control characters from the terminal.

TensorFlow's C++ code writes straight to file descriptor 2, and what it says before its logging is
set up heeds no environment variable: `TF_CPP_MIN_LOG_LEVEL` comes too late for it. So descriptor 2
becomes a pipe to `grep`, which passes on all lines but the noise. Unlike a thread it does so even
when this process aborts, and it serves child processes as well. Python's own `sys.stderr` keeps the
terminal, so progress bars stay what they are.

Whoever sets `TF_CPP_MIN_LOG_LEVEL` asks for TensorFlow's messages, and gets them all.
"""

import contextlib
import io
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.names import printable
from pipeline import ahead

# As absl writes it: month and day, time, thread, file:line].
_PREFIX = r"[0-9]{4} [0-9:.]+ +[0-9]+ [^ ]+:[0-9]+\] "
_NOISE = (
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    rf"I{_PREFIX}",
    # The second line of an "I" message.
    r"To enable the following instructions: .* rebuild TensorFlow with the appropriate compiler",
    # What a dataset ended with, which TensorFlow raises as well; the second line names a node.
    rf"W{_PREFIX}Local rendezvous is aborting",
    r"[[:space:]]+\[\[\{\{node ",
)
_NOISE_WITHOUT_GPU = rf"E{_PREFIX}failed call to cuInit: "
_DRAIN_SECONDS = 0.5  # A child process that lives on may hold the pipe open.


def filter_stderr() -> Callable[[], None]:
    """Put the filter on descriptor 2; where `grep` cannot be started, nothing.

    Returns:
        A function that takes it off again, and waits until all that was written to descriptor 2 is
        on the terminal, so that what `sys.stderr` prints next comes behind it. What is still being
        imported then writes nowhere.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or sys.stderr is None:
        return lambda: None
    sys.stderr.flush()
    opened: list[int] = []
    try:
        gpu = any(any(Path("/dev").glob(name)) for name in ("nvidia*", "nvmap", "dxg"))
        noise = "|".join(_NOISE if gpu else (*_NOISE, _NOISE_WITHOUT_GPU))
        opened.append(terminal := os.dup(2))
        source, sink = os.pipe()
        opened += [source, sink]
        # The first is at its end when grep, which has the other, has ended.
        ended, running = os.pipe()
        opened += [ended, running]
        os.posix_spawnp(
            "grep",
            ["grep", "--line-buffered", "--text", "--invert-match", "-E", f"^({noise})"],
            os.environ | {"LC_ALL": "C"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, 0),
                (os.POSIX_SPAWN_DUP2, terminal, 1),
                (os.POSIX_SPAWN_DUP2, running, 3),
            ],
            setpgroup=0,  # Ctrl-C reaches the terminal's foreground group, and grep outlives that.
        )
    except OSError:  # No grep, no rights to it, or no descriptors left.
        for handle in opened:
            os.close(handle)
        return lambda: None
    os.dup2(sink, 2)
    for end in (source, sink, running):
        os.close(end)
    sys.stderr = open(  # noqa: SIM115 - as long as the process; no close warns at its exit.
        terminal,
        "w",
        buffering=1,
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        closefd=False,
    )

    def drain() -> None:
        behind = terminal
        if ahead.under_way():  # The run ended early, and its last line is to be the last.
            with contextlib.suppress(OSError):
                behind = os.open(os.devnull, os.O_WRONLY)
        os.dup2(behind, 2)
        select.select([ended], [], [], _DRAIN_SECONDS)

    return drain


class Terminal(io.TextIOWrapper):
    r"""Text for a terminal, in which control characters but \n and \t are escaped.

    Words of a model and names in a bucket may hold sequences that move the cursor, set the title or
    answer as if typed. Pipes and files get them as they are.
    """

    def write(self, text: str) -> int:
        """Write `text`, escaped."""
        super().write(printable(text))
        return len(text)


def show_safely(stream: Any) -> Any:
    """`stream`, or, if a terminal shows it, a `Terminal` in its place."""
    if not isinstance(stream, io.TextIOWrapper) or not stream.isatty():
        return stream
    encoding, errors = stream.encoding, stream.errors
    return Terminal(stream.detach(), encoding=encoding, errors=errors, line_buffering=True)
