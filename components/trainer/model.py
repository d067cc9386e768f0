"""The Keras model: two tables of vectors, trained in rounds."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import threads
from components.settings import Chosen
from components.trainer.dataset import SkipGrams, Spans
from components.trainer.rounds import Round
from components.trainer.shard import SUMS
from components.trainer.sharing import Sharing
from components.trainer.skipgrams import Rows
from components.trainer.tables import Table
from components.trainer.training import Training
from components.trainer.workers import Workers


class SkipGram(keras.Model):
    """Skip-gram with negative sampling.

    Input of `fit`: `SkipGrams.spans`. Input of a call: int ids of any shape; output: float32
    [..., dimensions], their vectors.

    Attributes:
        training: What moves the tables.
        steps: That are behind it.
        rate: Learning rate of the last round's first step.
    """

    def __init__(
        self,
        data: SkipGrams,
        settings: Chosen,
        sharing: Sharing | None = None,
        sized_by: SkipGrams | None = None,
    ) -> None:
        """Make the tables: contexts of zeros, vectors uniform in ±0.5 / dimensions, as word2vec.c.

        Args:
            data: What it is trained on, or measured by.
            settings: Of the algorithm.
            sharing: What the vectors are made of, to train them with n-grams.
            sized_by: See `Training`.
        """
        super().__init__(name="skip_gram")
        self.vectors = sharing.start if sharing else Table(data.types, settings.dimensions)
        self.contexts = Table(data.types, settings.dimensions)
        self.vectors.fill_uniform(0.5 / settings.dimensions, settings.seed)
        self.training = Training(data, settings, self.vectors, self.contexts, sharing, sized_by)
        self.steps, self.rate = 0, settings.learning_rate
        self.pair_loss = keras.metrics.Mean(name="loss", dtype="float64")
        cpus = threads.devices("CPU")
        self._workers = Workers(threads.devices("GPU") or cpus)
        self._mergers = Workers(cpus)  # The tables are there, whatever the shards are trained on.
        self.built = True
        # What runs long is compiled: see `components.trainer.shard`.
        self.compile(optimizer=None, run_eagerly=True, jit_compile=False)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Only the loss per pair, in nats; Keras's own tracker would count steps alike."""
        return [self.pair_loss]

    @property
    def tables(self) -> dict[str, Table]:
        """By name, all that is to be kept: see `Training.state`."""
        return self.training.state

    def whole(self) -> dict[str, Table]:
        """By name: "vectors" and "contexts" as they are now, of all words."""
        every = np.arange(self.vectors.types, dtype=np.int32)
        self.training.compose([every], self._mergers)
        vectors, contexts = self.training.tables
        return {"vectors": vectors, "contexts": contexts}

    def settle(self, given: npt.NDArray[np.bool_]) -> None:
        """See `Sharing.settle`; of the words that are given, bool [types]."""
        if self.training.sharing and given.any():
            ids = np.flatnonzero(given).astype(np.int32)
            self.training.sharing.settle(ids, self._mergers)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Look up vectors by id."""
        self.training.compose([np.asarray(ids)], self._mergers)
        return tf.constant(self.training.tables[0].rows[np.asarray(ids)])

    def train_step(self, spans: Spans) -> dict[str, tf.Tensor]:
        """One round."""
        epoch, round_ = int(spans.epoch[0]), Round(int(spans.first[0]), int(spans.blocks[0]))
        learn = partial(self.training.learn, epoch, round_)
        shards = _shards(spans)
        self.training.prepare(shards, self._mergers)
        found = list(self._workers.map(learn, shards))
        self.training.merge(found, self._mergers)
        sums = {name: sum(getattr(one, name) for one in found) for name in SUMS}
        self.finish_round(epoch, round_, sums)
        return {"loss": self.pair_loss.result()}

    def finish_round(self, epoch: int, round_: Round, sums: Mapping[str, float]) -> None:
        """Take note of a round that the tables have behind them.

        Args:
            epoch: From 0.
            round_: Of the epoch.
            sums: Of its shards: SUMS.
        """
        self.rate = self.training.rate(epoch, round_.first)
        self.steps += int(sums["steps"])
        self._count(sums["loss"], sums["pairs"])

    def measure(self, data: SkipGrams) -> float | None:
        """The loss per pair of all pairs of `data`, in nats; None without a pair."""
        self.reset_metrics()
        for shards in data.measured(self._mergers):
            self.training.prepare(shards, self._mergers)
            found = list(self._workers.map(self.training.measure, shards))
            self._count(sum(one.loss for one in found), sum(one.pairs for one in found))
        return float(self.pair_loss.result()) or None  # 0: there was no pair; each costs something.

    def _count(self, total: float, pairs: float) -> None:
        if pairs:
            self.pair_loss.update_state(total / pairs, pairs)


def _shards(spans: Spans) -> list[Rows]:
    """What each shard trains on, numpy arrays."""
    fields = [field.numpy() for field in spans.rows]
    return [
        Rows(*(field[shard][:count] for field in fields))
        for shard, count in enumerate(spans.count.numpy())
    ]


@contextmanager
def models_freed() -> Iterator[None]:
    """When a function so decorated returns, free the tables of its models: they can be gigabytes.

    Keras lets a model refer to itself, so they would wait for Python's garbage collector. It looks
    only at objects that were made in the meantime: TensorFlow and Beam have made a million, and to
    look at those would take 0.2 to 0.4 s. Older garbage is collected later. What others have frozen
    stays frozen.
    """
    all_thawed = not gc.get_freeze_count()
    if all_thawed:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if all_thawed:
            gc.unfreeze()
