"""`skipstream ARGUMENTS` in a process of its own, which stops at a moment.

Loading TensorFlow and Beam takes longer than most commands. So a process that has both loaded, and
has run nothing of them, forks one for each command. That calls what the `skipstream` program calls.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import gc
import importlib
import json
import os
import pickle
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
_LOADED = (
    "tensorflow",
    "keras",
    "apache_beam",
    "components.example_gen.build",
    "components.transform.transform",
    "components.statistics_gen.statistics_gen",
    "components.trainer.trainer",
    "components.exporter.exporter",
    "components.evaluator.evaluator",
    "components.infra_validator.validator",
    "components.infra_validator.process",
    "components.pusher.pusher",
    "components.places.bucket",
    "pipeline.cli",
)
# What a process does to the world, and when it looks at it, as Python's audit hooks name it.
_EVENTS = {
    "open",
    "fcntl.flock",
    "os.link",
    "os.listdir",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.scandir",
    "os.truncate",
    "os.utime",
    "shutil.rmtree",
    "subprocess.Popen",
}
_GRACE = 5.0  # Seconds that what a process started may outlive it.


def load() -> None:
    """Load what commands need. Nothing of it may run in this process."""
    sys.path.insert(0, str(CHECKOUT))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in _LOADED:
        importlib.import_module(name)
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL")
    gc.collect()
    gc.freeze()


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
            code = 70
            try:
                os.close(self._events)
                os.close(self._go)
                self._become(arguments, root / "work", variables, prepare, _Stop(event, events, go))
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else int(error.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                _exit(code)
        os.close(events)
        os.close(go)

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
                env={"PYTHONPATH": str(CHECKOUT), **variables},
                stdin=stdin,
                stdout=out,
                stderr=errors,
                start_new_session=True,
                preexec_fn=prepare,
            ).pid

    def _become(
        self,
        arguments: list[str],
        work: Path,
        variables: Mapping[str, str],
        prepare: Callable[[], object],
        stop: "_Stop",
    ) -> None:
        """Be the command."""
        os.setsid()
        os.chdir(work)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for number, path, flag in (
            (0, self._stdin, os.O_RDONLY),
            (1, self._files["out"], flags),
            (2, self._files["errors"], flags),
        ):
            handle = os.open(path, flag, 0o644)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(variables)
        tempfile.tempdir = None
        if arguments[0] in ("run", "validate", "push"):
            _fork_the_probe()
        prepare()
        sys.argv = ["skipstream", *arguments]
        from pipeline import cli

        sys.addaudithook(stop)
        try:
            cli.main()
        finally:
            stop.end()

    def stopped(self, seconds: float) -> bool:
        """Wait so long until it stops at its event; False: it does not, or has ended."""
        return bool(_readable(self._events, seconds)) and os.read(self._events, 1) == b"!"

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


class _Stop:
    """An audit hook that counts events, and stops at one of them until it is told to go on."""

    def __init__(self, event: int, told: int, go: int) -> None:
        self._event, self._told, self._go = event, told, go
        self._count = 0
        self._owner = os.getpid()
        os.set_inheritable(told, False)

    def __call__(self, name: str, arguments: object) -> None:
        if name in _EVENTS:
            self._count += 1
            if self._count == self._event and os.getpid() == self._owner:
                os.write(self._told, b"!")
                os.read(self._go, 1)

    def end(self) -> None:
        os.write(self._told, str(self._count).encode())


def _fork_the_probe() -> None:
    """Fork what the InfraValidator asks its questions in, while TensorFlow runs nothing here."""
    from components.infra_validator import process, validator

    told, tell = os.pipe()
    said, say = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(told, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(say, 2)
        os.closerange(3, 256)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        code = 1
        try:
            runpy.run_path(str(process.PROBE), run_name="__main__")
            code = 0
        except BaseException:
            traceback.print_exc(file=open(2, "w", closefd=False))  # noqa: SIM115
        finally:
            os._exit(code)
    os.close(told)
    os.close(say)

    class Forked(process.FreshProcess):
        def __init__(self) -> None:
            pass

        def ask(self, *paths: Path, timeout: float) -> "subprocess.CompletedProcess[bytes]":
            os.write(tell, json.dumps([*map(str, paths)]).encode() + b"\n")
            text = b""
            deadline = time.monotonic() + timeout
            while _readable(said, deadline - time.monotonic()):
                if not (chunk := os.read(said, 1 << 16)):
                    break
                text += chunk
            else:
                raise subprocess.TimeoutExpired([], timeout)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return subprocess.CompletedProcess([], code, b"", text)

        def close(self) -> None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    for module in (process, validator):
        module.FreshProcess = Forked  # type: ignore[misc]
    atexit.register(Forked().close)


def _exit(code: int) -> None:
    """End as an interpreter does."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def in_child(function: Callable[..., T], *arguments: Any, variables: Mapping[str, str]) -> T:
    """What a function gives in a process of its own: clients of buckets start threads."""
    source, sink = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.environ.update(variables)
            result = (True, function(*arguments))
        except BaseException:
            result = (False, traceback.format_exc())
        with os.fdopen(sink, "wb") as file:
            pickle.dump(result, file)
        os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as file:
        content = file.read()
    os.waitpid(pid, 0)
    succeeded, value = pickle.loads(content) if content else (False, "the process died")
    if not succeeded:
        raise RuntimeError(value)
    return value


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


def end_with_parent() -> None:
    """Let the system end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _stage(errors: str) -> str:
    began = [line.split()[0] for line in errors.splitlines() if line.endswith("  running")]
    return began[-1] if began else ""


def _readable(handle: int, seconds: float) -> bool:
    return bool(select.select([handle], [], [], max(0, seconds))[0])
