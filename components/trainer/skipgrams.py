"""Skip-gram with negative sampling, as pure functions on tensors.

Mikolov et al., "Distributed Representations of Words and Phrases and their Compositionality",
2013, with word2vec.c's choices: frequent words are dropped before windows are laid, so windows
close over the gaps; the reach of a window is uniform in 1..window; noise words follow the counts
to the power 0.75.

A *row* is `length` consecutive target tokens with a halo of `window` tokens on either side. It
holds all the pairs of its targets as two numbers a target, so a pair costs no memory until it is
used, and none is lost at an edge. All randomness is stateless: keyed by seed, epoch and position.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Streams of random numbers that must not meet.
KEEP, REACH, ORDER, SHUFFLE, NOISE = range(5)


class Rows(NamedTuple):
    """Skip-gram pairs in the layout that the trainer consumes.

    Attributes:
        tokens: int32 [rows, length + 2 * window] token ids; the targets are the middle `length`.
        left: int32 [rows, length] how many tokens to the left of a target are its contexts.
        right: int32 [rows, length] the same to the right; both are 0 where a row is padded.
        noise: int32 [rows, words] noise words.
    """

    tokens: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor
    noise: tf.Tensor


def keep_probability(counts: np.ndarray, sample: float) -> np.ndarray:
    """Probability that an occurrence of a word survives subsampling (word2vec.c's formula).

    Args:
        counts: int64 [types] occurrences in the corpus.
        sample: Share of the kept tokens above which a word is thinned out; 0: all are kept.

    Returns:
        float32 [types]: sqrt(sample / share) + sample / share, at most 1.

    >>> keep_probability(np.array([9900, 99, 1]), sample=1e-3).astype(float).round(3).tolist()
    [0.033, 0.419, 1.0]
    """
    if sample == 0:
        return np.ones(len(counts), np.float32)
    ratio = sample * counts.sum() / np.maximum(counts, 1)
    return np.asarray(np.minimum(1.0, np.sqrt(ratio) + ratio), np.float32)


class AliasTable(NamedTuple):
    """A distribution to draw from in two look-ups (Walker 1974, Vose 1991).

    A cell is drawn uniformly; it is the answer below its threshold, else its alias is. (Inversion
    searches the cumulative distribution in log2(types) steps, each a cache miss: ten times slower
    at 88 k types.)

    Attributes:
        threshold: float32 [types] in 0..1.
        alias: int32 [types].
    """

    threshold: np.ndarray
    alias: np.ndarray


def alias_table(weights: np.ndarray) -> AliasTable:
    """The table that draws ids in proportion to `weights`.

    Cells above the mean fill up those below, in the order of the ids. Prefix sums tell which cell
    fills which without a loop (an idea of Hübschle-Schneider and Sanders, "Parallel Weighted Random
    Sampling", 2022).

    Args:
        weights: float [types], none negative, not all zero.

    >>> alias_table(np.array([3.0, 1.0]))
    AliasTable(threshold=array([1. , 0.5], dtype=float32), alias=array([0, 0], dtype=int32))
    """
    size = np.asarray(weights, np.float64) / np.mean(weights)
    threshold, alias = np.ones(len(size)), np.arange(len(size))
    mean = min(1.0, size.max())  # Rounding may leave equal weights all below their mean.
    light, heavy = np.flatnonzero(size < mean), np.flatnonzero(size >= mean)
    needed = np.cumsum(1 - size[light])
    spare = np.cumsum(size[heavy] - 1)
    # A light cell is filled by the heavy one that still has something to spare when it comes.
    filler = np.searchsorted(spare, needed - (1 - size[light]), side="right")
    threshold[light] = size[light]
    alias[light] = heavy[np.minimum(filler, len(heavy) - 1)]
    # A heavy cell that gave more than it could spare is filled by the next one.
    given = np.searchsorted(filler, np.arange(len(heavy)), side="right")
    overdrawn = np.where(given > 0, needed[given - 1] if len(needed) else 0.0, 0.0) - spare
    threshold[heavy[:-1]] = np.clip(1 - overdrawn[:-1], 0, 1)
    alias[heavy[:-1]] = heavy[1:]
    return AliasTable(threshold.astype(np.float32), alias.astype(np.int32))


def stream(seed: tf.Tensor, purpose: int, epoch: tf.Tensor) -> tf.Tensor:
    """The two-word seed of one stream of random numbers, int64 [2]."""
    seed = tf.cast(seed, tf.int64)
    return tf.stack([seed * 8 + purpose, tf.cast(epoch, tf.int64)])


def position_key(key: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The seed for one position (a batch of documents) of a stream, int64 [2]."""
    return tf.cast(tf.random.fold_in(key, position, alg="philox"), tf.int64)


def uniform(shape: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Stateless uniform float32 in [0, 1): the same bits on every device."""
    return tf.random.stateless_uniform(shape, key, alg="philox")


def draw_noise(shape: tf.Tensor, table: AliasTable, key: tf.Tensor) -> tf.Tensor:
    """Noise words.

    Args:
        shape: Of the result, int32 [2].
        table: See `alias_table`.
        key: int64 [2] seed.

    Returns:
        int32 ids of `shape`.
    """
    cell = tf.random.stateless_uniform(
        shape, key, 0, len(table.alias), dtype=tf.int32, alg="philox"
    )
    below = uniform(shape, position_key(key, 0)) < tf.gather(table.threshold, cell)
    return tf.where(below, cell, tf.gather(table.alias, cell))


def to_rows(
    documents: tf.RaggedTensor,
    *,
    keep: tf.Tensor,
    window: int,
    shrink: bool,
    length: int,
    keep_key: tf.Tensor,
    reach_key: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Subsample documents, lay windows and cut the result into rows.

    Args:
        documents: Ragged int64 [documents, (tokens)] token ids.
        keep: float32 [types], see `keep_probability`.
        window: Longest reach, in kept tokens.
        shrink: Whether reaches are uniform in 1..window; else all are `window`.
        length: Targets in a row.
        keep_key: int64 [2] seed that decides which occurrences are kept.
        reach_key: int64 [2] seed of the windows' reaches.

    Returns:
        `Rows.tokens`, `left` and `right` of all documents one behind the other; only the last row
        is padded.
    """
    ids = documents.flat_values
    kept = tf.where(uniform(tf.shape(ids), keep_key) < tf.gather(keep, ids))[:, 0]
    document = tf.cast(tf.gather(documents.value_rowids(), kept), tf.int32)
    ids = tf.cast(tf.gather(ids, kept), tf.int32)

    count = tf.size(ids)
    position = tf.range(count)
    lengths = tf.math.segment_sum(tf.ones_like(ids), document)
    ends = tf.cumsum(lengths)
    reach = (
        tf.random.stateless_uniform([count], reach_key, 1, window + 1, dtype=tf.int32, alg="philox")
        if shrink
        else window
    )
    left = tf.minimum(reach, position - tf.gather(ends - lengths, document))
    right = tf.minimum(reach, tf.gather(ends, document) - 1 - position)

    rows = (count + length - 1) // length
    padding = rows * length - count
    starts = tf.range(rows)[:, tf.newaxis] * length
    halo = tf.pad(ids, [[window, window + padding]])
    return (
        tf.gather(halo, starts + tf.range(length + 2 * window)),
        tf.reshape(tf.pad(left, [[0, padding]]), [rows, length]),
        tf.reshape(tf.pad(right, [[0, padding]]), [rows, length]),
    )


def window_masks(window: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of a row lie in the left and in the right part of a window.

    Returns:
        Two float32 [length * (window + 1), length + 2 * window] of 0 and 1. Row
        `target * (window + 1) + reach` has a 1 at each token that is at most `reach` to the left
        (right) of that target.

    >>> left, right = window_masks(window=1, length=2)
    >>> left.astype(int).tolist()  # Reaches 0 and 1 of the first target, then of the second.
    [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    """
    target, reach, token = np.ogrid[:length, : window + 1, : length + 2 * window]
    distance = token - window - target
    left, right = (
        ((side > 0) & (side <= reach)).astype(np.float32).reshape(length * (window + 1), -1)
        for side in (-distance, distance)
    )
    return left, right


def pair_mask(rows: Rows, *, window: int) -> tf.Tensor:
    """Which (target, token) combinations of a row are pairs.

    Returns:
        float32 [rows, length, length + 2 * window] of 0 and 1.
    """
    length = rows.left.shape[1]
    left, right = window_masks(window, length)
    first = tf.range(length) * (window + 1)
    return tf.gather(left, first + rows.left) + tf.gather(right, first + rows.right)


def explicit_pairs(rows: Rows, *, window: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The pairs of `rows`, spelled out.

    Returns:
        Targets and contexts, both int32 [pairs].
    """
    where = tf.where(pair_mask(rows, window=window) > 0)
    targets = tf.gather_nd(rows.tokens, where[:, :2] + tf.constant([0, window], tf.int64))
    contexts = tf.gather_nd(rows.tokens, tf.gather(where, [0, 2], axis=1))
    return targets, contexts


class Parts(NamedTuple):
    """One tensor for each kind of row that a step moves.

    Attributes:
        targets: The targets' vectors.
        contexts: The tokens' context vectors.
        noise: The noise words' context vectors.
    """

    targets: tf.Tensor
    contexts: tf.Tensor
    noise: tf.Tensor


class Scores(NamedTuple):
    """Inner products, and what they count.

    Rows form groups that share their noise words (as in pWord2Vec, Ji et al. 2016), each weighted
    so that a pair still counts `negatives` of them: the same expectation with matrix products in
    place of gathers.

    Attributes:
        positive: float32 [rows, length, length + 2 * window] targets x tokens.
        negative: float32 [groups, targets, noise] targets of a group x its noise words.
        mask: float32, as `positive`: 1 where there is a pair, else 0.
        weight: float32 [groups, targets, 1] what a noise word counts for a target.
    """

    positive: tf.Tensor
    negative: tf.Tensor
    mask: tf.Tensor
    weight: tf.Tensor


def scores(vectors: Parts, mask: tf.Tensor, *, negatives: int) -> Scores:
    """The inner products of one step.

    Args:
        vectors: float32 [rows, length, dimensions], [rows, length + 2 * window, dimensions] and
            [groups, noise, dimensions].
        mask: See `pair_mask`.
        negatives: Noise words that each pair is worth.
    """
    targets, contexts, noise = vectors
    groups, words = tf.shape(noise)[0], noise.shape[1]
    grouped = tf.reshape(targets, [groups, -1, targets.shape[2]])
    weight = tf.reshape(tf.reduce_sum(mask, -1) * (negatives / words), [groups, -1, 1])
    return Scores(
        tf.matmul(targets, contexts, transpose_b=True),
        tf.matmul(grouped, noise, transpose_b=True),
        mask,
        weight,
    )


def loss(scores: Scores) -> tf.Tensor:
    """Sum over the pairs of -log sigmoid(t.c) - sum of log sigmoid(-t.n), float32 scalar, nats."""
    return tf.reduce_sum(scores.mask * tf.math.softplus(-scores.positive)) + tf.reduce_sum(
        scores.weight * tf.math.softplus(scores.negative)
    )


class Errors(NamedTuple):
    """How wrong the scores are: the derivatives of `loss` by each of them.

    Attributes:
        positive: float32, as `Scores.positive`; not above 0.
        negative: float32, as `Scores.negative`; not below 0.
    """

    positive: tf.Tensor
    negative: tf.Tensor


def errors(scores: Scores) -> Errors:
    """The errors of one step."""
    return Errors(
        (tf.sigmoid(scores.positive) - 1.0) * scores.mask,
        tf.sigmoid(scores.negative) * scores.weight,
    )


def loads(errors: Errors) -> Parts:
    """The sum of the absolute errors that each occurrence has a part in.

    Returns:
        float32 [rows, length], [rows, length + 2 * window] and [groups, noise].
    """
    positive, negative = errors
    by_target = tf.reshape(tf.reduce_sum(negative, 2), tf.shape(positive)[:2])
    return Parts(
        by_target - tf.reduce_sum(positive, 2),
        -tf.reduce_sum(positive, 1),
        tf.reduce_sum(negative, 1),
    )


def updates(errors: Errors, vectors: Parts, rates: Parts) -> Parts:
    """The gradients of `loss` in closed form, each row times its rate.

    The rates go to the errors, which are fewer numbers than the rows of the result.

    Args:
        errors: Of the vectors' scores.
        vectors: As `scores` takes them.
        rates: float32 [rows, length], [rows, length + 2 * window] and [groups, noise].

    Returns:
        What is to be subtracted, in the shapes of the vectors.
    """
    targets, contexts, noise = vectors
    positive, negative = errors
    groups, dimensions = tf.shape(noise)[0], targets.shape[2]
    grouped = tf.reshape(targets, [groups, -1, dimensions])
    target_rates = rates.targets[:, :, tf.newaxis]
    grouped_rates = tf.reshape(rates.targets, [groups, -1, 1])
    return Parts(
        tf.matmul(positive * target_rates, contexts)
        + tf.reshape(tf.matmul(negative * grouped_rates, noise), tf.shape(targets)),
        tf.matmul(positive * rates.contexts[:, tf.newaxis], targets, transpose_a=True),
        tf.matmul(negative * rates.noise[:, tf.newaxis], grouped, transpose_a=True),
    )
