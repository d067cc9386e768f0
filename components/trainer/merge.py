"""One table from what the shards of a round found.

All shards of a round start from the same table. Where they move a row each in a direction of its
own, the row should move by the sum; where all of them have gone the whole way to one place, by
about one of them. Adding is too much there (it diverges), and a mean too little elsewhere (it
learns hardly anything).

A row x moves by gradient descent on a sum of logistic losses of its inner products with the rows of
the other table, its partners. Near where it comes to rest that is a quadratic bowl, whose curvature
along a direction v is proportional to the mean of (partner . v)^2. So after a path L (the sum of
rate x load over the steps) a row has gone the share 1 - exp(-k L m) of its way along an
eigenvector of the partners' second moment, with eigenvalue m. A shard went the path L / n, of n
that moved the row, and its share of the way; all steps one after the other would have gone the path
L. Along each eigenvector the sum of the shards' moves is therefore scaled by

    (1 - exp(-k L m)) / (n (1 - exp(-k L m / n))),

which is 1 for short paths (the sum) and 1 / n for long ones (the mean). With one shard it is 1.
Only the first eigenvectors differ from the others by much: those are told apart, and the others
share one mean eigenvalue. All that is needed of the shards are sums, by rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Floats = npt.NDArray[np.float32]

# Share of the directions that are told from the others, and how many at least. With 4 of 100, 16
# shards that train on 100,000 tokens each diverge; with 16 they lose .005 nats to one piece.
_APART, _FEWEST = 1 / 6, 16
_TURNS = 8  # Of the iteration that finds them.
# k: how much of a pair's load bends its loss. Of one of its rows that is 1 at most; but both move,
# each in a merge of its own. With .5, 16 shards diverge within an epoch of 21 million tokens,
# unless the rate falls soon; with 2 and 4 they do not, and scores are alike.
_BEND = 4.0
# Products of so many rows, or of a multiple, have the same bits for a row wherever it stands; the
# rows left over behind would be added up in another order.
_EVEN = 64


class Delta(NamedTuple):
    """What one shard found for one table.

    Attributes:
        ids: int32 [rows], ascending.
        rows: float32 [rows, dimensions] where they went to.
        paths: float32 [rows] sums of rate x load over the shard's steps; 0: it was not trained.
    """

    ids: npt.NDArray[np.int32]
    rows: Floats
    paths: Floats


class Directions(NamedTuple):
    """In which directions the rows of a table come to rest soon.

    Attributes:
        basis: float32 [dimensions, directions], orthonormal columns.
        bends: float32 [directions], k times the partners' mean square along each.
        rest: float32 scalar, the same, a mean over what is at right angles to all of them.
    """

    basis: Floats
    bends: Floats
    rest: np.float32

    @property
    def length(self) -> float:
        """Of the partners, the root of the mean square."""
        dimensions, told = self.basis.shape
        total = float(self.bends.sum()) + (dimensions - told) * float(self.rest)
        return float(np.sqrt(total / _BEND))


def apart(dimensions: int) -> int:
    """How many directions are told from the others."""
    return min(dimensions, max(_FEWEST, round(_APART * dimensions)))


# Products are TensorFlow's: numpy's library would start threads of its own.
def directions(partners: Floats) -> Directions:
    """Those of a table whose rows meet `partners`, rows of the other one.

    By subspace iteration, whose result needs no more than to be near: any basis is right for what
    is in it.

    Args:
        partners: float32 [probes, dimensions], as often as pairs have them.
    """
    return Directions(*(part.numpy() for part in _directions(tf.constant(partners))))


@tf.function(autograph=False)
def _directions(partners: tf.Tensor) -> Directions:
    size = partners.shape[1]
    count = tf.cast(tf.shape(partners)[0], tf.float64)
    moment = tf.cast(tf.matmul(partners, partners, transpose_a=True), tf.float64) / count
    basis = tf.eye(size, apart(size), dtype=tf.float64)
    for _ in range(_TURNS):
        basis = tf.linalg.qr(tf.matmul(moment, basis) + 1e-9 * basis)[0]
    bends = _BEND * tf.reduce_sum(basis * tf.matmul(moment, basis), 0)
    left = tf.maximum(_BEND * tf.linalg.trace(moment) - tf.reduce_sum(bends), 0)
    found = basis, bends, left / max(1, size - basis.shape[1])
    return Directions(*(tf.cast(part, tf.float32) for part in found))


def merge(table: Floats, deltas: Sequence[Delta], along: Directions) -> None:
    """Move the rows of `table` that the shards trained, each by itself.

    Args:
        table: float32 [types, dimensions], from which the shards started.
        deltas: Of the shards, in an order that decides about the last bits.
        along: The directions of this table.
    """
    low = min((int(delta.ids[0]) for delta in deltas if len(delta.ids)), default=0)
    high = max((int(delta.ids[-1]) + 1 for delta in deltas if len(delta.ids)), default=low)
    shards, paths = np.zeros(high - low, np.int32), np.zeros(high - low, np.float32)
    for delta in deltas:
        shards[delta.ids - low] += delta.paths != 0  # As not-a-number is: it must not get lost.
        paths[delta.ids - low] += delta.paths
    several = np.flatnonzero(shards > 1)
    place = np.full(high - low, -1, np.int32)
    place[several] = np.arange(len(several))
    counts = shards[several].astype(np.float32)[:, np.newaxis]
    before = table[several + low]
    moves = np.zeros((even(len(several)), table.shape[1]), np.float32)
    np.multiply(before, -counts, out=moves[: len(several)])
    # What is read and written goes through the same memory again and again, which stays in caches.
    found, sums = (np.empty((max(map(_rows, deltas)), table.shape[1]), np.float32) for _ in "ab")
    for delta in deltas:
        places = place[delta.ids - low]
        trained, one = delta.paths != 0, places < 0
        alone, shared = np.flatnonzero(trained & one), np.flatnonzero(trained & ~one)
        table[delta.ids[alone]] = _take(delta.rows, alone, found)
        places = places[shared]
        moves[places] = np.add(
            _take(moves, places, sums), _take(delta.rows, shared, found), out=sums[: len(places)]
        )
    if len(several):
        damp(moves, paths[several][:, np.newaxis], counts, along)
        before += moves[: len(several)]
        table[several + low] = before


def paths(ids: npt.NDArray[np.int32], deltas: Sequence[Delta]) -> Floats:
    """The sums of the shards' paths of some rows.

    Args:
        ids: int32 [rows], ascending, all that the shards name.
        deltas: Of the shards, in their order.

    Returns:
        float32 [rows].
    """
    sums = np.zeros(len(ids), np.float32)
    for delta in deltas:
        sums[np.searchsorted(ids, delta.ids)] += delta.paths
    return sums


def even(rows: int) -> int:
    """How many rows `damp` takes for so many."""
    return -(-rows // _EVEN) * _EVEN


def _rows(delta: Delta) -> int:
    return len(delta.ids)


def _take(table: Floats, rows: npt.NDArray[np.int64 | np.int32], out: Floats) -> Floats:
    return np.take(table, rows, 0, out=out[: len(rows)], mode="clip")


def damp(moves: Floats, paths: Floats, shards: Floats, along: Directions) -> None:
    """Scale the sums of the shards' moves along each direction, in place.

    Args:
        moves: float32 [even(rows), dimensions], those behind are zeros.
        paths: float32 [rows, 1] of all shards together.
        shards: float32 [rows, 1] how many moved each row.
        along: The directions.
    """
    others = _scale(paths, shards, along.rest)
    inside = tf.matmul(moves, along.basis).numpy()
    inside[: len(paths)] *= _scale(paths, shards, along.bends) - others
    moves[: len(paths)] *= others
    moves += tf.matmul(inside, along.basis, transpose_b=True).numpy()


def _scale(paths: Floats, shards: Floats, bends: Floats | np.float32) -> Floats:
    """As above, for each direction of each row."""
    way = paths * bends
    np.maximum(way, 1e-30, out=way)  # No zero is divided by zero.
    part = way / -shards
    np.expm1(part, out=part)
    part *= shards
    np.negative(way, out=way)
    np.expm1(way, out=way)
    way /= part
    return way
