"""Tokenised units on disk, named by their content, so that the next run finds them again."""

import functools
import hashlib
import json
import os
import pickle
import secrets
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.errors import SkipstreamError
from components.example_gen import reader
from components.example_gen.files import is_remote, state_of
from components.example_gen.units import Unit
from components.identity import check_identity, code_identity
from components.places.bucket import Bucket
from components.places.place import each
from components.settings import TransformSettings
from components.transform import joins, segments, storage
from components.transform.segments import Segment

TOKENS = "tokens"  # Their directory, in that of a job.
SUFFIX = ".arrow"
_REUSED = "reused"  # Directory of local copies.
_JOB = "components.transform.job"  # What workers run.
# What `segments.tokenise` depends on.
_SETTINGS = {"tokenizer", "deduplicate", "min_tokens", "max_token_length"}


@dataclass(frozen=True)
class Tokens:
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
        rules = asdict(replace(unit.rules, skip_damaged=False))  # No token depends on that.
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


@dataclass(frozen=True)
class TokenisedSegment:
    """A segment on its way from the first pass to the second: where it is, not what it holds.

    Attributes:
        unit: Of the corpus, from 0.
        number: Its place in the unit.
        path: The file of the unit's segments.
        reused: Whether that was there before this job.
        duplicates: bool [documents], which of them have been seen before; none: nobody looked.
        phrases: The file of those that are joined; none: no tokens are.
    """

    unit: int
    number: int
    path: str
    reused: bool
    duplicates: npt.NDArray[np.bool_] | None = None
    phrases: str | None = None

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        return pickle.dumps(self)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` gave, in this job."""
        segment: Self = pickle.loads(content)
        return segment

    def load(self) -> Segment:
        """Its documents, without the duplicates, phrases joined."""
        segment = segments.load(self.path, self.number)
        if self.duplicates is not None:
            segment = segment.without(self.duplicates, "duplicate")
        return joins.join(segment, joins.load(self.phrases)) if self.phrases else segment

    def types(self) -> tuple[pa.Array, pa.Array]:
        """The types (binary) and how often they occur (int64)."""
        if self.duplicates is None and not self.phrases:
            return segments.load_counts(self.path, self.number)
        segment = self.load()
        return segment.types, pa.array(segment.counts())


class TokeniseUnit(beam.DoFn):
    """Unit -> TokenisedSegments."""

    def __init__(self, tokens: Tokens, settings: TransformSettings, eval_share: float) -> None:
        """Nothing is read yet."""
        self._tokens = tokens
        self._settings = settings
        self._eval_share = eval_share
        self._identity = code_identity(_JOB)

    def setup(self) -> None:
        """Refuse a worker whose code or libraries are not those of the launcher."""
        check_identity(_JOB, self._identity)

    def process(self, unit: Unit) -> Iterator[TokenisedSegment]:
        """Tokenise one unit, if need be; a SkipstreamError ends the job."""
        files = [piece.path for piece in unit.pieces]
        before = state_of(files)
        name = self._tokens.name(unit, self._settings, self._eval_share)
        path = self._tokens.find(name)
        found = path is not None
        if path is None:
            damaged = False

            def watched() -> Iterator[reader.Block]:
                nonlocal damaged
                for block in reader.read(unit):
                    damaged |= reader.DAMAGED in block.counts
                    yield block

            made = segments.tokenise(
                watched(), settings=self._settings, eval_share=self._eval_share
            )
            # Whole or not at all, and by a retry or another worker just the same.
            path = storage.unfinished(f"{self._tokens.written_to}/{name}")
            segments.save(made, path)
            # What was damaged can perhaps be read the next time, and what has changed meanwhile is
            # not what the name says: no name to be found under.
            if not damaged and state_of(files) == before:
                path = self._tokens.keep(path, name)
        for number in range(segments.count(path)):
            yield TokenisedSegment(unit.index, number, path, found)
