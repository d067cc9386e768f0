"""Segments -> TFRecords in the order of the corpus, and what they hold in numbers."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from tfx_bsl.coders import example_coder

from components.transform.segments import Segment

SPLITS = ("train", "eval")
UNFINISHED = "unfinished"
_DOCUMENTS = 2**13  # that are Python objects at one time
# Token ids are packed as bytes of few values and no repetitions: Huffman codes (zlib's strategy 2)
# save as much as a search for repetitions does, in a fifth of its time.
_OPTIONS = tf.io.TFRecordOptions("GZIP", compression_strategy=2)


def known(
    segment: Segment, type_ids: npt.NDArray[np.integer[Any]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The documents of a segment as token ids, out-of-vocabulary tokens left out.

    Args:
        segment: The documents.
        type_ids: integer [types], the id of each type of the segment; -1: out of vocabulary.

    Returns:
        int64 [kept tokens], the ids of all documents, and int64 [documents + 1], where each begins
        and ends.
    """
    ids = type_ids[segment.tokens].astype(np.int64)
    kept_before = np.concatenate([[0], np.cumsum(ids >= 0)])
    return ids[ids >= 0], kept_before[segment.bounds]


def encode(
    ids: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]
) -> Iterator[list[bytes]]:
    """Serialise the chosen documents that know at least one token, as tf.train.Example.

    Args:
        ids: int64 [tokens], of all documents.
        bounds: int64 [documents + 1], where each begins and ends.
        chosen: bool [documents].
    """
    coder = example_coder.RecordBatchToExamplesEncoder()
    documents = pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(ids))
    documents = documents.filter(pa.array(chosen & (np.diff(bounds) > 0)))
    for start in range(0, len(documents), _DOCUMENTS):
        yield coder.encode(pa.RecordBatch.from_arrays([documents[start:][:_DOCUMENTS]], ["ids"]))


def write_unit(
    unit: int, segments: Iterable[tuple[Segment, npt.NDArray[np.integer[Any]]]], directory: str
) -> Counter[str]:
    """Write the TFRecords of a unit, whole or not at all: <split>/<unit>.tfrecord.gz.

    The names are given by the corpus, not by the worker, so a retry writes the same files again.

    Args:
        unit: Its place in the corpus.
        segments: Of the unit, in order, with the ids of their types.
        directory: Anywhere TensorFlow and Beam can write, with directories for the splits and
            UNFINISHED ones.

    Returns:
        What was written and dropped, see `measure`.
    """
    counts: Counter[str] = Counter()
    temporary = f"{directory}/{UNFINISHED}/{unit:06d}.{secrets.token_hex(8)}"
    writers: dict[str, tf.io.TFRecordWriter] = {}
    for segment, type_ids in segments:
        ids, bounds = known(segment, type_ids)
        counts.update(measure(segment, bounds))
        for held_out, split in enumerate(SPLITS):
            for examples in encode(ids, bounds, segment.held_out == held_out):
                if split not in writers:
                    writers[split] = tf.io.TFRecordWriter(f"{temporary}.{split}", _OPTIONS)
                for example in examples:
                    writers[split].write(example)
    for split, writer in writers.items():
        writer.close()
        path = f"{directory}/{split}/{unit:06d}.tfrecord.gz"
        if FileSystems.exists(path):
            FileSystems.delete([path])
        FileSystems.rename([f"{temporary}.{split}"], [path])
    return counts


def measure(segment: Segment, bounds: npt.NDArray[np.int64]) -> Counter[str]:
    """Counts of a segment, under keys such as `train.kept_tokens` or `length.64`.

    `length.64` counts documents of 33 to 64 tokens, before any is dropped.
    """
    counts: Counter[str] = Counter(segment.read)
    tokens, kept = segment.lengths, np.diff(bounds)
    for held_out, split in enumerate(SPLITS):
        chosen = segment.held_out == held_out
        counts[f"{split}.documents"] = int(np.count_nonzero(kept[chosen]))
        counts[f"{split}.tokens"] = int(tokens[chosen].sum())
        counts[f"{split}.kept_tokens"] = int(kept[chosen].sum())
    counts["dropped.no_token"] = int(np.count_nonzero(tokens == 0))
    counts["dropped.no_known_token"] = int(np.count_nonzero((kept == 0) & (tokens > 0)))
    bounds_of = np.power(2, np.ceil(np.log2(np.maximum(tokens, 1)))).astype(int)
    for bound, documents in zip(*np.unique(bounds_of[tokens > 0], return_counts=True), strict=True):
        counts[f"length.{bound}"] = int(documents)
    return counts


class SumCounters(beam.CombineFn):
    """Adds up `collections.Counter`s of few keys."""

    def create_accumulator(self) -> Counter[str]:
        """Nothing yet."""
        return Counter()

    def add_input(self, total: Counter[str], counts: Counter[str] | dict[str, int]) -> Counter[str]:
        """`total` plus `counts`; `total` is changed."""
        total.update(counts)
        return total

    def merge_accumulators(self, totals: Iterable[Counter[str]]) -> Counter[str]:
        """The sum of all."""
        merged: Counter[str] = Counter()
        for total in totals:
            merged.update(total)
        return merged

    def extract_output(self, total: Counter[str]) -> dict[str, Any]:
        """A plain dictionary."""
        return dict(total)
