"""Transformed batches -> TFRecords in the order of the corpus, and what they hold in numbers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from tfx_bsl.coders import example_coder

Shard = tuple[str, int]  # split ("train" or "eval"), unit
Part = tuple[int, list[bytes]]  # order of the first document, serialised examples
SPLITS = ("train", "eval")


def encode(batch: pa.RecordBatch) -> Iterator[tuple[Shard, Part]]:
    """Serialise the documents of a batch that know at least one token.

    Args:
        batch: `ids` list<int64>, and for each document, as int64, `unit`, `order` (rising within
            a unit) and `held_out` (0 or 1).

    Yields:
        For each split that has documents, its shard and a `Part` of it. A batch has one unit.
    """
    known = pc.greater(pc.list_value_length(batch.column("ids")), 0)
    coder = example_coder.RecordBatchToExamplesEncoder()
    for held_out, split in enumerate(SPLITS):
        chosen = pc.equal(batch.column("held_out"), held_out)
        documents = batch.filter(pc.and_(known, chosen))
        if documents.num_rows:
            ids = documents.column("ids").cast(pa.large_list(pa.int64()))
            examples = coder.encode(pa.RecordBatch.from_arrays([ids], ["ids"]))
            shard = split, documents.column("unit")[0].as_py()
            yield shard, (documents.column("order")[0].as_py(), examples)


def write_shard(shard: tuple[Shard, Iterable[Part]], directory: str) -> str:
    """Write the parts of a shard in their order, whole or not at all; returns the path.

    The name is given by the corpus, not by the worker, so a retry writes the same file again.
    """
    (split, unit), parts = shard
    path = f"{directory}/{split}/{unit:06d}.tfrecord.gz"
    temporary = f"{directory}/{split}/.{unit:06d}.{np.random.default_rng().integers(2**62):x}"
    with tf.io.TFRecordWriter(temporary, tf.io.TFRecordOptions("GZIP")) as writer:
        for _, examples in sorted(parts, key=lambda part: part[0]):
            for example in examples:
                writer.write(example)
    if FileSystems.exists(path):
        FileSystems.delete([path])
    FileSystems.rename([temporary], [path])
    return path


def measure(batch: pa.RecordBatch) -> Counter[str]:
    """Counts of a batch, under keys such as `train.kept_tokens` or `length.64`.

    `length.64` counts documents of 33 to 64 tokens, before any is dropped.
    """
    counts: Counter[str] = Counter()
    tokens = batch.column("tokens").to_numpy()
    kept = pc.list_value_length(batch.column("ids")).to_numpy()
    for held_out, split in enumerate(SPLITS):
        chosen = batch.column("held_out").to_numpy() == held_out
        counts[f"{split}.documents"] = int(np.count_nonzero(kept[chosen]))
        counts[f"{split}.tokens"] = int(tokens[chosen].sum())
        counts[f"{split}.kept_tokens"] = int(kept[chosen].sum())
    counts["dropped.no_token"] = int(np.count_nonzero(tokens == 0))
    counts["dropped.no_known_token"] = int(np.count_nonzero((kept == 0) & (tokens > 0)))
    bounds = np.power(2, np.ceil(np.log2(np.maximum(tokens, 1)))).astype(int)
    for bound, documents in zip(*np.unique(bounds[tokens > 0], return_counts=True), strict=True):
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
