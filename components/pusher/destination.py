"""Where versions are served from: a directory, or a path in a bucket.

    7/                 a version, as TF Serving takes it; it is whole if it has a saved_model.pb
    .versions/7.json   the record of that version, which is claimed before it can be seen
    .scratch-…/        what a push has staged, for nobody else to look at

A directory has locks and renames: one push at a time, and a version appears and goes by a rename.
A bucket has neither. What stands in for them:

* A number belongs to whoever creates its record, and the store lets one create it. So pushes at the
  same time get numbers of their own, and both end whole.
* A staged model is copied to its number within the store, `saved_model.pb` last. Without that
  nothing can be loaded: TF Serving, which may see the number some moments before, keeps its version
  and tries again.
* A version goes `saved_model.pb` first.
* A push that dies while it copies leaves a number without `saved_model.pb`, which the next push
  overtakes. Until then a TF Serving that starts afresh finds nothing to load under that number.
  What is left of it goes after a day.
"""

import secrets
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from components.errors import SkipstreamError
from components.places.place import (
    SCRATCH,
    Place,
    digest_of,
    each,
    files_below,
    is_dead,
    open_place,
)
from components.pusher.history import History, Record, now

_RECORDS = ".versions"  # TF Serving takes names of digits alone.
_MODEL = "saved_model.pb"


class Destination:
    """Versions and their records. A number names a version; the highest is the one served.

    Where the place cannot be read or written, all methods raise what the place's own do: OSError,
    or, if it is a bucket, SkipstreamError.

    Attributes:
        place: Where they are.
        address: An absolute path or a URL.
    """

    def __init__(self, place: Place) -> None:
        """Nothing is read or written yet."""
        self.place = place
        self.address = place.address

    def path_of(self, version: int) -> str:
        """Path or URL of a version that was pushed."""
        return self.place.at(str(version))

    def fetch(self, version: int, directory: Path) -> Path:
        """The files of a version: where they lie, or a copy, made once, that is `directory`."""
        record = self._read(version)
        digests = record.files if record else {}
        return self.place.local(self._name(version), directory, last=_MODEL, digests=digests)

    def lock(self) -> AbstractContextManager[None]:
        """Keeps other pushes out of a directory, which is made if it is not there."""
        return self.place.lock()

    def versions(self) -> list[int]:
        """The whole versions, oldest first."""
        numbered = self._numbered()
        whole = each(lambda name: self.place.has(f"{name}/{_MODEL}"), list(numbered.values()))
        return [number for number, is_whole in zip(numbered, whole, strict=True) if is_whole]

    def highest(self) -> int:
        """The highest number that anything has, whole or not; 0 where nothing has one."""
        return max([*self._numbered(), *self._recorded()], default=0)

    def history(self) -> History:
        """The versions, and what became of all that ever were.

        Raises:
            SkipstreamError: A record is damaged.
        """
        versions, recorded = self.versions(), self._recorded()
        records = each(lambda name: self._read(int(name)), list(map(str, recorded)))
        # One that is not there was taken back just now.
        return History(versions, {record.version: record for record in records if record})

    def publish(self, source: Path | int, record: Record, *, alone: bool = False) -> Record:
        """Make a copy of a SavedModel, or of a version, the version that `record` tells of.

        If something has its number already, it gets the next that is free.

        Args:
            source: Directory of the SavedModel, or number of the version.
            record: What is written down, but for `published`.
            alone: Fail if another push has the number.

        Returns:
            The record as it was written.

        Raises:
            SkipstreamError: Another push has the number, and this one was to be `alone`.
        """
        staged = f"{SCRATCH}{secrets.token_hex(8)}"
        try:
            if isinstance(source, int):
                if self.place.has_locks:  # A bucket sees to its objects itself.
                    self.fetch(source, Path())
                self.place.copy(self._name(source), staged, last=_MODEL)
            else:
                self.place.put(source, staged, last=_MODEL)
                files = {name: digest_of(source / name) for name in files_below(source)}
                record = record.model_copy(update={"files": files})
            while True:
                claimed = self._claim(record)
                if claimed and self._show(staged, record):
                    break
                if alone and not claimed:
                    raise SkipstreamError(
                        f"version {record.version} was pushed while this was made: run again"
                    )
                record = record.model_copy(update={"version": record.version + 1})
        finally:
            if not self.place.silent:  # Else a later push sweeps it.
                with suppress(OSError, SkipstreamError):
                    self.place.remove(staged)
        record = record.model_copy(update={"published": now()})
        self._write(record)
        return record

    def prune(self, keep: int) -> list[int]:
        """Remove all but the newest `keep` versions; returns those removed. Their records stay."""
        old = self.versions()[:-keep]
        for version in old:
            record = self._read(version)
            if record and not record.published:  # Its push died between the last two steps.
                self._write(record.model_copy(update={"published": record.claimed}))
            self.place.remove(self._name(version), first=_MODEL)
        return old

    def sweep(self) -> None:
        """Remove what pushes that died have left."""
        self.place.sweep()
        if not self.place.has_locks:
            cut_short = set(self._numbered()) & set(self._recorded()) - set(self.versions())
            for name in map(str, sorted(cut_short)):
                if is_dead(self.place, name):
                    self.place.remove(name)

    def _claim(self, record: Record) -> bool:
        """Write the record of a number that nobody else has; False: somebody has."""
        if self.place.has_locks:  # Within the lock, `highest` knows all claims.
            self._write(record)
            return True
        return self.place.create(_record(record.version), record.content())

    def _show(self, staged: str, record: Record) -> bool:
        """Give what was staged its number; False: something has it that was copied in by hand."""
        try:
            moved = self.place.move(staged, str(record.version), last=_MODEL)
        except BaseException:
            # In a bucket the record stays: others may have seen parts of the version, so that its
            # number must not be given again.
            if self.place.has_locks:
                self.place.remove(_record(record.version))
            raise
        if not moved:
            self.place.remove(_record(record.version))
        return moved

    def _read(self, version: int) -> Record | None:
        content = self.place.read(path := _record(version))
        return Record.parse(content, self.place.at(path)) if content is not None else None

    def _write(self, record: Record) -> None:
        self.place.write(_record(record.version), record.content())

    def _name(self, version: int) -> str:
        return self._numbered().get(version, str(version))

    def _numbered(self) -> dict[int, str]:
        """All that has a number for a name, by that, lowest first: in a directory 009 is one."""
        found = {
            int(name): name
            for name in self.place.names()
            if name.isascii() and name.isdecimal() and (self.place.has_locks or _is_canonical(name))
        }
        return dict(sorted(found.items()))

    def _recorded(self) -> list[int]:
        stems = [name.removesuffix(".json") for name in self.place.names(_RECORDS)]
        return sorted(int(stem) for stem in stems if _is_canonical(stem))


def open_destination(setting: str | Path) -> Destination:
    """The place that `pusher.destination` names. Nothing is read or written yet.

    Args:
        setting: A directory, gs://bucket/path or s3://bucket/path.

    Raises:
        SettingsError: It is a URL of another kind.
        SkipstreamError: The store's client does not take it.
    """
    return Destination(open_place(setting, "pusher.destination"))


def _record(version: int) -> str:
    return f"{_RECORDS}/{version}.json"


def _is_canonical(name: str) -> bool:
    """Whether a name is a number as this module writes it."""
    return name.isascii() and name.isdecimal() and name == str(int(name))
