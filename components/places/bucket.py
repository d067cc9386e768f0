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
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import ObjectStore

from components.errors import SkipstreamError
from components.names import is_below
from components.places import client
from components.places.lease import Lease
from components.places.place import SCRATCH, Found, Hold, digest_of, each, files_below, is_dead

T = TypeVar("T")

# Large files, at a time, and the parts of each that are under way: 4 x 2 x 5 MiB of memory. Each
# has to be sent within a minute, for which 6 Mbit/s are enough. S3 takes no smaller parts.
_TRANSFERS = 4
_PARTS = 2
_PART_BYTES = 5 * 2**20
_MOST_PARTS = 9_000  # S3 takes 10,000.


class Bucket:
    """A place in an object store."""

    has_locks = False

    def __init__(
        self, store: ObjectStore, address: str, uploads: ObjectStore | None = None
    ) -> None:
        """Nothing is read or written yet.

        Args:
            store: What answers for the path in the bucket.
            address: Its URL.
            uploads: The same, with more patience; None: `store`.
        """
        self._store, self._uploads = store, uploads or store
        self.silent = False
        self._creates = False  # Whether the store was seen to keep its word.
        self.address = address.rstrip("/")

    @classmethod
    def open(cls, address: str, setting: str) -> "Bucket":
        """The place at gs://bucket/path or s3://bucket/path, which `setting` named."""
        try:
            return cls(client.connect(address), address, client.connect(address, uploads=True))
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

        def get() -> tuple[bytes | None, Any]:
            try:
                found = obstore.get(self._store, name)
                return found.bytes().to_bytes(), _version(found.meta)
            except FileNotFoundError:
                return None, None

        return self._request(name, get)

    def read_range(self, name: str, start: int, size: int) -> bytes | None:
        """Some bytes of a file, at least one; None: there is none."""

        def get() -> bytes | None:
            try:
                found = obstore.get_range(self._store, name, start=start, length=size)
                return found.to_bytes()
            except FileNotFoundError:
                return None

        return self._request(name, get)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, over one that is there."""
        self._request(name, lambda: obstore.put(self._store, name, content), writes=True)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file that is not there. False: it is there, and stays as it is.

        Raises:
            SkipstreamError: The store overwrites what it was told to create.
        """

        def create() -> bool:
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

        created = self._request(name, create, writes=True)
        if created and not self._creates:
            self._creates = self._keeps_its_word(name, content)
        return created

    def _keeps_its_word(self, name: str, content: bytes) -> bool:
        """Whether the store refuses to create what is there; False: this time, nobody can say.

        Raises:
            SkipstreamError: It does not.
        """
        try:
            client.interruptible(
                lambda: obstore.put(self._store, name, content + b"\n", mode="create")
            )
        except AlreadyExistsError:
            return True
        except BaseError:
            return False
        raise SkipstreamError(
            f"a bucket must have conditional writes (If-None-Match), got {self.address}, which "
            "ignores the condition: runs at the same time would mix; use another store"
        )

    def replace(self, name: str, content: bytes, version: Any) -> Any:
        """Write a file that nobody has written since.

        Args:
            name: The file.
            content: All of it.
            version: What `read_version` or `replace` gave; None: it must not be there.

        Returns:
            Its version now; None: somebody has written it, and it stays as it is.
        """

        def put() -> Any:
            try:
                mode: Any = "create" if version is None else version
                return _version(obstore.put(self._store, name, content, mode=mode))
            except (AlreadyExistsError, PreconditionError):
                # It may be by a request of ours, whose answer was lost.
                found, newer = self.read_version(name)
                return newer if found == content else None
            except FileNotFoundError:
                if version is None:
                    raise
                return None  # Somebody has removed it.

        return self._request(name, put, writes=True)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

        def head() -> bool:
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
            return True

        return self._request(name, head)

    def names(self, name: str = "") -> list[str]:
        """What is in a directory, by name, sorted: files and directories."""
        found = self._request(name, lambda: obstore.list_with_delimiter(self._store, name or None))
        paths = [*found["common_prefixes"], *(file["path"] for file in found["objects"])]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def files(self, name: str) -> dict[str, Found]:
        """All files below a directory, by their names in it."""
        found = self._request(
            name,
            lambda: [file for batch in obstore.list(self._store, name) for file in batch],
        )
        return {
            file["path"].removeprefix(_below(name, "")): Found(
                file["size"], file["last_modified"], file["e_tag"] or ""
            )
            for file in found
        }

    def put(self, source: Path, name: str, *, last: str) -> None:
        """Copy a local directory into the place, its file `last` when all others are there."""
        self.upload(source, name, [file for file in files_below(source) if file != last])
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
            with path.open("rb") as opened:
                self._request(
                    _below(name, file),
                    lambda: obstore.put(
                        self._uploads,
                        _below(name, file),
                        opened,
                        chunk_size=max(_PART_BYTES, -(-size // _MOST_PARTS)),
                        max_concurrency=_PARTS,
                    ),
                    writes=True,
                    once=True,
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
            SkipstreamError: One is gone, cannot be read, or is not what its digest says, or a name
                leads out of the directory.
        """
        for file in files:
            if not is_below(file):
                raise SkipstreamError(
                    f"{self.at(name)} must name files that lie in it, got '{file}': somebody else "
                    "wrote it; find out who may write there, and delete it"
                )

        def get(file: str) -> None:
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")

            def stream() -> str:
                digest = hashlib.blake2b(digest_size=16)
                with temporary.open("wb") as out:
                    for part in obstore.get(self._store, _below(name, file)):
                        digest.update(part)
                        out.write(part)
                return digest.hexdigest()

            try:
                digest = self._request(_below(name, file), stream)
                if files[file] not in ("", digest):
                    raise SkipstreamError(
                        f"{self.at(name)}/{file} must have the digest {files[file]}, as its "
                        f"{name.rpartition('/')[2]} was published, got {digest}: "
                        f"delete {self.at(name)} and run again"
                    )
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

        each(get, list(files), _TRANSFERS)

    def local(
        self, name: str, scratch: Path, *, last: str, digests: Mapping[str, str] | None = None
    ) -> Path:
        """A copy of a directory, made once for each content, beside `scratch`."""
        files = self._whole(name, last)
        content = [[file, found.size, found.tag, str(found.modified)] for file, found in files]
        tag = hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
        copy = scratch.with_name(f"{scratch.name}-{tag}")
        if not copy.exists():
            partial = copy.with_name(f"{SCRATCH}{secrets.token_hex(8)}")
            try:
                known = digests or {}
                self.download(name, partial, {file: known.get(file, "") for file, _ in files})
                try:
                    partial.rename(copy)
                except OSError:
                    if not copy.exists():  # Else another process was as fast.
                        raise
            finally:
                if partial.exists():
                    shutil.rmtree(partial)
        copy.touch()
        return copy

    def copy(self, source: str, name: str, *, last: str) -> None:
        """Copy a directory within the place, its file `last` when all others are there."""
        names = [file for file, _ in self._whole(source, last)]

        def copy(file: str) -> None:
            self._request(
                _below(name, file),
                lambda: obstore.copy(self._store, _below(source, file), _below(name, file)),
            )

        each(copy, [file for file in names if file != last])
        copy(last)

    def _whole(self, name: str, last: str) -> list[tuple[str, Found]]:
        """The files of a directory that has `last`, sorted."""
        files = self.files(name)
        if last not in files:
            raise SkipstreamError(
                f"{self.at(name)} must hold {last}, and does not: it was not finished, or is being "
                "removed; run again"
            )
        return sorted(files.items())

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
        self._delete([_below(name, file) for file in self.files(name)] or [name])

    def _delete(self, paths: list[str]) -> None:
        def delete(path: str) -> None:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, path)

        def delete_all() -> None:
            try:
                obstore.delete(self._store, paths)
            except FileNotFoundError:  # Another process removes the same.
                each(delete, paths)

        self._request(paths[0], delete_all)

    def sweep(self) -> None:
        """What processes left that are dead by its age."""
        for name in self.names():
            if name.startswith(SCRATCH) and is_dead(self, name):
                self.remove(name)

    def _request(
        self, name: str, request: Callable[[], T], *, writes: bool = False, once: bool = False
    ) -> T:
        """What a request gives, which a signal can interrupt.

        Args:
            name: What it is about, for messages.
            request: Makes it.
            writes: Whether a bucket that is not there is why it is not found.
            once: Whether it must not be made again.

        Raises:
            SkipstreamError: A line with the address and the reason.
        """
        begun = time.monotonic()
        try:
            result = client.interruptible(request if once else lambda: client.patiently(request))
            self.silent = False
            return result
        except (FileNotFoundError, TimeoutError, BaseError) as error:
            self.silent = time.monotonic() - begun > client.SECONDS
            reason = client.reason(error)
            no_bucket = "NoSuchBucket" in reason or "bucket does not exist" in reason
            if no_bucket or (isinstance(error, FileNotFoundError) and writes):
                said = "cannot be reached: its bucket is not there; create it, or check the name"
            elif isinstance(error, FileNotFoundError):
                said = "is gone: run again"
            else:
                said = (
                    f"could not be read or written ({reason}): check the name, the network and the "
                    "credentials, and run the same command again"
                )
            raise SkipstreamError(f"{self.at(name)} {said}") from error


def _below(name: str, file: str) -> str:
    """The name of a file of a directory; "" is the place itself."""
    return f"{name}/{file}" if name else file


def _version(said: Any) -> dict[str, str]:
    """What tells a version of a file, out of what the store said of it."""
    return {name: said[name] for name in ("e_tag", "version") if said[name] is not None}
