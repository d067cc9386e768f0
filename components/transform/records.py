"""Segments -> TFRecords in the order of the corpus, and what they hold in numbers."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders import example_coder

from components.transform import storage
from components.transform.segments import Segment

SPLITS = ("train", "eval")
UNFINISHED = "unfinished"
_DOCUMENTS = 2**13  # that are Python objects at one time
# Token ids are packed as bytes of few values and no repetitions: Huffman codes (zlib's strategy 2)
# save as much as a search for repetitions does, in a fifth of its time.
_OPTIONS = tf.io.TFRecordOptions("GZIP", compression_strategy=2)

_Sum = tuple[Counter[str], dict[str, bool]]


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


def write_segment(
    unit: int,
    number: int,
    segment: Segment,
    type_ids: npt.NDArray[np.integer[Any]],
    directory: str,
) -> Counter[str]:
    """Write the TFRecords of a segment, whole or not at all: <split>/<unit>-<number>.tfrecord.gz.

    The names are given by the corpus, not by the worker, so a retry writes the same files again.

    Args:
        unit: Its place in the corpus.
        number: Place of the segment in the unit.
        segment: The documents.
        type_ids: integer [types], see `known`.
        directory: Anywhere Beam can write, with directories for the splits and UNFINISHED ones.

    Returns:
        What was written and dropped, see `measure`, and files under `train.files`, `eval.files`.
    """
    ids, bounds = known(segment, type_ids)
    counts = measure(segment, bounds)
    for held_out, split in enumerate(SPLITS):
        encoded = encode(ids, bounds, segment.held_out == held_out)
        if (first := next(encoded, None)) is None:
            continue
        name = f"{unit:06d}-{number:04d}"
        temporary = storage.unfinished(f"{directory}/{UNFINISHED}/{name}")
        with storage.near(temporary) as path, tf.io.TFRecordWriter(path, _OPTIONS) as writer:
            for examples in itertools.chain([first], encoded):
                for example in examples:
                    writer.write(example)
        # In the place of what another try has left, if any: both are the same.
        storage.move(temporary, f"{directory}/{split}/{name}.tfrecord.gz")
        counts[f"{split}.files"] = 1
    return counts


def measure(segment: Segment, bounds: npt.NDArray[np.int64]) -> Counter[str]:
    """Counts of a segment, under keys such as `train.kept_tokens` or `length.64`.

    `length.64` counts documents of 33 to 64 tokens, before any is dropped; `tokens.too_long` are
    left out of all others.
    """
    counts: Counter[str] = Counter(segment.read)
    tokens, kept = segment.lengths, np.diff(bounds)
    for held_out, split in enumerate(SPLITS):
        chosen = segment.held_out == held_out
        counts[f"{split}.documents"] = int(np.count_nonzero(kept[chosen]))
        counts[f"{split}.tokens"] = int(tokens[chosen].sum())
        counts[f"{split}.kept_tokens"] = int(kept[chosen].sum())
    counts["tokens.too_long"] = int(segment.too_long.sum())
    counts["dropped.no_token"] = int(np.count_nonzero(tokens == 0))
    counts["dropped.no_known_token"] = int(np.count_nonzero((kept == 0) & (tokens > 0)))
    bounds_of = np.power(2, np.ceil(np.log2(np.maximum(tokens, 1)))).astype(int)
    for bound, documents in zip(*np.unique(bounds_of[tokens > 0], return_counts=True), strict=True):
        counts[f"length.{bound}"] = int(documents)
    return counts


class SumWritten(beam.CombineFn):
    """Adds up what `write_segment` counted, and gathers the token files that were read.

    In: counts, name of the file, and whether it is reused. Out: JSON of `counts` and `token_files`.
    """

    def create_accumulator(self) -> _Sum:
        """Nothing yet."""
        return Counter(), {}

    def add_input(self, total: _Sum, written: tuple[Counter[str], str, bool]) -> _Sum:
        """`total` plus `written`; `total` is changed."""
        counts, name, reused = written
        total[0].update(counts)
        total[1][name] = reused
        return total

    def merge_accumulators(self, totals: Iterable[_Sum]) -> _Sum:
        """The sum of all."""
        merged = self.create_accumulator()
        for counts, token_files in totals:
            merged[0].update(counts)
            merged[1].update(token_files)
        return merged

    def extract_output(self, total: _Sum) -> dict[str, Any]:
        """Plain dictionaries."""
        return {"counts": dict(total[0]), "token_files": total[1]}
