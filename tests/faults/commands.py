"""`skipstream ARGUMENTS` in a process of its own, and how that ended."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults import forked

_GRACE = 5.0  # Seconds that what a process started may outlive it.


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Exit code; negative: the signal.
        seconds, cpu: Of the clock, and of CPUs, its children's with it.
        events: How many it made; 0: they were not counted.
        left: Processes that outlived it.
    """

    code: int
    out: str
    errors: str
    seconds: float
    cpu: float
    events: int = 0
    left: tuple[str, ...] = ()

    @property
    def error(self) -> str:
        """The line with the error; empty: there is none."""
        said = [line for line in self.errors.splitlines() if line.startswith("skipstream: error: ")]
        return said[-1] if said else ""

    @property
    def stage(self) -> str:
        """The last one that it began."""
        return _stage(self.errors)


class Process:
    """A command that runs."""

    def __init__(
        self,
        arguments: list[str],
        root: Path,
        variables: Mapping[str, str],
        *,
        event: int = 0,
        real: bool = False,
        prepare: Callable[[], object] = lambda: None,
        stdin: str = "",
    ) -> None:
        """Start it.

        Args:
            arguments: Of the command line.
            root: A directory for what it says; `work` in it is where it runs.
            variables: Its environment.
            event: At which event it stops until `go_on`; 0: at none.
            real: Whether it is a Python of its own, which does not stop at events.
            prepare: Called in the process first.
            stdin: What it reads.
        """
        self.real = real
        self._files = {name: root / f"{name}-{time.monotonic_ns()}" for name in ("out", "errors")}
        self._stdin = root / "stdin"
        self._stdin.write_text(stdin)
        self._begun = time.monotonic()
        self._status: tuple[int, Any] | None = None
        self._events = self._go = -1
        if real:
            self._run_python(arguments, root, variables, prepare)
            return
        self._events, events = os.pipe()
        go, self._go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._events)
            os.close(self._go)
            stop = forked.Stop(event, events, go)
            forked.become(arguments, root / "work", self._streams(), variables, prepare, stop)
        os.close(events)
        os.close(go)

    def _streams(self) -> dict[int, tuple[Path, int]]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        out, errors = (self._files[name] for name in ("out", "errors"))
        return {0: (self._stdin, os.O_RDONLY), 1: (out, flags), 2: (errors, flags)}

    def _run_python(
        self,
        arguments: list[str],
        root: Path,
        variables: Mapping[str, str],
        prepare: Callable[[], object],
    ) -> None:
        with (
            self._files["out"].open("wb") as out,
            self._files["errors"].open("wb") as errors,
            self._stdin.open("rb") as stdin,
        ):
            self.pid = subprocess.Popen(
                [sys.executable, "-m", "pipeline", *arguments],
                cwd=root / "work",
                env={"PYTHONPATH": str(forked.CHECKOUT), **variables},
                stdin=stdin,
                stdout=out,
                stderr=errors,
                start_new_session=True,
                preexec_fn=prepare,
            ).pid

    def stopped(self, seconds: float) -> bool:
        """Wait so long until it stops at its event; False: it does not, or has ended."""
        return bool(forked.readable(self._events, seconds)) and os.read(self._events, 1) == b"!"

    def go_on(self) -> None:
        """Let it go on."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"!")

    def wait(self, seconds: float) -> bool:
        """Whether it ended within that time."""
        deadline = time.monotonic() + seconds
        while self._status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._status = (os.waitstatus_to_exitcode(status), usage)
                self._seconds = time.monotonic() - self._begun
            elif time.monotonic() > deadline:
                return False
            else:
                time.sleep(0.01)
        return True

    def stage(self) -> str:
        """The last one that it has begun by now; empty: none."""
        return _stage(self._files["errors"].read_text(errors="backslashreplace"))

    def family(self) -> list[int]:
        """The process and all that it started and that run, the process first."""
        found = sorted(session(self.pid))
        return [self.pid] + [pid for pid in found if pid != self.pid]

    def end(self, limit: float) -> Ended | None:
        """How it ended; None: it did not within `limit` seconds, and was killed."""
        hangs = not self.wait(limit)
        if hangs:
            self.kill()
            self.wait(60)
        deadline = time.monotonic() + _GRACE
        while (left := session(self.pid)) and time.monotonic() < deadline and not hangs:
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        events = b""
        if not self.real:
            while chunk := os.read(self._events, 100):
                events += chunk
            os.close(self._events)
            os.close(self._go)
        assert self._status
        code, usage = self._status
        texts = {
            name: path.read_text(errors="backslashreplace") for name, path in self._files.items()
        }
        if hangs:
            return None
        return Ended(
            code,
            seconds=self._seconds,
            cpu=usage.ru_utime + usage.ru_stime,
            events=int(events.strip(b"!") or 0),
            left=tuple(left.values()),
            **texts,
        )

    def kill(self) -> None:
        """It, and all that it started."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def session(leader: int) -> dict[int, str]:
    """The processes of a session that live, by their ids, with their command lines."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    line = Path(f"/proc/{name}/cmdline").read_text().replace("\0", " ").strip()
                    found[int(name)] = line
    return found


def _stage(errors: str) -> str:
    began = [line.split()[0] for line in errors.splitlines() if line.endswith("  running")]
    return began[-1] if began else ""
