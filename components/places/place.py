"""What both kinds of place can do."""

import hashlib
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar

from components.errors import SettingsError

T = TypeVar("T")

# Names that begin so are work under way; `sweep` removes what dead processes left of it.
SCRATCH = ".scratch-"
REQUESTS = 16  # Small ones, at a time.
_DEAD_AFTER = timedelta(days=1)
_LAST_SECONDS = 1.0  # For each request that a process still makes before it ends.
_hurried: list[float] = []


@dataclass(frozen=True)
class Found:
    """A file of a place.

    Attributes:
        size: Bytes.
        modified: When it was written last, in UTC.
        tag: What another content would change, as the store has it; "": it has none.
    """

    size: int
    modified: datetime
    tag: str = ""


class Hold(Protocol):
    """A place that no other run may change."""

    def check(self) -> None:
        """Raise SkipstreamError if another run may have taken the place over."""


class Place(Protocol):
    """Files below an address. A small file appears whole, or not at all.

    Where the place cannot be read or written, a bucket's methods raise SkipstreamError, those of a
    directory OSError.

    Attributes:
        address: An absolute path or a URL.
        has_locks: Whether `lock` keeps other processes out. Where it does not, names are claimed by
            `create`, and what a dead process left is told by its age.
        silent: Whether the last request was given up after a long wait. Nothing then waits again
            only to tidy up.
    """

    address: str
    has_locks: bool
    silent: bool

    def at(self, name: str) -> str:
        """Path or URL of something in it."""

    def hold(self, run: str) -> AbstractContextManager[Hold]:
        """Keep all other runs out, under the name of this one.

        Raises:
            SkipstreamError: Another one keeps this one out.
        """

    def lock(self) -> AbstractContextManager[None]:
        """Wait until no other process is in such a block, where there are locks."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None: there is none."""

    def read_range(self, name: str, start: int, size: int) -> bytes | None:
        """`size` bytes of a file, from its byte `start` on; None: there is no such file."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, over one that is there."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file that is not there. False: it is there, and stays as it is."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def names(self, name: str = "") -> list[str]:
        """What is in a directory, by name, sorted: files and directories."""

    def files(self, name: str) -> dict[str, Found]:
        """All files below a directory, by their names in it."""

    def put(self, source: Path, name: str, *, last: str) -> None:
        """Copy a local directory into the place, its file `last` when all others are there."""

    def local(
        self, name: str, scratch: Path, *, last: str, digests: Mapping[str, str] | None = None
    ) -> Path:
        """A local directory with all files of one: itself, or a copy, made once for each content.

        Args:
            name: The directory in the place.
            scratch: What the name of a copy begins with.
            last: Without this file, a directory is not whole, and not copied.
            digests: Of its files, as far as they are known; see `digest_of`.

        Raises:
            SkipstreamError: It is not whole, or a file is not what its digest says.
        """

    def copy(self, source: str, name: str, *, last: str) -> None:
        """Copy a directory within the place, its file `last` when all others are there."""

    def move(self, source: str, name: str, *, last: str) -> bool:
        """Give a directory another name. False: something has that name."""

    def remove(self, name: str, *, first: str = "") -> None:
        """Remove a file, or a directory: its file `first`, then all others."""

    def sweep(self) -> None:
        """Remove what dead processes left. Where there are locks, this needs one."""


def open_place(address: str | Path, setting: str = "--output") -> Place:
    """The place at an address. Nothing is read or written yet.

    Args:
        address: A directory, gs://bucket/path or s3://bucket/path.
        setting: What named it, for messages.

    Raises:
        SettingsError: It is a URL of another kind.
        SkipstreamError: The store's client does not take it.
    """
    scheme, separator, rest = str(address).partition("://")
    wrong = SettingsError(
        f"{setting} must be a directory, gs://bucket/path or s3://bucket/path, got '{address}'"
    )
    if not separator:
        if re.match("(gs|s3):", str(address)):  # A slash too few.
            raise wrong
        from components.places.directory import Directory

        return Directory(address)
    if scheme not in ("gs", "s3") or not rest.partition("/")[0]:
        raise wrong
    from components.places.bucket import Bucket

    return Bucket.open(str(address), setting)


def is_dead(place: Place, name: str) -> bool:
    """Whether nobody has written to a directory for so long that nobody will."""
    latest = max((found.modified for found in place.files(name).values()), default=None)
    return latest is not None and datetime.now(UTC) - latest > _DEAD_AFTER


def each(function: Callable[[str], T], names: list[str], at_a_time: int = REQUESTS) -> list[T]:
    """What a function gives for each name, in order. After a failure, nothing new begins.

    The threads are no hindrance to an interrupt, or to the end of the process.
    """
    if len(names) < 2:
        return [function(name) for name in names]
    waiting, lock = iter(enumerate(names)), threading.Lock()
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            with lock:
                number, name = next(waiting, (-1, ""))
            if number < 0:
                return
            try:
                results[number] = function(name)
            except BaseException as error:
                failures.append(error)

    threads = [
        threading.Thread(target=work, daemon=True) for _ in range(min(at_a_time, len(names)))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            wait_for(thread)
    except BaseException as error:
        failures.append(error)
        raise
    if failures:
        raise failures[0]
    return [results[place] for place in range(len(names))]


def hurry() -> None:
    """This process is to end: from now on, it waits for no request longer than a second."""
    _hurried.append(time.monotonic())


def wait_for(thread: threading.Thread) -> None:
    """Wait until it has ended, or a signal arrives.

    Raises:
        TimeoutError: The process is to end, and the thread took too long for that.
    """
    begun = time.monotonic()
    while thread.is_alive():
        thread.join(0.2)
        since = max(begun, _hurried[-1] if _hurried else math.inf)
        if thread.is_alive() and time.monotonic() - since > _LAST_SECONDS:
            raise TimeoutError("no answer before the process had to end")


def digest_of(path: Path) -> str:
    """BLAKE2b of a file's content, 16 bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def files_below(directory: Path) -> list[str]:
    """The names of all files in it and its directories, with slashes, sorted."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [path.relative_to(directory).as_posix() for path in paths]
