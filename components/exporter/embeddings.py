"""A trained model for Python: vectors, neighbours, texts. No TensorFlow is needed for that."""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError, UnknownWordError
from components.exporter import ranking
from components.exporter.served import Served
from components.exporter.storage import Stored, Vectors
from components.names import cut
from components.near import near
from components.spelling import spell, tokenize
from components.subwords import Buckets, Subwords, find, ngrams

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

Neighbors = list[tuple[str, float]]
# A word or a vector, perhaps with its weight.
Item = str | npt.NDArray[Any] | tuple[str | npt.NDArray[Any], float]
_MOST_HINTS = 3  # unknown words whose near spellings are looked for
_MOST_NAMED = 10  # unknown words that a message names


class Embeddings:
    """The words of a model and their vectors.

    A word is looked up as it is, else in the tokeniser's spelling (lower case, plain apostrophe, no
    white space around it). Where the model has n-grams, an unknown word has the mean of theirs.
    Answers are those of the SavedModel's signatures.

    Attributes:
        path: The SavedModel's directory.

    >>> words, rows = ["king", "queen", "oven"], np.array([[4, 3], [3, 4], [-4, 3]], np.float32)
    >>> inverse_norms = np.full(3, 1 / 5, np.float32)
    >>> model = Embeddings(
    ...     Served(Path(), words, Stored(rows, None), inverse_norms, None, "words", True))
    >>> model["King"].tolist(), "queen" in model, len(model)
    ([4.0, 3.0], True, 3)
    >>> [(word, round(cosine, 2)) for word, cosine in model.most_similar("king", topn=1)]
    [('queen', 0.96)]
    >>> round(model.similarity("king", "oven"), 2), model.doesnt_match(words)
    (-0.28, 'oven')
    >>> model.embed(["The king and his queen"]).tolist()
    [[3.5, 3.5]]
    """

    def __init__(self, served: Served) -> None:
        """Ask `served`."""
        self.path = served.path
        self._served = served

    @classmethod
    def load(cls, path: Path, address: str | None = None) -> Self:
        """Load what `served.resolve(path)` finds.

        Args:
            path: What it takes.
            address: What that is called in messages, if it is a copy.

        Raises:
            SkipstreamError: There is none, it is damaged, or skipstream did not export it.
        """
        return cls(Served.load(path, address))

    @property
    def words(self) -> list[str]:
        """The vocabulary, most frequent word first."""
        return self._served.words

    @property
    def vectors(self) -> Vectors:
        """float32 [types, dimensions], in the order of `words`, read-only."""
        return self._served.vectors

    @property
    def counts(self) -> npt.NDArray[np.int64] | None:
        """int64 [types], occurrences in the corpus, by word; None if the model has none.

        Raises:
            SkipstreamError: They are damaged.
        """
        return self._served.counts

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._served.stored.values.shape[1])

    @property
    def subwords(self) -> Subwords | None:
        """Which n-grams it knows; None: it has none."""
        return self._served.ngrams.subwords if self._served.ngrams else None

    def buckets(self) -> Buckets | None:
        """The vectors of n-grams, those that are not zeros; None: the model has none."""
        return self._served.buckets()

    def __len__(self) -> int:
        """Words of the vocabulary."""
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        """The words, most frequent first."""
        return iter(self.words)

    def __repr__(self) -> str:
        """Size and place."""
        return f"<Embeddings: {len(self):,} words, {self.dimensions} dimensions, {self.path}>"

    def __contains__(self, word: object) -> bool:
        """Whether a word is in the vocabulary, as it is or in the tokeniser's spelling.

        Unlike in gensim's FastText, a word that n-grams alone make a vector of is not.
        """
        return isinstance(word, str) and self._look_up([word])[0][0] is not None

    @overload
    def __getitem__(self, words: str) -> npt.NDArray[np.float32]: ...
    @overload
    def __getitem__(self, words: Iterable[str]) -> Vectors: ...
    def __getitem__(self, words: str | Iterable[str]) -> npt.NDArray[np.float32]:
        """The vector of a word, or those of several.

        Returns:
            float32 [dimensions], or [words, dimensions].

        Raises:
            UnknownWordError: A KeyError: a word has no vector. It names near spellings.
            SkipstreamError: They are no words.
        """
        if isinstance(words, str):
            return np.asarray(self._known([words])[0])
        return self._known(words)

    def vectors_of(self, words: Iterable[str]) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """The vectors of `words`, and which of them are in the vocabulary.

        Returns:
            float32 [words, dimensions], and bool [words]. Words that are not in the vocabulary have
            the mean of their n-grams; zeros where the model knows none of these.
        """
        ids, vectors = self._find(_texts(words, "words"))
        return vectors, np.array([id_ is not None for id_ in ids], np.bool_)

    def most_similar(
        self,
        positive: Item | Sequence[Item] | None = None,
        negative: Item | Sequence[Item] | None = None,
        topn: int = 10,
    ) -> Neighbors:
        """The words whose vectors have the largest cosines with a mean, as gensim's KeyedVectors.

        Args:
            positive: Words or vectors, each perhaps with its weight: ("king", 2.0). Words'
                vectors have length 1 before they are weighted, others stay as they are. The words
                themselves are no answers. None: none.
            negative: The same, with weights of -1 unless they have their own.
            topn: Most answers.

        Returns:
            (word, cosine), nearest first.

        Raises:
            UnknownWordError: A word has no vector.
        """
        most = _at_least_1(topn, "topn")
        items = [*_weighted(positive, 1.0), *_weighted(negative, -1.0)]
        if not items:
            raise SkipstreamError("most_similar needs a word or a vector, got none")
        words = [item for item, _ in items if isinstance(item, str)]
        ids, found = self._find(words)
        self._refuse_unknown(words, ids, found)
        rows = iter(ranking.unit(found))
        vectors = [next(rows) if isinstance(item, str) else self._vector(item) for item, _ in items]
        weights = np.array([weight for _, weight in items], np.float32)
        if not np.isfinite(weights).all():
            raise SkipstreamError("weights must be finite numbers, got infinity or NaN")
        target = (np.stack(vectors) * weights[:, np.newaxis]).mean(axis=0)
        return self._nearest(target[np.newaxis], [ids], most)[0]

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words' vectors.

        Raises:
            UnknownWordError: One has no vector.
        """
        first, second = ranking.unit(self._known([a, b]))
        return float(first @ second)

    def doesnt_match(self, words: Iterable[str]) -> str:
        """The word whose vector is farthest from the mean of all, at length 1.

        Raises:
            UnknownWordError: One has no vector. (gensim leaves such words out.)
        """
        several = _texts(words, "words")
        if not several:
            raise SkipstreamError("doesnt_match needs a list of words, got none")
        units = ranking.unit(self._known(several))
        cosines = units @ ranking.unit(units.mean(axis=0))
        return min(zip(cosines.tolist(), several, strict=True))[1]

    def nearest(self, words: Iterable[str], k: int) -> list[Neighbors | None]:
        """Up to `k` (word, cosine) for each of `words`, nearest first; None: it has no vector."""
        ids, vectors = self._find(_texts(words, "words"))
        blank = self._without_vector(ids, vectors)
        answers = self._nearest(vectors, [[id_] for id_ in ids], _at_least_1(k, "k"))
        return [None if none else row for none, row in zip(blank, answers, strict=True)]

    def analogy(self, a: str, b: str, c: str, k: int) -> Neighbors | None:
        """Up to `k` (word, cosine) that are to `c` as `b` is to `a`; None: one has no vector."""
        ids, vectors = self._find(_texts([a, b, c], "words"))
        if self._without_vector(ids, vectors).any():
            return None
        first, second, third = ranking.unit(vectors)
        target = (second - first + third)[np.newaxis]
        return self._nearest(target, [ids], _at_least_1(k, "k"))[0]

    def embed(self, texts: Iterable[str]) -> Vectors:
        """The mean vector of those of each text's tokens that have one.

        Returns:
            float32 [texts, dimensions], zeros where no token has a vector.
        """
        return self.means_of(texts)[0]

    def means_of(
        self, texts: Iterable[str]
    ) -> tuple[Vectors, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """What `embed` answers, and of how many tokens.

        Returns:
            float32 [texts, dimensions]; int32 [texts] tokens; int32 [texts] tokens of the
            vocabulary.
        """
        several, served = _texts(texts, "texts"), self._served
        split = tokenize(several, tokenizer=served.tokenizer, lowercase=served.lowercase)
        means = np.zeros((len(several), self.dimensions), np.float32)
        known_counts = np.zeros(len(several), np.int32)
        for text, tokens in enumerate(split):
            split[text] = tokens = served.phrases.join(tokens) if served.phrases else tokens
            ids = [self._index.get(token) for token in tokens]
            vectors = self._rows(ids)
            known = np.array([id_ is not None for id_ in ids], np.bool_)
            if served.ngrams and not known.all():
                places = np.flatnonzero(~known)
                vectors[places] = self._composed([tokens[place] for place in places])
            counted = known | vectors.any(axis=1) if served.ngrams else known
            means[text] = vectors.sum(axis=0) / max(1, np.count_nonzero(counted))
            known_counts[text] = np.count_nonzero(known)
        return means, np.array([len(tokens) for tokens in split], np.int32), known_counts

    def keras_layer(self, *, trainable: bool = False) -> Any:
        """A Keras layer: tokens in, vectors out; see `conversions.keras_layer`."""
        from components.exporter import conversions

        return conversions.keras_layer(self.words, self.vectors, trainable=trainable)

    def to_gensim(self) -> "KeyedVectors":
        """The same as gensim's KeyedVectors; with n-grams, as its FastTextKeyedVectors.

        Raises:
            SkipstreamError: gensim is not installed.
        """
        from components.exporter import conversions

        return conversions.to_gensim(self.words, self.vectors, self.counts, self.buckets())

    def near(self, word: str) -> list[str]:
        """Up to three words of the vocabulary that are spelled nearly like `word`."""
        return near(word, self.words)

    def refuse(self, words: Sequence[str]) -> None:
        """Refuse words without a vector, if there are any.

        Raises:
            UnknownWordError: It names them, and near spellings.
        """
        if not words:
            return
        close = [self.near(word) if len(words) <= _MOST_HINTS else [] for word in words]
        named = [
            f"{cut(word)} (did you mean {' or '.join(others)}?)" if others else cut(word)
            for word, others in zip(words, close, strict=True)
        ]
        if len(named) > _MOST_NAMED:
            named[_MOST_NAMED:] = [f"and {len(named) - _MOST_NAMED:,} more"]
        said = f"not in the model's vocabulary: {', '.join(named)}"
        if self.subwords:
            said += "; nor was any of the n-grams trained that would make a vector"
        elif not all(close):
            said += ": occurs fewer than transform.min_count times, or is spelled otherwise"
        raise UnknownWordError(said)

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return {word: id_ for id_, word in enumerate(self.words)}

    def _look_up(self, words: Sequence[str]) -> tuple[list[int | None], list[str]]:
        """Ids of words as they are, else in the tokeniser's spelling; and how they were found."""
        ids = [self._index.get(word) for word in words]
        unknown = [place for place, id_ in enumerate(ids) if id_ is None]
        spelled, served = list(words), self._served
        if unknown:
            again = spell(
                [words[place] for place in unknown],
                tokenizer=served.tokenizer,
                lowercase=served.lowercase,
            )
            for place, word in zip(unknown, again, strict=True):
                ids[place], spelled[place] = self._index.get(word), word
        return ids, spelled

    def _find(self, words: Sequence[str]) -> tuple[list[int | None], Vectors]:
        """Ids, and float32 [words, dimensions]: zeros where there is no vector."""
        ids, spelled = self._look_up(words)
        vectors = self._rows(ids)
        unknown = [place for place, id_ in enumerate(ids) if id_ is None]
        if unknown and self._served.ngrams:
            vectors[unknown] = self._composed([spelled[place] for place in unknown])
        return ids, vectors

    def _rows(self, ids: Sequence[int | None]) -> Vectors:
        """float32 [ids, dimensions], zeros for None."""
        known = [place for place, id_ in enumerate(ids) if id_ is not None]
        vectors = np.zeros((len(ids), self.dimensions), np.float32)
        vectors[known] = _taken(self._served.stored, [ids[place] for place in known])
        return vectors

    def _composed(self, words: Sequence[str]) -> Vectors:
        """float32 [words, dimensions], the means of the words' n-grams."""
        table = self._served.ngrams
        if table is None or not words:
            return np.zeros((len(words), self.dimensions), np.float32)
        wanted = np.unique(ngrams(words, table.subwords).buckets)
        places, trained = find(table.ids, wanted)
        rows = _taken(table.stored, places[trained])
        return Buckets(table.subwords, wanted[trained], rows).compose(words)

    def _without_vector(self, ids: Sequence[int | None], vectors: Vectors) -> npt.NDArray[np.bool_]:
        """Which words of `_find` have none: bool [words]."""
        unknown = np.array([id_ is None for id_ in ids], np.bool_)
        return unknown & ~vectors.any(axis=1)

    def _known(self, words: Iterable[str]) -> Vectors:
        several = _texts(words, "words")
        ids, vectors = self._find(several)
        self._refuse_unknown(several, ids, vectors)
        return vectors

    def _refuse_unknown(
        self, words: Sequence[str], ids: Sequence[int | None], vectors: Vectors
    ) -> None:
        blank = self._without_vector(ids, vectors)
        self.refuse([word for word, none in zip(words, blank, strict=True) if none])

    def _nearest(
        self, targets: Vectors, left_out: Sequence[Sequence[int | None]], k: int
    ) -> list[Neighbors]:
        served = self._served
        return [
            [
                (self.words[id_], cosine)
                for id_, cosine in zip(ids.tolist(), cosines.tolist(), strict=True)
            ]
            for ids, cosines in ranking.nearest(
                targets,
                served.stored,
                served.inverse_norms,
                k=k,
                left_out=[[id_ for id_ in ids if id_ is not None] for ids in left_out],
            )
        ]

    def _vector(self, given: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        try:
            with np.errstate(over="ignore"):
                vector = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise SkipstreamError(
                f"most_similar takes words and vectors, got {type(given).__name__}"
            ) from error
        if vector.shape != (self.dimensions,):
            raise SkipstreamError(
                f"a vector must have the shape ({self.dimensions},), got {vector.shape}"
            )
        if not np.isfinite(vector).all():
            raise SkipstreamError("a vector must hold finite numbers, got infinity or NaN")
        return vector


def _taken(stored: Stored, ids: Sequence[int | None] | npt.NDArray[np.int64]) -> Vectors:
    """float32 [ids, dimensions]: rows of a table, which itself may not fit the memory."""
    rows = np.asarray(ids, np.int64)
    scales = None if stored.scales is None else stored.scales[rows]
    return Stored(stored.values[rows], scales).restored()


def _texts(given: Iterable[str], name: str) -> list[str]:
    """Words or texts as a list of text.

    Raises:
        SkipstreamError: It is none; `name` is what the message calls it.
    """
    if isinstance(given, str):
        raise SkipstreamError(f"{name} must be a list of them, got the text {cut(given)!r}")
    try:
        several = list(given)
    except TypeError as error:
        raise SkipstreamError(f"{name} must be text, got {type(given).__name__}") from error
    for place, one in enumerate(several):
        if not isinstance(one, str):
            raise SkipstreamError(f"{name} must be text, got {type(one).__name__} at place {place}")
    return several


def _weighted(items: Item | Sequence[Item] | None, weight: float) -> Iterable[tuple[Any, float]]:
    """Items and their weights; `items` may be one alone, or none."""
    if items is None:
        return ()
    if not isinstance(items, str | np.ndarray | Iterable):
        raise SkipstreamError(f"most_similar takes words and vectors, got {type(items).__name__}")
    is_vector = isinstance(items, np.ndarray) and items.ndim == 1
    several: Iterable[Any] = (
        [items] if isinstance(items, str) or is_vector or _is_pair(items) else items
    )
    return (item if _is_pair(item) else (item, weight) for item in several)


def _is_pair(item: Any) -> bool:
    """Whether it is (word or vector, weight)."""
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and isinstance(item[0], str | np.ndarray)
        and isinstance(item[1], int | float | np.number)
    )


def _at_least_1(k: int, name: str) -> int:
    try:
        number = operator.index(k)
    except TypeError as error:
        raise SkipstreamError(
            f"the number of answers ({name}) must be a whole number, got {k!r}"
        ) from error
    if number < 1:
        raise SkipstreamError(f"the number of answers ({name}) must be at least 1, got {k}")
    return number
