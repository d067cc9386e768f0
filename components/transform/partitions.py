"""Tables cut into partitions, so that each key's rows meet in one worker."""

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Each is summed up or sorted by one worker: 20 M types are 80,000 in each, 1,000 M are 4 M.
PARTITIONS = 256
_WEIGHTS = np.array([zlib.crc32(bytes([byte])) % PARTITIONS for byte in range(256)], np.uint8)


def partitions_of(tokens: pa.Array) -> npt.NDArray[np.uint8]:
    """The partition of each token: what its bytes stand for, added up, without carry.

    Args:
        tokens: binary [tokens].

    Returns:
        uint8 [tokens].

    >>> first, second, third = partitions_of(pa.array([b"stop", b"word", b"pots"]))
    >>> first == third, first == second
    (np.True_, np.False_)
    """
    _, offsets, data = tokens.buffers()
    bounds = np.frombuffer(offsets, np.int32)[tokens.offset :][: len(tokens) + 1]
    stored = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    before = np.zeros(len(stored) + 1, np.uint8)
    np.cumsum(_WEIGHTS[stored], out=before[1:])
    at_bounds = before[bounds - bounds[0]]
    partitions: npt.NDArray[np.uint8] = at_bounds[1:] - at_bounds[:-1]
    return partitions


def by_partition(
    table: pa.Table, partitions: npt.NDArray[np.integer]
) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a table by partition, in their order; nothing for partitions without rows.

    Args:
        table: [rows].
        partitions: integer [rows], below PARTITIONS.

    >>> table = pa.table({"token": ["a", "b", "c"]})
    >>> found = by_partition(table, np.array([7, 2, 7]))
    >>> [(partition, rows["token"].to_pylist()) for partition, rows in found]
    [(2, ['b']), (7, ['a', 'c'])]
    """
    order = np.argsort(partitions, kind="stable")
    found, starts = np.unique(partitions[order], return_index=True)
    for partition, rows in zip(found.tolist(), np.split(order, starts)[1:], strict=True):
        yield partition, table.take(rows)  # A copy: a slice would travel with all of the table.
