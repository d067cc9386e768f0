"""Documents that are equal byte by byte: the first of them, in the order of the corpus, stays.

Cost: 16 bytes of hash and 16 of place a document are shuffled, and sorted in memory in 256
partitions: 125 MB each for a billion documents. Two different documents of a billion have the same
hash with a probability of 1e-21.
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
from components.transform.partitions import by_partition
from components.transform.segment_ref import SegmentRef

_Place = tuple[int, int]  # unit, place of a segment in it
_Documents = tuple[int, npt.NDArray[np.int32]]  # how many a segment has, some of them


class MarkDuplicates(beam.PTransform[Any, Any]):
    """PCollection[SegmentRef] -> the same, with `duplicates`."""

    def expand(self, refs: Any) -> Any:
        """Wire it. A partition of all hashes is sorted by one worker: of 256, by the first byte."""
        found = (
            refs
            | "ReadHashes" >> beam.FlatMap(hashes_of)
            | "GatherHashes" >> beam.GroupByKey()
            | "FindDuplicates" >> beam.FlatMapTuple(duplicates_in)
        )
        return (
            {
                "segment": refs | "KeySegments" >> beam.Map(_keyed),
                "duplicates": found,
            }
            | "GatherDuplicates" >> beam.CoGroupByKey()
            | "Mark" >> beam.MapTuple(marked)
        )


def _keyed(ref: SegmentRef) -> tuple[_Place, SegmentRef]:
    return (ref.unit, ref.number), ref


def hashes_of(ref: SegmentRef) -> Iterator[tuple[int, pa.Table]]:
    """The hashes of a segment's documents with their places, by the first byte."""
    hashes = segments.load_hashes(ref.path, ref.number)
    place = {"unit": ref.unit, "segment": ref.number, "size": len(hashes)}
    columns = {name: np.full(len(hashes), value, np.int32) for name, value in place.items()}
    columns["document"] = np.arange(len(hashes), dtype=np.int32)
    table = pa.table({"hash": hashes.cast(pa.binary())} | columns)
    first = np.frombuffer(b"".join(hashes.to_pylist()), np.uint8)[::16]
    yield from by_partition(table, first)


def duplicates_in(_: int, tables: Iterable[pa.Table]) -> Iterator[tuple[_Place, _Documents]]:
    """By segment, the documents whose hash comes earlier in the corpus, too."""
    columns = ["hash", "unit", "segment", "document"]
    table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in columns])
    hashes = table.column("hash").combine_chunks()
    again = table.slice(1).filter(pc.equal(hashes[1:], hashes[:-1]))
    segments_of = again.group_by(["unit", "segment", "size"]).aggregate([("document", "list")])
    for row in segments_of.to_pylist():
        documents = np.array(row["document_list"], np.int32)
        yield (row["unit"], row["segment"]), (row["size"], documents)


def marked(_: _Place, found: dict[str, Iterable[Any]]) -> SegmentRef:
    """The `segment` with its `duplicates`, which several partitions may have found."""
    ref: SegmentRef
    (ref,) = found["segment"]
    duplicates = None
    for size, documents in found["duplicates"]:
        if duplicates is None:
            duplicates = np.zeros(size, bool)
        duplicates[documents] = True
    return replace(ref, duplicates=duplicates)
