"""Tables cut into shares, so that each key's rows meet in one worker."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Each is summed up or sorted by one worker: 20 M types are 80,000 in each, 1,000 M are 4 M.
SHARES = 256


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
