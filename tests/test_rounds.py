"""The cut of a training into rounds and shards: the whole corpus, and nothing of the machine."""

import numpy as np
import pytest

from components.defaults import cut
from components.trainer.rounds import BLOCK, Round, blocks_in, order, rounds


def covered(plan: list[Round], blocks: int, shards: int) -> list[int]:
    """The places that the shards of all rounds train on, one after the other."""
    places = np.arange(blocks)
    return [
        int(place)
        for one in plan
        for shard in range(shards)
        for place in places[one.first + shard * one.blocks :][: one.blocks]
    ]


@pytest.mark.parametrize("seed", range(30))
def test_each_epoch_goes_through_every_block_once(seed: int) -> None:
    draw = np.random.default_rng(seed)
    blocks, shards = int(draw.integers(0, 300)), int(draw.integers(1, 40))
    longest = int(draw.integers(1, 50))
    for epoch in range(4):
        plan = list(rounds(epoch, blocks, shards, longest))
        assert covered(plan, blocks, shards) == list(range(blocks))
        assert all(1 <= one.blocks <= longest for one in plan)
        assert sorted(order(seed, epoch, blocks).tolist()) == list(range(blocks))


def test_a_plan_can_be_made_again_and_epochs_differ() -> None:
    assert list(rounds(1, 99, 4, 5)) == list(rounds(1, 99, 4, 5))
    orders = [order(seed, epoch, 99).tolist() for seed, epoch in [(1, 0), (1, 1), (2, 0), (1, 0)]]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_no_round_is_long_before_much_is_learned() -> None:
    blocks, shards, longest = 4000, 8, 30
    done = 0
    for epoch in range(2):
        lengths = []
        for one in rounds(epoch, blocks, shards, longest):
            assert one.blocks == 1 or one.blocks * shards <= 0.2 * done
            lengths.append(one.blocks)
            done += min(one.blocks * shards, blocks - one.first)
        if epoch == 0:
            assert lengths[:3] == [1, 1, 1] and max(lengths) == longest
            assert lengths[:-1] == sorted(lengths[:-1])
        else:  # By then all are long, and what is left goes to all shards alike.
            assert lengths == [longest] * 16 + [20]


def test_one_shard_alone_has_long_rounds_from_the_start() -> None:
    assert list(rounds(0, blocks=70, shards=1, longest=30)) == [
        Round(0, 30),
        Round(30, 30),
        Round(60, 10),
    ]


def test_blocks_hold_all_tokens() -> None:
    assert [blocks_in(tokens) for tokens in (0, 1, BLOCK, BLOCK + 1)] == [0, 1, 1, 2]


@pytest.mark.parametrize("types", [0, 10_000])
def test_small_texts_have_one_shard_and_large_ones_many(types: int) -> None:
    found = [cut(10**exponent, 5, with_ngrams=types) for exponent in range(3, 12)]
    shards = [one["shards"] for one in found]
    assert shards == sorted(shards)
    assert shards[0] == 1 and shards[-1] >= 16
    for exponent, one in zip(range(3, 12), found, strict=True):
        together = one["shards"] * one["round_tokens"]
        assert one["round_tokens"] >= 100_000
        assert one["shards"] == 1 or together * 40 <= 5 * 10**exponent


def test_with_ngrams_rounds_are_short_but_long_for_many_words() -> None:
    def together(types: int) -> int:
        found = cut(20_000_000, 3, with_ngrams=types)
        return found["shards"] * found["round_tokens"]

    assert together(10_000) == 500_000  # A 120th of all.
    assert together(200_000) == 1_200_000
    assert together(2_000_000) == together(0) == 1_500_000  # A fortieth.


@pytest.mark.parametrize("shards", [1, 3, 1024])
def test_shards_that_are_set_stay(shards: int) -> None:
    for tokens in (1, 10**6, 10**9):
        found = cut(tokens, 5, shards)
        assert found["shards"] == shards and found["round_tokens"] >= 100_000
