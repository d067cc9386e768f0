"""The n-grams of a word, numbered as fastText numbers them.

Bojanowski et al., "Enriching Word Vectors with Subword Information", 2017: a word's vector is the
mean of a vector of its own and those of its n-grams, runs of characters of the word between `<` and
`>`. All n-grams there are would be too many, so each is hashed to one of so many buckets, and those
of a bucket share a vector. A word that is not in the vocabulary has the mean of its n-grams.

What is an n-gram, in which order, and its hash are fastText's (`Dictionary::computeSubwords`,
`Dictionary::hash` of its source), so models can be exchanged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.settings import TrainerSettings

Vectors = npt.NDArray[np.float32]

END_OF_LINE = "</s>"  # fastText's own word, which has no n-grams.
BASIS, PRIME = 2166136261, 16777619  # Of FNV-1a with 32 bits.
LONGEST_CHARACTER = 4  # Bytes of UTF-8.
_BLOCK_WORDS = 65_536


class Subwords(NamedTuple):
    """Which n-grams a model knows.

    Attributes:
        shortest, longest: Characters of an n-gram, `<` and `>` among them.
        buckets: Into which they are hashed.
    """

    shortest: int
    longest: int
    buckets: int

    @classmethod
    def of(cls, settings: TrainerSettings) -> "Subwords | None":
        """Those of a training; None: it has none."""
        if not settings.max_ngram:
            return None
        return cls(settings.min_ngram, settings.max_ngram, settings.buckets)


class Ngrams(NamedTuple):
    """The n-grams of some words; one that comes twice in a word counts twice.

    Attributes:
        buckets: int32 [n-grams], of one word behind the other.
        splits: int64 [words + 1], where the n-grams of each word begin, and the last end.
    """

    buckets: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int64]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 [words], how many each word has."""
        return np.diff(self.splits)


def ngrams(words: Sequence[str], subwords: Subwords) -> Ngrams:
    """The buckets of the n-grams of each word.

    Args:
        words: As they stand in the vocabulary, without `<` and `>`.
        subwords: Which n-grams.

    >>> found = ngrams(["at", "</s>", ""], Subwords(3, 6, buckets=2_000_000))
    >>> found.buckets.tolist(), found.splits.tolist()  # <at, <at>, at>
    ([1096174, 887408, 351106], [0, 3, 3, 3])
    """
    parts = list(_blocks(words, subwords))
    counts = np.concatenate([np.zeros(1, np.int64), *(counts for _, counts in parts)])
    buckets = np.concatenate([np.zeros(0, np.int32), *(buckets for buckets, _ in parts)])
    return Ngrams(buckets, np.cumsum(counts))


def _blocks(
    words: Sequence[str], subwords: Subwords
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]]:
    for start in range(0, len(words), _BLOCK_WORDS):
        yield _block(words[start : start + _BLOCK_WORDS], subwords)


def _block(
    words: Sequence[str], subwords: Subwords
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Buckets, and how many each word has."""
    wrapped = [b"<%s>" % word.encode() if word != END_OF_LINE else b"" for word in words]
    content = np.frombuffer(b"".join(wrapped), np.uint8)
    first = (content & 0xC0) != 0x80  # Of a character's bytes.
    starts = np.append(np.flatnonzero(first), len(content))
    ends = np.cumsum([len(word) for word in wrapped])
    # Where the characters of the word end that each character belongs to.
    lengths = np.diff(np.searchsorted(starts, ends), prepend=0)
    last = np.repeat(np.cumsum(lengths), lengths)
    begin = last - np.repeat(lengths, lengths)
    place = np.arange(len(last))
    # fastText takes bytes as signed: those above 127 have all higher bits set.
    signed = content.view(np.int8).astype(np.uint32)
    hashes = np.full(len(last), BASIS, np.uint32)
    found = np.zeros((len(last), subwords.longest - subwords.shortest + 1), np.int32)
    there = np.zeros(found.shape, np.bool_)
    for length in range(1, subwords.longest + 1):
        fits = place + length <= last
        place, last, hashes = place[fits], last[fits], hashes[fits]
        character = place + length - 1
        for byte in range(LONGEST_CHARACTER):
            at = starts[character] + byte
            more = at < starts[character + 1]
            at, some = at[more], hashes[more]
            hashes[more] = (some ^ signed[at]) * np.uint32(PRIME)
        if length >= subwords.shortest:
            column = length - subwords.shortest
            found[place, column] = hashes % np.uint32(subwords.buckets)
            # Neither `<` nor `>` alone is one.
            there[place, column] = (length > 1) | ((place != begin[place]) & (place != last - 1))
    counts = np.zeros(len(words), np.int64)
    np.add.at(counts, np.repeat(np.arange(len(words)), lengths), there.sum(axis=1))
    return found[there], counts


def find(
    ids: npt.NDArray[np.int32], wanted: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Where buckets are among others.

    Args:
        ids: int32 [buckets], ascending.
        wanted: int32 [wanted].

    Returns:
        int64 [wanted] places in `ids`, and bool [wanted], which of them hold.
    """
    places = np.searchsorted(ids, wanted)
    there = places < len(ids)
    there[there] = ids[places[there]] == wanted[there]
    return places, there


@dataclass(frozen=True, eq=False)
class Buckets:
    """The trained vectors of n-grams.

    Attributes:
        subwords: Which n-grams they are of.
        ids: int32 [rows] buckets, ascending. Those that are not there have vectors of zeros.
        rows: float32 [rows, dimensions].
    """

    subwords: Subwords
    ids: npt.NDArray[np.int32]
    rows: Vectors

    def sums(self, words: Sequence[str]) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """What the n-grams of each word add up to.

        Returns:
            float32 [words, dimensions], and int64 [words], how many n-grams each has.
        """
        found = ngrams(words, self.subwords)
        sums = np.zeros((len(words), self.rows.shape[1]), np.float32)
        rows, trained = find(self.ids, found.buckets)
        for word, (start, end) in enumerate(zip(found.splits, found.splits[1:], strict=False)):
            here = rows[start:end][trained[start:end]]
            # Thousands of float32 n-grams of a long word would lose the fourth digit.
            sums[word] = self.rows[here].sum(axis=0, dtype=np.float64)
        return sums, found.counts

    def compose(self, words: Sequence[str]) -> Vectors:
        """The vectors of words that are not in the vocabulary.

        Returns:
            float32 [words, dimensions], the mean over all n-grams of each; zeros without one.
        """
        sums, counts = self.sums(words)
        return np.asarray(sums / np.maximum(counts, 1)[:, np.newaxis], np.float32)

    def own(self, words: Sequence[str], vectors: Vectors) -> Vectors:
        """The parts that words of the vocabulary have for themselves.

        Args:
            words: Of the vocabulary.
            vectors: float32 [words, dimensions], theirs: means of such a part and of the n-grams'.

        Returns:
            float32 [words, dimensions].
        """
        sums, counts = self.sums(words)
        return vectors * (counts + 1)[:, np.newaxis].astype(np.float32) - sums
