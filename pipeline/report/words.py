"""The words of the page: which are nearest to each, and where they lie on the map.

The map is t-SNE by scikit-learn (Barnes-Hut): 2 s, the same bits from the same vectors, a wheel of
10 MB. UMAP, PaCMAP and TriMap compile themselves for 5 to 10 s in each process, and openTSNE, which
needs scikit-learn too, takes longer for so few words.
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from components.exporter import ranking

Rows = npt.NDArray[np.float32]

ASKED = 10_000  # Words whose neighbours the page knows, the most frequent.
MAPPED = 2_000  # Words on the map: t-SNE of more takes longer than a reader of them would like.
NEIGHBORS = 10
EXTENT = 10_000  # Coordinates of the map are whole numbers from -EXTENT to EXTENT.
_BLOCK = 500
_PERPLEXITY = 15.0  # How many neighbours each word is kept near to.
_ITERATIONS = 300  # Of which the first 250 are scikit-learn's early exaggeration.
_FEWEST, _LEAST_SPREAD = 4, 1e-5  # Words, and the width of unit vectors, that can be mapped.
_ANGLE = 0.8  # Of Barnes-Hut: as many neighbours stay near as with 0.5, in two thirds of the time.


def nearest(vectors: Rows, count: int = NEIGHBORS) -> tuple[npt.NDArray[np.int64], Rows]:
    """The nearest rows of each row by cosine, nearest first; of equal ones the lower row first.

    Args:
        vectors: float32 [words, dimensions], finite.
        count: How many; with fewer other rows, all of them.

    Returns:
        int64 [words, count] rows, and float32 [words, count] cosines.

    >>> rows, cosines = nearest(np.array([[1, 0], [0, 1], [2, 1]], np.float32), 2)
    >>> rows.tolist(), cosines[0].astype(float).round(2).tolist()
    ([[2, 1], [2, 0], [0, 1]], [0.89, 0.0])
    """
    unit = ranking.unit(vectors)
    count = max(0, min(count, len(unit) - 1))
    rows, cosines = np.empty([len(unit), count], np.int64), np.empty([len(unit), count], np.float32)
    if not count:
        return rows, cosines
    with _one_thread():
        for start in range(0, len(unit), _BLOCK):
            found = unit[start : start + _BLOCK] @ unit.T
            asked = np.arange(len(found))
            found[asked, start + asked] = -np.inf
            # All that reach the last of the nearest: a few more where several are equal.
            least = np.partition(found, -count, axis=1)[:, -count, np.newaxis]
            row, place = np.nonzero(found >= least)
            order = np.lexsort((place, -found[row, place], row))
            firsts = np.searchsorted(row, asked)[:, np.newaxis] + np.arange(count)
            picked = order[firsts]
            rows[start : start + _BLOCK] = place[picked]
            cosines[start : start + _BLOCK] = found[row[picked], place[picked]]
    return rows, cosines


def positions(vectors: Rows) -> npt.NDArray[np.int64]:
    """Where words lie on the map, near ones near each other.

    t-SNE (van der Maaten, "Accelerating t-SNE using Tree-Based Algorithms", JMLR 2014) of the unit
    vectors, begun from their first two principal components, on one thread: sums depend on how many
    there are. Of few words, or of equal ones: a circle.

    Args:
        vectors: float32 [words, dimensions], finite.

    Returns:
        int64 [words, 2], x and y from -EXTENT to EXTENT.
    """
    from sklearn.manifold import TSNE  # Before the limit, which reaches loaded libraries only.

    unit = ranking.unit(vectors)
    with _one_thread():
        begin = _principal(unit)
        if begin is None:
            turns = np.arange(len(unit)) * (2 * np.pi / max(1, len(unit)))
            found = np.stack([np.cos(turns), np.sin(turns)], axis=1) / 2
        else:
            found = TSNE(
                perplexity=min(_PERPLEXITY, (len(unit) - 1) / 3),
                max_iter=_ITERATIONS,
                angle=_ANGLE,
                init=begin,
                random_state=0,
                n_jobs=1,
            ).fit_transform(unit)
            found = found - (found.max(0) + found.min(0)) / 2
            found /= np.abs(found).max()
    places: npt.NDArray[np.int64] = np.rint(EXTENT * found).astype(np.int64)
    return places


def _principal(unit: Rows) -> Rows | None:
    """The first two principal components, as small as t-SNE begins.

    Returns:
        float32 [words, 2]. None where the words are few or all at one place: scikit-learn's own
        start then divides by 0, and its tree of numbers that are none ends the process.
    """
    if len(unit) < _FEWEST or unit.shape[1] < 2:
        return None
    centred = unit.astype(np.float64) - unit.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]  # The largest come last.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    components = centred @ axes
    spread = float(components[:, 0].std())
    return (components * (1e-4 / spread)).astype(np.float32) if spread > _LEAST_SPREAD else None


def _one_thread() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits
