"""The preprocessing graph: text -> token ids. tensorflow-transform owns it and saves it.

The vocabulary is one analyzer in it, `CountTokens`. tft.vocabulary would break ties the other way
round (descending token bytes), drop the corpus totals, and keep no count beside a token.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.io.filesystems import FileSystems
from tensorflow_transform import beam as tft_beam

from components import text
from components.settings import TransformSettings

VOCABULARY = "vocabulary.tsv"
# TensorFlow refuses a table without a line; no token is empty. The stage refuses it at its end,
# when it knows what was dropped and why.
EMPTY_VOCABULARY = b"\t0\n"
_FLUSH_TYPES = 1_000_000  # About 200 MB of Python strings and integers a worker.


def make_preprocessing_fn(
    settings: TransformSettings, totals: str
) -> Callable[[dict[str, tf.Tensor]], dict[str, Any]]:
    """The function that tensorflow-transform traces.

    Args:
        settings: Tokeniser and thresholds of the vocabulary.
        totals: File that receives the corpus totals, see `CountTokens`.

    Returns:
        A function from `text` (string [documents]) to `ids` (ragged int64, out-of-vocabulary
        tokens left out) and `tokens` (int64 [documents], how many there were before).
    """

    def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, Any]:
        tokens = text.tokenize(
            inputs["text"], tokenizer=settings.tokenizer, lowercase=settings.lowercase
        )
        types, _, counts = tf.unique_with_counts(tokens.flat_values, tf.int64)
        (vocabulary,) = tft.experimental.ptransform_analyzer(
            inputs=[types, counts],
            ptransform=CountTokens(settings, totals),
            output_dtypes=[tf.string],
            output_shapes=[[]],
            output_asset_default_values=[b"token\t1"],
            name="vocabulary",
        )
        ids = tft.apply_vocabulary(tokens, vocabulary, lookup_fn=_look_up)
        return {"ids": tf.ragged.boolean_mask(ids, ids >= 0), "tokens": tokens.row_lengths()}

    return preprocessing_fn


def _look_up(tokens: tf.RaggedTensor, vocabulary: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
    with tf.init_scope():  # Once, not at every call of the graph.
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                vocabulary,
                tf.string,
                0,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                delimiter="\t",
            ),
            default_value=-1,
        )
        size = table.size()
    return tf.ragged.map_flat_values(table.lookup, tokens), size


class CountTokens(tft_beam.experimental.PTransformAnalyzer):
    """Counts of all tokens of the corpus -> the vocabulary file.

    Cost: a worker adds up the types of a bundle before anything is shuffled, so the shuffle sees
    types a bundle, not tokens; the kept types (not all types) are sorted in one place.
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

    def expand(
        self, batches: beam.PCollection[tuple[np.ndarray, np.ndarray]]
    ) -> beam.PCollection[str]:
        """Wire it; the result is one path, of lines `token<TAB>count` in the order of ids."""
        token_counts = (
            batches
            | "CountWithinBundle" >> beam.ParDo(_CountWithinBundle())
            | "SumCounts" >> beam.CombinePerKey(sum)
        )
        totals = (
            token_counts
            | "DropTokens" >> beam.Values()
            | "SumTotals" >> beam.CombineGlobally(_SumTotals())
        )
        totals | "WriteTotals" >> beam.Map(write, self._totals)
        return (
            token_counts
            | "DropRareTokens" >> beam.Filter(_at_least, self._settings.min_count)
            | "GatherVocabulary" >> beam.combiners.ToList()
            | "WriteVocabulary"
            >> beam.Map(_write_vocabulary, self._settings, f"{self.base_temp_dir}/{VOCABULARY}")
        )


class _CountWithinBundle(beam.DoFn):
    def start_bundle(self) -> None:
        self._counts: Counter[bytes] = Counter()

    def process(self, batch: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[bytes, int]]:
        types, counts = batch
        total = self._counts
        for token, count in zip(types.tolist(), counts.tolist(), strict=True):
            total[token] += count
        if len(total) > _FLUSH_TYPES:
            yield from total.items()
            self._counts = Counter()

    def finish_bundle(self) -> Iterator[Any]:
        for item in self._counts.items():
            yield beam.utils.windowed_value.WindowedValue(
                item, beam.transforms.window.MIN_TIMESTAMP, [beam.transforms.window.GlobalWindow()]
            )
        self._counts = Counter()


class _SumTotals(beam.CombineFn):
    """Counts -> (tokens, types)."""

    def create_accumulator(self) -> tuple[int, int]:
        return 0, 0

    def add_input(self, totals: tuple[int, int], count: int) -> tuple[int, int]:
        return totals[0] + count, totals[1] + 1

    def merge_accumulators(self, parts: Iterable[tuple[int, int]]) -> tuple[int, int]:
        tokens, types = zip(*parts, strict=True)
        return sum(tokens), sum(types)

    def extract_output(self, totals: tuple[int, int]) -> bytes:
        return b"%d\t%d" % totals


def _at_least(token_count: tuple[bytes, int], minimum: int) -> bool:
    return token_count[1] >= minimum


def write(content: bytes, path: str) -> str:
    """Write a small file anywhere Beam can; returns its path."""
    with FileSystems.create(path, mime_type="text/plain") as file:
        file.write(content)
    return path


def _write_vocabulary(
    token_counts: list[tuple[bytes, int]], settings: TransformSettings, path: str
) -> str:
    return write(vocabulary_lines(token_counts, settings.max_size) or EMPTY_VOCABULARY, path)


def vocabulary_lines(token_counts: list[tuple[bytes, int]], max_size: int | None) -> bytes:
    r"""The vocabulary file: most frequent first, ties by the tokens' bytes: a total order.

    >>> vocabulary_lines([(b"b", 2), (b"c", 9), (b"a", 2)], max_size=None)
    b'c\t9\na\t2\nb\t2\n'
    """
    ordered = sorted(token_counts, key=lambda item: (-item[1], item[0]))[:max_size]
    return b"".join(b"%s\t%d\n" % item for item in ordered)
