"""The Keras model: two tables of vectors and one training step on rows of pairs."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from components.trainer import skipgrams
from components.trainer.dataset import NOISE
from components.trainer.skipgrams import Parts, Rows, Scores
from components.trainer.tables import Table

# Parts of a step that run beside each other (see components.threads): 1.13 ms a step on two CPUs,
# where one part takes 1.24 ms, and 1.50 ms with each op on both CPUs.
BRANCHES = 2


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
        self.vectors = Table(self, "vectors", types=types, dimensions=dimensions)
        self.contexts = Table(self, "contexts", types=types, dimensions=dimensions)
        self.vectors.fill_uniform(0.5 / dimensions, seed)
        self.pair_loss = keras.metrics.Mean(name="loss")
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Only the loss per pair, in nats; Keras's own tracker would count steps alike."""
        return [self.pair_loss]

    @property
    def tables(self) -> dict[str, Table]:
        """By name: "vectors" of the targets, and "contexts"."""
        return {"vectors": self.vectors, "contexts": self.contexts}

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Look up vectors by id."""
        return self.vectors.look_up(ids)[..., : self.vectors.dimensions]

    def _look_up(self, rows: Rows) -> tuple[Parts, Parts, Scores]:
        """Ids and vectors of all that `rows` name, and their scores."""
        length = rows.left.shape[1]
        ids = Parts(
            rows.tokens[:, self.window : self.window + length],
            rows.tokens,
            tf.reshape(rows.noise, [-1, NOISE]),
        )
        vectors = Parts(
            self.vectors.look_up(ids.targets),
            self.contexts.look_up(ids.contexts),
            self.contexts.look_up(ids.noise),
        )
        mask = skipgrams.pair_mask(rows, window=self.window)
        return ids, vectors, skipgrams.scores(vectors, mask, negatives=self.negatives)

    def train_step(self, rows: Rows) -> dict[str, tf.Tensor]:
        """One update of both tables from all pairs of `rows`."""
        fields = [tf.split(field, BRANCHES) for field in rows]
        # All look-ups come before the first update.
        branches = [self._look_up(Rows(*branch)) for branch in zip(*fields, strict=True)]
        ids, vectors, scores = zip(*branches, strict=True)
        due = tf.equal(tf.cast(self.optimizer.iterations, tf.int32) % self.loss_every, 0)
        # A third of a step's time; a mean over a sixteenth of the steps says as much.
        self._count(*tf.cond(due, lambda: _loss_and_pairs(scores), lambda: (0.0, 0.0)))
        errors = [skipgrams.errors(branch) for branch in scores]
        rates = self._rates(ids, [skipgrams.loads(branch) for branch in errors])
        updates = []
        for branch in range(BRANCHES):
            update = skipgrams.updates(errors[branch], vectors[branch], rates[branch])
            updates += [
                self.vectors.slices(update.targets, ids[branch].targets),
                self.contexts.slices(update.contexts, ids[branch].contexts),
                self.contexts.slices(update.noise, ids[branch].noise),
            ]
        tables = [self.vectors.variable, self.contexts.variable, self.contexts.variable]
        self.optimizer.apply(updates, tables * BRANCHES)
        return {"loss": self.pair_loss.result()}

    def _rates(self, ids: Sequence[Parts], loads: Sequence[Parts]) -> list[Parts]:
        """The rates of all rows of a step, in the shapes of `ids`."""
        targets = self._rates_in_a_table([i.targets for i in ids], [load.targets for load in loads])
        # A word's occurrences as context and as noise move the same row.
        others = self._rates_in_a_table(
            [i.contexts for i in ids] + [i.noise for i in ids],
            [load.contexts for load in loads] + [load.noise for load in loads],
        )
        contexts, noise = others[: len(ids)], others[len(ids) :]
        return [Parts(*parts) for parts in zip(targets, contexts, noise, strict=True)]

    def _rates_in_a_table(
        self, ids: Sequence[tf.Tensor], loads: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        def flat(parts: Sequence[tf.Tensor]) -> tf.Tensor:
            return tf.concat([tf.reshape(part, [-1]) for part in parts], 0)

        rates = tf.split(
            self.optimizer.rates(flat(ids), flat(loads)),
            tf.stack([tf.size(part) for part in ids]),
            num=len(ids),
        )
        return [tf.reshape(rate, tf.shape(part)) for rate, part in zip(rates, ids, strict=True)]

    def test_step(self, rows: Rows) -> dict[str, tf.Tensor]:
        """The loss of the pairs of `rows`, without an update."""
        self._count(*_loss_and_pairs([self._look_up(rows)[2]]))
        return {"loss": self.pair_loss.result()}

    def _count(self, loss: tf.Tensor, pairs: tf.Tensor) -> None:
        self.pair_loss.update_state(tf.math.divide_no_nan(loss, pairs), pairs)


def _loss_and_pairs(scores: Sequence[Scores]) -> tuple[tf.Tensor, tf.Tensor]:
    loss = tf.add_n([skipgrams.loss(part) for part in scores])
    return loss, tf.add_n([tf.reduce_sum(part.mask) for part in scores])
