"""The tf.data input pipeline: TFRecords of token ids -> skip-gram pairs, on the fly.

Two views of the same pairs. `SkipGrams.steps_of` has the layout that the trainer consumes: rows
with their windows and noise words. `SkipGrams.pairs` spells the pairs out, for any Keras model.

Order: TFRecord files are shuffled and interleaved; documents are shuffled within windows of
`shuffle_tokens` corpus tokens; rows are shuffled within a batch of documents (about 64 k tokens).
All of it is a function of (seed, epoch): no global seed, no thread's timing has a part in it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components.artifacts import Examples
from components.settings import TrainerSettings
from components.trainer import skipgrams
from components.trainer.skipgrams import Rows
from components.vocabulary import Vocabulary

LENGTH = 32  # Targets in a row: 32 x 42 products cost least on AVX-512 at window 5 (16, 64: more).
NOISE = 32  # Noise words that the pairs of a row share.
ROWS = 32  # Rows in a step: 64 train a quarter faster and lose .01 on SimLex (enwiki-dev).
ROW_LIMIT = 128.0  # Pairs that move a row in a step: stable from 3 types to 88 k, to lr .075.
BATCH_TOKENS = 65_536  # Corpus tokens in a batch of documents: amortises 30 ops, fits the cache.

# The held-out loss is comparable between runs: neither its pairs nor its noise follow the seed.
HELD_OUT_SEED = 0


class Step(NamedTuple):
    """What one training step consumes.

    Attributes:
        rows: `ROWS` rows of skip-gram pairs (fewer in the last step of an epoch).
        noise: int32 [rows, NOISE] noise words.
    """

    rows: Rows
    noise: tf.Tensor


class Pairs(NamedTuple):
    """Explicit skip-gram pairs: `target` is the input, `context` the label; int32 [batch]."""

    target: tf.Tensor
    context: tf.Tensor


class SkipGrams:
    """The pairs of one split of `examples`, epoch by epoch.

    Attributes:
        documents, tokens: How many the split has.
        steps: That an epoch is expected to take; subsampling varies it by a few.
        row_scales: For the optimizer, see `skipgrams.row_scales`.
    """

    def __init__(
        self,
        examples: Examples,
        settings: TrainerSettings,
        *,
        split: str = "train",
        seed: int | None = None,
    ) -> None:
        """Read sizes and counts, and no record yet.

        Args:
            examples: What the Transform stage wrote.
            settings: Window, negatives, subsampling, seed and shuffling.
            split: "train" or "eval".
            seed: In place of the settings'.
        """
        self.settings = settings
        self.seed = settings.seed if seed is None else seed
        self.files: Sequence[str] = examples.records(split)
        statistics = examples.statistics["splits"][split]
        self.documents: int = statistics["documents"]
        self.tokens: int = statistics["kept_tokens"]
        counts = Vocabulary.load(examples.path / "vocabulary.tsv").counts
        keep = skipgrams.keep_probability(counts, settings.sample)
        cdf = skipgrams.noise_cdf(counts, settings.noise_exponent)
        self._keep, self._cdf = tf.constant(keep), tf.constant(cdf)
        kept = counts / counts.sum() * keep
        self.steps = max(1, round(self.tokens * float(kept.sum()) / (ROWS * LENGTH)))
        self.row_scales = skipgrams.row_scales(
            kept / kept.sum(),
            np.diff(cdf, prepend=0),
            pairs=ROWS * LENGTH * (settings.window + 1),  # The mean reach is (window + 1) / 2.
            negatives=settings.negatives,
            limit=ROW_LIMIT,
        )

    def rows(self, epoch: tf.Tensor | int) -> tf.data.Dataset:
        """Rows of one epoch, `Rows` in batches of `ROWS`."""
        settings, window = self.settings, self.settings.window
        epoch = tf.cast(epoch, tf.int64)
        keep_key, reach_key, order_key, shuffle_key = (
            skipgrams.stream(self.seed, purpose, epoch) for purpose in skipgrams.PER_BATCH
        )
        mean_length = max(1, self.tokens // max(1, self.documents))

        def shuffle(position: tf.Tensor, values: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
            seed = skipgrams.position_key(key, position)
            return tf.random.experimental.stateless_shuffle(values, seed, alg="philox")

        def cut(position: tf.Tensor, records: tf.Tensor) -> Rows:
            documents = tf.io.parse_example(records, {"ids": tf.io.RaggedFeature(tf.int64)})["ids"]
            rows = skipgrams.to_rows(
                documents.with_row_splits_dtype(tf.int64),
                keep=self._keep,
                window=window,
                length=LENGTH,
                keep_key=skipgrams.position_key(keep_key, position),
                reach_key=skipgrams.position_key(reach_key, position),
            )
            order = shuffle(position, tf.range(tf.shape(rows.left)[0]), order_key)
            shuffled = Rows(*(tf.gather(part, order) for part in rows))
            shuffled.tokens.set_shape([None, LENGTH + 2 * window])
            return shuffled

        files = tf.random.experimental.stateless_shuffle(
            tf.constant(self.files), order_key, alg="philox"
        )
        dataset = tf.data.Dataset.from_tensor_slices(files)
        dataset = dataset.interleave(
            lambda file: tf.data.TFRecordDataset(file, "GZIP", buffer_size=1 << 20),
            cycle_length=4,
            block_length=16,
            num_parallel_calls=2,
            deterministic=True,
        )
        # Not Dataset.shuffle: its order also depends on TensorFlow's global seed.
        dataset = dataset.batch(max(settings.shuffle_tokens // mean_length, 1))
        dataset = dataset.enumerate()
        dataset = dataset.map(lambda position, records: shuffle(position, records, shuffle_key))
        dataset = dataset.rebatch(min(max(BATCH_TOKENS // mean_length, 1), 4096))
        dataset = dataset.enumerate()
        dataset = dataset.map(cut, num_parallel_calls=1)  # More would only compete with training.
        return dataset.rebatch(ROWS)

    def steps_of(self, epoch: tf.Tensor | int) -> tf.data.Dataset:
        """Steps of one epoch, in the layout that the trainer consumes: elements are `Step`s."""
        noise_key = skipgrams.stream(self.seed, skipgrams.NOISE, tf.cast(epoch, tf.int64))

        def add_noise(position: tf.Tensor, rows: Rows) -> Step:
            key = skipgrams.position_key(noise_key, position)
            noise = skipgrams.draw_noise([ROWS, NOISE], self._cdf, key)
            return Step(rows, noise[: tf.shape(rows.left)[0]])

        dataset = self.rows(epoch)
        dataset = dataset.enumerate()
        return dataset.map(add_noise)

    def pairs(self, epoch: tf.Tensor | int, batch_size: int) -> tf.data.Dataset:
        """The very same pairs, spelled out: elements are `Pairs`."""
        window = self.settings.window
        dataset = self.rows(epoch)
        dataset = dataset.map(lambda rows: Pairs(*skipgrams.explicit_pairs(rows, window=window)))
        return dataset.rebatch(batch_size)
