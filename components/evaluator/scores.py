"""Intrinsic scores of word vectors: word similarity and analogies, coverage beside each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.evaluator.score_files import read_analogies, read_word_pairs

# Types that may answer an analogy, the most frequent ones, as gensim's restrict_vocab.
ANALOGY_TYPES = 300_000

Floats = npt.NDArray[np.float32]
FindId = Callable[[list[str]], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Score:
    """A score over the questions whose words are all known.

    Attributes:
        value: Spearman's correlation or accuracy; None where too few questions are covered.
        covered: Questions that count.
        total: Questions in the file.
    """

    value: float | None
    covered: int
    total: int


def ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs.

    >>> ranks([10, 30, 20, 20]).tolist()
    [1.0, 4.0, 2.5, 2.5]
    """
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float | None:
    """Spearman's rank correlation; None where it is not defined.

    >>> spearman([1, 2, 3], [3, 5, 4])
    0.5
    >>> spearman([1, 1], [2, 3]) is None
    True
    """
    x, y = ranks(a), ranks(b)
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return None
    return round(float(np.corrcoef(x, y)[0, 1]), 6)


def unit_rows(vectors: Floats) -> Floats:
    """Rows scaled to length 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), np.float32)


def word_similarity(unit: Floats, find: FindId, path: Path) -> Score:
    """Correlation of the cosines of word pairs with the scores that people gave them.

    Args:
        unit: float32 [types, dimensions], rows of length 1.
        find: Words -> int64 ids, -1 where unknown.
        path: See `score_files.read_word_pairs`.
    """
    first, second, scores = read_word_pairs(path)
    a, b = find(first), find(second)
    known = (a >= 0) & (b >= 0)
    cosines = np.einsum("pd,pd->p", unit[a[known]], unit[b[known]])
    return Score(spearman(cosines, np.array(scores)[known]), int(known.sum()), len(scores))


def analogy_accuracy(unit: Floats, find: FindId, path: Path) -> tuple[Score, dict[str, Score]]:
    """Share of analogies a : b = c : d whose nearest word to b - a + c is d (3CosAdd).

    The three words of the question are no answers; the ANALOGY_TYPES most frequent types are.

    Returns:
        The score of all questions, and of each section.
    """
    sections = read_analogies(path)
    unit = unit[:ANALOGY_TYPES]
    scores, hits, covered = {}, 0, 0
    for section, questions in sections.items():
        ids = find([word for question in questions for word in question]).reshape(-1, 4)
        ids = ids[np.all((ids >= 0) & (ids < len(unit)), axis=1)]
        right = sum(
            int(_answered(unit, ids[start : start + 512]).sum())
            for start in range(0, len(ids), 512)
        )
        scores[section] = _accuracy(right, len(ids), len(questions))
        hits, covered = hits + right, covered + len(ids)
    return _accuracy(hits, covered, sum(map(len, sections.values()))), scores


def _accuracy(right: int, covered: int, total: int) -> Score:
    return Score(round(right / covered, 6) if covered else None, covered, total)


def _answered(unit: Floats, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    a, b, c, d = ids.T
    similarity = (unit[b] - unit[a] + unit[c]) @ unit.T
    np.put_along_axis(similarity, ids[:, :3], -np.inf, axis=1)
    return np.asarray(similarity.argmax(axis=1) == d)
