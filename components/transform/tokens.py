"""Tokenised units on disk, named by their content, so that the next run finds them again."""

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from components.errors import SkipstreamError
from components.example_gen import reader
from components.example_gen.files import state_of
from components.example_gen.units import Unit
from components.settings import TransformSettings
from components.transform import joins, segments
from components.transform.segments import Segment

_SUFFIX = ".arrow"
# What `segments.tokenise` depends on.
_SETTINGS = {"tokenizer", "lowercase", "deduplicate", "min_tokens", "max_token_length"}


@dataclass(frozen=True)
class Tokens:
    """Where they lie.

    Attributes:
        directory: Anywhere that Beam can read and write.
        identity: What they depend on beside settings and text: code, library versions. None: they
            are of this job alone, and named by their place.
    """

    directory: str
    identity: str | None

    def path(self, unit: Unit, settings: TransformSettings, eval_share: float) -> str:
        """The file of `unit`, whose text is read for it, if it is to be found again."""
        if self.identity is None:
            return f"{self.directory}/{unit.index:06d}{_SUFFIX}"
        digest = hashlib.blake2b(digest_size=16)
        chosen = settings.model_dump(include=_SETTINGS)
        key = [self.identity, chosen, eval_share, unit.field]
        digest.update(json.dumps(key, sort_keys=True).encode())
        for piece in unit.pieces:
            extent = piece.start > 0, piece.stop - piece.start
            digest.update(f"{piece.format} {piece.compression} {extent}".encode())
            try:
                digest.update(reader.fingerprint(piece))
            except SkipstreamError:
                if not unit.skip_damaged:
                    raise
                digest.update(secrets.token_bytes(16))  # A name that none finds again.
        return f"{self.directory}/{digest.hexdigest()}{_SUFFIX}"


@dataclass(frozen=True)
class TokenisedUnit:
    """A unit on its way from the first pass to the second.

    Attributes:
        index: Its place in the corpus.
        path: The file of its segments.
        reused: Whether that was there before this job.
        duplicates: By segment, bool [documents], which of them have been seen before.
        phrases: The file of those that are joined; none: no tokens are.
    """

    index: int
    path: str
    reused: bool
    duplicates: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)
    phrases: str | None = None

    def segments(self) -> Iterator[Segment]:
        """Its documents, without the duplicates, phrases joined."""
        for index, segment in enumerate(segments.load(self.path)):
            if index in self.duplicates:
                segment = segment.without(self.duplicates[index], "duplicate")
            if self.phrases:
                segment = joins.join(segment, joins.load(self.phrases))
            yield segment

    def types(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        """The types (binary) of each segment and how often they occur (int64)."""
        if not self.duplicates and not self.phrases:
            yield from segments.load_counts(self.path)
            return
        for segment in self.segments():
            yield segment.types, pa.array(segment.counts())


class TokeniseUnit(beam.DoFn):
    """Unit -> TokenisedUnit."""

    def __init__(self, tokens: Tokens, settings: TransformSettings, eval_share: float) -> None:
        """Nothing is read yet."""
        self._tokens = tokens
        self._settings = settings
        self._eval_share = eval_share

    def process(self, unit: Unit) -> Iterator[TokenisedUnit]:
        """Tokenise one unit, if need be; a SkipstreamError ends the job."""
        files = [piece.path for piece in unit.pieces]
        before = state_of(files)
        path = self._tokens.path(unit, self._settings, self._eval_share)
        found = FileSystems.exists(path)
        if not found:
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
            temporary = f"{path}.{secrets.token_hex(8)}"
            segments.save(made, temporary)
            # What was damaged can perhaps be read the next time, and what has changed meanwhile is
            # not what the name says: no name to be found under.
            if damaged or state_of(files) != before:
                path = temporary
            elif FileSystems.exists(path):
                FileSystems.delete([temporary])
            else:
                FileSystems.rename([temporary], [path])
        yield TokenisedUnit(unit.index, path, found)


def remove_others(directory: str, keep: Collection[str]) -> None:
    """Remove all tokenised units that are not in `keep`, and what dead workers left."""
    (result,) = FileSystems.match([f"{directory}/*"])
    kept = set(keep)
    others = [found.path for found in result.metadata_list if found.path not in kept]
    if others:
        FileSystems.delete(others)
