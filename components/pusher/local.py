"""Versions in a directory, which appear and disappear by a rename."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from components.artifacts import versions_in, write_atomically
from components.pusher.destination import RECORDS, SCRATCH
from components.pusher.history import Record

_LOCK = ".lock"


class LocalDestination:
    """A directory of a file system with atomic renames and locks (NFS has them since version 4)."""

    failures: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, serving: Path) -> None:
        """Nothing is read or written yet."""
        self._serving = serving
        self.address = str(serving)

    def path_of(self, version: int) -> str:
        """Path of a version."""
        return str(self._serving / str(version))

    def fetch(self, version: int, directory: Path) -> Path:
        """The files of a version, where they lie."""
        return self._serving / str(version)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One push at a time. The system lets go of the lock of a process that dies."""
        (self._serving / RECORDS).mkdir(parents=True, exist_ok=True)
        with (self._serving / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def versions(self) -> list[int]:
        """The whole versions: those with a saved_model.pb."""
        return [n for n, path in self._numbered().items() if (path / "saved_model.pb").exists()]

    def highest(self) -> int:
        """The highest number that a file, a directory or a record has."""
        return max([*self._numbered(), *map(int, self._record_names())], default=0)

    def records(self) -> dict[int, Record]:
        """All records by version."""
        paths = [self._record(int(name)) for name in self._record_names()]
        found = [Record.parse(path.read_bytes(), str(path)) for path in paths]
        return {record.version: record for record in found}

    def claim(self, record: Record) -> bool:
        """Under the lock, `highest` knows all claims."""
        self.confirm(record)
        return True

    def confirm(self, record: Record) -> None:
        """Write the record again."""
        write_atomically(self._record(record.version), record.model_dump_json(indent=2) + "\n")

    def disclaim(self, record: Record) -> None:
        """Take back the claim of a version that was not published."""
        self._record(record.version).unlink(missing_ok=True)

    def stage(self, source: Path | int) -> Path:
        """Copy a SavedModel, or a version, to the disk of the directory."""
        path = self._numbered()[source] if isinstance(source, int) else source
        scratch = Path(mkdtemp(dir=self._serving, prefix=SCRATCH))
        try:
            whole = shutil.copytree(path, scratch / "model")
            for directory, _, files in os.walk(whole, topdown=False):
                for name in files:
                    _sync(Path(directory, name))
                _sync(Path(directory))
        except BaseException:
            self.discard(scratch)
            raise
        return scratch

    def publish(self, staged: Path, version: int) -> bool:
        """Rename. The lock excludes other pushes, but not a person who copies a version in."""
        path = self._serving / str(version)
        try:
            (staged / "model").rename(path)
        except OSError:
            if not path.exists():
                raise
            return False
        _sync(self._serving)
        return True

    def discard(self, staged: Path) -> None:
        """Remove what is left of what was staged."""
        shutil.rmtree(staged, ignore_errors=True)

    def remove(self, version: int) -> None:
        """The version leaves its name first, then the disk."""
        scratch = Path(mkdtemp(dir=self._serving, prefix=SCRATCH))
        self._numbered()[version].rename(scratch / "old")
        shutil.rmtree(scratch)

    def sweep(self) -> None:
        """What dead pushes left: a living one would hold the lock."""
        for leftover in self._serving.glob(f"{SCRATCH}*"):
            shutil.rmtree(leftover)

    def _numbered(self) -> dict[int, Path]:
        return versions_in(self._serving) if self._serving.is_dir() else {}

    def _record(self, version: int) -> Path:
        return self._serving / RECORDS / f"{version}.json"

    def _record_names(self) -> list[str]:
        names = [path.stem for path in (self._serving / RECORDS).glob("*.json")]
        return [name for name in names if name.isdecimal()]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
