"""What words learn in a round reaches their n-grams, and from there all words that hold these.

A word's vector is the mean of parts: one of its own, and those of its n-grams (see
`components.subwords`). In fastText every pair moves all parts of its target by the gradient, so the
word moves as far as it would without n-grams, and other words that hold the same n-grams move
along. To compose each word anew at each step costs more than the step.

Here words are trained as without n-grams for a round. Then each n-gram makes one move, of what the
words that hold it found. They are to it what the shards are to a row: they started from the same
place and moved each by itself. Where they moved each in a direction of its own, it moves by the
sum, as it would pair by pair; where all have gone the whole way, by about one of them. So the rule
is that of `components.trainer.merge`. A part that one word alone holds moves as the word does.

The load of a bucket is that of all its words. As a row moves by no more than so many lengths of its
partners in a step (`components.trainer.optimizer`), a bucket does in a round.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.settings import TrainerSettings
from components.subwords import Subwords
from components.trainer import merge
from components.trainer.kinds import Ids, Kinds, Splits, kinds
from components.trainer.merge import Directions, Floats
from components.trainer.optimizer import LONGEST_MOVE
from components.trainer.tables import Table, aligned, in_place
from components.trainer.workers import Workers, each
from components.vocabulary import Vocabulary

_PASSES = 10  # Of `settle`; later ones change little.
_ROW = 16  # n-grams that are as much work as to move a row.
_PART = 1 << 16  # n-grams that a thread adds up at once: tens of MB.


class Sharing:
    """The parts that the vectors of a training are means of.

    Attributes:
        kinds: Of n-grams.
        start: The vectors when the training began.
        own: How far each word's own part has moved since then.
        shared: How far the buckets of each kind have moved together.
        vectors: What they make, of the words that were asked for since anything moved.
    """

    @classmethod
    def of(cls, vocabulary: Path, settings: TrainerSettings) -> "Sharing | None":
        """What a training with these settings needs; None: it is one without n-grams."""
        if not (subwords := Subwords.of(settings)):
            return None
        tokens = Vocabulary.load(vocabulary).tokens
        return cls(kinds(tokens, subwords), Table(len(tokens), settings.dimensions))

    def __init__(self, kinds: Kinds, start: Table) -> None:
        """Nothing has moved.

        Args:
            kinds: Of the vocabulary.
            start: See above.
        """
        self.kinds, self.start = kinds, start
        self.own = Table(start.types, start.dimensions)
        self.shared = Table(len(kinds.sizes), start.dimensions)
        self.vectors = Table(start.types, start.dimensions)
        self._current = np.zeros(start.types, np.bool_)
        self._parts = _cut(kinds.words.splits)

    def compose(self, ids: Ids, workers: Workers) -> None:
        """See to it that some rows of `vectors` are as they are now.

        Args:
            ids: int32 [words], ascending.
            workers: That do it.
        """
        ids = ids[~self._current[ids]]
        of_kinds = self.kinds.kinds
        with tf.device("CPU:0"):
            shared = self.shared.tensor

        def make(part: tuple[int, int]) -> None:
            some = ids[part[0] : part[1]]
            held, lists = of_kinds.of(some)
            sums = _sums(shared, held, lists, len(some))
            sums += self.kinds.alone[some, np.newaxis] * self.own.rows[some]
            sums /= self.kinds.parts[some, np.newaxis]
            sums += self.start.rows[some]
            self.vectors.rows[some] = sums

        sizes = of_kinds.splits[ids + 1] - of_kinds.splits[ids]
        each(workers, make, _cut(np.concatenate([[0], np.cumsum(sizes)])))
        self._current[ids] = True

    def share(
        self, ids: Ids, moves: Floats, paths: Floats, along: Directions, workers: Workers
    ) -> None:
        """Move all parts of the words that a round moved.

        Args:
            ids: int32 [words].
            moves: float32 [words, dimensions], by how much.
            paths: float32 [words], see `merge.Delta`; of all shards.
            along: The directions of vectors, before the round and after it.
            workers: That do it.
        """
        kinds, longest = self.kinds, LONGEST_MOVE * along.length
        place = np.full(self.start.types, -1, np.int32)
        place[ids] = np.arange(len(ids), dtype=np.int32)
        with tf.device("CPU:0"):
            found = in_place(moves)

        def move_own(part: tuple[int, int]) -> None:
            some = slice(*part)
            self.own.rows[ids[some]] += moves[some]

        def move(part: tuple[int, int]) -> None:
            low, high = part
            words, lists = kinds.words.part(low, high)
            places = place[words]
            moving = np.flatnonzero(places >= 0)
            places, lists = places[moving], lists[moving]
            held = np.bincount(lists, minlength=high - low)
            # All buckets of a kind at once, as their words have use for them.
            alone = held[lists] == 1
            here = low + lists[alone]
            # A path that is not a number must not get lost.
            sizes = kinds.sizes[here] + 0 * paths[places[alone]]
            self.shared.rows[here] += moves[places[alone]] * sizes[:, np.newaxis]
            places, lists = places[~alone], lists[~alone]
            here = np.flatnonzero(held > 1)
            number = np.cumsum(held > 1) - 1
            path = np.bincount(lists, paths[places], high - low)[here].astype(np.float32)
            sums = _sums(found, places, number[lists], merge.even(len(here)))
            counts = held[here].astype(np.float32)
            merge.damp(sums, path[:, np.newaxis], counts[:, np.newaxis], along)
            here += low
            sums = sums[: len(here)]
            far = np.sqrt(np.einsum("kd,kd->k", sums, sums))
            too_far = np.flatnonzero(far > longest)
            sums[too_far] *= (longest / far[too_far])[:, np.newaxis]
            self.shared.rows[here] += sums * kinds.sizes[here, np.newaxis]

        each(workers, move_own, _cut(np.arange(len(ids) + 1) * _ROW))
        each(workers, move, self._parts)
        self.forget()

    def settle(self, ids: Ids, workers: Workers) -> None:
        """Let n-grams have their part in where some words start, and leave the words there.

        Whoever starts words from vectors without n-grams would else know nothing of other words.
        Each pass moves every n-gram by the mean of what its words lack, and so nearer to the least
        squares; what is left in the end stays the words' own.

        Args:
            ids: int32 [words], ascending. Nothing has been trained yet.
            workers: That do it.
        """
        goal = self.start.rows[ids]
        self.start.rows[ids] = 0
        far = np.full(len(ids), 1e6, np.float32)  # Nothing is to be added up, all to be averaged.
        one = np.ones(1, np.float32)
        along = Directions(np.eye(self.start.dimensions, 1, dtype=np.float32), one, one[0])
        for _ in range(_PASSES):
            self.compose(ids, workers)
            moves = aligned(*goal.shape)
            np.subtract(goal, self.vectors.rows[ids], out=moves)
            self.share(ids, moves, far, along, workers)
        self.compose(ids, workers)
        self.start.rows[ids] = goal - self.vectors.rows[ids]
        self.forget()

    def forget(self) -> None:
        """Take note that parts have moved."""
        self._current[:] = False


def _sums(rows: tf.Tensor, ids: Ids, segments: npt.NDArray[np.int64], count: int) -> Floats:
    """Sums of some rows by ascending segment, float32 [count, dimensions], a new array."""
    sums: Floats = tf.sparse.segment_sum(rows, ids, segments, num_segments=count).numpy()
    return sums


def _cut(splits: Splits) -> list[tuple[int, int]]:
    """From where to where lists are worked on at once."""
    cuts = np.searchsorted(splits, np.arange(_PART, splits[-1], _PART))
    edges = np.unique(np.concatenate([[0], cuts, [len(splits) - 1]])).tolist()
    return list(zip(edges, edges[1:], strict=False))
