"""What words share with their n-grams, against a naive loop, and what it must do."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_merge import naive as merged
from test_merge import random_directions

from components.subwords import Buckets, Subwords, ngrams
from components.trainer import sharing
from components.trainer.kinds import kinds, write_buckets
from components.trainer.merge import Delta, Directions
from components.trainer.sharing import Sharing
from components.trainer.tables import Table
from components.trainer.workers import Workers

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
    return Workers(["CPU:0"] * 3)


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
        for bucket in self.buckets:
            shards = [
                Delta(np.int32([0]), moves[id_][np.newaxis], np.float32([paths[id_]]))
                for id_, held in enumerate(self.held)
                for _ in range(held.count(bucket))
                if id_ in moves
            ]
            move = merged(np.zeros((1, len(found.moves[0]))), shards, found.along)[0]
            far = np.linalg.norm(move)
            if len(shards) > 1 and far > 1.6 * found.along.length:
                move *= 1.6 * found.along.length / far
            self.buckets[bucket] += move
        for id_, move in moves.items():
            self.own[id_] += move

    def vectors(self) -> np.ndarray:
        sums = [
            own + sum(self.buckets[b] for b in held)
            for own, held in zip(self.own, self.held, strict=True)
        ]
        parts = [1 + len(held) for held in self.held]
        return np.array(sums) / np.array(parts)[:, np.newaxis]


def begun(tokens: list[str], subwords: Subwords, vectors: np.ndarray) -> Sharing:
    start = Table(*vectors.shape)
    start.rows[:] = vectors
    return Sharing(kinds(tokens, subwords), start)


def now(one: Sharing, workers: Workers) -> np.ndarray:
    """The vectors of all words."""
    one.compose(np.arange(one.start.types, dtype=np.int32), workers)
    return one.vectors.rows


def buckets_of(one: Sharing, path: Path) -> Buckets:
    """What a training that ends here writes."""
    write_buckets(path, one.kinds, one.own.rows, one.shared.rows, None)
    ids, rows = (np.load(path / f"{name}.npy") for name in ("bucket_ids", "buckets"))
    return Buckets(SUBWORDS, ids, rows)


@pytest.mark.parametrize("part", [5, 1 << 16])
@pytest.mark.parametrize("seed", range(6))
def test_parts_move_as_in_a_naive_loop(
    seed: int, part: int, workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_PART", part)
    draw = np.random.default_rng(seed)
    tokens, dimensions = tokens_of(seed), int(draw.integers(1, 9))
    vectors = draw.normal(size=(len(tokens), dimensions)).astype(np.float32)
    one, naive = begun(tokens, SUBWORDS, vectors), Naive(tokens, SUBWORDS, vectors)
    for _ in range(3):
        found = random_move(draw, len(tokens), dimensions)
        one.share(*found, workers)
        naive.share(found)
        np.testing.assert_allclose(now(one, workers), naive.vectors(), rtol=1e-3, atol=1e-3)
    buckets = buckets_of(one, tmp_path)
    expected = [naive.buckets[bucket] for bucket in buckets.ids.tolist()]
    np.testing.assert_allclose(buckets.rows, expected, rtol=1e-3, atol=1e-3)


def test_vectors_are_made_of_words_that_are_asked_for_and_made_anew_when_parts_move(
    workers: Workers,
) -> None:
    draw = np.random.default_rng(0)
    tokens = tokens_of(0)
    start = draw.normal(size=(len(tokens), 4)).astype(np.float32)
    one, other = begun(tokens, SUBWORDS, start), begun(tokens, SUBWORDS, start)
    for _ in range(3):
        found = random_move(draw, len(tokens), 4)
        one.share(*found, workers)
        other.share(*found, workers)
        some = np.flatnonzero(draw.random(len(tokens)) < 0.3).astype(np.int32)
        one.compose(some, workers)
        one.compose(some[::2], workers)
        made = one.vectors.rows[some].copy()
        np.testing.assert_array_equal(made, now(other, workers)[some])
    one.own.rows[:], one.shared.rows[:] = 0, 0  # As a checkpoint's are loaded.
    one.forget()
    np.testing.assert_array_equal(now(one, workers), start)


def test_a_cut_into_parts_has_no_part_in_the_bits(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, found = tokens_of(0), []
    for part in (1, 5, 64, 1 << 16):
        monkeypatch.setattr(sharing, "_PART", part)
        one = begun(tokens, SUBWORDS, np.zeros((len(tokens), 16), np.float32))
        one.share(*random_move(np.random.default_rng(0), len(tokens), 16), workers)
        found.append((now(one, workers), one.own.rows, one.shared.rows))
    for tables in found[1:]:
        for table, expected in zip(tables, found[0], strict=True):
            np.testing.assert_array_equal(table, expected)


def test_a_word_that_shares_nothing_moves_as_without_ngrams(workers: Workers) -> None:
    tokens = ["banal", "xyzw", "cats", "cat", "東京"]  # `banal` holds no n-gram twice.
    draw = np.random.default_rng(0)
    start = draw.normal(size=(5, 8)).astype(np.float32)
    one = begun(tokens, FASTTEXTS, start)
    found = random_move(draw, 5, 8)._replace(
        ids=np.arange(5, dtype=np.int32),
        moves=draw.normal(size=(5, 8)).astype(np.float32),
        paths=np.full(5, 30, np.float32),
    )
    one.share(*found, workers)
    vectors, expected = now(one, workers), start + found.moves
    np.testing.assert_allclose(vectors[[0, 1, 4]], expected[[0, 1, 4]], rtol=1e-5, atol=1e-6)
    assert (np.abs(vectors[[2, 3]] - expected[[2, 3]]).max(axis=1) > 0.01).all()


def test_words_without_ngrams_move_to_the_same_bits(workers: Workers) -> None:
    draw = np.random.default_rng(0)
    expected = draw.normal(size=(3, 8)).astype(np.float32)
    one = begun(["a", "b", "c"], Subwords(15, 20, 1000), expected)
    found = random_move(draw, 3, 8)
    expected[found.ids] += found.moves
    one.share(*found, workers)
    np.testing.assert_array_equal(now(one, workers), expected)


def test_words_that_hold_an_ngram_of_those_that_moved_move_along(workers: Workers) -> None:
    tokens = ["walking", "walked", "東京"]
    one = begun(tokens, FASTTEXTS, np.zeros((3, 4), np.float32))
    along = Directions(np.eye(4, 1, dtype=np.float32), np.ones(1, np.float32), np.float32(0.1))
    move = np.float32([[1, 2, 3, 4]])
    found = Move(np.int32([0]), move, np.float32([1000]), along)
    one.share(*found, workers)
    vectors = now(one, workers)
    # One word alone moved: its n-grams go as far as it went, however long its path.
    np.testing.assert_allclose(vectors[0], move[0], rtol=1e-6)
    common = np.intersect1d(*(ngrams([token], FASTTEXTS).buckets for token in tokens[:2]))
    count = len(ngrams(["walked"], FASTTEXTS).buckets) + 1
    np.testing.assert_allclose(vectors[1], len(common) / count * move[0], rtol=1e-5)
    assert not vectors[2].any()


def test_words_of_the_same_ngrams_move_together_but_for_their_own_parts(workers: Workers) -> None:
    # One bucket: all n-grams are the same, and `ab` and `cd` have as many of them.
    tokens = ["ab", "cd"]
    one = begun(tokens, Subwords(2, 3, 1), np.zeros((2, 4), np.float32))
    draw = np.random.default_rng(0)
    found = random_move(draw, 2, 4)._replace(
        ids=np.int32([0, 1]),
        moves=draw.normal(size=(2, 4)).astype(np.float32),
        paths=np.float32([3, 5]),
    )
    one.share(*found, workers)
    vectors = now(one, workers)
    parts = 1 + len(ngrams(["ab"], Subwords(2, 3, 1)).buckets)
    apart = (vectors[0] - vectors[1]) * parts
    np.testing.assert_allclose(apart, found.moves[0] - found.moves[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 30])
def test_what_buckets_make_of_a_word_is_its_vector_but_for_its_own_part(
    workers: Workers, tmp_path: Path, rounds: int
) -> None:
    draw = np.random.default_rng(1)
    tokens = tokens_of(1)
    start = (0.1 * draw.normal(size=(len(tokens), 8))).astype(np.float32)
    one = begun(tokens, SUBWORDS, start)
    own = start.astype(np.float64) * one.kinds.parts[:, np.newaxis]
    for _ in range(rounds):
        found = random_move(draw, len(tokens), 8)
        own[found.ids] += found.moves
        one.share(*found, workers)
    left = buckets_of(one, tmp_path).own(tokens, now(one, workers))
    np.testing.assert_allclose(left, own, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("where", ["moves", "paths"])
def test_what_is_not_a_number_does_not_get_lost(workers: Workers, where: str) -> None:
    tokens = ["walking", "walked", "東京"]
    one = begun(tokens, FASTTEXTS, np.zeros((3, 4), np.float32))
    found = random_move(np.random.default_rng(0), 3, 4)._replace(
        ids=np.int32([0, 2]), moves=np.ones((2, 4), np.float32), paths=np.ones(2, np.float32)
    )
    getattr(found, where)[0] = np.nan
    one.share(*found, workers)
    vectors = now(one, workers)
    assert np.isnan(vectors[1]).all()  # Of a word that did not move by itself, too.
    assert np.isnan(one.vectors.largest_norm())
    assert np.isfinite(vectors[2]).all()


def test_words_that_start_without_ngrams_give_theirs_what_they_have_in_common(
    workers: Workers,
) -> None:
    tokens = ["walking", "talking", "walked", "talked", "東京"]
    start = np.float32([[1, 1], [1, -1], [-1, 1], [-1, -1], [5, 5]])
    one = begun(tokens, FASTTEXTS, start.copy())
    one.settle(np.arange(4, dtype=np.int32), workers)
    np.testing.assert_allclose(now(one, workers), start, atol=1e-5)
    assert (one.start.rows[4] == start[4]).all()
    # `ing` is of the first two, `ked` of the others, and so is what they have in common.
    kinds = one.kinds
    shared = dict(zip(kinds.buckets.tolist(), kinds.rows.tolist(), strict=True))
    for ngram, sign in (("alking>", 1), ("alked>", -1)):
        bucket = ngrams([ngram[:-1]], FASTTEXTS).buckets[-1]  # ing> and ked>
        row = one.shared.rows[shared[int(bucket)] - len(tokens)]
        assert sign * row[0] > 2 * abs(row[1])
    assert np.abs(one.start.rows[:4]).mean() < 0.5


def test_no_bucket_moves_by_more_than_some_lengths_of_its_partners(workers: Workers) -> None:
    tokens = [f"w{number}" for number in range(200)]
    one = begun(tokens, Subwords(1, 2, 1), np.zeros((200, 4), np.float32))
    ids, along = np.arange(200, dtype=np.int32), random_directions(np.random.default_rng(0), 4, 2)
    moves = np.full((200, 4), 0.1, np.float32)
    one.share(ids, moves, np.full(200, 1e-6, np.float32), along, workers)
    far = np.linalg.norm(one.shared.rows / one.kinds.sizes[:, np.newaxis], axis=1)
    assert far.max() <= 1.6 * along.length * (1 + 1e-5)
