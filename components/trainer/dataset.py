"""The tf.data input pipeline: TFRecords of token ids -> skip-gram pairs, on the fly.

Two views of the same pairs. `SkipGrams.rows` has the layout that the trainer consumes: rows
with their windows and noise words. `SkipGrams.pairs` spells the pairs out, for any Keras model.

Order: TFRecord files are shuffled and interleaved; documents are shuffled within windows of
`shuffle_tokens` corpus tokens; rows are shuffled within a batch of documents (about 64 k tokens).
All of it is a function of (seed, epoch): no global seed, no thread's timing has a part in it.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from components.artifacts import VOCABULARY, Examples
from components.defaults import chosen, keep_probability
from components.settings import TrainerSettings
from components.trainer import skipgrams
from components.trainer.skipgrams import AliasTable, Rows, Streams
from components.vocabulary import Vocabulary

# Of a step. word2vec.c moves after each; here a row moves from where it was up to 2,048 targets
# ago. 1,024 and 4,096 score alike.
TARGETS = 2048
# Parts of a step that run beside each other, each on one thread (see components.threads).
BRANCHES = 2
# Targets that share noise words: half a word to look up and update for each.
GROUP = 64
BATCH_TOKENS = 65_536  # Corpus tokens in a batch of documents: amortises 30 ops, fits the cache.

Split = Literal["train", "eval"]

# The held-out loss is comparable between runs: neither its pairs nor its noise follow the seed.
HELD_OUT_SEED = 0


def row_length(window: int) -> int:
    """Targets in a row.

    Longer rows multiply more tokens that are no contexts; shorter ones gather and scatter more
    halo: 3 and 250 ns a token. The sum is least near sqrt(166 * window).
    """
    return 32 if window <= 12 else 64 if window <= 49 else 128


def noise_words(settings: TrainerSettings) -> int:
    """Noise words of a group: what word2vec.c draws for one target, in whole SIMD registers.

    30 by default, 5 for each of 6 pairs. Here all pairs of a target share all of them, so its
    update varies no more, and what is shared costs products, not look-ups.
    """
    pairs = settings.window + 1 if settings.shrink_windows else 2 * settings.window
    return 16 * math.ceil(settings.negatives * pairs / 16)


class Pairs(NamedTuple):
    """Explicit skip-gram pairs: `target` is the input, `context` the label; int32 [batch]."""

    target: tf.Tensor
    context: tf.Tensor


class SkipGrams:
    """The pairs of one split of `examples`, epoch by epoch.

    Attributes:
        settings: With what was unset chosen.
        documents, tokens: How many the split has.
        counts: int64 [types] occurrences in the corpus.
        types: The size of the vocabulary.
        length: Targets in a row.
        row_noise: Noise words in a row; groups are made of rows, or rows of groups.
        steps: That an epoch is expected to take; subsampling varies it by a few.
    """

    def __init__(
        self,
        examples: Examples,
        settings: TrainerSettings,
        *,
        split: Split = "train",
        seed: int | None = None,
    ) -> None:
        """Read sizes and counts, and no record yet.

        Args:
            examples: What the Transform stage wrote.
            settings: Window, negatives, subsampling, seed and shuffling.
            split: Which of the documents.
            seed: In place of the settings'.
        """
        self.settings = settings = chosen(settings, examples)
        self.seed = settings.seed if seed is None else seed
        self.files: Sequence[str] = examples.records(split)
        statistics = examples.statistics["splits"][split]
        self.documents: int = statistics["documents"]
        self.tokens: int = statistics["kept_tokens"]
        self.length = row_length(settings.window)
        self.row_noise = noise_words(settings) * self.length // GROUP
        self.counts = counts = Vocabulary.load_counts(examples / VOCABULARY)
        self.types = len(counts)
        keep = keep_probability(counts, settings.sample)
        noise = skipgrams.alias_table(counts.astype(np.float64) ** settings.noise_exponent)
        # As tensors they are shared by all graphs, in which arrays would be copied.
        self._keep, self._noise = tf.constant(keep), AliasTable(*map(tf.constant, noise))
        kept = self.tokens * float((counts / counts.sum() * keep).sum())
        self.steps = max(1, round(kept / TARGETS))

    # As elsewhere: AutoGraph would read all of our source first, and find nothing to convert.
    @tf.autograph.experimental.do_not_convert
    def rows(self, epoch: tf.Tensor | int) -> tf.data.Dataset:
        """Rows of one epoch, `Rows` in batches of a step's; the last is filled with empty rows."""
        settings = self.settings
        streams = skipgrams.streams(self.seed, epoch)
        mean_length = max(1, self.tokens // max(1, self.documents))

        def shuffle(position: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
            return skipgrams.shuffle(records, skipgrams.position_key(streams.shuffle, position))

        def cut(position: tf.Tensor, records: tf.Tensor) -> Rows:
            rows: Rows = _cut(
                position,
                records,
                streams,
                self._keep,
                self._noise,
                window=settings.window,
                shrink=settings.shrink_windows,
                length=self.length,
                row_noise=self.row_noise,
            )
            return rows

        files = skipgrams.shuffle(tf.constant(self.files), streams.order)
        dataset = tf.data.Dataset.from_tensor_slices(files)
        dataset = dataset.interleave(
            lambda file: tf.data.TFRecordDataset(file, "GZIP", buffer_size=1 << 20),
            cycle_length=4,
            block_length=16,  # In one thread: several cost half as much again, and save nothing.
        )
        # Not Dataset.shuffle: its order also depends on TensorFlow's global seed.
        dataset = dataset.batch(max(settings.shuffle_tokens // mean_length, 1))
        dataset = dataset.enumerate()
        dataset = dataset.map(shuffle)
        dataset = dataset.prefetch(1)  # The next window is read while this one is trained on.
        dataset = dataset.rebatch(min(max(BATCH_TOKENS // mean_length, 1), 4096))
        dataset = dataset.enumerate()
        dataset = dataset.map(cut, num_parallel_calls=1)  # More would only compete with training.
        dataset = dataset.concatenate(self._empty_rows(streams.noise))
        return dataset.rebatch(TARGETS // self.length, drop_remainder=True)

    def _empty_rows(self, noise_key: tf.Tensor) -> tf.data.Dataset:
        """As many rows without a pair as may be missing in the last step of an epoch.

        Their noise words are real ones: the other rows of their group share them.
        """
        count, length = TARGETS // self.length - 1, self.length
        tokens = tf.zeros([count, length + 2 * self.settings.window], tf.int32)
        none = tf.zeros([count, length], tf.int32)
        shape = tf.constant([count, self.row_noise])
        noise = skipgrams.draw_noise(shape, self._noise, skipgrams.position_key(noise_key, -1))
        return tf.data.Dataset.from_tensors(Rows(tokens, none, none, noise))

    def pairs(self, epoch: tf.Tensor | int, batch_size: int) -> tf.data.Dataset:
        """The very same pairs, spelled out: elements are `Pairs`."""
        window = self.settings.window
        dataset = self.rows(epoch)
        dataset = dataset.map(lambda rows: Pairs(*skipgrams.explicit_pairs(rows, window=window)))
        return dataset.rebatch(batch_size)


@tf.function(autograph=False)
def _cut(
    position: tf.Tensor,
    records: tf.Tensor,
    streams: Streams,
    keep: tf.Tensor,
    noise: AliasTable,
    *,
    window: int,
    shrink: bool,
    length: int,
    row_noise: int,
) -> Rows:
    """Rows of the documents in `records`, in random order, with their noise words.

    A function of its own: `Dataset.map` would build its graph anew for each epoch.
    """
    documents = tf.io.parse_example(records, {"ids": tf.io.RaggedFeature(tf.int64)})["ids"]
    parts = skipgrams.to_rows(
        documents.with_row_splits_dtype(tf.int64),
        keep=keep,
        window=window,
        shrink=shrink,
        length=length,
        keep_key=skipgrams.position_key(streams.keep, position),
        reach_key=skipgrams.position_key(streams.reach, position),
    )
    count = tf.shape(parts[0])[0]
    order = skipgrams.shuffle(tf.range(count), skipgrams.position_key(streams.order, position))
    words = skipgrams.draw_noise(
        tf.stack([count, row_noise]),
        noise,
        skipgrams.position_key(streams.noise, position),
    )
    tokens, left, right = (tf.gather(part, order) for part in parts)
    return Rows(tokens, left, right, words)
