"""Tables of vectors, a block at a time: a whole copy may be gigabytes, so none is ever made."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

BLOCK_ROWS = 65_536


def aligned(rows: int, dimensions: int) -> npt.NDArray[np.float32]:
    """Zeros, float32 [rows, dimensions], in memory that TensorFlow can read in place."""
    memory = np.zeros(rows * dimensions + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16  # It wants multiples of 64 bytes.
    return memory[start : start + rows * dimensions].reshape(rows, dimensions)


def in_place(array: npt.NDArray[np.float32]) -> tf.Tensor:
    """The memory of what `aligned` made, as a tensor; of other arrays, or of nothing, a copy."""
    if array.ctypes.data % 64 or not array.size:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class Table:
    """float32 [types, dimensions].

    Attributes:
        types, dimensions: The shape.
        rows: The array itself.
    """

    def __init__(self, types: int, dimensions: int) -> None:
        """A table of zeros."""
        self.types, self.dimensions = types, dimensions
        self.rows = aligned(types, dimensions)

    @property
    def tensor(self) -> tf.Tensor:
        """The very same memory, for ops that read it before it changes again."""
        return in_place(self.rows)

    def fill_uniform(self, bound: float, seed: int) -> None:
        """Uniform numbers in [-bound, bound), a function of seed and row."""
        for block, rows in enumerate(self._blocks()):
            shape = self.rows[rows].shape
            self.rows[rows] = tf.random.stateless_uniform(
                shape, [seed, block], -bound, bound, alg="philox"
            )

    def largest_norm(self) -> float:
        """The Euclidean norm of the longest row; NaN if a number is, infinite if it is too long."""
        with np.errstate(over="ignore", invalid="ignore"):
            norms = [np.linalg.norm(self.rows[rows], axis=1).max() for rows in self._blocks()]
        return float(np.max(norms))

    def save(self, path: Path) -> None:
        """Write `path` in numpy's .npy format."""
        with path.open("wb") as file:
            np.save(file, self.rows)

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""
        saved = np.load(path, mmap_mode="r")
        if saved.shape != self.rows.shape:
            raise ValueError(f"{path} must have the shape {self.rows.shape}, got {saved.shape}")
        for rows in self._blocks():
            self.rows[rows] = saved[rows]

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, self.types, BLOCK_ROWS):
            yield slice(start, start + BLOCK_ROWS)
