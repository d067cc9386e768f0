"""The Keras model: two tables of vectors and one training step on rows of pairs."""

import keras
import tensorflow as tf

from components.trainer import skipgrams, tables
from components.trainer.dataset import NOISE
from components.trainer.skipgrams import Parts, Rows, Scores


class SkipGram(keras.Model):
    """Skip-gram with negative sampling.

    Input of `fit` and `evaluate`: a dataset of `components.trainer.skipgrams.Rows`.
    Input of a call: int ids of any shape. Output: float32 [..., dimensions], their vectors.

    Attributes:
        loss_every: Training steps between two that measure the loss; to be set before `fit`.
    """

    def __init__(
        self, *, types: int, dimensions: int, window: int, negatives: int, seed: int
    ) -> None:
        """Make the tables.

        Args:
            types: Rows of the tables: the size of the vocabulary.
            dimensions: Length of a vector.
            window: The longest reach that the data was made with.
            negatives: Noise words that each pair is worth.
            seed: Of the initial vectors, uniform in ±0.5 / dimensions as in word2vec.c; contexts
                start at zero.
        """
        super().__init__(name="skip_gram")
        self.window = window
        self.negatives = negatives
        self.loss_every = 1
        shape = (types, dimensions)
        self.vectors = self.add_weight(name="vectors", shape=shape, initializer="zeros")
        self.contexts = self.add_weight(name="contexts", shape=shape, initializer="zeros")
        tables.fill_uniform(self.vectors, 0.5 / dimensions, seed)
        self.pair_loss = keras.metrics.Mean(name="loss")
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Only the loss per pair, in nats; Keras's own tracker would count steps alike."""
        return [self.pair_loss]

    @property
    def tables(self) -> dict[str, keras.Variable]:
        """By name: "vectors" of the targets, and "contexts"."""
        return {"vectors": self.vectors, "contexts": self.contexts}

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Look up vectors by id."""
        return tf.gather(self.vectors.value, ids)

    def _look_up(self, rows: Rows) -> tuple[Parts, Parts, Scores]:
        """Ids and vectors of all that `rows` name, and their scores."""
        length = rows.left.shape[1]
        ids = Parts(
            rows.tokens[:, self.window : self.window + length],
            rows.tokens,
            tf.reshape(rows.noise, [-1, NOISE]),
        )
        vectors = Parts(
            tf.gather(self.vectors.value, ids.targets),
            tf.gather(self.contexts.value, ids.contexts),
            tf.gather(self.contexts.value, ids.noise),
        )
        mask = skipgrams.pair_mask(rows, window=self.window)
        return ids, vectors, skipgrams.scores(*vectors, mask, negatives=self.negatives)

    def train_step(self, rows: Rows) -> dict[str, tf.Tensor]:
        """One update of both tables from all pairs of `rows`."""
        ids, vectors, scores = self._look_up(rows)
        due = tf.equal(tf.cast(self.optimizer.iterations, tf.int32) % self.loss_every, 0)
        # A quarter of a step's time, and a mean over a sixteenth of the steps says as much.
        self._count(*tf.cond(due, lambda: _loss_and_pairs(scores), lambda: (0.0, 0.0)))

        masses = skipgrams.masses(scores, negatives=self.negatives)
        flat_ids = Parts(*(tf.reshape(part, [-1]) for part in ids))
        flat = Parts(*(tf.reshape(part, [-1]) for part in masses))
        context_rates = self.optimizer.rates(
            tf.concat([flat_ids.contexts, flat_ids.noise], 0),
            tf.concat([flat.contexts, flat.noise], 0),
        )
        count = tf.size(flat.contexts)
        rates = Parts(
            self.optimizer.rates(flat_ids.targets, flat.targets),
            context_rates[:count],
            context_rates[count:],
        )
        shaped = Parts(
            *(tf.reshape(rate, tf.shape(part)) for rate, part in zip(rates, masses, strict=True))
        )
        updates = skipgrams.updates(scores, *vectors, shaped)
        dimensions = self.vectors.shape[1]
        self.optimizer.apply(
            [
                tf.IndexedSlices(tf.reshape(update, [-1, dimensions]), rows)
                for update, rows in zip(updates, flat_ids, strict=True)
            ],
            [self.vectors, self.contexts, self.contexts],
        )
        return {"loss": self.pair_loss.result()}

    def test_step(self, rows: Rows) -> dict[str, tf.Tensor]:
        """The loss of the pairs of `rows`, without an update."""
        _, _, scores = self._look_up(rows)
        self._count(*_loss_and_pairs(scores))
        return {"loss": self.pair_loss.result()}

    def _count(self, loss: tf.Tensor, pairs: tf.Tensor) -> None:
        self.pair_loss.update_state(tf.math.divide_no_nan(loss, pairs), pairs)


def _loss_and_pairs(scores: Scores) -> tuple[tf.Tensor, tf.Tensor]:
    return skipgrams.loss(scores), tf.reduce_sum(scores.mask)
