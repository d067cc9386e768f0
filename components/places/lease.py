"""A bucket held by one run, until that ends or has been dead for a minute.

The lease is an object that says who holds it. The holder writes it anew every 15 seconds, on the
condition that nobody else has. A run that finds it watches it: if it is written anew, its holder
lives; if it has stayed the same for 60 seconds, its holder is dead, and the lease is taken over,
again on the condition that nobody else has. No clocks are compared, so they need not agree. The
lease of a process of the same machine that is not there any more is taken over at once.

A holder that could not write for 45 seconds, which is time for a request in vain and another one,
writes nothing more in the bucket, and its run ends at its next stage or checkpoint: so what it was
writing is over before another run begins. Only a machine that is suspended at the very moment, and
goes on later, may write one more file.
"""

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from components.errors import SkipstreamError
from components.names import shown
from components.places.place import wait_for

if TYPE_CHECKING:
    from components.places.bucket import Bucket

NAME = ".lease"
SECONDS = 60.0
_SAFE = 0.75  # Of that time, the share in which a holder may write.
_logger = logging.getLogger(__name__)


class Lease:
    """A context manager; the lease is held within."""

    def __init__(self, bucket: "Bucket", run: str, seconds: float = SECONDS) -> None:
        """Nothing is read or written yet.

        Args:
            bucket: What is held.
            run: By whom, for messages.
            seconds: How long a dead holder keeps it.
        """
        self._bucket = bucket
        self._seconds = seconds
        self._holder = {"run": run, "host": socket.gethostname(), **this_process()}
        self._version: Any = None
        self._written = 0.0
        self._renewals = 0
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            SkipstreamError: Another run holds it, or the bucket cannot be written.
        """
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back."""
        self._ended.set()
        try:
            wait_for(self._thread)
            if self._lost or self._bucket.silent:
                return
            content, version = self._bucket.read_version(NAME)
            if content and version == self._version:
                self._bucket.remove(NAME)
        except (SkipstreamError, TimeoutError) as failure:  # It ends by itself.
            _logger.warning("the lease is not given back: %s", failure)

    def check(self) -> None:
        """See to it that nobody else may have taken the lease.

        Raises:
            SkipstreamError: It could not be renewed for too long.
        """
        if self._lost or _now() - self._written > self._seconds * _SAFE:
            raise SkipstreamError(
                f"the lease of {self._bucket.address} could not be renewed for "
                f"{self._seconds * _SAFE:g} seconds, and another run may take it: run the same "
                "command again"
            )

    def _take(self) -> None:
        content, version = self._bucket.read_version(NAME)
        watched_since, said = time.monotonic(), False
        while True:
            if content is None or is_gone(content):
                if self._write(version):
                    return
            elif time.monotonic() - watched_since > self._seconds:
                _logger.warning("%s is dead: its lease is taken over", _named(content))
                if self._write(version):
                    return
            elif not said:
                said = True
                _logger.warning("waiting to see whether %s lives", _named(content))
            time.sleep(min(1.0, self._seconds / 20))
            found, newer = self._bucket.read_version(NAME)
            if found is not None and newer != version and not is_gone(found):
                raise SkipstreamError(
                    f"{self._bucket.address} is in use by {_named(found)}: wait for it, or choose "
                    "another with --output"
                )
            content, version = found, newer

    def _write(self, version: Any) -> bool:
        """Write it anew; False: somebody else has."""
        begun = _now()
        self._renewals += 1
        # Each time another content: else some stores give it the same e-tag.
        content = json.dumps(self._holder | {"renewals": self._renewals}).encode()
        written = self._bucket.replace(NAME, content, version)
        if written is None:
            return False
        self._version, self._written = written, begun
        return True

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / 4):
            try:
                if not self._write(self._version):
                    self._lost = True
                    return
            except Exception as error:  # Whatever it is, the next try may do.
                _logger.warning("the lease is not renewed: %s", error)


def _now() -> float:
    """Seconds that pass while the machine is suspended, too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def this_process() -> dict[str, Any]:
    """What tells this process from all others of this machine, as long as that runs."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        return {"machine": machine, "pid": os.getpid(), "began": _stat(os.getpid())[1]}
    except OSError:  # Not Linux.
        return {"machine": None, "pid": os.getpid(), "began": None}


def _stat(pid: int) -> tuple[str, str]:
    """The state of a process, and when it began, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]


def is_gone(content: bytes) -> bool:
    """Whether the holder was a process of this machine, and is no more."""
    try:
        holder = json.loads(content)
        machine, pid, began = holder["machine"], int(holder["pid"]), holder["began"]
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return True  # Nobody writes such a lease.
    if machine is None or machine != this_process()["machine"]:
        return False
    try:
        state, found = _stat(pid)
    except OSError:  # It is gone, or of another user, whose processes are hidden.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OverflowError:  # No process has such a number.
            return True
        except PermissionError:
            pass
        return False
    return found != began or state in ("Z", "X")  # A zombie is dead.


def _named(content: bytes) -> str:
    holder = json.loads(content)
    run, host = holder.get("run", "?"), holder.get("host", "?")
    return shown(f"run {run} on {host} (process {holder['pid']})")
