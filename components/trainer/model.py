"""The Keras model: two tables of vectors and one training step on rows of pairs."""

import keras
import tensorflow as tf

from components.trainer import skipgrams
from components.trainer.dataset import Step


class SkipGram(keras.Model):
    """Skip-gram with negative sampling.

    Input of `fit` and `evaluate`: a dataset of `components.trainer.dataset.Step`.
    Input of a call: int ids of any shape. Output: float32 [..., dimensions], their vectors.
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
        bound = 0.5 / dimensions
        self.vectors = self.add_weight(
            name="vectors",
            shape=(types, dimensions),
            initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed),
        )
        self.contexts = self.add_weight(
            name="contexts", shape=(types, dimensions), initializer="zeros"
        )
        self.pair_loss = keras.metrics.Mean(name="loss")
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Only the loss per pair, in nats; Keras's own tracker would count steps alike."""
        return [self.pair_loss]

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Look up vectors by id."""
        return tf.gather(self.vectors.value, ids)

    def _gradients(self, step: Step) -> tuple[skipgrams.Gradients, tf.Tensor]:
        rows, length = step.rows, step.rows.left.shape[1]
        targets = rows.tokens[:, self.window : self.window + length]
        gradients = skipgrams.loss_and_gradients(
            tf.gather(self.vectors.value, targets),
            tf.gather(self.contexts.value, rows.tokens),
            tf.gather(self.contexts.value, step.noise),
            skipgrams.pair_mask(rows, window=self.window),
            negatives=self.negatives,
        )
        self.pair_loss.update_state(
            tf.math.divide_no_nan(gradients.loss, gradients.pairs), gradients.pairs
        )
        return gradients, targets

    def train_step(self, step: Step) -> dict[str, tf.Tensor]:
        """One update of both tables from all pairs of `step`."""
        gradients, targets = self._gradients(step)
        dimensions = self.vectors.shape[1]

        def slices(*parts: tuple[tf.Tensor, tf.Tensor]) -> tf.IndexedSlices:
            values = tf.concat([tf.reshape(value, [-1, dimensions]) for value, _ in parts], 0)
            return tf.IndexedSlices(values, tf.concat([tf.reshape(i, [-1]) for _, i in parts], 0))

        self.optimizer.apply(
            [
                slices((gradients.targets, targets)),
                slices((gradients.contexts, step.rows.tokens), (gradients.noise, step.noise)),
            ],
            [self.vectors, self.contexts],
        )
        return {"loss": self.pair_loss.result()}

    def test_step(self, step: Step) -> dict[str, tf.Tensor]:
        """The loss of the pairs of `step`, without an update."""
        self._gradients(step)
        return {"loss": self.pair_loss.result()}
