"""A bucket held by one run, until that ends or has been dead for a minute.

The lease is an object that says who holds it. The holder writes it anew every 15 seconds, on the
condition that nobody else has. A run that finds it watches it: if it is written anew, its holder
lives; if it has stayed the same for 60 seconds, its holder is dead, and the lease is taken over,
again on the condition that nobody else has. No clocks are compared, so they need not agree. The
lease of a process of the same machine that is not there any more is taken over at once.

A holder that could not write for 60 seconds has lost the lease, and its run ends at its next step.
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

if TYPE_CHECKING:
    from components.places.bucket import Bucket

NAME = ".lease"
SECONDS = 60.0
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
        self._holder = {"run": run, "host": socket.gethostname(), **_process()}
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
        self._thread.join()
        if self._lost:
            return
        try:
            content, version = self._bucket.read_version(NAME)
            if content and version == self._version:
                self._bucket.remove(NAME)
        except SkipstreamError as failure:  # It ends by itself.
            _logger.warning("the lease is not given back: %s", failure)

    def check(self) -> None:
        """See to it that nobody else may have taken the lease.

        Raises:
            SkipstreamError: It could not be renewed for too long.
        """
        if self._lost or time.monotonic() - self._written > self._seconds:
            raise SkipstreamError(
                f"the lease of {self._bucket.address} could not be renewed for {self._seconds:g} "
                "seconds, and another run may have taken it: run the same command again"
            )

    def _take(self) -> None:
        content, version = self._bucket.read_version(NAME)
        watched_since, said = time.monotonic(), False
        while True:
            if content is None or _is_gone(content):
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
            if found is not None and newer != version and not _is_gone(found):
                raise SkipstreamError(
                    f"{self._bucket.address} is in use by {_named(found)}: wait for it, or choose "
                    "another with --output"
                )
            content, version = found, newer

    def _write(self, version: Any) -> bool:
        """Write it anew; False: somebody else has."""
        begun = time.monotonic()
        self._renewals += 1
        # Each time another content: else some stores give it the same e-tag.
        content = json.dumps(self._holder | {"renewals": self._renewals}).encode()
        written = self._bucket.replace(NAME, content, version)
        if written is None:  # By somebody else, or by a request of ours that seemed to fail.
            found, written = self._bucket.read_version(NAME)
            if found != content:
                return False
        self._version, self._written = written, begun
        return True

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / 4):
            try:
                if not self._write(self._version):
                    self._lost = True
                    return
            except SkipstreamError as error:
                _logger.warning("the lease is not renewed: %s", error)


def _process() -> dict[str, Any]:
    """What tells this process from all others of this machine, as long as that runs."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
        return {"machine": f"{boot} {space}", "pid": os.getpid(), "began": _began(os.getpid())}
    except OSError:  # Not Linux.
        return {"machine": None, "pid": os.getpid(), "began": None}


def _began(pid: int) -> str | None:
    """When a process began, in ticks; None: there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _is_gone(content: bytes) -> bool:
    """Whether the holder was a process of this machine, and is no more."""
    try:
        holder = json.loads(content)
        machine, pid, began = holder["machine"], holder["pid"], holder["began"]
    except (ValueError, LookupError, TypeError):
        return True  # Nobody writes such a lease.
    return machine is not None and machine == _process()["machine"] and _began(pid) != began


def _named(content: bytes) -> str:
    holder = json.loads(content)
    return f"run {holder['run']} on {holder['host']} (process {holder['pid']})"
