"""Stochastic gradient descent on the rows that a step touched.

Gradients are sums over pairs, as in word2vec.c, so the rate does not depend on the size of a step.
But every occurrence of a row in a step is moved from where the row was before the step, where one
after the other would see the loss level off in between. A sum over very many overshoots and, at
last, diverges. A pair moves a row by rate x error x its partner's vector, so a row moves by no more
than rate x load partner's lengths, its load being the sum of its absolute errors. A row whose load
in a step is above `most_load` moves as if it were that: see LONGEST_MOVE.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

# Of a row in a step, in lengths of its partners: rate x most_load. The logistic loss of a pair
# bends by no more than its absolute error times the partner's length squared, and gradient descent
# on a sum of them converges while rate x load < 2 for partners of length 1. This is four fifths.
LONGEST_MOVE = 1.6


class RowGradients(NamedTuple):
    """What a step found for rows of one table, an entry for each occurrence of a row.

    Attributes:
        ids: int32 [occurrences] of the rows.
        values: float32 [occurrences, dimensions] gradients.
        loads: float32 [occurrences] sums of the absolute errors of the pairs behind them.
    """

    ids: tf.Tensor
    values: tf.Tensor
    loads: tf.Tensor


class Table(NamedTuple):
    """Rows in training.

    Attributes:
        rows: float32 [rows, dimensions].
        paths: float32 [rows] sums over the steps so far of rate x load, or x most_load where that
            is less.
    """

    rows: tf.Tensor
    paths: tf.Tensor


def joined(parts: Sequence[RowGradients]) -> RowGradients:
    """All of one table, one behind the other; each may have its occurrences in several axes."""
    ids, values, loads = zip(*parts, strict=True)
    return RowGradients(
        tf.concat([tf.reshape(part, [-1]) for part in ids], 0),
        tf.concat([tf.reshape(part, [-1, tf.shape(part)[-1]]) for part in values], 0),
        tf.concat([tf.reshape(part, [-1]) for part in loads], 0),
    )


def moved(table: Table, gradients: RowGradients, rate: tf.Tensor, most_load: tf.Tensor) -> Table:
    """The table after `row -= rate x gradient`; the occurrences of a row add up.

    Args:
        table: Before the step.
        gradients: Of the step.
        rate: float32 scalar, of one pair.
        most_load: float32 scalar, that moves a row in a step.
    """
    ids, values, loads = gradients
    load = tf.math.unsorted_segment_sum(loads, ids, table.rows.shape[0])
    # Without a load the quotient is infinite, and the rate its own.
    rates = rate * tf.minimum(1.0, most_load / load)
    values = tf.gather(rates, ids)[:, tf.newaxis] * values
    rows = tf.tensor_scatter_nd_sub(table.rows, ids[:, tf.newaxis], values)
    return Table(rows, table.paths + rate * tf.minimum(load, most_load))
