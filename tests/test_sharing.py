"""What words share with their n-grams, against a naive loop, and what it must do."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_merge import naive as merged
from test_merge import random_directions

from components import threads
from components.subwords import Buckets, Subwords, ngrams
from components.trainer import sharing
from components.trainer.kinds import kinds, write_buckets
from components.trainer.merge import Delta, Directions
from components.trainer.sharing import Sharing
from components.trainer.workers import Workers

HARDER = 4
SUBWORDS = Subwords(2, 4, 300)
FASTTEXTS = Subwords(3, 6, 2_000_000)


class Move(NamedTuple):
    """What a round found: the arguments of `share`."""

    ids: np.ndarray
    moves: np.ndarray
    paths: np.ndarray
    along: Directions


@pytest.fixture(scope="module")
def workers() -> Workers:
    threads.make_devices()
    return Workers(threads.devices("CPU"))


def tokens_of(seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    words = ("".join(draw.choice(list("abcé"), draw.integers(1, 7))) for _ in range(50))
    return list(dict.fromkeys(["banana", *words, "</s>"]))


def random_move(draw: np.random.Generator, types: int, dimensions: int) -> Move:
    ids = np.flatnonzero(draw.random(types) < draw.uniform(0.2, 1)).astype(np.int32)
    moves = draw.normal(size=(len(ids), dimensions)).astype(np.float32)
    paths = (10.0 ** draw.uniform(-4, 3, len(ids))).astype(np.float32)
    along = random_directions(draw, dimensions, min(dimensions, int(draw.integers(1, 5))))
    return Move(ids, moves, paths, along)


class Naive:
    """Own parts and buckets one by one, in float64."""

    def __init__(self, tokens: list[str], subwords: Subwords, vectors: np.ndarray) -> None:
        self.held = [ngrams([token], subwords).buckets.tolist() for token in tokens]
        self.buckets = {b: np.zeros(vectors.shape[1]) for held in self.held for b in held}
        parts = np.array([1 + len(held) for held in self.held])
        self.own = parts[:, np.newaxis] * vectors.astype(np.float64)

    def share(self, found: Move) -> None:
        moves = dict(zip(found.ids.tolist(), found.moves.astype(np.float64), strict=True))
        paths = dict(zip(found.ids.tolist(), found.paths.tolist(), strict=True))
        harder = Directions(
            found.along.basis, HARDER * found.along.bends, HARDER * found.along.rest
        )
        for bucket in self.buckets:
            shards = [
                Delta(np.int32([0]), moves[id_][np.newaxis], np.float32([paths[id_]]))
                for id_, held in enumerate(self.held)
                for _ in range(held.count(bucket))
                if id_ in moves
            ]
            self.buckets[bucket] += merged(np.zeros((1, len(found.moves[0]))), shards, harder)[0]
        for id_, move in moves.items():
            self.own[id_] += move

    def vectors(self) -> np.ndarray:
        sums = [
            own + sum(self.buckets[b] for b in held)
            for own, held in zip(self.own, self.held, strict=True)
        ]
        parts = [1 + len(held) for held in self.held]
        return np.array(sums) / np.array(parts)[:, np.newaxis]


def share(one: Sharing, vectors: np.ndarray, found: Move, workers: Workers) -> None:
    """As a round does: first the words move, each as a whole."""
    vectors[found.ids] += found.moves
    one.share(vectors, *found, workers)


@pytest.mark.parametrize("part", [5, 1 << 16])
@pytest.mark.parametrize("seed", range(6))
def test_parts_move_as_in_a_naive_loop(
    seed: int, part: int, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_PART", part)
    draw = np.random.default_rng(seed)
    tokens, dimensions = tokens_of(seed), int(draw.integers(1, 9))
    one = Sharing(kinds(tokens, SUBWORDS), dimensions)
    vectors = draw.normal(size=(len(tokens), dimensions)).astype(np.float32)
    naive = Naive(tokens, SUBWORDS, vectors)
    for _ in range(3):
        found = random_move(draw, len(tokens), dimensions)
        share(one, vectors, found, workers)
        naive.share(found)
    np.testing.assert_allclose(vectors, naive.vectors(), rtol=1e-3, atol=1e-3)
    of_buckets = np.array([naive.buckets[b] for b in one.kinds.buckets.tolist()])
    np.testing.assert_allclose(one.moved.rows[one.kinds.rows], of_buckets, rtol=1e-3, atol=1e-3)


def test_a_cut_into_parts_has_no_part_in_the_bits(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, found = tokens_of(0), []
    for part in (1, 5, 64, 1 << 16):
        monkeypatch.setattr(sharing, "_PART", part)
        draw = np.random.default_rng(0)
        one = Sharing(kinds(tokens, SUBWORDS), 16)
        vectors = np.zeros((len(tokens), 16), np.float32)
        share(one, vectors, random_move(draw, len(tokens), 16), workers)
        found.append((vectors, one.moved.rows))
    for vectors, moved in found[1:]:
        np.testing.assert_array_equal(vectors, found[0][0])
        np.testing.assert_array_equal(moved, found[0][1])


def test_a_word_that_shares_nothing_moves_as_without_ngrams(workers: Workers) -> None:
    tokens = ["banal", "xyzw", "cats", "cat", "東京"]  # `banal` holds no n-gram twice.
    draw = np.random.default_rng(0)
    one = Sharing(kinds(tokens, FASTTEXTS), 8)
    vectors = draw.normal(size=(5, 8)).astype(np.float32)
    expected = vectors.copy()
    found = random_move(draw, 5, 8)._replace(
        ids=np.arange(5, dtype=np.int32),
        moves=draw.normal(size=(5, 8)).astype(np.float32),
        paths=np.full(5, 30, np.float32),
    )
    share(one, vectors, found, workers)
    expected += found.moves
    np.testing.assert_allclose(vectors[[0, 1, 4]], expected[[0, 1, 4]], rtol=1e-5, atol=1e-6)
    assert (np.abs(vectors[[2, 3]] - expected[[2, 3]]).max(axis=1) > 0.01).all()


def test_words_without_ngrams_move_to_the_same_bits(workers: Workers) -> None:
    draw = np.random.default_rng(0)
    one = Sharing(kinds(["a", "b", "c"], Subwords(15, 20, 1000)), 8)
    vectors = draw.normal(size=(3, 8)).astype(np.float32)
    found = random_move(draw, 3, 8)
    expected = vectors.copy()
    expected[found.ids] += found.moves
    share(one, vectors, found, workers)
    np.testing.assert_array_equal(vectors, expected)


def test_words_that_hold_an_ngram_of_those_that_moved_move_along(workers: Workers) -> None:
    tokens = ["walking", "walked", "東京"]
    one = Sharing(kinds(tokens, FASTTEXTS), 4)
    vectors = np.zeros((3, 4), np.float32)
    along = Directions(np.eye(4, 1, dtype=np.float32), np.ones(1, np.float32), np.float32(0.1))
    move = np.float32([[1, 2, 3, 4]])
    found = Move(np.int32([0]), move, np.float32([1000]), along)
    share(one, vectors, found, workers)
    # One word alone moved: its n-grams go as far as it went, however long its path.
    np.testing.assert_allclose(vectors[0], move[0], rtol=1e-6)
    common = np.intersect1d(*(ngrams([token], FASTTEXTS).buckets for token in tokens[:2]))
    count = len(ngrams(["walked"], FASTTEXTS).buckets) + 1
    np.testing.assert_allclose(vectors[1], len(common) / count * move[0], rtol=1e-5)
    assert not vectors[2].any()


def test_words_of_the_same_ngrams_move_together_but_for_their_own_parts(workers: Workers) -> None:
    # One bucket: all n-grams are the same, and `ab` and `cd` have as many of them.
    tokens = ["ab", "cd"]
    one = Sharing(kinds(tokens, Subwords(2, 3, 1)), 4)
    vectors = np.zeros((2, 4), np.float32)
    draw = np.random.default_rng(0)
    found = random_move(draw, 2, 4)._replace(
        ids=np.int32([0, 1]),
        moves=draw.normal(size=(2, 4)).astype(np.float32),
        paths=np.float32([3, 5]),
    )
    share(one, vectors, found, workers)
    parts = 1 + len(ngrams(["ab"], Subwords(2, 3, 1)).buckets)
    apart = (vectors[0] - vectors[1]) * parts
    np.testing.assert_allclose(apart, found.moves[0] - found.moves[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 30])
def test_what_buckets_make_of_a_word_is_its_vector_but_for_its_own_part(
    workers: Workers, tmp_path: Path, rounds: int
) -> None:
    draw = np.random.default_rng(1)
    tokens = tokens_of(1)
    one = Sharing(kinds(tokens, SUBWORDS), 8)
    vectors = (0.1 * draw.normal(size=(len(tokens), 8))).astype(np.float32)
    own = vectors.astype(np.float64) * one.kinds.parts[:, np.newaxis]
    for _ in range(rounds):
        found = random_move(draw, len(tokens), 8)
        own[found.ids] += found.moves
        share(one, vectors, found, workers)
    one.moved.save(tmp_path / "parts.npy")
    write_buckets(tmp_path, one.kinds, None)
    ids, rows = (np.load(tmp_path / f"{name}.npy") for name in ("bucket_ids", "buckets"))
    composed = Buckets(SUBWORDS, ids, rows).own(tokens, vectors)
    np.testing.assert_allclose(composed, own, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("where", ["moves", "paths"])
def test_what_is_not_a_number_does_not_get_lost(workers: Workers, where: str) -> None:
    tokens = ["walking", "walked", "東京"]
    one = Sharing(kinds(tokens, FASTTEXTS), 4)
    vectors = np.zeros((3, 4), np.float32)
    found = random_move(np.random.default_rng(0), 3, 4)._replace(
        ids=np.int32([0, 2]), moves=np.ones((2, 4), np.float32), paths=np.ones(2, np.float32)
    )
    getattr(found, where)[0] = np.nan
    share(one, vectors, found, workers)
    assert np.isnan(vectors[1]).all()  # Of a word that did not move by itself, too.
    assert np.isnan(one.moved.largest_norm())
    assert np.isfinite(vectors[2]).all()
