"""The preprocessing graph: text -> token ids. tensorflow-transform owns it and saves it.

The vocabulary is one analyzer in it, `CountTokens`. tft.vocabulary would break ties the other way
round (descending token bytes), drop the corpus totals, and keep no count beside a token.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.io.filesystems import FileSystems
from tensorflow_transform import beam as tft_beam

from components import text
from components.phrases import HEADER
from components.settings import TransformSettings
from components.transform.shares import SHARES, by_share

VOCABULARY = "vocabulary.tsv"
# TensorFlow refuses a table without a line; no token is empty. The stage refuses it at its end,
# when it knows what was dropped and why.
EMPTY_VOCABULARY = b"\t0\n"
_LINES = 2**17  # of the vocabulary file that are Python objects at one time

Batch = tuple[npt.NDArray[np.object_], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def make_preprocessing_fn(
    settings: TransformSettings, totals: str, phrases: str | None = None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The function that tensorflow-transform traces.

    Args:
        settings: Tokeniser and thresholds of the vocabulary.
        totals: File that receives the corpus totals, see `CountTokens`.
        phrases: File of the phrases, which is there before the first of the types are; none: no
            tokens are joined.

    Returns:
        A function from `text` (string [documents]) to `ids` (ragged int64, out-of-vocabulary
        tokens left out) and `tokens` (int64 [documents], how many there were before). The Beam
        job, which has tokenised before, gives `types` (ragged string [rows, (types)]) with their
        `counts` (ragged int64) and gets `type_ids` (ragged int64, -1 for out-of-vocabulary).
    """

    def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
        types = inputs["types"]
        (vocabulary,) = tft.experimental.ptransform_analyzer(
            inputs=[
                types.flat_values,
                inputs["counts"].flat_values,
                tf.strings.to_hash_bucket_fast(types.flat_values, SHARES),
            ],
            ptransform=CountTokens(settings, totals),
            output_dtypes=[tf.string],
            output_shapes=[[]],
            output_asset_default_values=[b"token\t1"],
            name="vocabulary",
        )
        tokens = text.tokenize(
            inputs["text"], tokenizer=settings.tokenizer, lowercase=settings.lowercase
        )
        if phrases:
            (path,) = tft.experimental.ptransform_analyzer(
                inputs=[inputs["counts"].flat_values],
                ptransform=HandOver(phrases),
                output_dtypes=[tf.string],
                output_shapes=[[]],
                output_asset_default_values=[HEADER],
                name="phrases",
            )
            look_up = partial(
                tft.apply_vocabulary, deferred_vocab_filename_tensor=path, lookup_fn=_look_up
            )
            tokens = text.join_phrases(tokens, look_up, passes=settings.phrase_passes)
        ids = tft.apply_vocabulary(tokens, vocabulary, lookup_fn=_look_up)
        return {
            "ids": tf.ragged.boolean_mask(ids, ids >= 0),
            "tokens": tokens.row_lengths(),
            "type_ids": tft.apply_vocabulary(types, vocabulary, lookup_fn=_look_up),
        }

    return preprocessing_fn


def _look_up(tokens: tf.RaggedTensor, file: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
    with tf.init_scope():  # Once, not at every call of the graph.
        table = text.line_numbers(file)
        size = table.size()
    return tf.ragged.map_flat_values(table.lookup, tokens), size


class HandOver(tft_beam.experimental.PTransformAnalyzer):
    """A file that the graph takes as it is."""

    def __init__(self, path: str) -> None:
        """Nothing is read.

        Args:
            path: The file, which is there before the first batch is.
        """
        super().__init__()
        self._path = path

    def expand(self, batches: beam.PCollection[Any]) -> beam.PCollection[str]:
        """Wire it; the result is the path."""
        return (
            batches
            | "AwaitBatches" >> beam.combiners.Count.Globally()
            | "NameFile" >> beam.Map(lambda _, path: path, self._path)
        )


class CountTokens(tft_beam.experimental.PTransformAnalyzer):
    """Counts of the types of all segments -> the vocabulary file.

    Cost: types travel in `SHARES` Arrow tables, each summed up within a worker first, so the
    shuffle sees a worker's types once; the kept types (not all types) are sorted in one place.
    """

    def __init__(self, settings: TransformSettings, totals: str) -> None:
        """Set the thresholds.

        Args:
            settings: `min_count` and `max_size`.
            totals: File that receives `tokens<TAB>types`, both before thresholding.
        """
        super().__init__()
        self._settings = settings
        self._totals = totals

    def expand(self, batches: beam.PCollection[Batch]) -> beam.PCollection[str]:
        """Wire it; the result is one path, of lines `token<TAB>count` in the order of ids."""
        counts = (
            batches
            | "ShareOut" >> beam.FlatMap(share_out)
            | "SumCounts" >> beam.CombinePerKey(SumCounts())
            | "DropShares" >> beam.Values()
        )
        (
            counts
            | "CountShares" >> beam.Map(_totals)
            | "SumTotals" >> beam.CombineGlobally(_SumTotals())
            | "WriteTotals" >> beam.Map(write, self._totals)
        )
        return (
            counts
            | "DropRareTokens" >> beam.Map(_at_least, self._settings.min_count)
            | "GatherVocabulary" >> beam.combiners.ToList()
            | "WriteVocabulary"
            >> beam.Map(_write_vocabulary, self._settings, f"{self.base_temp_dir}/{VOCABULARY}")
        )


def token_counts(types: pa.Array, counts: pa.Array) -> pa.Table:
    """A table of `token` (large_binary) and `count` (int64)."""
    return pa.table({"token": types.cast(pa.large_binary()), "count": counts})


def share_out(batch: Batch) -> Iterator[tuple[int, pa.Table]]:
    """The types of a batch and their counts, by share.

    Args:
        batch: types (bytes), counts and shares, [types] each.
    """
    types, counts, shares = batch
    occurring = counts > 0  # A type may have been seen in duplicates only.
    kept = pa.array(types[occurring], pa.large_binary()), pa.array(counts[occurring])
    return by_share(token_counts(*kept), shares[occurring])


class SumCounts(beam.CombineFn):
    """Tables of a key (`token`, say) and `count` -> one, each key once."""

    _PENDING = 16

    def create_accumulator(self) -> list[pa.Table]:
        """Nothing yet."""
        return []

    def add_input(self, tables: list[pa.Table], table: pa.Table) -> list[pa.Table]:
        """`tables` with another one, summed up now and then."""
        tables.append(table)
        return self.compact(tables) if len(tables) >= self._PENDING else tables

    def merge_accumulators(self, parts: Iterable[list[pa.Table]]) -> list[pa.Table]:
        """The tables of all."""
        return self.compact([table for tables in parts for table in tables])

    def compact(self, tables: list[pa.Table]) -> list[pa.Table]:
        """As few bytes as possible before they travel."""
        return [self.extract_output(tables)] if len(tables) > 1 else tables

    def extract_output(self, tables: list[pa.Table]) -> pa.Table:
        """The sum."""
        key, _ = tables[0].column_names
        summed = pa.concat_tables(tables).group_by(key).aggregate([("count", "sum")])
        return summed.rename_columns({"count_sum": "count"}).combine_chunks()


def _totals(table: pa.Table) -> tuple[int, int]:
    return pc.sum(table.column("count")).as_py(), table.num_rows


class _SumTotals(beam.CombineFn):
    """(tokens, types) of shares -> those of the corpus, as text."""

    def create_accumulator(self) -> tuple[int, int]:
        return 0, 0

    def add_input(self, totals: tuple[int, int], share: tuple[int, int]) -> tuple[int, int]:
        return totals[0] + share[0], totals[1] + share[1]

    def merge_accumulators(self, parts: Iterable[tuple[int, int]]) -> tuple[int, int]:
        tokens, types = zip(*parts, strict=True)
        return sum(tokens), sum(types)

    def extract_output(self, totals: tuple[int, int]) -> bytes:
        return b"%d\t%d" % totals


def _at_least(table: pa.Table, minimum: int) -> pa.Table:
    return table.filter(pc.greater_equal(table.column("count"), minimum))


def write(content: bytes, path: str) -> str:
    """Write a small file anywhere Beam can, whole or not at all; returns its path."""
    temporary = f"{path}.{secrets.token_hex(8)}"
    with FileSystems.create(temporary, mime_type="text/plain") as file:
        file.write(content)
    FileSystems.rename([temporary], [path])
    return path


def _write_vocabulary(tables: list[pa.Table], settings: TransformSettings, path: str) -> str:
    with FileSystems.create(path, mime_type="text/plain") as file:
        empty = True
        for lines in vocabulary_lines(tables, settings.max_size):
            file.write(lines)
            empty = False
        if empty:
            file.write(EMPTY_VOCABULARY)
    return path


def vocabulary_lines(tables: list[pa.Table], max_size: int | None) -> Iterator[bytes]:
    r"""The vocabulary file: most frequent first, ties by the tokens' bytes: a total order.

    >>> tables = [token_counts(pa.array([b"b", b"c"]), pa.array([2, 9])),
    ...           token_counts(pa.array([b"a"]), pa.array([2]))]
    >>> list(vocabulary_lines(tables, max_size=None))
    [b'c\t9\na\t2\nb\t2\n']
    """
    if not tables:
        return
    table = pa.concat_tables(tables).combine_chunks()
    keys = [("count", "descending"), ("token", "ascending")]
    table = table.take(pc.sort_indices(table, sort_keys=keys)[:max_size])
    for part in table.to_batches(max_chunksize=_LINES):
        pairs = zip(part.column("token").to_pylist(), part.column("count").to_pylist(), strict=True)
        yield b"".join(b"%s\t%d\n" % pair for pair in pairs)
