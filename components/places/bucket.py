"""A path in a bucket of Google Cloud Storage or S3, which has neither renames nor locks.

What stands in for them:

* The store lets one of many create a name: `PUT` with `If-None-Match: *` on S3, generation 0 on
  Google Cloud Storage. A store that ignores the condition is refused.
* A tree is copied to where nobody looks, then within the store, the file that makes it whole last.
  It goes with that file first. Each file appears whole.
* A run holds a bucket with a lease, see `lease`.
* Nobody can tell a dead process from a slow one but by its age: what it left goes after a day.

Credentials are found as the cloud's own tools find them.
"""

import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import ObjectStore

from components.errors import SkipstreamError
from components.places import client
from components.places.lease import Lease
from components.places.place import SCRATCH, Found, Hold, each, is_dead

T = TypeVar("T")

# Large files, at a time, and the parts of each that are under way: 4 x 4 x 8 MiB of memory.
_TRANSFERS = 4
_PARTS = 4
_PART_BYTES = 8 * 2**20
_MOST_PARTS = 9_000  # S3 takes 10,000.


class Bucket:
    """A place in an object store."""

    has_locks = False

    def __init__(self, store: ObjectStore, address: str) -> None:
        """Nothing is read or written yet.

        Args:
            store: What answers for the path in the bucket.
            address: Its URL.
        """
        self._store = store
        self._creates = False  # Whether the store was seen to keep its word.
        self.address = address.rstrip("/")

    @classmethod
    def open(cls, address: str, setting: str) -> "Bucket":
        """The place at gs://bucket/path or s3://bucket/path, which `setting` named."""
        try:
            return cls(client.connect(address), address)
        except (BaseError, OSError, ValueError) as error:
            raise SkipstreamError(
                f"no access to {setting} {address}: {client.reason(error)}"
            ) from error

    def at(self, name: str) -> str:
        """URL of something in it."""
        return f"{self.address}/{name}" if name else self.address

    def hold(self, run: str) -> AbstractContextManager[Lease]:
        """Take the lease."""
        return Lease(self, run)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """There are no locks."""
        yield

    def read(self, name: str) -> bytes | None:
        """The content of a file; None: there is none."""
        return self.read_version(name)[0]

    def read_version(self, name: str) -> tuple[bytes | None, Any]:
        """The content of a file, and its version for `replace`; None, None: there is none."""
        with self._explained(name):
            try:
                found = obstore.get(self._store, name)
                content = found.bytes().to_bytes()
            except FileNotFoundError:
                return None, None
            return content, _version(found.meta)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, over one that is there."""
        with self._explained(name, writes=True):
            obstore.put(self._store, name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file that is not there. False: it is there, and stays as it is.

        Raises:
            SkipstreamError: The store overwrites what it was told to create.
        """
        with self._explained(name, writes=True):
            if not self._create(name, content):
                return False
            if not self._creates:
                self._check_conditions(name, content)
                self._creates = True
            return True

    def _check_conditions(self, name: str, content: bytes) -> None:
        """Refuse a store that creates what is there."""
        with suppress(AlreadyExistsError):
            obstore.put(self._store, name, content, mode="create")
            raise SkipstreamError(
                f"a bucket must have conditional writes (If-None-Match), got {self.address}, which "
                "ignores the condition: runs at the same time would mix; use another store"
            )

    def _create(self, name: str, content: bytes) -> bool:
        def put() -> bool:
            try:
                obstore.put(self._store, name, content, mode="create")
            except AlreadyExistsError:
                return False
            except GenericError:  # The answer may be lost of what was done.
                found = self.read(name)
                if found is None:
                    raise
                return found == content
            return True

        return client.patiently(put)

    def replace(self, name: str, content: bytes, version: Any) -> Any:
        """Write a file that nobody has written since.

        Args:
            name: The file.
            content: All of it.
            version: What `read_version` or `replace` gave; None: it must not be there.

        Returns:
            Its version now; None: somebody has written it, and it stays as it is.
        """
        with self._explained(name, writes=True):
            try:
                mode: Any = "create" if version is None else version
                done = client.patiently(lambda: obstore.put(self._store, name, content, mode=mode))
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError:
                if version is None:
                    raise
                return None  # Somebody has removed it.
            return _version(done)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        with self._explained(name):
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
            return True

    def names(self, name: str = "") -> list[str]:
        """What is in a directory, by name, sorted: files and directories."""
        with self._explained(name):
            found = client.patiently(lambda: obstore.list_with_delimiter(self._store, name or None))
        paths = [*found["common_prefixes"], *(file["path"] for file in found["objects"])]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def files(self, name: str) -> dict[str, Found]:
        """All files below a directory, by their names in it."""
        with self._explained(name):
            found = client.patiently(
                lambda: [file for batch in obstore.list(self._store, name) for file in batch]
            )
        return {
            file["path"].removeprefix(f"{name}/"): Found(file["size"], file["last_modified"])
            for file in found
        }

    def put(self, source: Path, name: str, *, last: str) -> None:
        """Copy a local directory into the place, its file `last` when all others are there."""
        names = [path.relative_to(source).as_posix() for path in files_below(source)]
        self.upload(source, name, [file for file in names if file != last])
        self.upload(source, name, [last])

    def upload(
        self, source: Path, name: str, files: Iterable[str], hold: Hold | None = None
    ) -> dict[str, tuple[int, str]]:
        """Copy files of a local directory to one in the place, a few at a time.

        Args:
            source: The local directory.
            name: The one in the place.
            files: Their names.
            hold: That must not be lost meanwhile.

        Returns:
            The size and the digest of each, by its name; see `digest_of`.
        """

        def put(file: str) -> tuple[int, str]:
            if hold:
                hold.check()
            path = source / file
            size = path.stat().st_size
            with path.open("rb") as opened, self._explained(f"{name}/{file}", writes=True):
                obstore.put(
                    self._store,
                    f"{name}/{file}",
                    opened,
                    chunk_size=max(_PART_BYTES, -(-size // _MOST_PARTS)),
                    max_concurrency=_PARTS,
                )
            return size, digest_of(path)

        chosen = list(files)
        return dict(zip(chosen, each(put, chosen, _TRANSFERS), strict=True))

    def download(self, name: str, target: Path, files: Mapping[str, str]) -> None:
        """Copy files of a directory to a local one, a few at a time. Each appears whole.

        Args:
            name: The directory in the place.
            target: The local one; made if it is not there.
            files: Their names, with the digests that they must have; "": any.

        Raises:
            SkipstreamError: One is gone, cannot be read, or is not what its digest says.
        """

        def get(file: str) -> None:
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            digest = hashlib.blake2b(digest_size=16)
            try:
                with self._explained(f"{name}/{file}"), temporary.open("wb") as out:
                    for part in obstore.get(self._store, f"{name}/{file}"):
                        digest.update(part)
                        out.write(part)
                if files[file] not in ("", digest.hexdigest()):
                    raise SkipstreamError(
                        f"{self.at(name)}/{file} must have the digest {files[file]}, as its "
                        f"{name.rpartition('/')[2]} was published, got {digest.hexdigest()}: "
                        f"delete {self.at(name)} and run again"
                    )
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

        each(get, list(files), _TRANSFERS)

    def local(self, name: str, scratch: Path, *, last: str) -> Path:
        """A copy of a directory, made once, at `scratch`."""
        if not scratch.exists():
            partial = scratch.with_name(f"{SCRATCH}{secrets.token_hex(8)}")
            try:
                self.download(name, partial, dict.fromkeys(self._whole(name, last), ""))
                try:
                    partial.rename(scratch)
                except OSError:
                    if not scratch.exists():  # Else another process was as fast.
                        raise
            finally:
                if partial.exists():
                    shutil.rmtree(partial)
        return scratch

    def copy(self, source: str, name: str, *, last: str) -> None:
        """Copy a directory within the place, its file `last` when all others are there."""
        names = self._whole(source, last)

        def copy(file: str) -> None:
            with self._explained(f"{name}/{file}"):
                obstore.copy(self._store, f"{source}/{file}", f"{name}/{file}")

        each(copy, [file for file in names if file != last])
        copy(last)

    def _whole(self, name: str, last: str) -> list[str]:
        """The files of a directory that has `last`."""
        names = list(self.files(name))
        if last not in names:
            raise SkipstreamError(
                f"{self.at(name)} must hold {last}, and does not: it was not finished, or is being "
                "removed; run again"
            )
        return names

    def move(self, source: str, name: str, *, last: str) -> bool:
        """Copy a directory that then goes. Someone may have written to the name without asking."""
        if self.files(name):
            return False
        self.copy(source, name, last=last)
        self.remove(source)
        return True

    def remove(self, name: str, *, first: str = "") -> None:
        """Remove a file, or a directory: its file `first`, then all others."""
        if first:
            self._delete([f"{name}/{first}"])
        self._delete([name, *(f"{name}/{file}" for file in self.files(name))])

    def _delete(self, paths: list[str]) -> None:
        def delete(path: str) -> None:
            with self._explained(path), suppress(FileNotFoundError):
                client.patiently(lambda: obstore.delete(self._store, path))

        each(delete, paths)

    def sweep(self) -> None:
        """What processes left that are dead by its age."""
        for name in self.names():
            if name.startswith(SCRATCH) and is_dead(self, name):
                self.remove(name)

    @contextmanager
    def _explained(self, name: str, *, writes: bool = False) -> Iterator[None]:
        """Turn what the store's client raises into a line with the address and the reason."""
        try:
            yield
        except FileNotFoundError as error:
            said = "could not be written: its bucket is not there; create it, or check the name"
            raise SkipstreamError(
                f"{self.at(name)} {said if writes else 'is gone: run again'}"
            ) from error
        except BaseError as error:
            raise SkipstreamError(
                f"{self.at(name)} could not be read or written ({client.reason(error)}): check the "
                "name, the network and the credentials, and run the same command again"
            ) from error


def _version(said: Any) -> dict[str, str]:
    """What tells a version of a file, out of what the store said of it."""
    return {name: said[name] for name in ("e_tag", "version") if said[name] is not None}


def digest_of(path: Path) -> str:
    """BLAKE2b of a file's content, 16 bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def files_below(directory: Path) -> list[Path]:
    """All files, sorted."""
    return sorted(path for path in directory.rglob("*") if path.is_file())
