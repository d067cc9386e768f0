"""Training of one shard in one round: steps on a copy of the rows that its tokens name.

Some tens of steps touch some ten thousand rows, whatever the size of the vocabulary. Copied to
tables of their own they stay in a core's caches, the steps run as one XLA program, and threads (or
devices, or machines) meet once a round.
"""

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.trainer import skipgrams
from components.trainer.dataset import GROUP, TARGETS
from components.trainer.merge import Delta, Floats
from components.trainer.optimizer import RowGradients, Table, joined, moved
from components.trainer.skipgrams import Parts, Rows, Scores
from components.trainer.tables import aligned, in_place

_GROWTH = 1.25  # Of sizes that XLA compiles for, from one to the next.


class Size(NamedTuple):
    """What XLA compiles a program for.

    Attributes:
        steps: Most steps of a shard.
        vectors, contexts: Most rows of each table that they name.
    """

    steps: int
    vectors: int
    contexts: int

    def fit(self, needed: "Size") -> "Size":
        """The smallest of a few sizes, of which this is the first, that has room for `needed`."""
        return Size(*(_grown(*pair) for pair in zip(self, needed, strict=True)))


def _grown(size: int, needed: int) -> int:
    while size < needed:
        size = math.ceil(size * _GROWTH)
    return size


class Found(NamedTuple):
    """What a shard gives back.

    Attributes:
        deltas: For the vectors and the contexts.
        loss: Sum over the pairs, nats. In training it is measured before the first step, and may
            be that of one step, which stands for all.
        pairs: How many there were, counted alike.
        steps: How many there were.
    """

    deltas: tuple[Delta, Delta]
    loss: float
    pairs: float
    steps: int


SUMS = ("loss", "pairs", "steps")  # Of a round: those of its shards.


class _Compact(NamedTuple):
    """Rows of a table, numbered anew.

    Attributes:
        ids: int32 [rows] which they are, ascending.
        numbers: For each array of ids its new ones, int32 in its shape.
    """

    ids: npt.NDArray[np.int32]
    numbers: list[npt.NDArray[np.int32]]


def named(types: int, arrays: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """The rows of a table that `arrays` name, ascending, int32 [rows]."""
    found = np.zeros(types, np.bool_)
    for array in arrays:
        found[array] = True
    return np.flatnonzero(found).astype(np.int32)


def _compact(types: int, arrays: Sequence[npt.NDArray[np.int32]]) -> _Compact:
    """The rows that `arrays` name."""
    ids = named(types, arrays)
    number = np.empty(types, np.int32)
    number[ids] = np.arange(len(ids), dtype=np.int32)
    return _Compact(ids, [number[array] for array in arrays])


def train(
    rows: Rows,
    tables: Sequence[Floats],
    rates: tuple[float, float] | None,
    *,
    smallest: Size,
    window: int,
    negatives: int,
    most_load: float,
    whole_loss: bool = False,
) -> Found:
    """Train on `rows`, on the device that is in scope. `tables` stay as they are.

    Args:
        rows: Numpy arrays, in any number; the last step is filled with empty ones.
        tables: The vectors and the contexts, float32 [types, dimensions].
        rates: Of the first step, and of the one behind the last; none: all pairs are measured, and
            nothing is learned.
        smallest: See `Size.fit`.
        window: The longest reach of `rows`.
        negatives: Noise words that each pair is worth.
        most_load: See `components.trainer.optimizer`.
        whole_loss: Whether all steps are measured, not one in the middle.
    """
    vectors, contexts = tables
    length = rows.left.shape[1]
    per_step = TARGETS // length
    steps = -(-len(rows.tokens) // per_step)
    if not steps:
        return Found(_nothing(tables), 0.0, 0.0, 0)
    middle = rows.tokens[:, window : window + length]
    targets = _compact(len(vectors), [middle])
    others = _compact(len(contexts), [rows.tokens, rows.noise])
    size = smallest.fit(Size(steps, len(targets.ids), len(others.ids)))

    def in_steps(array: npt.NDArray[np.int32]) -> tf.Tensor:
        filled = np.zeros((size.steps * per_step, array.shape[1]), np.int32)
        filled[: len(array)] = array
        return tf.constant(filled.reshape(size.steps, per_step, -1))

    first, last = rates or (0.0, 0.0)
    schedule = np.linspace(first, last, steps + 1, dtype=np.float32)[:steps]
    measured = (steps // 2, steps // 2 + 1) if rates and not whole_loss else (0, steps)
    found = _train(
        _copies.rows_of("vectors", vectors, targets.ids, size.vectors),
        _copies.rows_of("contexts", contexts, others.ids, size.contexts),
        in_steps(targets.numbers[0]),
        Rows(
            in_steps(others.numbers[0]),
            in_steps(rows.left),
            in_steps(rows.right),
            in_steps(others.numbers[1]),
        ),
        tf.constant(np.pad(schedule, (0, size.steps - steps))),
        tf.constant(steps if rates else 0),
        tf.constant(measured),
        tf.constant(most_load, tf.float32),
        window=window,
        negatives=negatives,
    )
    *arrays, loss, pairs = (np.asarray(tensor) for tensor in found)
    if rates is None:  # What nothing was learned for would only take memory.
        return Found(_nothing(tables), float(loss), float(pairs), steps)
    deltas = tuple(
        Delta(ids, values[: len(ids)], paths[: len(ids)])
        for ids, values, paths in zip(
            (targets.ids, others.ids), arrays[0::2], arrays[1::2], strict=True
        )
    )
    stands_for = steps / (measured[1] - measured[0])
    return Found((deltas[0], deltas[1]), float(loss) * stands_for, float(pairs) * stands_for, steps)


def _nothing(tables: Sequence[Floats]) -> tuple[Delta, Delta]:
    vectors, contexts = (Delta(np.zeros(0, np.int32), table[:0], table[:0, 0]) for table in tables)
    return vectors, contexts


class _Copies(threading.local):
    """Memory that a thread copies rows to, each time anew, and that TensorFlow reads in place.

    New memory would cost a third as much again as the copy: the kernel clears it page by page.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], tuple[Floats, tf.Tensor]] = {}

    def rows_of(self, name: str, table: Floats, ids: npt.NDArray[np.int32], size: int) -> tf.Tensor:
        """The rows `ids` of a table, and behind them anything; until the thread asks for others."""
        dimensions = table.shape[1]
        key = name, size, dimensions
        if key not in self._known:
            array = aligned(size, dimensions)
            for known in [known for known in self._known if known[0] == name]:
                del self._known[known]
            self._known[key] = array, in_place(array)
        array, tensor = self._known[key]
        np.take(table, ids, 0, out=array[: len(ids)], mode="clip")
        return tensor


_copies = _Copies()


@tf.function(autograph=False, jit_compile=True)
def _train(
    vectors: tf.Tensor,
    contexts: tf.Tensor,
    targets: tf.Tensor,
    rows: Rows,
    rates: tf.Tensor,
    steps: tf.Tensor,
    measured: tf.Tensor,
    most_load: tf.Tensor,
    *,
    window: int,
    negatives: int,
) -> tuple[tf.Tensor, ...]:
    """All steps of a shard, one behind the other.

    Returns:
        Rows and paths of the vectors, those of the contexts, loss and pairs.
    """

    def step(index: tf.Tensor, one: Table, other: Table) -> tuple[tf.Tensor, Table, Table]:
        here, ids, found, scores = look_up(index, one, other)
        errors = skipgrams.errors(scores, here, window=window, negatives=negatives)
        parts = ids, skipgrams.gradients(errors, found), skipgrams.loads(errors)
        of_target, of_token, of_noise = (RowGradients(*kind) for kind in zip(*parts, strict=True))
        return (
            index + 1,
            moved(one, joined([of_target]), rates[index], most_load),
            # A word's occurrences as token and as noise move the same row.
            moved(other, joined([of_token, of_noise]), rates[index], most_load),
        )

    def look_up(index: tf.Tensor, one: Table, other: Table) -> tuple[Rows, Parts, Parts, Scores]:
        here = Rows(*(field[index] for field in rows))
        noise = tf.reshape(here.noise, [-1, here.noise.shape[1] * GROUP // here.left.shape[1]])
        ids = Parts(targets[index], here.tokens, noise)
        tables = Parts(one.rows, other.rows, other.rows)
        found = Parts(*(tf.gather(table, of) for table, of in zip(tables, ids, strict=True)))
        return here, ids, found, skipgrams.scores(found)

    def measure(index: tf.Tensor, total: tf.Tensor, pairs: tf.Tensor) -> tuple[tf.Tensor, ...]:
        here, _, _, scores = look_up(index, one, other)
        loss = skipgrams.loss(scores, here, window=window, negatives=negatives)
        found = tf.cast(tf.reduce_sum(here.left + here.right), tf.float64)
        return index + 1, total + loss, pairs + found

    zero = tf.zeros([], tf.float64)
    one, other = (Table(table, tf.zeros([table.shape[0]])) for table in (vectors, contexts))
    first, end = tf.unstack(measured)
    _, loss, pairs = tf.while_loop(lambda index, *_: index < end, measure, (first, zero, zero))
    # After that, so that it can go on in the same memory.
    with tf.control_dependencies([loss]):
        index = tf.identity(0)
    _, one, other = tf.while_loop(lambda index, *_: index < steps, step, (index, one, other))
    return one.rows, one.paths, other.rows, other.paths, loss, pairs
