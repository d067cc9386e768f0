"""Intrinsic scores of word vectors: word similarity and analogies, coverage beside each.

A model with n-grams has each score twice: over the questions whose words are all in the vocabulary,
as a model without, and over those whose words have a vector.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.evaluator.score_files import read_analogies, read_word_pairs
from components.exporter import ranking

# Types that may answer an analogy, the most frequent ones, as gensim's restrict_vocab.
ANALOGY_TYPES = 300_000

Floats = npt.NDArray[np.float32]
FindId = Callable[[list[str]], npt.NDArray[np.int64]]
# Words that are not in the vocabulary -> float32 [words, dimensions], zeros where one has none.
Compose = Callable[[list[str]], Floats]


@dataclass(frozen=True)
class Score:
    """A score over the questions whose words are all in the vocabulary.

    Attributes:
        value: Spearman's correlation or accuracy; None where too few questions are covered.
        covered: Questions that count.
        total: Questions in the file.
        value_with_ngrams: `value` over the questions whose words have a vector.
        covered_with_ngrams: How many these are; None: the model has no n-grams.
    """

    value: float | None
    covered: int
    total: int
    value_with_ngrams: float | None = None
    covered_with_ngrams: int | None = None

    def as_json(self, name: str) -> dict[str, float | int | None]:
        """By the name of the value; numbers with n-grams only where the model has such.

        >>> Score(0.6, 340, 353).as_json("spearman")
        {'spearman': 0.6, 'covered': 340, 'total': 353}
        """
        numbers = {name: self.value, "covered": self.covered, "total": self.total}
        if self.covered_with_ngrams is None:
            return numbers
        return numbers | {
            f"{name}_with_ngrams": self.value_with_ngrams,
            "covered_with_ngrams": self.covered_with_ngrams,
        }


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float | None:
    """Spearman's rank correlation; None where it is not defined.

    >>> spearman([1, 2, 3], [3, 5, 4])
    0.5
    >>> spearman([1, 1], [2, 3]) is None
    True
    """
    from scipy.stats import spearmanr  # Takes a second.

    if min(len(np.unique(a)), len(np.unique(b))) < 2:
        return None
    return round(float(spearmanr(a, b).statistic), 6)


def word_similarity(
    unit: Floats, find: FindId, path: Path, compose: Compose | None = None
) -> Score:
    """Correlation of the cosines of word pairs with the scores that people gave them.

    Args:
        unit: float32 [types, dimensions], rows of length 1.
        find: Words -> int64 ids, -1 where unknown.
        path: See `score_files.read_word_pairs`.
        compose: Makes vectors of the unknown words; None: the model has no n-grams.
    """
    first, second, scores = read_word_pairs(path)
    a, b = (_asked(unit, find, words, compose) for words in (first, second))
    known, there = a.known & b.known, a.there & b.there
    cosines = np.einsum("pd,pd->p", a.unit[there], b.unit[there])
    people = np.array(scores)
    return Score(
        spearman(cosines[known[there]], people[known]),
        int(known.sum()),
        len(scores),
        *((spearman(cosines, people[there]), int(there.sum())) if compose else ()),
    )


def analogy_accuracy(
    unit: Floats, find: FindId, path: Path, compose: Compose | None = None
) -> tuple[Score, dict[str, Score]]:
    """Share of analogies a : b = c : d whose nearest word to b - a + c is d (3CosAdd).

    The three words of the question are no answers; the ANALOGY_TYPES most frequent types are. With
    n-grams, a, b and c may be any words that have a vector. d must be such a type even so: nothing
    else is ever an answer.

    The arguments are those of `word_similarity`; for the file see `score_files.read_analogies`.

    Returns:
        The score of all questions, and of each section.
    """
    found = {
        section: _answers(unit, find, questions, compose)
        for section, questions in read_analogies(path).items()
    }
    total = _Answers(*map(np.concatenate, zip(*found.values(), strict=True)))
    scores = {section: answers.accuracy(bool(compose)) for section, answers in found.items()}
    return total.accuracy(bool(compose)), scores


class _Asked(NamedTuple):
    """Words of questions.

    Attributes:
        ids: int64 [words], -1: not in the vocabulary.
        unit: float32 [words, dimensions], of length 1, or zeros.
        there: bool [words], whether a word has a vector.
    """

    ids: npt.NDArray[np.int64]
    unit: Floats
    there: npt.NDArray[np.bool_]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.ids >= 0)


def _asked(unit: Floats, find: FindId, words: list[str], compose: Compose | None) -> _Asked:
    ids = find(words)
    known = ids >= 0
    rows = np.zeros((len(words), unit.shape[1]), np.float32)
    rows[known] = unit[ids[known]]
    there = known.copy()
    if compose and not known.all():
        others = np.flatnonzero(~known)
        rows[others] = ranking.unit(compose([words[place] for place in others]))
        there[others] = rows[others].any(axis=1)
    return _Asked(ids, rows, there)


class _Answers(NamedTuple):
    """bool [questions] each.

    Attributes:
        known: Whether all words are of the vocabulary.
        counts: Whether it counts where there are n-grams.
        right: Whether the answer is right.
    """

    known: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]

    def accuracy(self, with_ngrams: bool) -> Score:
        known, counts = (
            (_share(self.right[some]), int(some.sum())) for some in (self.known, self.counts)
        )
        return Score(*known, len(self.known), *(counts if with_ngrams else ()))


def _answers(
    unit: Floats, find: FindId, questions: list[list[str]], compose: Compose | None
) -> _Answers:
    asked = _asked(unit, find, [word for question in questions for word in question], compose)
    types = unit[:ANALOGY_TYPES]
    ids = asked.ids.reshape(-1, 4)
    answers = (ids >= 0) & (ids < len(types))
    known = np.all(answers, axis=1)
    there = np.all(asked.there.reshape(-1, 4), axis=1)
    counts = there & answers[:, 3] if compose else known
    rows = asked.unit.reshape(len(ids), 4, -1)
    right = np.zeros(len(ids), np.bool_)
    places = np.flatnonzero(counts)
    for start in range(0, len(places), 512):
        block = places[start : start + 512]
        a, b, c = rows[block, :3].swapaxes(0, 1)
        similarity = (b - a + c) @ types.T
        question, word = np.nonzero(answers[block, :3])
        similarity[question, ids[block][question, word]] = -np.inf
        right[block] = similarity.argmax(axis=1) == ids[block, 3]
    return _Answers(known, counts, right)


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    return round(int(right.sum()) / len(right), 6) if len(right) else None
