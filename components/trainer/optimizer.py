"""Stochastic gradient descent on the rows of a table that a step touched.

Keras's own optimizers turn sparse gradients dense or run over the whole table: 54 ms a step at
500 k rows for SGD, 529 ms for Adam. This one costs what the touched rows cost.
"""

import keras
import tensorflow as tf

# Cells in which the loads of a step's rows are added up. The first half belong to one frequent word
# each; rare words share the others with each other, where to meet is rare. (A hash table would tell
# them apart, and take 9 % of a step.)
CELLS = 1 << 14


class RowSGD(keras.optimizers.Optimizer):
    """`row -= update` for `tf.IndexedSlices` whose rates `rates` gave; repeated rows add up.

    Gradients are sums over pairs, as in word2vec.c, so the rate does not depend on the batch. But
    every occurrence of a row in a step is moved from where the row was before the step, where
    one after the other would see the loss level off in between. A sum over very many overshoots
    and, at last, diverges. A pair moves a row by rate x error x its partner's vector, so a row
    moves by no more than rate x load partner's lengths, its load being the sum of its absolute
    errors. A row whose load in a step is above `most_load` moves as if it were that.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.05,
        most_load: float = 32.0,
    ) -> None:
        """Start with no variables, as every Keras optimizer.

        Args:
            learning_rate: Of one pair.
            most_load: That moves a row in a step. The logistic loss of a pair bends by no more than
                its absolute error times the partner's length squared, and gradient descent on a sum
                of them converges while learning_rate * load < 2 for partners of length 1. The
                default stays at four fifths of that.
        """
        super().__init__(learning_rate=learning_rate, name="row_sgd")
        self._most_load = most_load

    def rates(self, rows: tf.Tensor, loads: tf.Tensor) -> tf.Tensor:
        """The rate of each occurrence of a row in a step.

        Args:
            rows: int32 [occurrences] ids in one table, frequent words first.
            loads: float32 [occurrences] sum of the absolute errors of each.

        Returns:
            float32 [occurrences].
        """
        half = CELLS // 2
        cells = tf.where(rows < half, rows, half + rows % half)
        load = tf.math.unsorted_segment_sum(loads, cells, CELLS)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            load = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, load)
        # Without a load the quotient is infinite, and the rate its own.
        share = tf.minimum(1.0, self._most_load / tf.gather(load, cells))
        return tf.cast(self.learning_rate, tf.float32) * share

    def update_step(
        self, gradient: tf.IndexedSlices, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Apply one update in place; its rates are in it already."""
        if not isinstance(gradient, tf.IndexedSlices):
            raise TypeError(
                f"RowSGD updates rows: the update must be tf.IndexedSlices, got {type(gradient)}"
            )
        variable.scatter_sub(gradient)
