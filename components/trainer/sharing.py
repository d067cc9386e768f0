"""What words learn in a round reaches their n-grams, and from there all words that hold these.

A word's vector is the mean of parts: one of its own, and those of its n-grams (see
`components.subwords`). In fastText every pair moves all parts of its target by the gradient, so the
word moves as far as it would without n-grams, and other words that hold the same n-grams move
along. To compose each word anew at each step costs more than the step.

Here words are trained as without n-grams for a round. Then each n-gram makes one move, of what the
words that hold it found. They are to it what the shards are to a row: they started from the same
place and moved each by itself. Where they moved each in a direction of its own, it moves by the
sum, as it would pair by pair; where all have gone the whole way, by about one of them. So the rule
is that of `components.trainer.merge`, with a harder bend. A part that one word alone holds moves as
the word does.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.settings import TrainerSettings
from components.subwords import Subwords
from components.trainer import merge
from components.trainer.kinds import Ids, Kinds, Lists, kinds
from components.trainer.merge import Directions, Floats
from components.trainer.tables import Table
from components.trainer.workers import Workers
from components.vocabulary import Vocabulary

# Times the bend of a row's own pairs. An n-gram's words move while the context vectors move, too:
# with 1 time, rounds of 500,000 tokens diverge; 4 reaches the best scores, 16 shares less.
_HARDER = 4.0
_PART = 1 << 16  # n-grams that a thread adds up at once: tens of MB.


class Sharing:
    """The parts that the vectors of a training are means of.

    Attributes:
        kinds: Of n-grams.
        moved: float32 [words + kinds, dimensions], how far each word's own part has moved since the
            training began, and each kind.
    """

    @classmethod
    def of(cls, vocabulary: Path, settings: TrainerSettings) -> "Sharing | None":
        """What a training with these settings needs; None: it is one without n-grams."""
        if not (subwords := Subwords.of(settings)):
            return None
        tokens = Vocabulary.load(vocabulary).tokens
        return cls(kinds(tokens, subwords), settings.dimensions)

    def __init__(self, kinds: Kinds, dimensions: int) -> None:
        """Nothing has moved.

        Args:
            kinds: Of the vocabulary.
            dimensions: Of a vector.
        """
        self.kinds = kinds
        self.types = len(kinds.parts)
        self.moved = Table(self.types + len(kinds.sizes), dimensions)
        self._kind_parts, self._word_parts = _cut(kinds.words), _cut(kinds.kinds)

    def share(
        self,
        vectors: Floats,
        ids: Ids,
        moves: Floats,
        paths: Floats,
        along: Directions,
        workers: Workers,
    ) -> None:
        """Move all parts, and the vectors with them.

        Args:
            vectors: float32 [types, dimensions], where the round led; changed in place.
            ids: int32 [words] that the round moved.
            moves: float32 [words, dimensions], by how much.
            paths: float32 [words], see `merge.Delta`; of all shards.
            along: The directions of vectors after the round.
            workers: That do it.
        """
        kinds, types = self.kinds, self.types
        along = along._replace(bends=_HARDER * along.bends, rest=np.float32(_HARDER) * along.rest)
        self.moved.rows[ids] += moves
        place = np.full(types, -1, np.int32)
        place[ids] = np.arange(len(ids), dtype=np.int32)
        found = tf.constant(moves)
        # What each kind adds to the vectors of its words, before the mean is taken.
        pulls = np.zeros((len(kinds.sizes), vectors.shape[1]), np.float32)

        def move_kinds(part: tuple[int, int]) -> None:
            words, lists = kinds.words.part(*part)
            places = place[words]
            moving = places >= 0
            places, lists = places[moving], lists[moving]
            held = np.bincount(lists, minlength=part[1] - part[0])
            here = np.flatnonzero(held)
            number = np.cumsum(held > 0) - 1
            far = np.bincount(lists, paths[places], part[1] - part[0]).astype(np.float32)
            sums = _sums(found, places, number[lists], merge.even(len(here)))
            counts = held[here].astype(np.float32)
            merge.damp(sums, far[here][:, np.newaxis], counts[:, np.newaxis], along)
            here += part[0]
            self.moved.rows[types + here] += sums[: len(here)]
            pulls[here] = sums[: len(here)] * kinds.sizes[here][:, np.newaxis]

        def move_words(part: tuple[int, int]) -> None:
            rows = slice(*part)
            of_words, lists = kinds.kinds.part(*part)
            sums = _sums(pulled, of_words, lists, part[1] - part[0])
            sums /= kinds.parts[rows, np.newaxis]
            vectors[rows] += sums

        _each(workers, move_kinds, self._kind_parts)
        vectors[ids] += moves * (kinds.alone[ids] / kinds.parts[ids] - 1)[:, np.newaxis]
        pulled = tf.constant(pulls)
        _each(workers, move_words, self._word_parts)


def _sums(rows: tf.Tensor, ids: Ids, segments: npt.NDArray[np.int64], count: int) -> Floats:
    """Sums of some rows by ascending segment, float32 [count, dimensions], a new array."""
    sums: Floats = tf.sparse.segment_sum(rows, ids, segments, num_segments=count).numpy()
    return sums


def _cut(lists: Lists) -> list[tuple[int, int]]:
    """From where to where the parts are that are worked on at once."""
    cuts = np.searchsorted(lists.splits, np.arange(_PART, lists.splits[-1], _PART))
    edges = np.unique(np.concatenate([[0], cuts, [len(lists.splits) - 1]])).tolist()
    return list(zip(edges, edges[1:], strict=False))


def _each(
    workers: Workers, work: Callable[[tuple[int, int]], None], parts: list[tuple[int, int]]
) -> None:
    for _ in workers.map(work, parts):
        pass
