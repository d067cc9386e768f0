"""The Beam source."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from components.artifacts import Corpus
from components.example_gen.reader import Block, read
from components.example_gen.units import Unit, plan


class ReadUnit(beam.DoFn):
    """Unit -> its blocks."""

    def process(self, unit: Unit) -> Iterator[Block]:
        """Read one unit; a SkipstreamError ends the job."""
        return read(unit)


class ReadBlocks(beam.PTransform[Any, Any]):
    """The blocks of a corpus, as a PCollection[Block] in no particular order."""

    def __init__(self, corpus: Corpus) -> None:
        """Plan the work on `corpus`, whose listing is read now and whose files are not."""
        super().__init__()
        self._units = plan(corpus)

    def expand(self, pipeline: Any) -> Any:
        """Wire the source to a pipeline or PBegin."""
        return (
            pipeline
            | "CreateUnits" >> beam.Create(self._units)
            | "SpreadUnits" >> beam.Reshuffle()
            | "ReadUnits" >> beam.ParDo(ReadUnit())
        )
