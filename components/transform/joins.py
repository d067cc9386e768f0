"""Phrases joined in segments: per pass a few numpy ops over all tokens, strings only per type."""

import functools
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.phrases import DELIMITER, Phrases
from components.transform import storage
from components.transform.segments import Segment

JOINED = "phrases_joined"  # what `Segment.read` counts them under


@dataclass(frozen=True)
class Pairs:
    """The pairs of one pass, as numbers.

    Attributes:
        words: binary [words], first and second tokens, each once.
        codes: int64 [pairs], ascending: number of the first x words + number of the second.
    """

    words: pa.Array
    codes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pairs: frozenset[tuple[str, str]]) -> Self:
        """Number the words of `pairs`, in every process alike."""
        encoded = pa.array([word for pair in sorted(pairs) for word in pair], pa.string())
        encoded = encoded.cast(pa.binary()).dictionary_encode()
        numbers = encoded.indices.to_numpy().astype(np.int64)
        codes = numbers[::2] * len(encoded.dictionary) + numbers[1::2]
        return cls(encoded.dictionary, np.sort(codes))


@functools.lru_cache(maxsize=2)
def load(path: str) -> tuple[Pairs, ...]:
    """The phrases of a file that stays as it is, anywhere Beam can read, by pass."""
    return tuple(map(Pairs.of, Phrases.parse(storage.read(path)).passes))


def neighbors(
    segment: Segment, words: pa.Array
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Tokens that follow each other in one document and are both among `words`.

    Args:
        segment: The documents.
        words: binary [words], each once.

    Returns:
        int64 [pairs], the places of the first tokens, ascending, and int64 [pairs], the pairs as
        codes, see `Pairs`.
    """
    type_numbers = pc.index_in(segment.types, value_set=words).fill_null(-1)
    numbers = type_numbers.to_numpy().astype(np.int64)[segment.tokens]
    is_word = numbers >= 0
    both = is_word[:-1] & is_word[1:]
    ends = segment.bounds
    ends = ends[(ends > 0) & (ends < len(numbers))]
    both[ends - 1] = False
    places = np.flatnonzero(both)
    return places, numbers[places] * len(words) + numbers[places + 1]


def join(segment: Segment, passes: tuple[Pairs, ...]) -> Segment:
    """As `Phrases.join` of each document; `read` counts how many pairs became one token."""
    for pairs in passes:
        segment = _join(segment, pairs)
    return segment


def _join(segment: Segment, pairs: Pairs) -> Segment:
    places, codes = neighbors(segment, pairs.words)
    found = np.isin(codes, pairs.codes)
    places, codes = places[found], codes[found]
    # No token is in two pairs: of a run of pairs that overlap, the first, third, … are joined.
    order = np.arange(len(places))
    starts = np.diff(places, prepend=-2) > 1
    chosen = (order - np.maximum.accumulate(np.where(starts, order, 0))) % 2 == 0
    places, codes = places[chosen], codes[chosen]
    if not len(places):
        return segment

    made, inverse = np.unique(codes, return_inverse=True)
    first, second = np.divmod(made, len(pairs.words))
    new = pc.binary_join_element_wise(
        pairs.words.take(pa.array(first)), pairs.words.take(pa.array(second)), DELIMITER.encode()
    )
    # The text may have held one of them before, and two pairs may make the same.
    types = pa.concat_arrays([segment.types, new]).dictionary_encode()
    numbers = types.indices.to_numpy()[len(segment.types) :]
    tokens = segment.tokens.copy()
    tokens[places] = numbers[inverse]
    kept = np.ones(len(tokens), bool)
    kept[places + 1] = False
    joined_before = np.searchsorted(places, segment.bounds)
    return replace(
        segment,
        types=types.dictionary,
        tokens=tokens[kept],
        lengths=segment.lengths - np.diff(joined_before).astype(np.int32),
        read=segment.read | {JOINED: segment.read.get(JOINED, 0) + len(places)},
    )
