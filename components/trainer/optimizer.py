"""Stochastic gradient descent on the rows of a table that a step touched.

Keras's own optimizers turn sparse gradients dense or run over the whole table: 54 ms a step at
500 k rows for SGD, 529 ms for Adam. This one costs what the touched rows cost.
"""

import keras
import tensorflow as tf

# Rows whose pairs are added up apart. Beyond, a rare row may share a cell with a frequent one, and
# then moves less in the steps that hold both; telling them apart takes a hash table, 9 % of a step.
MASS_CELLS = 1 << 14


class RowSGD(keras.optimizers.Optimizer):
    """`row -= update` for `tf.IndexedSlices` whose rates `rates` gave; repeated rows add up.

    Gradients are sums over pairs, as in word2vec.c, so the rate does not depend on the batch. But
    every occurrence of a row in a step is moved from where the row was before the step, where
    one after the other would see the loss level off in between. A sum over very many overshoots
    and, at last, diverges. So a row that has more than `most_pairs` pairs in a step moves as if by
    that many.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.05,
        most_pairs: float = 128.0,
    ) -> None:
        """Start with no variables, as every Keras optimizer.

        Args:
            learning_rate: Of one pair.
            most_pairs: That move a row in a step. A sum of m logistic losses over vectors of norm 1
                bends with at most m / 4, and gradient descent on it converges while
                learning_rate * m / 4 < 2; the default stays at four fifths of that.
        """
        super().__init__(learning_rate=learning_rate, name="row_sgd")
        self._most_pairs = most_pairs

    def rates(self, rows: tf.Tensor, masses: tf.Tensor) -> tf.Tensor:
        """The rate of each occurrence of a row in this step.

        Args:
            rows: int32 [occurrences] of one table.
            masses: float32 [occurrences] pairs that each stands in.

        Returns:
            float32 [occurrences].
        """
        cells = rows % MASS_CELLS
        total = tf.math.unsorted_segment_sum(masses, cells, MASS_CELLS)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        most = self._most_pairs / replicas
        # Without a pair the quotient is infinite, and the rate its own.
        share = tf.minimum(1.0, most / tf.gather(total, cells))
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
