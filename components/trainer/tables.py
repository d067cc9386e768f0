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

    On one CPU the variable holds two numbers in one complex64. TensorFlow adds to rows element by
    element, and so adds them in two thirds of the time: 161 ns for 224 a row of 100 dimensions,
    394 for 576 at 300 (88 k types). The numbers, their sums and their bytes are the same.

    Attributes:
        types, dimensions: The shape.
        width: Of what `look_up` returns: `dimensions`, or one more, which is 0, to be even.
        variable: What an optimizer updates.
    """

    def __init__(self, layer: keras.Layer, name: str, *, types: int, dimensions: int) -> None:
        """Add a weight of zeros to `layer`."""
        self.types, self.dimensions = types, dimensions
        one_device = tf.distribute.get_strategy().num_replicas_in_sync == 1
        self._paired = one_device and not tf.config.list_physical_devices("GPU")
        self.width = dimensions + dimensions % 2 if self._paired else dimensions
        self.variable = layer.add_weight(
            name=name,
            shape=(types, self.width // 2 if self._paired else self.width),
            dtype="complex64" if self._paired else "float32",
            initializer="zeros",
        )

    def look_up(self, ids: tf.Tensor) -> tf.Tensor:
        """Rows: float32 [..., width] for ids of any shape."""
        return self._as_floats(tf.gather(self.variable.value, ids))

    def slices(self, values: tf.Tensor, ids: tf.Tensor) -> tf.IndexedSlices:
        """float32 [..., width] `values` for the rows `ids`, as an optimizer takes them."""
        values = tf.reshape(values, [-1, self.width])
        return tf.IndexedSlices(self._as_stored(values), tf.reshape(ids, [-1]))

    def fill_uniform(self, bound: float, seed: int) -> None:
        """Uniform numbers in [-bound, bound), a function of seed and row."""
        for block, rows in enumerate(self._blocks()):
            shape = [len(rows), self.dimensions]
            values = tf.random.stateless_uniform(shape, [seed, block], -bound, bound, alg="philox")
            self.assign_rows(rows, values)

    def assign_rows(self, ids: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Overwrite the rows `ids`, int [rows], with float32 [rows, dimensions]."""
        padded = tf.pad(tf.constant(values), [[0, 0], [0, self.width - self.dimensions]])
        slices = self.slices(padded, tf.constant(ids, tf.int32))
        for copy in self._copies():
            copy.scatter_update(slices)

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

    def _as_stored(self, values: tf.Tensor) -> tf.Tensor:
        if not self._paired:
            return values
        return tf.bitcast(tf.reshape(values, [-1, self.width // 2, 2]), tf.complex64)

    def _as_floats(self, stored: tf.Tensor) -> tf.Tensor:
        if not self._paired:
            return stored
        shape = tf.concat([tf.shape(stored)[:-1], [self.width]], 0)
        floats = tf.reshape(tf.bitcast(stored, tf.float32), shape)
        return tf.ensure_shape(floats, [*stored.shape[:-1], self.width])

    def _values(self) -> Iterator[npt.NDArray[np.float32]]:
        for rows in self._blocks():
            stored = tf.gather(self._copies()[0], rows)
            yield np.ascontiguousarray(self._as_floats(stored).numpy()[:, : self.dimensions])

    def _blocks(self) -> list[range]:
        starts = range(0, self.types, BLOCK_ROWS)
        return [range(start, min(start + BLOCK_ROWS, self.types)) for start in starts]

    def _copies(self) -> list[Any]:
        """The variable on each device that has one."""
        return list(getattr(self.variable.value, "values", [self.variable.value]))
