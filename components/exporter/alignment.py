"""Turns a newly trained space onto the one that is served, so that stored vectors stay of use.

A training ends in a space of its own: its loss knows inner products of vectors and context vectors
only, and these stay as they are when both tables are turned alike. Of all rotations and reflections
the one is taken that brings the frequent words which both vocabularies hold nearest to where they
were (the orthogonal Procrustes problem, Schönemann 1966; for word vectors, Hamilton et al. 2016).
It changes no length and no cosine.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.artifacts import ExportedModel, Model
from components.errors import SkipstreamError
from components.exporter.storage import store
from components.subwords import Buckets

# Rare words wander from night to night; so many that moved for a reason do not turn the rest.
FREQUENT = 10_000
ROTATION = "rotation.npy"
_BLOCK_ROWS = 65_536

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class Fit(NamedTuple):
    """How one space is turned onto another, and how well they fit then.

    Attributes:
        rotation: float32 [dimensions, dimensions], orthogonal; rows are multiplied by it from the
            right.
        words: How many it was found by.
        residual: Root mean square distance of their vectors, scaled to length 1, after the
            rotation: 0 for the same space, sqrt(2) for one that has nothing to do with it.
    """

    rotation: Vectors
    words: int
    residual: float


def shared_words(tokens: Sequence[str], others: Sequence[str]) -> tuple[Ids, Ids]:
    """Ids of the words that two vocabularies share, those that are frequent in both first.

    Args:
        tokens: By id, most frequent first.
        others: The same, of the other vocabulary.

    Returns:
        int64 [shared] ids in the one, and in the other.

    >>> [ids.tolist() for ids in shared_words(["a", "b", "c"], ["c", "d", "a"])]
    [[0, 2], [2, 0]]
    """
    index: Mapping[str, int] = {token: id_ for id_, token in enumerate(others)}
    pairs = [(id_, index[token]) for id_, token in enumerate(tokens) if token in index]
    ids, other_ids = np.array(pairs, np.int64).reshape(-1, 2).T
    order = np.argsort(np.maximum(ids, other_ids), kind="stable")
    return ids[order], other_ids[order]


def fit(vectors: Vectors, onto: Vectors) -> Fit | None:
    """The rotation that brings `vectors` nearest to `onto`, each scaled to length 1.

    Args:
        vectors: float32 [words, dimensions].
        onto: float32 [words, dimensions], the same words' vectors in the other space.

    Returns:
        None where there are fewer words than dimensions, or not as many dimensions there.

    >>> vectors, onto = np.array([[[0, 2], [1, 0]], [[1, 0], [0, -1]]], np.float32)
    >>> found = fit(vectors, onto)
    >>> found.rotation.round(6).tolist(), found.residual
    ([[0.0, -1.0], [1.0, 0.0]], 0.0)
    """
    dimensions = vectors.shape[1]
    if onto.shape[1] != dimensions:
        return None
    finite = np.isfinite(vectors).all(axis=1) & np.isfinite(onto).all(axis=1)
    a, b = _unit(vectors[finite]), _unit(onto[finite])
    if len(a) < dimensions:
        return None
    left, _, right = np.linalg.svd(a.T @ b)
    # The last bits of a float64 depend on the number of threads; these do not, and suffice.
    rotation = (left @ right).astype(np.float32)
    distances = np.sum((a @ rotation - b) ** 2, axis=1)
    return Fit(rotation, len(a), round(float(np.sqrt(distances.mean())), 6))


def turn(vectors: Vectors, rotation: Vectors) -> Vectors:
    """`vectors`, float32 [rows, dimensions], in the other space."""
    turned, exact = np.empty_like(vectors), rotation.astype(np.float64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        turned[start : start + _BLOCK_ROWS] = vectors[start : start + _BLOCK_ROWS] @ exact
    return turned


def served_vectors(exported: ExportedModel, model: Model) -> Vectors:
    """What `exported` must answer with: the trained vectors, turned as it says, and stored.

    Returns:
        float32 [types, dimensions], by token id.

    Raises:
        SkipstreamError: Turned so, they would not keep their lengths and cosines.
    """
    return _served(model.embeddings(exported.settings), exported)


def served_buckets(exported: ExportedModel, model: Model) -> Buckets | None:
    """The vectors of n-grams that `exported` must answer with; None: the model has none.

    Raises:
        SkipstreamError: As `served_vectors`.
    """
    if not (buckets := model.buckets):
        return None
    return Buckets(buckets.subwords, buckets.ids, _served(buckets.rows, exported))


def _served(vectors: Vectors, exported: ExportedModel) -> Vectors:
    path = exported / ROTATION
    if path.exists():
        rotation = np.load(path)
        if not np.allclose(rotation @ rotation.T, np.eye(vectors.shape[1]), rtol=0, atol=1e-5):
            raise SkipstreamError(
                f"{path} must hold an orthogonal matrix of {vectors.shape[1]} dimensions, and does "
                f"not: delete {exported.address} and export again"
            )
        vectors = turn(vectors, rotation)
    return store(vectors, exported.settings.storage).restored()


def _unit(vectors: Vectors) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(norms == 0, 1, norms))
