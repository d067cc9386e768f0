"""Tables cut into shares, so that each key's rows meet in one worker."""

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Each is summed up or sorted by one worker: 20 M types are 80,000 in each, 1,000 M are 4 M.
SHARES = 256
_WEIGHTS = np.array([zlib.crc32(bytes([byte])) % SHARES for byte in range(256)], np.uint8)


def shares_of(tokens: pa.Array) -> npt.NDArray[np.uint8]:
    """The share of each token: what its bytes stand for, added up, without carry.

    Args:
        tokens: binary [tokens].

    Returns:
        uint8 [tokens].

    >>> first, second, third = shares_of(pa.array([b"stop", b"word", b"pots"]))
    >>> first == third, first == second
    (np.True_, np.False_)
    """
    _, offsets, data = tokens.buffers()
    bounds = np.frombuffer(offsets, np.int32)[tokens.offset :][: len(tokens) + 1]
    stored = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    before = np.zeros(len(stored) + 1, np.uint8)
    np.cumsum(_WEIGHTS[stored], out=before[1:])
    at_bounds = before[bounds - bounds[0]]
    shares: npt.NDArray[np.uint8] = at_bounds[1:] - at_bounds[:-1]
    return shares


def by_share(table: pa.Table, shares: npt.NDArray[np.integer]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a table by share, in their order; nothing for shares without rows.

    Args:
        table: [rows].
        shares: integer [rows], below SHARES.

    >>> table = pa.table({"token": ["a", "b", "c"]})
    >>> parts = by_share(table, np.array([7, 2, 7]))
    >>> [(share, part["token"].to_pylist()) for share, part in parts]
    [(2, ['b']), (7, ['a', 'c'])]
    """
    order = np.argsort(shares, kind="stable")
    found, starts = np.unique(shares[order], return_index=True)
    for share, rows in zip(found.tolist(), np.split(order, starts)[1:], strict=True):
        yield share, table.take(rows)  # A copy: a slice would travel with all of the table.
