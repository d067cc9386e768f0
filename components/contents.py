"""What files hold, by digests, so that a file counts by its content, not by its time or name.

A digest is remembered with the size and the times of its file. As long as those stay, the file is
not read again. What is new or was touched is read once, in threads, without holding up each other:
BLAKE2b takes 0.8 GB/s a core, so most disks are slower. Measured on two cores that had other work,
from the page cache: 0.3 to 0.4 GB/s, and 60 microseconds for each of 100,000 small files; when
nothing has changed, 20 microseconds a file. So 1 TB takes three quarters of an hour once, a million
small files a minute, then 20 seconds. The file that remembers takes 120 bytes a file. (The Beam
job reads what is new twice more.)

Of a file in an object store, the store's own checksum stands for the content: it costs a request
a file, and no reading. It is GCS's CRC-32C, which misses one change in four billion, or S3's ETag,
which is another for the same content if that was uploaded in other parts. So a copy of a corpus
in another store, or on a disk, counts as another corpus. Where a store has no checksum, the time
of change counts. This was tried against a local server that answers as S3, not against real
buckets of S3 or GCS.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from components.errors import SkipstreamError
from components.example_gen.files import File, is_remote
from components.names import shown
from components.sealed import seal, unseal

if TYPE_CHECKING:
    from components.places.place import Place

_logger = logging.getLogger(__name__)

BLOCK_BYTES = 2**20
# What a thread reads before it takes more: enough that handing it over costs nothing.
_GROUP_FILES = 256
_GROUP_OBJECTS = 16
_GROUP_BYTES = 64 * 2**20
# Nanoseconds. A file that is written again within a tick of its file system's clock keeps its time:
# what was read that early is not trusted later. FAT's tick is the longest.
_TICK = 2 * 10**9
_REQUESTS = 32  # To a store at a time.
_PATIENCE_SECONDS = 2.0  # Before a progress bar appears.

UNREADABLE = "unreadable"
_Entry = list[Any]  # A digest; where it is to be trusted, size and times behind it.


class _StoppedError(Exception):
    """Nobody waits for the digests any more."""


class Contents:
    """The digests of a list of files, remembered in a JSON file from run to run."""

    def __init__(self, place: "Place", name: str) -> None:
        """Load what is remembered.

        Args:
            place: Where the file lies.
            name: Of the file in it; need not exist. What is damaged is forgotten.
        """
        self._place, self._name = place, name
        try:
            known = unseal(json.loads(place.read(name) or b""))
        except (ValueError, RecursionError):
            known = {}
        entries = known.items() if isinstance(known, dict) else ()
        self._known: dict[str, _Entry] = {
            path: entry for path, entry in entries if isinstance(entry, list) and entry
        }

    @property
    def remembered(self) -> list[str]:
        """The digests of the last list, in its order."""
        return [digest for digest, *_ in self._known.values()]

    def digests(self, files: Sequence[File], *, skip_unreadable: bool = False) -> list[str]:
        """A digest of each file's stored bytes, and remember them.

        Args:
            files: Each once.
            skip_unreadable: Whether a file that cannot be read has the digest UNREADABLE; else it
                is an error.

        Raises:
            SkipstreamError: A file is gone or cannot be read.
        """
        entries = {
            file.path: entry
            for file in files
            if (entry := self._known.get(file.path, []))[1:] == _state(file)
        }
        new = [file for file in files if file.path not in entries]
        try:
            for file, entry in _entries(new, skip_unreadable):
                entries[file.path] = entry
        finally:  # An interrupted run has read something, too.
            self._remember(
                {file.path: entries[file.path] for file in files if file.path in entries}
            )
        return [entries[file.path][0] for file in files]

    def _remember(self, entries: dict[str, _Entry]) -> None:
        if list(entries.items()) != list(self._known.items()):
            sealed = seal(entries).items()
            lines = (f"{json.dumps(path)}: {json.dumps(entry)}" for path, entry in sealed)
            self._place.write(self._name, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
            self._known = entries


def _state(file: File) -> list[int]:
    return [file.size, file.modified, file.changed]


def _entries(files: Sequence[File], skip_unreadable: bool) -> Iterator[tuple[File, _Entry]]:
    if not files:
        return
    from tqdm import tqdm  # When logs.use_json has had its say: tqdm asks the environment once.

    total = sum(file.size for file in files if not is_remote(file.path))
    _logger.info("%d files are new or were touched, of %d bytes to be read", len(files), total)
    schemes = {_scheme(file.path) for file in files if is_remote(file.path)}
    checksums = {scheme: _checksum_of(scheme) for scheme in sorted(schemes)}
    stop = threading.Event()
    lock = threading.Lock()
    with (
        tqdm(
            desc="reading what files hold",
            total=total,
            unit="B",
            unit_scale=True,
            delay=_PATIENCE_SECONDS,
            mininterval=1,
            leave=False,
        ) as bar,
        ThreadPoolExecutor(_REQUESTS if checksums else None) as pool,
    ):

        def advance(size: int) -> None:
            with lock:
                bar.update(size)
            if stop.is_set():
                raise _StoppedError

        def digest_of(file: File) -> tuple[str, File]:
            if is_remote(file.path):
                return _of_store(file, checksums[_scheme(file.path)])
            return _of_disk(file, advance)

        def read(group: list[File]) -> list[_Entry]:
            entries = []
            for file in group:
                advance(0)
                entries.append(_entry(file, digest_of, skip_unreadable))
            return entries

        try:
            groups = list(_groups(files))
            for group, entries in zip(groups, pool.map(read, groups), strict=True):
                yield from zip(group, entries, strict=True)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _groups(files: Sequence[File]) -> Iterator[list[File]]:
    group: list[File] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.size
        most = _GROUP_OBJECTS if is_remote(file.path) else _GROUP_FILES
        if len(group) >= most or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _entry(
    file: File, digest_of: Callable[[File], tuple[str, File]], skip_unreadable: bool
) -> _Entry:
    begun = time.time_ns()
    try:
        digest, still = digest_of(file)
    except SkipstreamError:
        if not skip_unreadable:
            raise
        return [UNREADABLE]
    settled = max(file.modified, file.changed) + _TICK <= begun
    return [digest, *_state(file)] if settled and still == file else [digest]


def _of_disk(file: File, advance: Callable[[int], None]) -> tuple[str, File]:
    """The digest, and the file as it was when it had been read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(file.path, "rb", buffering=0) as stored:
            while block := stored.read(BLOCK_BYTES):
                digest.update(block)
                advance(len(block))
            return digest.hexdigest(), File.of(file.path, os.fstat(stored.fileno()))
    except FileNotFoundError as error:
        raise SkipstreamError(
            f"{shown(file.path)} was listed and is gone now: leave it in place and run again"
        ) from error
    except OSError as error:
        raise SkipstreamError(f"cannot read {shown(file.path)}: {error.strerror}") from error


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def _checksum_of(scheme: str) -> Callable[[str], str | None]:
    """What tells the checksum of an object in a store, by its URL."""
    from apache_beam.io.filesystems import FileSystems

    checksum: Callable[[str], str | None] = FileSystems.checksum
    if scheme == "s3":  # There, it makes a client for each object, which takes 0.1 s.
        from apache_beam.io.aws.s3io import S3IO

        checksum = S3IO(options=FileSystems._pipeline_options).checksum
    return checksum


def _of_store(file: File, checksum_of: Callable[[str], str | None]) -> tuple[str, File]:
    try:
        checksum = checksum_of(file.path)
    except NotImplementedError:
        checksum = None
    except Exception as error:  # Every cloud library has exceptions of its own.
        details = getattr(error, "exception_details", None) or {file.path: error}
        reason = " ".join(str(next(iter(details.values()))).split())
        raise SkipstreamError(f"cannot read {shown(file.path)}: {reason}") from error
    # Beam lets a file system that has none answer with the size.
    if not checksum or checksum == str(file.size):
        return f"modified:{file.modified}", file
    return f"{_scheme(file.path)}:{checksum}", file
