"""The tf.data input pipeline: token ids -> skip-gram pairs, on the fly.

Two views of the same pairs. `SkipGrams.spans` and `rows` have the layout that the trainer
consumes: rows with their windows and noise words. `SkipGrams.pairs` spells the pairs out, for any
Keras model.

Order: blocks of 2,048 tokens are shuffled (see `components.trainer.rounds`), and within what
a shard trains on in a round, rows are. All of it is a function of (seed, epoch, place): no global
seed and no thread's timing has a part in it.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import threads
from components.artifacts import VOCABULARY, Examples
from components.defaults import chosen, keep_probability
from components.errors import SkipstreamError
from components.settings import TrainerSettings
from components.trainer import rounds, skipgrams, tokens
from components.trainer.rounds import BLOCK, Round
from components.trainer.skipgrams import AliasTable, Rows, Streams
from components.trainer.workers import Workers
from components.vocabulary import Vocabulary

# Of a step. word2vec.c moves after each; here a row moves from where it was up to 2,048 targets
# ago. 1,024 and 4,096 score alike.
TARGETS = 2048
# Targets that share noise words: half a word to look up and update for each.
GROUP = 64

_MEASURED = 16  # Blocks that become rows at once, and how many such go together, without rounds.

Split = Literal["train", "eval"]

# The held-out loss is comparable between runs: neither its pairs nor its noise follow the seed.
HELD_OUT_SEED = 0


def row_length(window: int) -> int:
    """Targets in a row.

    Longer rows multiply more tokens that are no contexts; shorter ones gather and scatter more
    halo: 3 and 250 ns a token. The sum is least near sqrt(166 * window).
    """
    return 32 if window <= 12 else 64 if window <= 49 else 128


def noise_words(settings: TrainerSettings) -> int:
    """Noise words of a group: what word2vec.c draws for one target, in whole SIMD registers.

    30 by default, 5 for each of 6 pairs. Here all pairs of a target share all of them, so its
    update varies no more, and what is shared costs products, not look-ups.
    """
    pairs = settings.window + 1 if settings.shrink_windows else 2 * settings.window
    return 16 * math.ceil(settings.negatives * pairs / 16)


class Pairs(NamedTuple):
    """Explicit skip-gram pairs: `target` is the input, `context` the label; int32 [batch]."""

    target: tf.Tensor
    context: tf.Tensor


class Spans(NamedTuple):
    """What the shards of a round train on.

    Attributes:
        epoch, first, blocks: int64 [shards], the same for all: which round it is.
        rows: `Rows` with an axis of shards in front.
        count: int32 [shards], how many rows each has; behind these are empty ones.
    """

    epoch: tf.Tensor
    first: tf.Tensor
    blocks: tf.Tensor
    rows: Rows
    count: tf.Tensor


class SkipGrams:
    """The pairs of one split of `examples`, epoch by epoch.

    Attributes:
        settings: With what was unset chosen.
        documents: How many the split has.
        tokens: How many of them are used.
        counts: int64 [types] occurrences in the corpus.
        types: The size of the vocabulary.
        length: Targets in a row.
        row_noise: Noise words in a row; groups are made of rows, or rows of groups.
        steps: That an epoch is expected to take in one piece.
        blocks: See `components.trainer.rounds`.
    """

    def __init__(
        self,
        examples: Examples,
        settings: TrainerSettings,
        *,
        split: Split = "train",
        seed: int | None = None,
        most: int | None = None,
        directory: Path | None = None,
    ) -> None:
        """Read sizes and counts, and no record yet.

        Args:
            examples: What the Transform stage wrote.
            settings: Window, negatives, subsampling, seed and the cut into rounds.
            split: Which of the documents.
            seed: In place of the settings'.
            most: How many tokens are enough; none: all.
            directory: Where four bytes a token find room; none: where temporary files go.
        """
        self.settings = settings = chosen(settings, examples)
        self.seed = settings.seed if seed is None else seed
        self._examples, self._split, self._directory = examples, split, directory
        statistics = examples.statistics["splits"][split]
        self.documents: int = statistics["documents"]
        self.tokens: int = min(statistics["kept_tokens"], most or statistics["kept_tokens"])
        self._some = self.tokens < statistics["kept_tokens"]
        self.length = row_length(settings.window)
        self.row_noise = noise_words(settings) * self.length // GROUP
        self.counts = counts = Vocabulary.load_counts(examples / VOCABULARY)
        self.types = len(counts)
        self.keep = keep_probability(counts, settings.sample)
        noise = skipgrams.alias_table(counts.astype(np.float64) ** settings.noise_exponent)
        # As tensors they are shared by all graphs, in which arrays would be copied.
        with tf.device("CPU:0"):
            self._keep, self.noise = tf.constant(self.keep), AliasTable(*map(tf.constant, noise))
        kept = self.tokens * float((counts / counts.sum() * self.keep).sum())
        self.steps = max(1, round(kept / TARGETS))
        self.blocks = rounds.blocks_in(self.tokens)
        self._epoch_order = -1, np.zeros(0, np.int64)
        self._kept: list[Rows] | None = None

    @cached_property
    def _tokens(self) -> npt.NDArray[np.int32]:
        files = self._examples.records(self._split)
        found = tokens.unpacked(files, self.tokens, self._directory)
        if len(found) < self.tokens or (len(found) > self.tokens and not self._some):
            raise SkipstreamError(
                f"{self._examples.address} must hold {self.tokens:,} tokens to {self._split}, got "
                f"{len(found):,}: delete that directory and run transform again"
            )
        return found

    def unpack(self) -> None:
        """Read the records now. Within a dataset, an error would be one of TensorFlow's ops."""
        _ = self._tokens

    def packed(self, blocks: int) -> Iterator[bytes]:
        """All tokens, so many blocks at a time, as a cluster's workers read them."""
        for start in range(0, self.tokens, blocks * BLOCK):
            yield self._tokens[start : start + blocks * BLOCK].astype("<i4").tobytes()

    def plan(self, epoch: int) -> list[Round]:
        """The rounds of an epoch."""
        longest = rounds.blocks_in(self.settings.round_tokens)
        return list(rounds.rounds(epoch, self.blocks, self.settings.shards, longest))

    def spans(self, epoch: int, skip: int = 0) -> tf.data.Dataset:
        """The rounds of an epoch, without the first `skip` of them; elements are `Spans`."""
        return self._spans({epoch: self.plan(epoch)[skip:]})

    def epochs(self, epoch: int, skip: int = 0) -> Iterator[tf.data.Dataset]:
        """The `spans` of an epoch and of all that follow; each is gone through before the next."""
        plans = {which: self.plan(which) for which in range(epoch, self.settings.epochs)}
        plans[epoch] = plans[epoch][skip:]
        whole = self._spans(plans)
        iterator = iter(whole)
        for which, plan in plans.items():
            yield _Part(iterator, len(plan)) if plan else self.spans(which, skip)

    def measured(self, workers: Workers) -> Iterator[list[Rows]]:
        """All pairs once, cut alike whatever the settings: some shards at a time, numpy arrays.

        No dataset of TensorFlow's: its graph and its iterator take half a second to make.

        Args:
            workers: That cut them, the next ones while these are measured.
        """
        if self._kept is not None:
            yield self._kept
            return
        cut = partial(self.span, 0, blocks=_MEASURED)
        starts = range(0, self.blocks, _MEASURED)
        groups = [starts[first:][:_MEASURED] for first in range(0, len(starts), _MEASURED)]
        under_way = [workers.map(cut, group) for group in groups[:1]]
        for number, _ in enumerate(groups, 1):
            shards = list(under_way.pop())
            under_way += [workers.map(cut, group) for group in groups[number:][:1]]
            if len(groups) == 1:  # So little is kept for the next epoch: by default, 8 MB at most.
                self._kept = shards
            yield shards

    def _spans(self, plans: Mapping[int, Sequence[Round]]) -> tf.data.Dataset:
        shards = self.settings.shards
        plan = [(epoch, *one) for epoch in plans for one in plans[epoch]]
        rounds_ = np.array([one for one in plan for _ in range(shards)], np.int64)
        which = np.tile(np.arange(shards), len(plan))
        dataset = tf.data.Dataset.from_tensor_slices((rounds_.reshape(-1, 3), which))
        dataset = dataset.map(self._span_of, num_parallel_calls=threads.count(), deterministic=True)
        dataset = dataset.padded_batch(shards)
        # Where Keras knows how many there are, it makes another iterator when they are through,
        # which would prepare rounds that nobody trains on.
        dataset = dataset.filter(_any)
        return dataset.prefetch(2).with_options(tokens.lean())

    @cached_property
    def _span_of(self) -> Any:
        """What a shard trains on in a round, as `Spans` without their axis of shards."""

        # As a function of its own it is made into a graph once, not for each epoch.
        @tf.function(
            autograph=False,
            input_signature=[tf.TensorSpec([3], tf.int64), tf.TensorSpec([], tf.int64)],
        )
        def span_of(round_: tf.Tensor, shard: tf.Tensor) -> Spans:
            epoch, first, blocks = tf.unstack(round_)
            rows = self._rows(epoch, first + shard * blocks, blocks)
            return Spans(epoch, first, blocks, rows, tf.shape(rows.tokens)[0])

        return span_of

    def span(self, epoch: int, first: int, blocks: int) -> Rows:
        """What one shard trains on in a round, as numpy arrays."""
        found = self._read(self._order(epoch)[first : first + blocks])
        place = tf.constant(first, tf.int64)
        return Rows(*(part.numpy() for part in self._cut(epoch, place, *map(tf.constant, found))))

    def _read_at(self, epoch: np.int64, first: np.int64, blocks: np.int64) -> Any:
        return self._read(self._order(int(epoch))[int(first) : int(first) + int(blocks)])

    def _rows(self, epoch: tf.Tensor, first: tf.Tensor, blocks: tf.Tensor) -> Rows:
        """The rows of `blocks` blocks of an epoch, from its block `first` on."""
        ids, splits = tf.numpy_function(
            self._read_at, [epoch, first, blocks], [tf.int32, tf.int64], stateful=False
        )
        ids.set_shape([None])
        splits.set_shape([None])
        return self._cut(epoch, first, ids, splits)

    def _cut(
        self, epoch: tf.Tensor | int, first: tf.Tensor, ids: tf.Tensor, splits: tf.Tensor
    ) -> Rows:
        """The rows of what `_read` gave, with what is random keyed by the first block's place."""
        rows: Rows = _cut(
            first,
            ids,
            splits,
            skipgrams.streams(self.seed, epoch),
            self._keep,
            self.noise,
            window=self.settings.window,
            shrink=self.settings.shrink_windows,
            length=self.length,
            row_noise=self.row_noise,
        )
        return rows

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        found = self._epoch_order  # Another thread may be at another epoch.
        if found[0] != epoch:
            found = self._epoch_order = epoch, rounds.order(self.seed, epoch, self.blocks)
        return found[1]

    def _blocks(self, blocks: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int32]]:
        """The tokens of each block, as `tokens.unpacked` gives them."""
        return [self._tokens[block * BLOCK : (block + 1) * BLOCK] for block in blocks]

    def _read(
        self, blocks: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Some blocks: int32 [tokens] ids, and int64 [documents + 1], where documents meet."""
        parts = self._blocks(blocks)
        ids = np.concatenate([np.zeros(0, np.int32), *parts])
        ends = ids < 0
        cuts = np.cumsum([len(part) for part in parts], dtype=np.int64)
        splits = np.union1d(np.flatnonzero(ends) + 1, np.append(cuts, 0))
        return np.where(ends, ~ids, ids), splits

    @tf.autograph.experimental.do_not_convert
    def rows(self, epoch: int) -> tf.data.Dataset:
        """Rows of one epoch, `Rows` in batches of a step's; the last has empty ones."""
        per_step = TARGETS // self.length
        starts = tf.data.Dataset.range(0, self.blocks, _MEASURED)
        dataset = starts.map(
            lambda first: self._rows(
                tf.constant(epoch, tf.int64), first, tf.constant(_MEASURED, tf.int64)
            ),
            num_parallel_calls=threads.count(),
            deterministic=True,
        )
        dataset = dataset.unbatch()
        dataset = dataset.batch(per_step)
        dataset = dataset.map(lambda rows: _filled(rows, per_step))
        return dataset.with_options(tokens.lean())

    def pairs(self, epoch: int, batch_size: int) -> tf.data.Dataset:
        """The very same pairs, spelled out: elements are `Pairs`."""
        window = self.settings.window
        dataset = self.rows(epoch)
        dataset = dataset.map(lambda rows: Pairs(*skipgrams.explicit_pairs(rows, window=window)))
        return dataset.rebatch(batch_size)


class _Part(tf.data.Dataset):
    """The next elements of an iterator, for Keras, which wants a dataset for each epoch.

    An iterator of `SkipGrams.spans` takes 0.1 s to make, a tenth of an epoch of 1.6 M tokens.
    """

    def __init__(self, iterator: Any, count: int) -> None:
        self._iterator, self._count = iterator, count
        super().__init__(tf.data.Dataset.range(count)._variant_tensor)

    def __iter__(self) -> Iterator[Spans]:
        return itertools.islice(self._iterator, self._count)

    @property
    def element_spec(self) -> Any:
        return self._iterator.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return []


@tf.autograph.experimental.do_not_convert
def _any(*_: object) -> bool:
    return True


def _filled(rows: Rows, count: int) -> Rows:
    """`rows`, whole groups of them, and behind them as many without a pair as are missing."""
    missing = count - tf.shape(rows.tokens)[0]
    fields = (tf.pad(part, [[0, missing], [0, 0]]) for part in rows)
    return Rows(*(tf.ensure_shape(part, [count, None]) for part in fields))


@tf.function(autograph=False, reduce_retracing=True)
def _cut(
    place: tf.Tensor,
    ids: tf.Tensor,
    splits: tf.Tensor,
    streams: Streams,
    keep: tf.Tensor,
    noise: AliasTable,
    *,
    window: int,
    shrink: bool,
    length: int,
    row_noise: int,
) -> Rows:
    """Rows of some documents, in random order, with their noise words.

    A function of its own: `Dataset.map` would build its graph anew for each epoch.

    Args:
        place: In the epoch: keys what is random.
        ids: Of the documents, see `SkipGrams._read`.
        splits: Where they meet.
        streams: Of the epoch.
        keep: See `skipgrams.to_rows`.
        noise: See `skipgrams.draw_noise`.
        window: See `skipgrams.to_rows`.
        shrink: The same.
        length: The same.
        row_noise: Noise words in a row.
    """
    parts = skipgrams.to_rows(
        tf.RaggedTensor.from_row_splits(ids, splits, validate=False),
        keep=keep,
        window=window,
        shrink=shrink,
        length=length,
        keep_key=skipgrams.position_key(streams.keep, place),
        reach_key=skipgrams.position_key(streams.reach, place),
    )
    count = tf.shape(parts[0])[0]
    order = skipgrams.shuffle(tf.range(count), skipgrams.position_key(streams.order, place))
    # An empty row fills up the last group: half of the group's noise words are this row's.
    missing = -count % max(1, GROUP // length)
    words = skipgrams.draw_noise(
        tf.stack([count + missing, row_noise]), noise, skipgrams.position_key(streams.noise, place)
    )
    tokens, left, right = (tf.pad(tf.gather(part, order), [[0, missing], [0, 0]]) for part in parts)
    return Rows(tokens, left, right, words)
