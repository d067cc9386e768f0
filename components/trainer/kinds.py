"""Kinds of n-grams: those that the same words hold.

All n-grams of a kind move alike, so one row says how far. Of 88,000 English words with n-grams of 3
to 6 characters, 370,000 buckets make 134,000 kinds that are not one word's alone; what is, with its
own part, moves as the word does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.subwords import Buckets, Subwords, find, ngrams
from components.trainer.tables import BLOCK_ROWS

Ids = npt.NDArray[np.int32]
Splits = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Lists(NamedTuple):
    """For each of some things a list of others.

    Attributes:
        ids: int32 [all], of one list behind the other.
        splits: int64 [lists + 1], where each begins, and the last ends.
    """

    ids: Ids
    splits: Splits

    def part(self, low: int, high: int) -> tuple[Ids, npt.NDArray[np.int64]]:
        """The lists from `low` to `high`: what they hold, and of which list each is, from 0."""
        splits = self.splits[low : high + 1]
        lists = np.repeat(np.arange(high - low), np.diff(splits))
        return self.ids[splits[0] : splits[-1]], lists

    def of(self, lists: Ids | Splits) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Some lists, as `part` has those that follow each other."""
        sizes = self.splits[lists + 1] - self.splits[lists]
        shift = self.splits[lists] - (np.cumsum(sizes) - sizes)
        where = np.arange(sizes.sum()) + np.repeat(shift, sizes)
        return self.ids[where], np.repeat(np.arange(len(lists)), sizes)

    def turned(self, count: int) -> "Lists":
        """For each of the `count` others, the lists that hold it, ascending."""
        lists = np.repeat(np.arange(len(self.splits) - 1, dtype=np.int32), np.diff(self.splits))
        order = _order(self.ids)
        sizes = np.bincount(self.ids, minlength=count)
        return Lists(lists[order], np.concatenate([[0], np.cumsum(sizes)]))


class Kinds(NamedTuple):
    """The kinds of a vocabulary that more than one word holds, or one word more than once.

    Attributes:
        words: For each kind the words that hold it, ascending; one that does so twice, twice.
        kinds: For each word its kinds, the same turned round.
        sizes: float32 [kinds], how many buckets are of each.
        parts: float32 [words], how many each word's vector is the mean of.
        alone: float32 [words], how many of these it shares with none.
        buckets: int32 [buckets] those that the vocabulary names, ascending.
        rows: int32 [buckets] of which kind each is, behind the words; of a word's own n-grams, that
            word.
    """

    words: Lists
    kinds: Lists
    sizes: Floats
    parts: Floats
    alone: Floats
    buckets: Ids
    rows: Ids


def _order(values: Ids) -> npt.NDArray[np.int64]:
    """As a stable `argsort`, in less time: int64 [values]."""
    order = values.astype(np.int64) << 32
    order |= np.arange(len(values))
    order.sort()
    order &= 2**32 - 1
    return order


def kinds(tokens: Sequence[str], subwords: Subwords) -> Kinds:
    """The kinds of a vocabulary.

    Takes some 50 bytes an n-gram while it is at work, and 10 afterwards.

    Args:
        tokens: The vocabulary, by id.
        subwords: Which n-grams.
    """
    types = len(tokens)
    found = ngrams(tokens, subwords)
    counts = found.counts
    order = _order(found.buckets)
    words = np.repeat(np.arange(types, dtype=np.int32), counts)[order]
    firsts = np.flatnonzero(np.diff(found.buckets[order], prepend=-1))
    buckets = found.buckets[order[firsts]]
    del order
    held = np.diff(firsts, append=len(words))
    # The sum of random numbers of 64 bits, one for each word, tells what a bucket is held by.
    draw = np.random.Generator(np.random.Philox(key=[0, 0]))
    marks = draw.integers(0, 2**64, types, np.uint64)
    sums = np.add.reduceat(marks[words], firsts) if len(firsts) else marks[:0]
    shared = np.flatnonzero(held > 1)
    _, example, kind, sizes = np.unique(
        sums[shared], return_index=True, return_inverse=True, return_counts=True
    )
    # Kinds of frequent words first: those are looked up together.
    example = shared[example]
    by_word = np.argsort(words[firsts[example]], kind="stable")
    place = np.empty(len(by_word), np.int32)
    place[by_word] = np.arange(len(by_word), dtype=np.int32)
    example, sizes = example[by_word], sizes[by_word]
    rows = words[firsts]  # Of those that one word holds once.
    rows[shared] = types + place[kind]
    of_buckets = Lists(words, np.append(firsts, len(words)))
    of_kinds = Lists(of_buckets.of(example)[0], np.concatenate([[0], np.cumsum(held[example])]))
    alone = 1 + np.bincount(words[firsts[held == 1]], minlength=types)
    return Kinds(
        of_kinds,
        of_kinds.turned(types),
        sizes.astype(np.float32),
        (1 + counts).astype(np.float32),
        alone.astype(np.float32),
        buckets,
        rows,
    )


def write_buckets(
    directory: Path, kinds: Kinds, own: Floats, shared: Floats, before: Buckets | None
) -> None:
    """Write buckets.npy and bucket_ids.npy, a block at a time; buckets of zeros are left out.

    Args:
        directory: Where.
        kinds: Of the vocabulary.
        own: float32 [words, dimensions], how far each word's own part has moved in the training.
        shared: float32 [kinds, dimensions], how far the buckets of each kind have together.
        before: What the buckets were when it began; None: zeros.
    """
    words = len(own)

    def now(ids: Ids) -> Floats:
        rows = np.zeros((len(ids), own.shape[1]), np.float32)
        places, there = find(kinds.buckets, ids)
        of = kinds.rows[places[there]]
        kind = of[of >= words] - words
        moved = own[np.minimum(of, words - 1)]
        moved[of >= words] = shared[kind] / kinds.sizes[kind, np.newaxis]
        rows[there] = moved
        if before:
            places, there = find(before.ids, ids)
            rows[there] += before.rows[places[there]]
        return rows

    ids = kinds.buckets if before is None else np.union1d(kinds.buckets, before.ids)
    blocks = [ids[start : start + BLOCK_ROWS] for start in range(0, len(ids), BLOCK_ROWS)]
    # Twice, since how many there are must be known before the first is written.
    blocks = [block[now(block).any(axis=1)] for block in blocks]
    ids = np.concatenate([np.zeros(0, np.int32), *blocks])
    shape = len(ids), own.shape[1]
    buckets = np.lib.format.open_memmap(directory / "buckets.npy", "w+", np.float32, shape)
    start = 0
    for block in blocks:
        buckets[start : start + len(block)] = now(block)
        start += len(block)
    buckets.flush()
    np.save(directory / "bucket_ids.npy", ids)
