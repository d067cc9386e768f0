"""Tables of vectors: look-ups and updates of rows, and whole tables a block at a time.

A whole copy of a table may be gigabytes, so none is ever made.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

BLOCK_ROWS = 65_536


class Table:
    """float32 [types, dimensions], a weight of a Keras layer.

    Its variable is for XLA, and to be read as a whole: a plain TensorFlow op that reads or writes
    single rows of it would make every later `read` copy the table.

    Attributes:
        types, dimensions: The shape.
        variable: What an optimizer updates.
    """

    def __init__(self, layer: keras.Layer, name: str, *, types: int, dimensions: int) -> None:
        """Add a weight of zeros to `layer`."""
        self.types, self.dimensions = types, dimensions
        weight = layer.add_weight(name=name, shape=(types, dimensions), initializer="zeros")
        self.variable: tf.Variable = weight.value

    def read(self) -> tf.Tensor:
        """All rows as they are now, float32 [types, dimensions]; not a copy."""
        return self.variable.value()

    def fill_uniform(self, bound: float, seed: int) -> None:
        """Uniform numbers in [-bound, bound), a function of seed and row."""
        for block, rows in enumerate(self._blocks()):
            shape = [len(rows), self.dimensions]
            values = tf.random.stateless_uniform(shape, [seed, block], -bound, bound, alg="philox")
            self.assign_rows(rows, values)

    def assign_rows(self, ids: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Overwrite the rows `ids`, int [rows], with float32 [rows, dimensions]."""
        for copy in self._copies():
            with tf.device(copy.device):
                _assign(copy, tf.constant(ids, tf.int32), tf.constant(values))

    def largest_norm(self) -> float:
        """The Euclidean norm of the longest row; NaN if a number is."""
        norms = [np.linalg.norm(values, axis=1).max() for values in self._values()]
        return float(np.max(norms))

    def numpy(self) -> npt.NDArray[np.float32]:
        """A copy of the whole table, for tests and small ones."""
        return np.concatenate(list(self._values()))

    def save(self, path: Path) -> None:
        """Write `path` in numpy's .npy format."""
        shape = (self.types, self.dimensions)
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            for values in self._values():
                values.tofile(file)

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if shape != (self.types, self.dimensions):
                expected = (self.types, self.dimensions)
                raise ValueError(f"{path} must have the shape {expected}, got {shape}")
            for rows in self._blocks():
                values = np.fromfile(file, dtype, len(rows) * self.dimensions)
                self.assign_rows(rows, values.reshape(len(rows), -1))

    def _values(self) -> Iterator[npt.NDArray[np.float32]]:
        for rows in self._blocks():
            yield self._copies()[0].value()[rows.start : rows.stop].numpy()

    def _blocks(self) -> list[range]:
        starts = range(0, self.types, BLOCK_ROWS)
        return [range(start, min(start + BLOCK_ROWS, self.types)) for start in starts]

    def _copies(self) -> list[Any]:
        """The variable on each device that has one."""
        return list(getattr(self.variable, "values", [self.variable]))


@tf.function(autograph=False, jit_compile=True)
def _assign(variable: tf.Variable, ids: tf.Tensor, values: tf.Tensor) -> None:
    variable.scatter_update(tf.IndexedSlices(values, ids))
