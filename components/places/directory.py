"""A directory of a file system with atomic renames and locks (NFS has them since version 4)."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp, mkstemp
from typing import TypeVar

from components.errors import SkipstreamError
from components.places.place import SCRATCH, Found, digest_of, each

T = TypeVar("T")

LOCK = ".lock"
_RANDOM = 8  # Letters that mkstemp puts behind a prefix.
_TRIES = 100  # To write to a directory that others remove, and the other way round.


class Directory:
    """A local place: trees appear and disappear by a rename."""

    has_locks = True
    silent = False

    def __init__(self, path: str | Path) -> None:
        """Nothing is read or written yet; `path` may begin with ~."""
        self.path = Path(os.path.abspath(os.path.expanduser(path)))
        self.address = str(self.path)
        self._left: dict[Path, set[str]] = {}

    def at(self, name: str) -> str:
        """Path of something in it."""
        return str(self.path / name)

    @contextmanager
    def hold(self, run: str) -> Iterator["Directory"]:
        """The system lets go of the lock of a process that dies. Makes the directory."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / LOCK).open("a+", encoding="utf-8")
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise SkipstreamError(
                f"output directory {self.path} cannot be written ({error.strerror}): "
                "choose another with --output"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise SkipstreamError(
                    f"output directory {self.path} is in use by process {holder}: "
                    "wait for it, or choose another with --output"
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield self

    def check(self) -> None:
        """Nobody takes a lock over."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The system lets go of the lock of a process that dies. Makes the directory."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self, name: str) -> bytes | None:
        """The content of a file; None: there is none."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_range(self, name: str, start: int, size: int) -> bytes | None:
        """Some bytes of a file; None: there is none."""
        try:
            with (self.path / name).open("rb") as file:
                file.seek(start)
                return file.read(size)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, over one that is there."""
        self._put_in_place(name, content, os.replace)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file that is not there. False: it is there, and stays as it is."""
        return self._put_in_place(name, content, _link)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file()

    def names(self, name: str = "") -> list[str]:
        """What is in a directory, by name, sorted: files and directories."""
        try:
            return sorted(os.listdir(self.path / name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, name: str) -> dict[str, Found]:
        """All files below a directory, by their names in it."""
        root, found = self.path / name, {}
        for directory, _, names in os.walk(root):
            for file in names:
                path = Path(directory, file)
                with suppress(FileNotFoundError):  # Another process removes the same.
                    status = path.lstat()
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    found[path.relative_to(root).as_posix()] = Found(status.st_size, modified)
        return found

    def put(self, source: Path, name: str, *, last: str) -> None:
        """Copy a local directory into the place, and all of it to the disk."""
        target = self.path / name
        shutil.copytree(
            source, target, ignore=lambda path, _: [last] if Path(path) == source else []
        )
        for directory, _, files in os.walk(target, topdown=False):
            for file in files:
                _sync(Path(directory, file))
            _sync(Path(directory))
        shutil.copy2(source / last, target / last)
        _sync(target / last)
        _sync(target)

    def local(
        self, name: str, scratch: Path, *, last: str, digests: Mapping[str, str] | None = None
    ) -> Path:
        """The directory itself."""
        path = self.path / name
        _compare(path, digests or {})
        return path

    def copy(self, source: str, name: str, *, last: str) -> None:
        """Copy a directory within the place."""
        self.put(self.path / source, name, last=last)

    def move(self, source: str, name: str, *, last: str) -> bool:
        """A rename, to which a lock is no hindrance: a person may have copied something there."""
        path = self.path / name
        try:
            (self.path / source).rename(path)
        except OSError:
            if not path.exists():
                raise
            return False
        _sync(path.parent)
        return True

    def remove(self, name: str, *, first: str = "") -> None:
        """A directory leaves its name, then the disk; others may remove the same."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            if not path.name.startswith(SCRATCH):
                try:
                    scratch = Path(mkdtemp(dir=self.path, prefix=SCRATCH))
                except FileNotFoundError:  # The place itself is gone.
                    return
                with suppress(FileNotFoundError):
                    path.rename(scratch / "old")
                path = scratch
            _remove_tree(path)
        else:
            with suppress(IsADirectoryError):  # Another process has just made it.
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """What dead processes left: a living one would hold the lock."""
        for leftover in self.path.glob(f"{SCRATCH}*"):
            shutil.rmtree(leftover)

    def _put_in_place(self, name: str, content: bytes, put: Callable[[Path, Path], T]) -> T:
        """Write a file beside `name`, and let `put` give it that name."""
        tries = _TRIES
        while True:
            tries -= 1
            try:
                with self._written(name, content) as temporary:
                    result = put(temporary, self.path / name)
                self._tidy(self.path / name)
                return result
            except FileNotFoundError:  # Another process has just removed the directory.
                if not tries:
                    raise
            except FileExistsError:  # Or while this one made it.
                if not tries or (self.path / name).parent.is_file():
                    raise

    def _tidy(self, path: Path) -> None:
        """Remove what killed processes left beside a file; one that lives tries again.

        A directory is looked through once, when this object first writes to it: it may hold
        thousands. What is left there later is found by the next process.
        """
        left = self._left.get(path.parent)
        if left is None:
            names = os.listdir(path.parent)
            left = self._left[path.parent] = {name for name in names if name.startswith(".")}
        start = f".{path.name}."
        for name in [name for name in left if name.startswith(start)]:
            if len(name) == len(start) + _RANDOM:
                left.discard(name)
                path.with_name(name).unlink(missing_ok=True)

    @contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        """A temporary file beside `name`, on the disk."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            yield Path(temporary)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _compare(directory: Path, digests: Mapping[str, str]) -> None:
    """See to it that files are what they were when their digests were taken.

    Raises:
        SkipstreamError: One is not.
    """

    def is_same(file: str) -> bool:
        path = directory / file
        return path.is_file() and digest_of(path) == digests[file]

    for file, same in zip(digests, each(is_same, list(digests)), strict=True):
        if not same:
            raise SkipstreamError(
                f"{directory}/{file} is damaged: its content is not what was published: serve "
                "another version with 'skipstream rollback', or push anew"
            )


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name. False: there is such a file."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def _remove_tree(path: Path) -> None:
    """Remove all of it, though others do the same, or still write to it."""
    for tries_left in reversed(range(_TRIES)):
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY) or not tries_left:
                raise
        if not path.exists():
            return


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
