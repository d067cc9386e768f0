"""Phrases: pairs of tokens that stand together more than by chance, scored as word2phrase.c does.

A pass counts the tokens, then the pairs of tokens that follow each other, and joins the pairs whose
score is above the threshold; the next pass counts what that has made. A token and one that was just
joined make no pair in the same pass, and no pair crosses a document.

Cost of a pass: the tokenised text is read twice, to count words and to count pairs. Shuffled are
the types, then the distinct pairs of words that can be in a phrase, as numbers: 16 bytes each for
every worker that meets them. A worker holds those words with their counts, and builds a hash table
of them for each segment.
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsSingleton

from components.phrases import FILE, HEADER
from components.settings import TransformSettings
from components.transform import joins, preprocessing, storage
from components.transform.partitions import PARTITIONS, by_partition
from components.transform.segment_ref import SegmentRef

WORK = "phrases"
# Of the threshold, that a word must be able to reach: its bound is rounded otherwise than scores.
_SLACK = 0.999


class FindPhrases(beam.PTransform[Any, Any]):
    """PCollection[SegmentRef] -> the same, with their `phrases`."""

    def __init__(self, settings: TransformSettings, work: str) -> None:
        """Nothing is read yet.

        Args:
            settings: Passes (at least one), threshold, `min_count`.
            work: Directory that all workers share; in it, WORK receives a file for each pass.
        """
        super().__init__()
        self._settings = settings
        # Named anew for each job: workers keep what they have read (`joins.load`).
        directory = f"{work}/{WORK}/{secrets.token_hex(8)}"
        self._files = [f"{directory}/{n + 1}/{FILE}" for n in range(settings.phrase_passes)]
        for file in self._files:
            storage.make_directory(file.removesuffix(f"/{FILE}"))

    @property
    def file(self) -> str:
        """Where the phrases of all passes will be."""
        return self._files[-1]

    def expand(self, refs: Any) -> Any:
        """Wire it, pass after pass."""
        earlier = None
        for number, file in enumerate(self._files, 1):
            written = refs | f"Pass{number}" >> _Pass(self._settings, number, earlier, file)
            refs |= f"Join{number}" >> beam.Map(with_phrases, AsSingleton(written))
            earlier = file
        return refs


class _Pass(beam.PTransform[Any, Any]):
    """PCollection[SegmentRef] -> the path of `file`: the phrases up to this pass."""

    def __init__(
        self, settings: TransformSettings, number: int, earlier: str | None, file: str
    ) -> None:
        super().__init__()
        self._settings = settings
        self._number = number
        self._earlier = earlier
        self._file = file

    def expand(self, refs: Any) -> Any:
        words = (
            refs
            | "ReadTypes" >> beam.FlatMap(preprocessing.types_by_partition)
            | "SumTypes" >> beam.CombinePerKey(preprocessing.SumCounts())
            | "DropPartitions" >> beam.Values()
            | "CountTokens" >> beam.Map(frequent, self._settings.min_count)
            | "GatherWords" >> beam.combiners.ToList()
            | "ChooseWords" >> beam.Map(choose_words, self._settings)
        )
        return (
            refs
            | "CountPairs" >> beam.FlatMap(pairs_by_partition, AsSingleton(words))
            | "SumPairs" >> beam.CombinePerKey(preprocessing.SumCounts())
            | "DropPairPartitions" >> beam.Values()
            | "Score" >> beam.Map(scored, AsSingleton(words), self._settings)
            | "GatherPhrases" >> beam.combiners.ToList()
            | "WritePhrases" >> beam.Map(_write, self._number, self._earlier, self._file)
        )


@dataclass(frozen=True)
class Words:
    """Words that can be in a phrase.

    Attributes:
        words: binary [words], ascending.
        counts: int64 [words].
        tokens: Of the corpus, any.
    """

    words: pa.Array
    counts: npt.NDArray[np.int64]
    tokens: int


def frequent(table: pa.Table, min_count: int) -> tuple[int, pa.Table]:
    """The tokens of a partition, and the types in it that occur more than `min_count` times."""
    count = table.column("count")
    return pc.sum(count).as_py() or 0, table.filter(pc.greater(count, min_count))


def choose_words(partitions: list[tuple[int, pa.Table]], settings: TransformSettings) -> Words:
    """Words whose pairs can have a score above the threshold.

    A pair is no more frequent than the rarer of its words, so no score is above
    (count - min_count) / count / count x tokens, for the count of either. With word2phrase's
    defaults, that leaves out the words that are more than a hundredth of the text each: a third of
    all tokens in English.
    """
    tokens = sum(total for total, _ in partitions)
    if not tokens:
        return Words(pa.array([], pa.binary()), np.zeros(0, np.int64), 0)
    table = pa.concat_tables([table for _, table in partitions]).sort_by("token").combine_chunks()
    counts = table.column("count").to_numpy()
    bounds = (counts - settings.min_count) / counts / counts * tokens
    possible = bounds > settings.phrase_threshold * _SLACK
    words = table.column("token").combine_chunks().filter(pa.array(possible))
    return Words(words.cast(pa.binary()), counts[possible], tokens)


def pairs_by_partition(ref: SegmentRef, words: Words) -> Iterator[tuple[int, pa.Table]]:
    """A table of `pair` (int64, see `joins.Pairs`) and `count`, by partition."""
    _, codes = joins.neighbors(ref.load(), words.words)
    pairs, counts = np.unique(codes, return_counts=True)
    yield from by_partition(pa.table({"pair": pairs, "count": counts}), pairs % PARTITIONS)


def scored(table: pa.Table, words: Words, settings: TransformSettings) -> pa.Table:
    """The pairs of a partition that are phrases: `first`, `second`, `count`, `score`."""
    count = table.column("count").to_numpy()
    first, second = np.divmod(table.column("pair").to_numpy(), len(words.words))
    score = (count - settings.min_count) / words.counts[first] / words.counts[second] * words.tokens
    columns = {
        "first": words.words.take(pa.array(first)),
        "second": words.words.take(pa.array(second)),
        "count": count,
        "score": score,
    }
    return pa.table(columns).filter(pa.array(score > settings.phrase_threshold))


def lines(tables: Iterable[pa.Table], number: int) -> bytes:
    r"""What a pass adds to the file: best score first, ties by bytes: a total order.

    >>> columns = {"first": [b"new", b"b"], "second": [b"york", b"c"], "count": [9, 7]}
    >>> lines([pa.table(columns | {"score": [120.0, 250.5]})], number=1)
    b'1 b c\t7\t250.5\n1 new york\t9\t120\n'
    """
    order = [("score", "descending"), ("first", "ascending"), ("second", "ascending")]
    rows = pa.concat_tables(tables).sort_by(order).to_pylist()
    return b"".join(
        b"%d %b %b\t%d\t%.6g\n" % (number, row["first"], row["second"], row["count"], row["score"])
        for row in rows
    )


def _write(tables: list[pa.Table], number: int, earlier: str | None, file: str) -> str:
    content = storage.read(earlier) if earlier else HEADER
    if tables:
        content += lines(tables, number)
    return storage.write(content, file)


def with_phrases(ref: SegmentRef, file: str) -> SegmentRef:
    """`ref`, with the phrases in `file` joined."""
    return replace(ref, phrases=file)
