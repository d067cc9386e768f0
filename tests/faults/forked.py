"""`skipstream ARGUMENTS` in a process that is forked, which stops at a moment.

Loading TensorFlow and Beam takes longer than most commands. So a process that has both loaded, and
has run nothing of them, forks one for each command. That calls what the `skipstream` program calls.
"""

import atexit
import contextlib
import ctypes
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
import weakref
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


def load() -> None:
    """Load what commands need. Nothing of it may run in this process."""
    sys.path.insert(0, str(CHECKOUT))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in _LOADED:
        importlib.import_module(name)
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL")
    gc.collect()
    gc.freeze()


def become(
    arguments: list[str],
    work: Path,
    files: Mapping[int, tuple[Path, int]],
    variables: Mapping[str, str],
    prepare: Callable[[], object],
    stop: "Stop",
) -> None:
    """Be the command, and end as it does.

    Args:
        arguments: Of the command line.
        work: Where it runs.
        files: Paths and flags of its standard streams, by their numbers.
        variables: Its environment.
        prepare: Called first.
        stop: Called at its events.
    """
    code = 70
    try:
        os.setsid()
        os.chdir(work)
        for number, (path, flags) in files.items():
            handle = os.open(path, flags, 0o644)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(variables)
        tempfile.tempdir = None
        weakref.finalize._registry.clear()  # type: ignore[attr-defined] - the campaign's own.
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
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _exit(code)


class Stop:
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
    # Python ignores what a signal raises in the hooks of a fork. The product forks nothing.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    pid = os.fork()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
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
        except KeyboardInterrupt:  # As the interpreter ends.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
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
            with contextlib.suppress(BrokenPipeError):  # It has been killed.
                os.write(tell, json.dumps([*map(str, paths)]).encode() + b"\n")
            text = b""
            deadline = time.monotonic() + timeout
            while readable(said, deadline - time.monotonic()):
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


def end_with_parent() -> None:
    """Let the system end this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def readable(handle: int, seconds: float) -> bool:
    """Whether there is something to read within that time."""
    return bool(select.select([handle], [], [], max(0, seconds))[0])
