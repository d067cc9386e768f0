"""Local copies of what lies in buckets: bounded, shared by all processes, safe to delete.

A directory for each place, and in it one for each artifact, served version, or artifact in the
making. Files appear whole, with the digests that the bucket says they have. Above
SKIPSTREAM_CACHE_GB gigabytes, what was not used for longest goes, when a process begins that finds
no other at work.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from components.errors import SettingsError, SkipstreamError

DIRECTORY, GIGABYTES = "SKIPSTREAM_CACHE", "SKIPSTREAM_CACHE_GB"
_DEFAULT_GIGABYTES = 20.0
_LOCK = ".lock"


def directory_for(address: str, name: str) -> Path:
    """Where the copy of something in a place lies, which counts as used now.

    Args:
        address: URL of the place.
        name: One word, such as `trainer-0123abcd`.

    Returns:
        The path; there need not be anything.

    Raises:
        SettingsError: SKIPSTREAM_CACHE_GB is no number.
        SkipstreamError: The cache directory cannot be written, or others can write to it.
    """
    place = hashlib.blake2b(address.encode(), digest_size=8).hexdigest()
    path = _opened(_root()) / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        os.utime(path)
    return path


@cache
def _opened(root: Path) -> Path:
    """The cache directory. As long as this process lives, no other removes anything from it."""
    try:
        handle = _lock_file(root)  # Closed when the process ends.
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise SkipstreamError(
            f"the cache directory {root} must be writable, and is not ({error.strerror}): name "
            f"another with {DIRECTORY}"
        ) from error
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shrink(root, _limit())
    fcntl.flock(handle, fcntl.LOCK_SH)
    return root


def _root() -> Path:
    if chosen := os.environ.get(DIRECTORY):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(base) / "skipstream"
    try:
        os.close(_lock_file(root))
    except OSError:  # Another user's, or a container that runs under any user.
        return _own(Path(tempfile.gettempdir()) / f"skipstream-cache-{os.getuid()}")
    return root


def _own(root: Path) -> Path:
    """A directory where anybody may make one, if it is this user's alone.

    Raises:
        SkipstreamError: Somebody else made it, or may write to it: copies are trusted by their
            size.
    """
    with suppress(FileExistsError):
        root.mkdir(mode=0o700, parents=True)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise SkipstreamError(
            f"the cache directory {root} must be a directory that only this user can write to, and "
            f"is not: remove it, or name another with {DIRECTORY}"
        )
    return root


def _lock_file(root: Path) -> int:
    """A handle on it, in a directory that is made if it is not there."""
    root.mkdir(parents=True, exist_ok=True)
    return os.open(root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)


def _limit() -> int:
    text = os.environ.get(GIGABYTES, "")
    try:
        return round(1e9 * (float(text) if text else _DEFAULT_GIGABYTES))
    except ValueError as error:
        raise SettingsError(f"{GIGABYTES} must be a number of gigabytes, got {text!r}") from error


def shrink(root: Path, limit: int) -> None:
    """Remove what was not used for longest until at most `limit` bytes are left."""
    copies = []
    for path in root.glob("*/*"):
        size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        copies.append((path.lstat().st_mtime, size, path))
    total = sum(size for _, size, _ in copies)
    for _, size, path in sorted(copies):
        if total <= limit:
            return
        shutil.rmtree(path, ignore_errors=True)
        total -= size
