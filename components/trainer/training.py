"""Rounds on a pair of tables: shards train beside each other, then the tables are merged."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.settings import Chosen
from components.trainer import merge, shard
from components.trainer.dataset import SkipGrams
from components.trainer.merge import Delta, Directions
from components.trainer.optimizer import LONGEST_MOVE
from components.trainer.rounds import BLOCK, Round, blocks_in
from components.trainer.shard import Found, Size, named
from components.trainer.sharing import Sharing
from components.trainer.skipgrams import Rows
from components.trainer.tables import Table, aligned
from components.trainer.workers import Workers, each

LAST_RATE = 1e-4  # Of the first one, as in word2vec.c.
_FEW = 100  # Steps of an epoch of which all are measured; that costs a third of their time.
# Rows that say in which directions those of the other table come to rest soon.
_PROBES = 2048
# Rows that one shard has in a part of a merge: some tens of calls of numpy are to be worth it, and
# the part is to fit a core's caches.
_PART = 4096


class Training:
    """What trains the tables of one model.

    Attributes:
        data: What it is trained on.
        settings: Of the algorithm.
        tables: The vectors and the contexts, as they are now.
        sharing: What the vectors are made of; None: each is its own.
        probes: int32 [probes], the words that `directions` looks at.
    """

    def __init__(
        self,
        data: SkipGrams,
        settings: Chosen,
        vectors: Table,
        contexts: Table,
        sharing: Sharing | None = None,
        sized_by: SkipGrams | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            data: With the rounds.
            settings: All of the algorithm's.
            vectors: Are trained in place; with `sharing`, its vectors when the training began.
            contexts: Are trained in place.
            sharing: Is trained in place, too.
            sized_by: What XLA's program is made for, in place of `data`.
        """
        self.data, self.settings, self.sharing = data, settings, sharing
        self.tables = [sharing.vectors if sharing else vectors, contexts]
        self._state = {"vectors": vectors, "contexts": contexts}
        sized_by = sized_by or data
        tokens = min(blocks_in(settings.round_tokens), max(1, sized_by.blocks)) * BLOCK
        expected = _expected(sized_by, tokens)
        steps = tokens * sized_by.steps / max(1, sized_by.tokens)
        rows = [math.ceil(1.05 * table.sum()) + 8 for table in expected]
        self._size = Size(math.ceil(1.1 * steps) + 2, *rows)
        self._cuts = [_cut(table, _PART) for table in expected]
        draw = np.random.Generator(np.random.Philox(key=[settings.seed, 2**62]))
        cells = draw.integers(0, data.types, _PROBES)
        threshold, alias = map(np.asarray, data.noise)
        probes = np.where(draw.random(_PROBES) < threshold[cells], cells, alias[cells])
        self.probes = probes.astype(np.int32)

    @property
    def state(self) -> dict[str, Table]:
        """All that a training that is interrupted needs, by name."""
        sharing = self.sharing
        return self._state | ({"own": sharing.own, "shared": sharing.shared} if sharing else {})

    @property
    def fixed(self) -> Table | None:
        """What of `state` no training changes: with n-grams, where the vectors started."""
        return self.sharing.start if self.sharing else None

    def prepare(self, shards: Sequence[Rows], workers: Workers) -> None:
        """Make the vectors of all targets of some shards as they are now."""
        window = self.settings.window
        targets = [rows.tokens[:, window : window + self.data.length] for rows in shards]
        self.compose(targets, workers)

    def compose(self, arrays: Sequence[npt.NDArray[np.int32]], workers: Workers) -> None:
        """Make the vectors of all words that `arrays` name as they are now."""
        if self.sharing:
            self.sharing.compose(named(self.data.types, arrays), workers)

    def restored(self) -> None:
        """Take note that `state` was filled with other values."""
        if self.sharing:
            self.sharing.forget()

    def rate(self, epoch: int, block: int) -> float:
        """The learning rate at a block of an epoch: it falls in a straight line over all epochs."""
        whole = self.settings.epochs * max(1, self.data.blocks)
        done = min(1.0, (epoch * self.data.blocks + block) / whole)
        return self.settings.learning_rate * (1 - done * (1 - LAST_RATE))

    def learn(self, epoch: int, round_: Round, rows: Rows) -> Found:
        """What one shard finds, on the device in scope; the tables stay as they are.

        Args:
            epoch: From 0.
            round_: Of the epoch.
            rows: The shard's, numpy arrays.
        """
        end = round_.first + round_.blocks * self.settings.shards
        return self._train(rows, (self.rate(epoch, round_.first), self.rate(epoch, end)))

    def measure(self, rows: Rows) -> Found:
        """The loss of the pairs of `rows`."""
        return self._train(rows, None)

    def _train(self, rows: Rows, rates: tuple[float, float] | None) -> Found:
        return shard.train(
            rows,
            [table.rows for table in self.tables],
            rates,
            smallest=self._size,
            window=self.settings.window,
            negatives=self.settings.negatives,
            most_load=LONGEST_MOVE / self.settings.learning_rate,
            whole_loss=self.data.steps < _FEW,
        )

    def merge(self, found: Sequence[Found], workers: Workers) -> None:
        """Move the tables by what the shards found."""
        with self.shared([one.deltas[0] for one in found], workers):
            self._merge(found, workers)

    @contextmanager
    def shared(self, deltas: Sequence[Delta], workers: Workers) -> Iterator[None]:
        """Let the n-grams of words, and all that hold them, follow the moves made in this block.

        Args:
            deltas: Of the vectors: which words are moved, and their paths.
            workers: That do it.
        """
        if not self.sharing:
            yield
            return
        vectors = self.tables[0].rows
        ids = named(self.data.types, [delta.ids for delta in deltas])
        paths = merge.paths(ids, deltas)
        ids, paths = ids[paths != 0], paths[paths != 0]
        self.compose([ids], workers)
        moves = aligned(len(ids), vectors.shape[1])
        parts = [slice(start, start + _PART) for start in range(0, len(ids), _PART)]

        def before(part: slice) -> None:
            np.take(vectors, ids[part], 0, out=moves[part], mode="clip")

        def after(part: slice) -> None:
            np.subtract(vectors[ids[part]], moves[part], out=moves[part])

        each(workers, before, parts)
        partners = self.tables[1].rows[self.probes]
        yield
        each(workers, after, parts)
        # Early rounds turn the contexts. By the contexts after the round alone, the words seem to
        # have far to go in the direction that they all went, and n-grams overshoot.
        partners = np.concatenate([partners, self.tables[1].rows[self.probes]])
        with tf.device("CPU:0"):
            along = merge.directions(partners)
        self.sharing.share(ids, moves, paths, along, workers)

    def _merge(self, found: Sequence[Found], workers: Workers) -> None:
        if len(found) == 1:
            for table, delta in zip(self.tables, found[0].deltas, strict=True):
                table.rows[delta.ids] = delta.rows
            return
        self.compose([self.probes], workers)
        along = list(workers.map(self.directions, range(2)))
        parts = [(which, part) for which in range(2) for part in range(self.parts(which))]

        def add(key: tuple[int, int]) -> None:
            which, part = key
            deltas = [self.part_of(one.deltas[which], which, part) for one in found]
            merge.merge(self.tables[which].rows, deltas, along[which])

        each(workers, add, parts)

    def directions(self, which: int) -> Directions:
        """Those of the vectors, 0, or of the contexts, 1; of these once `probes` are composed."""
        return merge.directions(self.tables[1 - which].rows[self.probes])

    @property
    def named(self) -> int:
        """Rows of both tables that a shard is expected to name in a round, at most."""
        return self._size.vectors + self._size.contexts

    def parts(self, which: int) -> int:
        """How many parts of a table are merged apart from each other."""
        return len(self._cuts[which]) - 1

    def part_of(self, delta: Delta, which: int, part: int) -> Delta:
        """Of a shard's delta that which belongs to one part of the table."""
        low, high = np.searchsorted(delta.ids, self._cuts[which][part : part + 2])
        return Delta(delta.ids[low:high], delta.rows[low:high], delta.paths[low:high])


def _expected(data: SkipGrams, tokens: int) -> list[npt.NDArray[np.float64]]:
    """How likely a shard of so many tokens names each row of the vectors, and of the contexts."""
    shares = data.counts / max(1, data.counts.sum()) * data.keep
    noise = data.counts.astype(np.float64) ** data.settings.noise_exponent
    targets = tokens * shares
    # A row has its halo beside its targets; that names the same words.
    drawn = targets.sum() / data.length * data.row_noise
    return [-np.expm1(-targets), -np.expm1(-targets - drawn * noise / noise.sum())]


def _cut(named: npt.NDArray[np.float64], rows: int) -> npt.NDArray[np.int64]:
    """Where a table is cut so that a shard names about as many rows of each part."""
    cumulative = np.cumsum(named)
    parts = max(1, round(cumulative[-1] / rows))
    inner = np.searchsorted(cumulative, cumulative[-1] * np.arange(1, parts) / parts)
    return np.concatenate([[0], inner, [len(named)]])
