"""The first pass over the corpus: units of text -> segments of tokens, in files."""

from collections.abc import Iterator

import apache_beam as beam

from components.example_gen import reader
from components.example_gen.files import state_of
from components.example_gen.formats import Block
from components.example_gen.units import Unit
from components.identity import check_identity, code_identity
from components.settings import TransformSettings
from components.transform import segments, storage
from components.transform.segment_ref import SegmentRef
from components.transform.token_cache import TokenCache

_JOB = "components.transform.job"  # What workers run.


class TokeniseUnit(beam.DoFn):
    """Unit -> SegmentRefs."""

    def __init__(self, cache: TokenCache, settings: TransformSettings, eval_share: float) -> None:
        """Nothing is read yet."""
        self._cache = cache
        self._settings = settings
        self._eval_share = eval_share
        self._identity = code_identity(_JOB)

    def setup(self) -> None:
        """Refuse a worker whose code or libraries are not those of the launcher."""
        check_identity(_JOB, self._identity)

    def process(self, unit: Unit) -> Iterator[SegmentRef]:
        """Tokenise one unit, if need be; a SkipstreamError ends the job."""
        files = [piece.path for piece in unit.pieces]
        before = state_of(files)
        name = self._cache.name(unit, self._settings, self._eval_share)
        path = self._cache.find(name)
        found = path is not None
        if path is None:
            damaged = False

            def watched() -> Iterator[Block]:
                nonlocal damaged
                for block in reader.read(unit):
                    damaged |= reader.DAMAGED in block.counts
                    yield block

            made = segments.tokenise(
                watched(), settings=self._settings, eval_share=self._eval_share
            )
            # Whole or not at all, and by a retry or another worker just the same.
            path = storage.unfinished(f"{self._cache.written_to}/{name}")
            segments.save(made, path)
            # What was damaged can perhaps be read the next time, and what has changed meanwhile is
            # not what the name says: no name to be found under.
            if not damaged and state_of(files) == before:
                path = self._cache.keep(path, name)
        for number in range(segments.count(path)):
            yield SegmentRef(unit.index, number, path, found)
