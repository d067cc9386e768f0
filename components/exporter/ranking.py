"""The words whose vectors have the largest cosines with given ones, as the signatures find them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from components.exporter.storage import Stored, Vectors

Ids = npt.NDArray[np.int64]

_COSINES = 1 << 24  # in memory at a time, as float32
_BLOCK_ROWS = 8192  # of vectors that become float32 at a time


def unit(vectors: Vectors) -> Vectors:
    """float32 [vectors, dimensions], each at length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)


def nearest(
    targets: Vectors,
    stored: Stored,
    inverse_norms: npt.NDArray[np.float32],
    *,
    k: int,
    left_out: Sequence[Sequence[int]],
) -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
    """The `k` nearest rows to each target.

    Args:
        targets: float32 [targets, dimensions], of any length.
        stored: The rows, [types, dimensions].
        inverse_norms: float32 [types], 1 / length of each row of `stored.values`; 0 for zeros.
        k: At least 1.
        left_out: For each target, the rows that are none of the answers.

    Yields:
        For each target, int64 [up to k] rows by falling cosine, ties ascending; and float32, the
        cosines.

    >>> stored = Stored(np.array([[1, 0], [0, 2], [3, 3]], np.float32), None)
    >>> ((ids, cosines),) = nearest(stored.values[:1], stored, np.float32([1, .5, 18**-.5]),
    ...                             k=2, left_out=[[0]])
    >>> ids.tolist(), cosines.round(3).tolist()
    ([2, 1], [0.7070000171661377, 0.0])
    """
    step = max(1, _COSINES // max(1, len(inverse_norms)))
    for start in range(0, len(targets), step):
        block = _products(unit(targets[start : start + step]), stored.values)
        block *= inverse_norms
        for cosines, out in zip(block, left_out[start : start + step], strict=True):
            cosines[list(out)] = -np.inf
            yield _largest(cosines, k)


def _products(units: Vectors, values: npt.NDArray[np.floating | np.int8]) -> Vectors:
    """float32 [units, types]. A row's scale makes no difference to a cosine."""
    if values.dtype == np.float32:
        return np.asarray(units @ values.T, np.float32)
    products = np.empty((len(units), len(values)), np.float32)
    for start in range(0, len(values), _BLOCK_ROWS):
        rows = values[start : start + _BLOCK_ROWS].astype(np.float32)
        products[:, start : start + len(rows)] = units @ rows.T
    return products


def _largest(cosines: npt.NDArray[np.float32], k: int) -> tuple[Ids, npt.NDArray[np.float32]]:
    candidates = np.arange(len(cosines))
    if k < len(cosines):
        least = np.partition(cosines, -k)[-k]
        candidates = np.flatnonzero(cosines >= least)
    order = np.argsort(-cosines[candidates], kind="stable")[:k]
    ids = candidates[order]
    ids = ids[cosines[ids] > -np.inf]
    return ids, cosines[ids]
