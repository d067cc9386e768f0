"""The Keras model: two tables of vectors and one training step on rows of pairs."""

import functools
from typing import NamedTuple

import keras
import tensorflow as tf

from components.trainer import skipgrams
from components.trainer.dataset import BRANCHES, NOISE
from components.trainer.optimizer import Moves, bounded_rates
from components.trainer.skipgrams import Parts, Rows
from components.trainer.tables import Table


class Loss(NamedTuple):
    """How well some pairs are told from noise.

    Attributes:
        total: float32 scalar, sum over the pairs, nats.
        pairs: float32 scalar, how many.
    """

    total: tf.Tensor
    pairs: tf.Tensor


class Learnt(NamedTuple):
    """How rows of pairs move the tables.

    Attributes:
        vectors, contexts: Their rows, in parts.
    """

    vectors: list[Moves]
    contexts: list[Moves]


@tf.function(autograph=False, jit_compile=True)
def _learn(
    vectors: tf.Tensor,
    contexts: tf.Tensor,
    rows: Rows,
    step: Rows,
    *,
    window: int,
    negatives: int,
    rate: tf.Tensor,
    most_load: tf.Tensor,
) -> Learnt:
    """How the pairs of `rows`, a part of those of `step`, move both tables."""
    ids = _ids(rows)
    found = _look_up(vectors, contexts, ids)
    scores = skipgrams.scores(found)
    errors = skipgrams.errors(scores, rows, window=window, negatives=negatives)
    loads = skipgrams.loads(errors)
    bound = functools.partial(bounded_rates, rate=rate, most_load=most_load)
    step_ids = _ids(step)
    rates = Parts(
        *bound(ids[:1], loads[:1], step_ids=step_ids[:1]),
        # A word's occurrences as token and as noise move the same row.
        *bound(ids[1:], loads[1:], step_ids=step_ids[1:]),
    )
    moves = [
        Moves(tf.reshape(part, [-1]), tf.reshape(values, [-1, values.shape[-1]]))
        for part, values in zip(ids, skipgrams.moves(errors, found, rates), strict=True)
    ]
    return Learnt(moves[:1], moves[1:])


@tf.function(autograph=False, jit_compile=True)
def _measure(
    vectors: tf.Tensor, contexts: tf.Tensor, rows: Rows, *, window: int, negatives: int
) -> Loss:
    """The loss of the pairs of `rows`."""
    scores = skipgrams.scores(_look_up(vectors, contexts, _ids(rows)))
    return Loss(
        skipgrams.loss(scores, rows, window=window, negatives=negatives),
        tf.cast(tf.reduce_sum(rows.left + rows.right), tf.float32),
    )


def _ids(rows: Rows) -> Parts:
    """int32 ids of all that `rows` name."""
    length = rows.left.shape[1]
    window = (rows.tokens.shape[1] - length) // 2
    return Parts(
        rows.tokens[:, window : window + length], rows.tokens, tf.reshape(rows.noise, [-1, NOISE])
    )


def _look_up(vectors: tf.Tensor, contexts: tf.Tensor, ids: Parts) -> Parts:
    """Their vectors."""
    tables = Parts(vectors, contexts, contexts)
    return Parts(*(tf.gather(table, of) for table, of in zip(tables, ids, strict=True)))


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
        return tf.gather(self.vectors.read(), ids)

    def train_step(self, rows: Rows) -> dict[str, tf.Tensor]:
        """One step; or several, one behind the other, where `rows` have one more axis in front."""
        if rows.tokens.shape.rank == 2:
            self._count(*self._step(rows))
            return {"loss": self.pair_loss.result()}

        def step(index: tf.Tensor, total: tf.Tensor, pairs: tf.Tensor) -> tuple[tf.Tensor, ...]:
            loss = self._step(Rows(*(field[index] for field in rows)))
            return index + 1, total + loss.total, pairs + loss.pairs

        steps = tf.shape(rows.tokens)[0]
        _, total, pairs = tf.while_loop(
            lambda index, *_: index < steps, step, (0, 0.0, 0.0), parallel_iterations=1
        )
        self._count(total, pairs)
        return {"loss": self.pair_loss.result()}

    def _step(self, rows: Rows) -> Loss:
        """One update of both tables from all pairs of `rows`."""
        # All parts see the tables as they were before the step.
        tables = self.vectors.read(), self.contexts.read()
        sizes = {"window": self.window, "negatives": self.negatives}
        rate = tf.cast(self.optimizer.learning_rate, tf.float32)
        most_load = tf.constant(self.optimizer.most_load, tf.float32)
        here = tf.distribute.get_replica_context()
        step = rows
        if here.num_replicas_in_sync > 1:
            step = Rows(*(here.all_gather(field, axis=0) for field in rows))
        learnt = [
            _learn(*tables, Rows(*part), step, rate=rate, most_load=most_load, **sizes)
            for part in zip(*(tf.split(field, BRANCHES) for field in rows), strict=True)
        ]
        # A third of a step's work; a mean over a sixteenth of the steps says as much.
        due = tf.equal(tf.cast(self.optimizer.iterations, tf.int32) % self.loss_every, 0)
        loss: Loss = tf.cond(due, lambda: _measure(*tables, rows, **sizes), lambda: Loss(0.0, 0.0))
        # A table that somebody still has to read would be copied before it is written to.
        with tf.control_dependencies(loss):
            self.optimizer.apply(
                [
                    [moves for part in learnt for moves in part.vectors],
                    [moves for part in learnt for moves in part.contexts],
                ],
                [self.vectors.variable, self.contexts.variable],
            )
        return loss

    def test_step(self, rows: Rows) -> dict[str, tf.Tensor]:
        """The loss of the pairs of `rows`, without an update."""
        tables = self.vectors.read(), self.contexts.read()
        self._count(*_measure(*tables, rows, window=self.window, negatives=self.negatives))
        return {"loss": self.pair_loss.result()}

    def _count(self, total: tf.Tensor, pairs: tf.Tensor) -> None:
        self.pair_loss.update_state(tf.math.divide_no_nan(total, pairs), pairs)
