"""Versions in an object store, which has neither renames nor locks.

What stands in for them:

* A number belongs to whoever creates its record, and the store lets one create it: `PUT` with
  `If-None-Match: *` on S3, generation 0 on Google Cloud Storage. So pushes at the same time get
  numbers of their own, and both end whole.
* A model is uploaded under a name that is no number, and copied to its number within the store,
  `saved_model.pb` last. Each object appears whole, and without that one nothing can be loaded: TF
  Serving, which may see the number some moments before, keeps its version and tries again.
* A version goes `saved_model.pb` first.
* Nobody can tell a dead push from a slow one but by its age: what it left goes after a day.

A push that dies while it copies leaves a number without `saved_model.pb`, which the next push
overtakes. Until then a TF Serving that starts afresh finds nothing to load under that number.
"""

import importlib.util
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url

from components.errors import SkipstreamError
from components.pusher.destination import RECORDS, SCRATCH
from components.pusher.history import Record

_MODEL = "saved_model.pb"
_DEAD_AFTER = timedelta(days=1)
_REQUESTS = 16  # At a time.


class ObjectDestination:
    """A path in a bucket. Credentials are found as the cloud's own tools find them."""

    failures: tuple[type[Exception], ...] = (BaseError, OSError)

    def __init__(self, store: ObjectStore, address: str) -> None:
        """Nothing is read or written yet.

        Args:
            store: What answers for the path in the bucket.
            address: Its URL.
        """
        self._store = store
        self.address = address

    @classmethod
    def open(cls, address: str) -> "ObjectDestination":
        """The place at gs://bucket/path or s3://bucket/path."""
        options: dict[str, Any] = {}
        if address.startswith("s3:") and importlib.util.find_spec("boto3"):
            # It knows profiles and single sign-on; without it there are the environment, and what
            # a machine in the cloud is told.
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider()
        try:
            return cls(from_url(address, **options), address.rstrip("/"))
        except (BaseError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise SkipstreamError(f"no access to pusher.destination {address}: {reason}") from error

    def path_of(self, version: int) -> str:
        """URL of a version."""
        return f"{self.address}/{version}"

    def fetch(self, version: int, directory: Path) -> Path:
        """The files of a version, downloaded to `directory` if that is not there yet."""
        if not directory.exists():
            directory.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=directory.parent) as scratch:
                for name in self._files(str(version)):
                    file = Path(scratch, "model", name)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with file.open("wb") as out:
                        for chunk in obstore.get(self._store, f"{version}/{name}"):
                            out.write(chunk)
                Path(scratch, "model").rename(directory)
        return directory

    @contextmanager
    def lock(self) -> Iterator[None]:
        """There are no locks; `claim` does without."""
        yield

    def versions(self) -> list[int]:
        """The whole versions: those with a saved_model.pb."""
        numbers = self._numbered()
        with ThreadPoolExecutor(_REQUESTS) as threads:
            whole = threads.map(lambda number: self._exists(f"{number}/{_MODEL}"), numbers)
        return [number for number, is_whole in zip(numbers, whole, strict=True) if is_whole]

    def highest(self) -> int:
        """The highest number that an object or a record has."""
        return max([*self._numbered(), *self._recorded()], default=0)

    def records(self) -> dict[int, Record]:
        """All records by version."""
        with ThreadPoolExecutor(_REQUESTS) as threads:
            found = list(threads.map(self._read, self._recorded()))
        return {record.version: record for record in found}

    def claim(self, record: Record) -> bool:
        """Create the record; False: there is one of that number.

        Raises:
            SkipstreamError: The store overwrites what it was told to create.
        """
        path, content = _path(record.version), record.model_dump_json(indent=2).encode()
        try:
            obstore.put(self._store, path, content, mode="create")
        except AlreadyExistsError:
            return False
        try:
            obstore.put(self._store, path, content, mode="create")
        except AlreadyExistsError:
            return True
        raise SkipstreamError(
            f"pusher.destination must be in a store with conditional writes (If-None-Match), got "
            f"{self.address}, which ignores them: pushes at the same time would mix"
        )

    def confirm(self, record: Record) -> None:
        """Write the record again."""
        content = record.model_dump_json(indent=2).encode()
        obstore.put(self._store, _path(record.version), content)

    def disclaim(self, record: Record) -> None:
        """Nothing: others may have seen parts of the version, so its number is not given again."""

    def stage(self, source: Path | int) -> str:
        """Upload a SavedModel, or copy a version, to a name that is no number."""
        staged = f"{SCRATCH}{secrets.token_hex(8)}"
        if isinstance(source, int):
            self._copy(str(source), staged)
        else:
            for path in sorted(path for path in source.rglob("*") if path.is_file()):
                name = path.relative_to(source).as_posix()
                obstore.put(self._store, f"{staged}/{name}", path)
        return staged

    def publish(self, staged: str, version: int) -> bool:
        """Copy within the store. Someone without a claim may have written to the number."""
        if self._list(str(version)):
            return False
        self._copy(staged, str(version))
        return True

    def discard(self, staged: str) -> None:
        """Remove what was staged."""
        self._delete([found["path"] for found in self._list(staged)])

    def remove(self, version: int) -> None:
        """Remove a version, saved_model.pb first."""
        self._delete([f"{version}/{_MODEL}"])
        self._delete([found["path"] for found in self._list(str(version))])

    def sweep(self) -> None:
        """What pushes left that are dead by their age: uploads, and versions cut short."""
        unfinished = set(self._numbered()) & set(self._recorded()) - set(self.versions())
        uploads = [name for name in self._names() if name.startswith(SCRATCH)]
        for name in [*map(str, unfinished), *uploads]:
            objects = self._list(name)
            latest = max((found["last_modified"] for found in objects), default=None)
            if latest and datetime.now(UTC) - latest > _DEAD_AFTER:
                self._delete([found["path"] for found in objects])

    def _names(self) -> list[str]:
        return [
            prefix.rstrip("/")
            for prefix in obstore.list_with_delimiter(self._store)["common_prefixes"]
        ]

    def _numbered(self) -> list[int]:
        # Numbers as we write them: "007" would be another object than "7".
        return sorted(int(name) for name in self._names() if _is_number(name))

    def _recorded(self) -> list[int]:
        names = [found["path"].rpartition("/")[2] for found in self._list(RECORDS)]
        stems = [name.removesuffix(".json") for name in names]
        return sorted(int(stem) for stem in stems if _is_number(stem))

    def _read(self, version: int) -> Record:
        path = _path(version)
        content = obstore.get(self._store, path).bytes().to_bytes()
        return Record.parse(content, f"{self.address}/{path}")

    def _list(self, prefix: str) -> Sequence[Any]:
        return [found for batch in obstore.list(self._store, prefix) for found in batch]

    def _exists(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def _files(self, prefix: str) -> list[str]:
        """Names of a whole model's objects below `prefix`, saved_model.pb last."""
        names = [found["path"].removeprefix(f"{prefix}/") for found in self._list(prefix)]
        if _MODEL not in names:
            raise FileNotFoundError(f"{self.address}/{prefix} has no {_MODEL}")
        return sorted(names, key=lambda name: (name == _MODEL, name))

    def _copy(self, source: str, target: str) -> None:
        for name in self._files(source):
            obstore.copy(self._store, f"{source}/{name}", f"{target}/{name}")

    def _delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            try:
                obstore.delete(self._store, path)
            except FileNotFoundError:
                continue  # Another push removes the same.


def _path(version: int) -> str:
    return f"{RECORDS}/{version}.json"


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name == str(int(name))
