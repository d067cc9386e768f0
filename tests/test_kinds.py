"""Kinds of n-grams against naive dicts, and the buckets that are written of them."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from components.subwords import Buckets, Subwords, ngrams
from components.trainer import kinds as module
from components.trainer.kinds import Kinds, kinds, write_buckets

VOCABULARIES = {
    # `ana` is in it twice, and so is `an`, though no other word has them.
    "a word that holds n-grams twice": ["banana", "banal", "cat", "cats"],
    "words that share nothing": ["abc", "xyz", "東京", "👩‍🔬"],
    "one word": ["banana"],
    "the end of a line and no letters": ["</s>", "", "a", "at"],
    "words that share all they have": ["aaaaa", "aaaaaa", "aaaaaaa"],
}
SUBWORDS = [
    Subwords(3, 6, 2_000_000),
    Subwords(2, 3, 5),  # Nearly all share all.
    Subwords(1, 1, 30),
    Subwords(15, 20, 1000),  # No word is as long.
]


def random_tokens(seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    letters = list("abcé東")
    words = ("".join(draw.choice(letters, draw.integers(1, 9))) for _ in range(60))
    return list(dict.fromkeys(words))


def lists(of: module.Lists) -> list[list[int]]:
    return [of.ids[a:b].tolist() for a, b in zip(of.splits, of.splits[1:], strict=False)]


def holders(tokens: list[str], subwords: Subwords) -> dict[int, tuple[int, ...]]:
    """For each bucket the words that hold it, one that does so twice, twice."""
    found = defaultdict(list)
    for id_, token in enumerate(tokens):
        for bucket in ngrams([token], subwords).buckets.tolist():
            found[bucket].append(id_)
    return {bucket: tuple(words) for bucket, words in sorted(found.items())}


def check(tokens: list[str], subwords: Subwords) -> Kinds:
    got = kinds(tokens, subwords)
    by_bucket = holders(tokens, subwords)
    sizes = Counter(words for words in by_bucket.values() if len(words) > 1)
    of_kinds = [tuple(words) for words in lists(got.words)]
    assert Counter(dict(zip(of_kinds, got.sizes.tolist(), strict=True))) == sizes
    assert len(of_kinds) == len(sizes)  # Each once.
    firsts = [words[0] for words in of_kinds]
    assert firsts == sorted(firsts)
    numbers = dict(zip(of_kinds, range(len(of_kinds)), strict=True))
    for id_, of_word in enumerate(lists(got.kinds)):
        expected = [numbers[words] for words in of_kinds for _ in range(words.count(id_))]
        assert of_word == expected
    all_of = [Counter(ngrams([token], subwords).buckets.tolist()) for token in tokens]
    assert got.parts.tolist() == [1 + sum(of_word.values()) for of_word in all_of]
    alone = [1 + sum(by_bucket[bucket] == (id_,) for bucket in b) for id_, b in enumerate(all_of)]
    assert got.alone.tolist() == alone
    assert got.buckets.tolist() == list(by_bucket)
    assert got.rows.tolist() == [
        len(tokens) + numbers[words] if len(words) > 1 else words[0] for words in by_bucket.values()
    ]
    # What a word is made of is all there.
    shared = [sum(got.sizes[of_word].tolist()) for of_word in lists(got.kinds)]
    np.testing.assert_array_equal(got.alone + np.float32(shared), got.parts)
    types = [got.words.ids, got.sizes, got.parts, got.alone, got.buckets, got.rows]
    assert [array.dtype.name for array in types] == ["int32", *["float32"] * 3, "int32", "int32"]
    return got


@pytest.mark.parametrize("subwords", SUBWORDS, ids=str)
@pytest.mark.parametrize("name", VOCABULARIES)
def test_kinds_of_odd_words_are_those_of_naive_dicts(name: str, subwords: Subwords) -> None:
    check(VOCABULARIES[name], subwords)


def test_lists_of_some_are_as_they_are_one_by_one() -> None:
    of = kinds(random_tokens(0), SUBWORDS[1]).kinds
    some = np.int32([0, 3, 4, 17, len(of.splits) - 2])
    ids, numbers = of.of(some)
    every = lists(of)
    assert ids.tolist() == [id_ for one in some for id_ in every[one]]
    assert numbers.tolist() == [n for n, one in enumerate(some) for _ in every[one]]
    assert [part.tolist() for part in of.of(some[:0])] == [[], []]


@pytest.mark.parametrize("seed", range(8))
def test_kinds_are_those_of_naive_dicts(seed: int) -> None:
    check(random_tokens(seed), SUBWORDS[seed % 3])


def test_what_one_word_holds_twice_is_a_kind() -> None:
    got = check(["banana"], Subwords(3, 3, 2_000_000))
    # `ana`; `<ba`, `ban`, `nan` and `na>` are its own, beside the part that each word has.
    assert (lists(got.words), got.sizes.tolist()) == ([[0, 0]], [1])
    assert (got.parts.tolist(), got.alone.tolist()) == ([7], [5])


def test_words_without_ngrams_are_all_their_own() -> None:
    got = check(["banana", "banal"], Subwords(15, 20, 1000))
    assert (lists(got.words), lists(got.kinds)) == ([], [[], []])
    assert got.parts.tolist() == got.alone.tolist() == [1, 1]
    assert not len(got.buckets)


def written(path: Path, of: Kinds, before: Buckets | None) -> tuple[dict[int, np.ndarray], ...]:
    """The buckets, and what they should be, if parts have moved anyhow."""
    draw = np.random.default_rng(0)
    own, shared = (
        draw.normal(size=(len(rows), 3)).astype(np.float32) for rows in (of.parts, of.sizes)
    )
    write_buckets(path, of, own, shared, before)
    assert sorted(file.name for file in path.iterdir()) == ["bucket_ids.npy", "buckets.npy"]
    ids, rows = np.load(path / "bucket_ids.npy"), np.load(path / "buckets.npy")
    assert (ids.dtype, rows.dtype) == (np.int32, np.float32)
    assert (np.diff(ids) > 0).all()
    expected: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(3, np.float32))
    for bucket, row in zip(of.buckets.tolist(), of.rows.tolist(), strict=True):
        kind = row - len(own)
        expected[bucket] += own[row] if kind < 0 else shared[kind] / of.sizes[kind]
    if before:
        for bucket, was in zip(before.ids.tolist(), before.rows, strict=True):
            expected[bucket] += was
    return dict(zip(ids.tolist(), rows, strict=True)), expected


@pytest.mark.parametrize("block", [7, 65_536])
@pytest.mark.parametrize("begins", ["with none", "with some", "with others", "with all"])
def test_buckets_are_what_they_were_and_how_far_they_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, begins: str
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    subwords = Subwords(3, 4, 60)
    of = kinds(["banana", "banal", "cats", "cat"], subwords)
    ids = {
        "with some": np.arange(0, 60, 2),
        "with others": np.setdiff1d(np.arange(60), of.buckets),
        "with all": np.arange(60),
    }.get(begins, np.zeros(0))
    rows = np.random.default_rng(1).normal(size=(len(ids), 3)).astype(np.float32)
    before = Buckets(subwords, ids.astype(np.int32), rows) if begins != "with none" else None
    found, expected = written(tmp_path, of, before)
    assert list(found) == sorted(expected)
    for bucket, row in found.items():
        np.testing.assert_allclose(row, expected[bucket], rtol=1e-6)


def test_a_vocabulary_without_ngrams_has_no_buckets(tmp_path: Path) -> None:
    of = kinds(["banana"], Subwords(15, 20, 1000))
    assert written(tmp_path, of, None) == ({}, {})
