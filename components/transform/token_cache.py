"""Tokenised units on disk, named by their content, so that the next run finds them again."""

import functools
import hashlib
import json
import os
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from components.errors import SkipstreamError
from components.example_gen import reader
from components.example_gen.files import is_remote
from components.example_gen.units import MAX_EXPANSION, Unit
from components.identity import code_identity
from components.places.bucket import Bucket
from components.places.place import each
from components.settings import TransformSettings
from components.transform import segments, storage

TOKENS = "tokens"  # Their directory, in that of a job.
SUFFIX = ".arrow"
_REUSED = "reused"  # Directory of local copies.
# What `segments.tokenise` depends on.
_SETTINGS = {"tokenizer", "deduplicate", "min_tokens", "max_token_length"}


@dataclass(frozen=True)
class TokenCache:
    """Where they lie.

    Attributes:
        directory: Anywhere that Beam can read and write, or `near` can be copied from and to.
        found_again: Whether they are named by what they depend on; else they are of this job alone,
            and named by their place.
        near: Local directory of a job that reads a `directory` in a bucket only once; none: it
            reads there whenever it needs something.
    """

    directory: str
    found_again: bool
    near: str | None = None

    @classmethod
    def of(cls, cache: str | None, work: str) -> Self:
        """Those of a job.

        Args:
            cache: Where they are to be found again; none: nowhere. If that is in a bucket, a job
                that works in a local directory reads each file once.
            work: The directory in which the job works.
        """
        local = f"{work}/{TOKENS}"
        if cache is None:
            return cls(local, found_again=False)
        near = local if is_remote(cache) and not is_remote(work) else None
        return cls(cache, found_again=True, near=near)

    def make(self) -> None:
        """Make the directories.

        Raises:
            SkipstreamError: They cannot be made.
        """
        storage.make_directory(self.directory)
        if self.near:
            storage.make_directory(f"{self.near}/{_REUSED}")

    @property
    def written_to(self) -> str:
        """The directory that receives a file for each unit that is tokenised."""
        return self.near or self.directory

    def name(self, unit: Unit, settings: TransformSettings, eval_share: float) -> str:
        """The file of `unit`, whose text is read for it, if it is to be found again."""
        if not self.found_again:
            return f"{unit.index:06d}{SUFFIX}"
        digest = hashlib.blake2b(digest_size=16)
        chosen = settings.model_dump(include=_SETTINGS) | {"lowercase": settings.lowered}
        # No token depends on these.
        rules = asdict(replace(unit.rules, skip_damaged=False, max_expansion=MAX_EXPANSION))
        key = [code_identity(__name__), chosen, eval_share, rules]
        digest.update(json.dumps(key, sort_keys=True).encode())
        for piece in unit.pieces:
            extent = piece.start > 0, piece.stop - piece.start
            digest.update(f"{piece.format} {piece.compression} {extent}".encode())
            try:
                digest.update(reader.fingerprint(piece))
            except SkipstreamError:
                if not unit.rules.skip_damaged:
                    raise
                digest.update(secrets.token_bytes(16))  # A name that none finds again.
        return f"{digest.hexdigest()}{SUFFIX}"

    def find(self, name: str) -> str | None:
        """Where a file is to be read, if an earlier job, or another worker, has written it.

        Raises:
            SkipstreamError: It is damaged, or the bucket cannot be read.
        """
        path = f"{self.directory}/{name}"
        if not self.near:
            return path if storage.exists(path) else None
        bucket, directory = _bucket(self.directory)
        if not bucket.has(f"{directory}/{name}"):
            return None
        copies = Path(self.near, _REUSED)
        bucket.download(directory, copies, {name: ""})
        segments.count(str(copies / name), named=path)
        return str(copies / name)

    def keep(self, temporary: str, name: str) -> str:
        """Put a file of `written_to` in its place, whole, and say where it is to be read.

        Raises:
            SkipstreamError: The bucket cannot be written.
        """
        path = f"{self.directory}/{name}"
        if not self.near:
            storage.move_first(temporary, path)
            return path
        storage.move(temporary, f"{self.near}/{name}")
        bucket, directory = _bucket(self.directory)
        bucket.upload(Path(self.near), directory, [name])
        return f"{self.near}/{name}"

    def remove_others(self, keep: Collection[str]) -> None:
        """Remove all but the files of these names, and with them what dead workers left.

        Raises:
            SkipstreamError: The bucket cannot be read or written.
        """
        kept = set(keep)
        if not self.near:
            found = storage.files_in(self.directory)
            storage.delete([path for path in found if os.path.basename(path) not in kept])
            return
        bucket, directory = _bucket(self.directory)
        others = set(bucket.files(directory)) - kept
        each(bucket.remove, [f"{directory}/{name}" for name in others])

    def remove(self) -> None:
        """Remove the directory.

        Raises:
            SkipstreamError: The bucket cannot be read or written.
        """
        if self.near:
            bucket, directory = _bucket(self.directory)
            bucket.remove(directory)
        else:
            storage.remove(self.directory)


@functools.cache
def _bucket(directory: str) -> tuple[Bucket, str]:
    """The place that a directory in a bucket is in, and its name there, once in a process."""
    address, _, name = directory.rpartition("/")
    return Bucket.open(address, "--output"), name
