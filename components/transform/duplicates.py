"""Documents that are equal byte by byte: the first of them, in the order of the corpus, stays.

Cost: 16 bytes of hash and 16 of place a document are shuffled, and sorted in memory in 256 shares:
125 MB each for a billion documents. Two different documents of a billion
have the same hash with a probability of 1e-21.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.transform import segments
from components.transform.shares import by_share
from components.transform.tokens import TokenisedUnit

_Places = tuple[int, int, npt.NDArray[np.int32]]  # segment, its documents, some of them


class MarkDuplicates(beam.PTransform[Any, Any]):
    """PCollection[TokenisedUnit] -> the same, with `duplicates`."""

    def expand(self, units: Any) -> Any:
        """Wire it. A share of all hashes is sorted by one worker: of 256, by the first byte."""
        found = (
            units
            | "ReadHashes" >> beam.FlatMap(hashes_of)
            | "GatherHashes" >> beam.GroupByKey()
            | "FindDuplicates" >> beam.FlatMapTuple(duplicates_in)
        )
        return (
            {
                "unit": units | "KeyUnits" >> beam.Map(lambda unit: (unit.index, unit)),
                "places": found,
            }
            | "GatherDuplicates" >> beam.CoGroupByKey()
            | "Mark" >> beam.MapTuple(marked)
        )


def hashes_of(unit: TokenisedUnit) -> Iterator[tuple[int, pa.Table]]:
    """The hashes of a unit's documents with their places, by the first byte."""
    for number, hashes in enumerate(segments.load_hashes(unit.path)):
        size = len(hashes)
        places = {"unit": unit.index, "segment": number, "size": size}
        columns = {name: np.full(size, value, np.int32) for name, value in places.items()}
        columns["document"] = np.arange(size, dtype=np.int32)
        table = pa.table({"hash": hashes.cast(pa.binary())} | columns)
        first = np.frombuffer(b"".join(hashes.to_pylist()), np.uint8)[::16]
        yield from by_share(table, first)


def duplicates_in(_: int, tables: Iterable[pa.Table]) -> Iterator[tuple[int, _Places]]:
    """Unit and places of the documents whose hash comes earlier in the corpus, too."""
    columns = ["hash", "unit", "segment", "document"]
    table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in columns])
    hashes = table.column("hash").combine_chunks()
    again = table.slice(1).filter(pc.equal(hashes[1:], hashes[:-1]))
    segments_of = again.group_by(["unit", "segment", "size"]).aggregate([("document", "list")])
    for row in segments_of.to_pylist():
        yield row["unit"], (row["segment"], row["size"], np.array(row["document_list"], np.int32))


def marked(_: int, found: dict[str, Iterable[Any]]) -> TokenisedUnit:
    """The `unit` with the duplicates that lie at `places`."""
    unit: TokenisedUnit
    (unit,) = found["unit"]
    duplicates: dict[int, Any] = {}
    for segment, size, documents in found["places"]:
        duplicates.setdefault(segment, np.zeros(size, bool))[documents] = True
    return replace(unit, duplicates=duplicates)
