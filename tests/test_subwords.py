"""Tests for components.subwords."""

import numpy as np
import pytest

from components.subwords import Buckets, Subwords, ngrams

WORDS = [
    "at",
    "a",
    "",
    "walking",
    "straße",
    "日本語",
    "👩‍👩‍👧",
    "</s>",
    "<s>",
    "ı́",
    "x" * 300,
    "at",
]
SOME = [
    Subwords(3, 6, 2_000_000),
    Subwords(1, 2, 1000),
    Subwords(2, 9, 7),
    Subwords(5, 5, 2**31 - 1),
]


def naive(word: str, subwords: Subwords) -> list[int]:
    """As fastText's source does it, a byte at a time."""
    found: list[int] = []
    if word == "</s>":
        return found
    wrapped = f"<{word}>"
    for start in range(len(wrapped)):
        for length in range(subwords.shortest, subwords.longest + 1):
            if start + length > len(wrapped):
                break
            if length == 1 and start in (0, len(wrapped) - 1):
                continue
            value = 2166136261
            for byte in wrapped[start : start + length].encode():
                value ^= byte if byte < 128 else byte | 0xFFFFFF00
                value = value * 16777619 % 2**32
            found.append(value % subwords.buckets)
    return found


@pytest.mark.parametrize("subwords", SOME)
def test_ngrams_are_hashed_as_by_a_naive_loop(subwords: Subwords) -> None:
    found = ngrams(WORDS, subwords)
    got = [
        found.buckets[a:b].tolist() for a, b in zip(found.splits, found.splits[1:], strict=False)
    ]
    assert got == [naive(word, subwords) for word in WORDS]
    assert found.counts.tolist() == [len(naive(word, subwords)) for word in WORDS]


def test_no_words_have_no_ngrams() -> None:
    found = ngrams([], SOME[0])
    assert (found.buckets.tolist(), found.splits.tolist()) == ([], [0])


def test_vectors_are_means_over_all_ngrams_trained_or_not() -> None:
    subwords = Subwords(3, 4, 50)
    every = sorted(set(naive("walk", subwords)))
    buckets = Buckets(
        subwords,
        np.array(every[::2], np.int32),
        np.random.default_rng(0).normal(size=(len(every[::2]), 3)).astype(np.float32),
    )
    trained = dict(zip(buckets.ids.tolist(), buckets.rows, strict=True))
    parts = [trained.get(bucket, np.zeros(3)) for bucket in naive("walk", subwords)]
    composed = buckets.compose(["walk", "", "</s>"])
    np.testing.assert_allclose(composed[0], np.mean(parts, axis=0), rtol=1e-6)
    assert not composed[1:].any()
    own = np.float32([[1, 2, 3]])
    whole = (own + np.sum(parts, axis=0)) / (1 + len(parts))
    np.testing.assert_allclose(buckets.own(["walk"], whole.astype(np.float32)), own, rtol=1e-5)
