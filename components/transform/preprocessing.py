"""The preprocessing graph: text -> token ids. tensorflow-transform owns it and saves it.

The vocabulary is one analyzer in it, `CountTokens`. tft.vocabulary would break ties the other way
round (descending token bytes), drop the corpus totals, and keep no count beside a token.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import beam as tft_beam

from components import text
from components.phrases import HEADER
from components.settings import TransformSettings
from components.transform import storage
from components.transform.partitions import by_partition, partitions_of
from components.transform.segment_ref import SegmentRef

VOCABULARY = "vocabulary.tsv"
# TensorFlow refuses a table without a line; no token is empty. The stage refuses it at its end,
# when it knows what was dropped and why.
EMPTY_VOCABULARY = b"\t0\n"
_LINES = 2**17  # of the vocabulary file that are Python objects at one time

_Partition = tuple[int, int, pa.Table]  # tokens, types, those that are kept with their counts


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
        job, which has tokenised before, gives `segment` (string [rows], SegmentRefs as
        bytes) to count, then with it `types` (ragged string [rows, (types)]), and gets both back:
        `segment` and `type_ids` (ragged int64, -1 for out-of-vocabulary).
    """

    def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
        (vocabulary,) = tft.experimental.ptransform_analyzer(
            inputs=[inputs["segment"]],
            ptransform=CountTokens(settings, totals),
            output_dtypes=[tf.string],
            output_shapes=[[]],
            output_asset_default_values=[b"token\t1"],
            name="vocabulary",
        )
        tokens = text.tokenize(
            inputs["text"], tokenizer=settings.tokenizer, lowercase=settings.lowered
        )
        look_up = _shared_look_up()
        if phrases:
            (path,) = tft.experimental.ptransform_analyzer(
                inputs=[inputs["segment"]],
                ptransform=HandOver(phrases),
                output_dtypes=[tf.string],
                output_shapes=[[]],
                output_asset_default_values=[HEADER],
                name="phrases",
            )
            numbers = partial(
                tft.apply_vocabulary,
                deferred_vocab_filename_tensor=path,
                lookup_fn=_shared_look_up(),
            )
            tokens = text.join_phrases(tokens, numbers, passes=settings.phrase_passes)
        ids = tft.apply_vocabulary(tokens, vocabulary, lookup_fn=look_up)
        return {
            "ids": _known(ids),
            "tokens": tokens.row_lengths(),
            "type_ids": tft.apply_vocabulary(inputs["types"], vocabulary, lookup_fn=look_up),
            "segment": tf.identity(inputs["segment"]),
        }

    # It is traced six times, and holds no Python that would have to be converted.
    traced: Callable[[dict[str, Any]], dict[str, Any]]
    traced = tf.autograph.experimental.do_not_convert(preprocessing_fn)
    return traced


def _shared_look_up() -> Callable[[tf.RaggedTensor, tf.Tensor], tuple[tf.RaggedTensor, tf.Tensor]]:
    """Looks up in the one table of a graph: each more would hold all tokens in memory again."""
    tables: list[tf.lookup.StaticHashTable] = []

    def look_up(tokens: tf.RaggedTensor, file: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        with tf.init_scope():  # Once, not at every call of the graph.
            if not tables:
                tables.append(text.line_numbers(file))
            size = tables[0].size()
        return tf.ragged.map_flat_values(tables[0].lookup, tokens), size

    return look_up


def _known(ids: tf.RaggedTensor) -> tf.RaggedTensor:
    """`ids` without -1."""
    places = tf.where(ids.flat_values >= 0)[:, 0]
    before = tf.searchsorted(places, ids.row_splits, out_type=tf.int64)
    kept = tf.gather(ids.flat_values, places)
    return tf.RaggedTensor.from_row_splits(kept, before, validate=False)


class HandOver(tft_beam.experimental.PTransformAnalyzer):
    """A file that the graph takes as it is."""

    def __init__(self, path: str) -> None:
        """Nothing is read.

        Args:
            path: The file, which is there before the first segment is.
        """
        super().__init__()
        self._path = path

    def expand(self, segments: beam.PCollection[Any]) -> beam.PCollection[str]:
        """Wire it; the result is the path."""
        return (
            segments
            | "AwaitSegments" >> beam.combiners.Count.Globally()
            | "NameFile" >> beam.Map(lambda _, path: path, self._path)
        )


class CountTokens(tft_beam.experimental.PTransformAnalyzer):
    """Counts of the types of all segments -> the vocabulary file.

    Through the graph go only names of segments: strings would be copied four times on that way.

    Cost: types travel in `PARTITIONS` Arrow tables, each summed up within a worker first, so the
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

    def expand(self, segments: beam.PCollection[Any]) -> beam.PCollection[str]:
        """Wire it; the result is one path, of lines `token<TAB>count` in the order of ids."""
        minimum, max_size = self._settings.min_count, self._settings.max_size
        path = f"{self.base_temp_dir}/{VOCABULARY}"
        return (
            segments
            | "NameSegments" >> beam.FlatMap(_refs)
            | "ReadTypes" >> beam.FlatMap(types_by_partition)
            | "SumCounts" >> beam.CombinePerKey(SumCounts())
            | "DropRareTokens" >> beam.MapTuple(partial(_at_least, minimum=minimum))
            | "GatherVocabulary" >> beam.GroupByKey()
            | "WriteVocabulary"
            >> beam.MapTuple(partial(_write_vocabulary, max_size, path, self._totals))
        )


def _refs(inputs: Sequence[Any]) -> list[SegmentRef]:
    (segments,) = inputs  # bytes [rows], of the one input of the analyzer
    return [SegmentRef.from_bytes(content) for content in segments.tolist()]


def token_counts(types: pa.Array, counts: pa.Array) -> pa.Table:
    """A table of `token` (large_binary) and `count` (int64)."""
    return pa.table({"token": types.cast(pa.large_binary()), "count": counts})


def types_by_partition(segment: SegmentRef) -> Iterator[tuple[int, pa.Table]]:
    """The types of a segment and their counts, by partition; where there is none, an empty one."""
    types, counts = segment.types()
    occurring = pc.greater(counts, 0)  # A type may have been seen in duplicates only.
    types, counts = types.filter(occurring), counts.filter(occurring)
    table = token_counts(types, counts)
    return by_partition(table, partitions_of(types)) if len(types) else iter([(0, table)])


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

    def merge_accumulators(self, sums: Iterable[list[pa.Table]]) -> list[pa.Table]:
        """The tables of all."""
        return self.compact([table for tables in sums for table in tables])

    def compact(self, tables: list[pa.Table]) -> list[pa.Table]:
        """As few bytes as possible before they travel."""
        return [self.extract_output(tables)] if len(tables) > 1 else tables

    def extract_output(self, tables: list[pa.Table]) -> pa.Table:
        """The sum."""
        key, _ = tables[0].column_names
        summed = pa.concat_tables(tables).group_by(key).aggregate([("count", "sum")])
        return summed.rename_columns({"count_sum": "count"}).combine_chunks()


def _at_least(_: int, table: pa.Table, minimum: int) -> tuple[None, _Partition]:
    kept = table.filter(pc.greater_equal(table.column("count"), minimum))
    return None, (pc.sum(table.column("count")).as_py() or 0, table.num_rows, kept)


def _write_vocabulary(
    max_size: int | None, path: str, totals_path: str, _: None, partitions: Iterable[_Partition]
) -> str:
    tokens, types, tables = zip(*partitions, strict=True)
    storage.write(b"%d\t%d" % (sum(tokens), sum(types)), totals_path)
    with storage.whole(path) as file:
        empty = True
        for lines in vocabulary_lines(pa.concat_tables(tables), max_size):
            file.write(lines)
            empty = False
        if empty:
            file.write(EMPTY_VOCABULARY)
    return path


def vocabulary_lines(table: pa.Table, max_size: int | None) -> Iterator[bytes]:
    r"""The vocabulary file: most frequent first, ties by the tokens' bytes: a total order.

    >>> table = token_counts(pa.array([b"b", b"c", b"a"]), pa.array([2, 9, 2]))
    >>> list(vocabulary_lines(table, max_size=None))
    [b'c\t9\na\t2\nb\t2\n']
    """
    table = table.combine_chunks()
    keys = [("count", "descending"), ("token", "ascending")]
    order = pc.sort_indices(table, sort_keys=keys)[:max_size]
    for start in range(0, len(order), _LINES):
        rows = table.take(order[start : start + _LINES])
        pairs = zip(rows.column("token").to_pylist(), rows.column("count").to_pylist(), strict=True)
        yield b"".join(b"%s\t%d\n" % pair for pair in pairs)
