"""The Keras model: two tables of vectors and one training step on rows of pairs."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import keras
import tensorflow as tf

from components.settings import TrainerSettings
from components.trainer import skipgrams
from components.trainer.dataset import BRANCHES, GROUP
from components.trainer.optimizer import RowGradients, joined
from components.trainer.skipgrams import Parts, Rows
from components.trainer.tables import Table


class Loss(NamedTuple):
    """How well some pairs are told from noise.

    Attributes:
        total: float64 scalar, sum over the pairs, nats.
        pairs: float64 scalar, how many.
    """

    total: tf.Tensor
    pairs: tf.Tensor


class Gradients(NamedTuple):
    """What rows of pairs say about the tables.

    Attributes:
        vectors, contexts: For their rows.
    """

    vectors: RowGradients
    contexts: RowGradients


@tf.function(autograph=False, jit_compile=True)
def _learn(
    vectors: tf.Tensor, contexts: tf.Tensor, rows: Rows, *, window: int, negatives: int
) -> Gradients:
    """What the pairs of `rows` say about both tables."""
    ids, found = _look_up(vectors, contexts, rows)
    scores = skipgrams.scores(found)
    errors = skipgrams.errors(scores, rows, window=window, negatives=negatives)
    parts = ids, skipgrams.gradients(errors, found), skipgrams.loads(errors)
    targets, tokens, noise = (RowGradients(*kind) for kind in zip(*parts, strict=True))
    # A word's occurrences as token and as noise move the same row.
    return Gradients(joined([targets]), joined([tokens, noise]))


@tf.function(autograph=False, jit_compile=True)
def _measure(
    vectors: tf.Tensor, contexts: tf.Tensor, rows: Rows, *, window: int, negatives: int
) -> Loss:
    """The loss of the pairs of `rows`."""
    scores = skipgrams.scores(_look_up(vectors, contexts, rows)[1])
    return Loss(
        skipgrams.loss(scores, rows, window=window, negatives=negatives),
        tf.cast(tf.reduce_sum(rows.left + rows.right), tf.float64),
    )


def _nothing() -> Loss:
    return Loss(tf.zeros([], tf.float64), tf.zeros([], tf.float64))


def _look_up(vectors: tf.Tensor, contexts: tf.Tensor, rows: Rows) -> tuple[Parts, Parts]:
    """Ids and vectors of all that `rows` name."""
    length = rows.left.shape[1]
    window = (rows.tokens.shape[1] - length) // 2
    noise = tf.reshape(rows.noise, [-1, rows.noise.shape[1] * GROUP // length])
    ids = Parts(rows.tokens[:, window : window + length], rows.tokens, noise)
    tables = Parts(vectors, contexts, contexts)
    return ids, Parts(*(tf.gather(table, of) for table, of in zip(tables, ids, strict=True)))


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
        self.pair_loss = keras.metrics.Mean(name="loss", dtype="float64")
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
            lambda index, *_: index < steps, step, (0, *_nothing()), parallel_iterations=1
        )
        self._count(total, pairs)
        return {"loss": self.pair_loss.result()}

    def _step(self, rows: Rows) -> Loss:
        """One update of both tables from all pairs of `rows`."""
        # All parts see the tables as they were before the step.
        tables = self.vectors.read(), self.contexts.read()
        sizes = {"window": self.window, "negatives": self.negatives}
        parts = zip(*(tf.split(field, BRANCHES) for field in rows), strict=True)
        gradients = [_learn(*tables, Rows(*part), **sizes) for part in parts]
        # A third of a step's work; a mean over a sixteenth of the steps says as much.
        due = tf.equal(tf.cast(self.optimizer.iterations, tf.int32) % self.loss_every, 0)
        loss: Loss = tf.cond(due, lambda: _measure(*tables, rows, **sizes), _nothing)
        # A table that somebody still has to read would be copied before it is written to.
        with tf.control_dependencies(loss):
            self.optimizer.apply(
                [[part.vectors for part in gradients], [part.contexts for part in gradients]],
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


def make_model(types: int, settings: TrainerSettings) -> SkipGram:
    """The model, with tables of the vocabulary's size, `types`."""
    return SkipGram(
        types=types,
        dimensions=settings.dimensions,
        window=settings.window,
        negatives=settings.negatives,
        seed=settings.seed,
    )


@contextmanager
def models_freed() -> Iterator[None]:
    """When a function so decorated returns, free the tables of its models: they can be gigabytes.

    Keras lets a model refer to itself, so they would wait for Python's garbage collector.
    """
    try:
        yield
    finally:
        gc.collect()
