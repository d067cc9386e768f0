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

from components.defaults import keep_probability


class Streams(NamedTuple):
    """Seeds, int64 [2], of the streams of random numbers of one epoch; no two of them meet.

    Attributes:
        keep: Which occurrences are kept.
        reach: The windows' reaches.
        order: Of the rows of a shard.
        noise: Noise words.
    """

    keep: tf.Tensor
    reach: tf.Tensor
    order: tf.Tensor
    noise: tf.Tensor


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


def frequency_scores(
    counts: np.ndarray, sample: float, noise_exponent: float, negatives: int
) -> np.ndarray:
    """The best score of each context that does not look at the target.

    Args:
        counts: int64 [types] occurrences in the corpus.
        sample: See `keep_probability`.
        noise_exponent: Power of the counts that noise words are drawn by.
        negatives: Noise words that each pair is worth.

    Returns:
        float32 [types]: log(share among the kept words / (negatives x share among noise words)).

    >>> scores = frequency_scores(np.array([16, 1]), sample=0, noise_exponent=0.5, negatives=2)
    >>> np.exp(scores.astype(float)).round(3).tolist()  # 16/17 : 2 x 4/5, 1/17 : 2 x 1/5
    [0.588, 0.147]
    """
    kept = counts * keep_probability(counts, sample).astype(np.float64)
    noise = counts.astype(np.float64) ** noise_exponent
    shares = (kept / kept.sum()) / (negatives * noise / noise.sum())
    return np.asarray(np.log(shares), np.float32)


class AliasTable(NamedTuple):
    """A distribution to draw from in two look-ups (Walker 1974, Vose 1991).

    A cell is drawn uniformly; it is the answer below its threshold, else its alias is. (Inversion
    searches the cumulative distribution in log2(types) steps, each a cache miss: ten times slower
    at 88 k types.)

    Attributes:
        threshold: float32 [types] in 0..1.
        alias: int32 [types].
    """

    threshold: np.ndarray | tf.Tensor
    alias: np.ndarray | tf.Tensor


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


def streams(seed: tf.Tensor | int, epoch: tf.Tensor | int) -> Streams:
    """All streams of an epoch."""
    seed, epoch = tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)
    purposes = range(len(Streams._fields))
    return Streams(*(tf.stack([seed * 8 + purpose, epoch]) for purpose in purposes))


def position_key(key: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The seed for one position (a batch of documents) of a stream, int64 [2]."""
    return tf.cast(tf.random.fold_in(key, position, alg="philox"), tf.int64)


def shuffle(values: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """The same values in another order, along their first axis."""
    return tf.random.experimental.stateless_shuffle(values, key, alg="philox")


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
        shape, key, 0, tf.size(table.alias), dtype=tf.int32, alg="philox"
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
    ids = tf.cast(tf.gather(ids, kept), tf.int32)
    count = tf.size(ids)

    # How many kept tokens of its document lie before each, and how many behind.
    splits = tf.searchsorted(kept, documents.row_splits)
    lengths = splits[1:] - splits[:-1]
    before = tf.ragged.range(lengths).flat_values
    behind = tf.ragged.range(lengths - 1, -1, -1).flat_values
    reach = (
        tf.random.stateless_uniform([count], reach_key, 1, window + 1, dtype=tf.int32, alg="philox")
        if shrink
        else window
    )
    left, right = tf.minimum(reach, before), tf.minimum(reach, behind)

    rows = (count + length - 1) // length
    padding = rows * length - count
    firsts = tf.range(rows)[:, tf.newaxis] * length
    halo = tf.pad(ids, [[window, window + padding]])
    return (
        tf.gather(halo, firsts + tf.range(length + 2 * window)),
        tf.reshape(tf.pad(left, [[0, padding]]), [rows, length]),
        tf.reshape(tf.pad(right, [[0, padding]]), [rows, length]),
    )


def are_pairs(rows: Rows, *, window: int) -> tf.Tensor:
    """Which (token, target) combinations of a row are pairs.

    Returns:
        bool [rows, length + 2 * window, length].

    >>> reach = {"left": tf.constant([[1, 0]]), "right": tf.constant([[1, 1]])}
    >>> rows = Rows(tf.constant([[6, 7, 8, 9]]), **reach, noise=tf.constant([[0]]))
    >>> are_pairs(rows, window=1).numpy().astype(int).tolist()  # 7 with 6 and 8; 8 with 9.
    [[[1, 0], [0, 0], [1, 0], [0, 1]]]
    """
    length = rows.left.shape[1]
    token, target = np.ogrid[: length + 2 * window, :length]
    distance = (token - window - target).astype(np.int32)
    return ((distance < 0) & (-distance <= rows.left[:, tf.newaxis])) | (
        (distance > 0) & (distance <= rows.right[:, tf.newaxis])
    )


def explicit_pairs(rows: Rows, *, window: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The pairs of `rows`, spelled out.

    Returns:
        Targets and contexts, both int32 [pairs].
    """
    where = tf.where(tf.transpose(are_pairs(rows, window=window), [0, 2, 1]))
    targets = tf.gather_nd(rows.tokens, where[:, :2] + tf.constant([0, window], tf.int64))
    contexts = tf.gather_nd(rows.tokens, tf.gather(where, [0, 2], axis=1))
    return targets, contexts


class Parts(NamedTuple):
    """One tensor for each kind of row that a step moves.

    Attributes:
        targets: Of the rows' targets.
        contexts: Of the rows' tokens.
        noise: Of the noise words, in groups that share them.
    """

    targets: tf.Tensor
    contexts: tf.Tensor
    noise: tf.Tensor


class Scores(NamedTuple):
    """Inner products.

    Rows form groups that share their noise words (as in pWord2Vec, Ji et al. 2016), each weighted
    so that a pair still counts `negatives` of them: the same expectation with matrix products in
    place of gathers.

    Attributes:
        positive: float32 [rows, length + 2 * window, length] tokens x targets. (That way round the
            products are half as fast again: `length` fills the CPU's vectors.)
        negative: float32 [groups, targets, noise] targets of a group x its noise words.
    """

    positive: tf.Tensor
    negative: tf.Tensor


def scores(vectors: Parts) -> Scores:
    """The inner products of one step.

    Args:
        vectors: float32 [rows, length, dimensions], [rows, length + 2 * window, dimensions] and
            [groups, noise, dimensions].
    """
    targets, contexts, noise = vectors
    grouped = tf.reshape(targets, [tf.shape(noise)[0], -1, targets.shape[2]])
    return Scores(
        tf.matmul(contexts, targets, transpose_b=True),
        tf.matmul(grouped, noise, transpose_b=True),
    )


def _weight(rows: Rows, scores: Scores, negatives: int) -> tf.Tensor:
    """What a noise word counts for each target, float32 [groups, targets, 1]."""
    pairs = tf.cast(rows.left + rows.right, tf.float32)
    words = scores.negative.shape[2]
    return tf.reshape(pairs * (negatives / words), [tf.shape(scores.negative)[0], -1, 1])


def loss(scores: Scores, rows: Rows, *, window: int, negatives: int) -> tf.Tensor:
    """Sum over the pairs of -log sigmoid(t.c) - sum of log sigmoid(-t.n), float64 scalar, nats.

    A step has about a hundred thousand terms. Added up in float32 one after the other, as XLA does
    in an order that depends on the width of the CPU's vectors, they lose up to 1e-4 of their sum.
    So only those of one token, or of one target and its noise words, are added up in float32.

    Args:
        scores: Of the vectors that `rows` name.
        rows: Say which scores count, and how much.
        window: The longest reach of `rows`.
        negatives: Noise words that each pair is worth.
    """
    pairs = are_pairs(rows, window=window)
    weight = _weight(rows, scores, negatives)
    positive = tf.where(pairs, tf.math.softplus(-scores.positive), 0.0)
    negative = weight * tf.math.softplus(scores.negative)
    sums = [tf.cast(tf.reduce_sum(terms, 2), tf.float64) for terms in (positive, negative)]
    return tf.add_n(list(map(tf.reduce_sum, sums)))


class Errors(NamedTuple):
    """How wrong the scores are: the derivatives of `loss` by each of them.

    Attributes:
        positive: float32, as `Scores.positive`; not above 0.
        negative: float32, as `Scores.negative`; not below 0.
    """

    positive: tf.Tensor
    negative: tf.Tensor


def errors(scores: Scores, rows: Rows, *, window: int, negatives: int) -> Errors:
    """The errors of one step; the arguments are those of `loss`."""
    pairs = are_pairs(rows, window=window)
    return Errors(
        tf.where(pairs, tf.sigmoid(scores.positive) - 1.0, 0.0),
        tf.sigmoid(scores.negative) * _weight(rows, scores, negatives),
    )


def loads(errors: Errors) -> Parts:
    """The sum of the absolute errors that each occurrence has a part in.

    Returns:
        float32 [rows, length], [rows, length + 2 * window] and [groups, noise].
    """
    positive, negative = errors
    by_target = -tf.reduce_sum(positive, 1)
    return Parts(
        by_target + tf.reshape(tf.reduce_sum(negative, 2), tf.shape(by_target)),
        -tf.reduce_sum(positive, 2),
        tf.reduce_sum(negative, 1),
    )


def gradients(errors: Errors, vectors: Parts) -> Parts:
    """The gradients of `loss` in closed form.

    Args:
        errors: Of the vectors' scores.
        vectors: As `scores` takes them.

    Returns:
        float32 in the shapes of the vectors.
    """
    targets, contexts, noise = vectors
    positive, negative = errors
    grouped = tf.reshape(targets, [tf.shape(noise)[0], -1, targets.shape[2]])
    return Parts(
        tf.matmul(positive, contexts, transpose_a=True)
        + tf.reshape(tf.matmul(negative, noise), tf.shape(targets)),
        tf.matmul(positive, targets),
        tf.matmul(negative, grouped, transpose_a=True),
    )
