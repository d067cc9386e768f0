"""Tables of vectors, handled a block at a time: a whole copy of one may be gigabytes.

A table is a Keras variable, float32 [types, dimensions]; where it is mirrored on several devices,
all its copies are written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

BLOCK_ROWS = 65_536


def fill_uniform(table: keras.Variable, bound: float, seed: int) -> None:
    """Uniform numbers in [-bound, bound), a function of seed and row."""
    for block, rows in enumerate(_blocks(table)):
        shape = [len(rows), table.shape[1]]
        values = tf.random.stateless_uniform(shape, [seed, block], -bound, bound, alg="philox")
        assign_rows(table, rows, values)


def assign_rows(table: keras.Variable, rows: npt.ArrayLike, values: npt.ArrayLike) -> None:
    """Overwrite some rows, int [rows], with float32 [rows, dimensions]."""
    for copy in _copies(table):
        slices = tf.IndexedSlices(tf.constant(values), tf.constant(rows, tf.int32))
        copy.scatter_update(slices)


def largest_norm(table: keras.Variable) -> float:
    """The Euclidean norm of the longest row; NaN if a number is."""
    norms = [np.linalg.norm(values, axis=1).max() for values in _values(table)]
    return float(np.max(norms))


def save(table: keras.Variable, path: Path) -> None:
    """Write `path` in numpy's .npy format."""
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(table.shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for values in _values(table):
            values.tofile(file)


def load(table: keras.Variable, path: Path) -> None:
    """Read what `save` wrote."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if shape != tuple(table.shape):
            raise ValueError(f"{path} must have the shape {tuple(table.shape)}, got {shape}")
        for rows in _blocks(table):
            values = np.fromfile(file, dtype, len(rows) * shape[1])
            assign_rows(table, rows, values.reshape(len(rows), -1))


def _values(table: keras.Variable) -> Iterator[npt.NDArray[np.float32]]:
    for rows in _blocks(table):
        yield tf.gather(_copies(table)[0], rows).numpy()


def _blocks(table: keras.Variable) -> list[range]:
    types = table.shape[0]
    return [range(a, min(a + BLOCK_ROWS, types)) for a in range(0, types, BLOCK_ROWS)]


def _copies(table: keras.Variable) -> list[Any]:
    return list(getattr(table.value, "values", [table.value]))
