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
PER_BATCH = (KEEP, REACH, ORDER, SHUFFLE)


class Rows(NamedTuple):
    """Skip-gram pairs in the layout that the trainer consumes.

    Attributes:
        tokens: int32 [rows, length + 2 * window] token ids; the targets are the middle `length`.
        left: int32 [rows, length] how many tokens to the left of a target are its contexts.
        right: int32 [rows, length] the same to the right; both are 0 where a row is padded.
    """

    tokens: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor


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


def noise_cdf(counts: np.ndarray, exponent: float) -> np.ndarray:
    """Cumulative distribution of the noise words: counts to the power `exponent`.

    Args:
        counts: int64 [types] occurrences in the corpus, all positive.
        exponent: 0.75 in word2vec; 0 draws all types alike.

    Returns:
        float64 [types], rising to exactly 1.

    >>> noise_cdf(np.array([4, 4, 2]), 1.0).tolist()
    [0.4, 0.8, 1.0]
    """
    cumulative = np.cumsum(np.power(counts.astype(np.float64), exponent))
    return np.asarray(cumulative / cumulative[-1])


def row_scales(
    kept: np.ndarray, noise: np.ndarray, *, pairs: float, negatives: int, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """How far each row's rate is turned down so that the sum of a step stays bounded.

    Every occurrence of a word in a step is moved from where its row was before the step. Sequential
    SGD would see the loss level off in between; a sum over very many occurrences overshoots it
    and, at last, diverges. A row that a step is expected to hold in more than `limit` pairs moves
    as if by `limit` of them.

    Args:
        kept: float [types] share of each word among the tokens that survive subsampling.
        noise: float [types] share of each word among the noise words.
        pairs: Expected in a step.
        negatives: Noise words that each pair is worth.
        limit: Pairs, a noise word counting as one.

    Returns:
        float32 [types] for the targets' vectors, and for the context vectors; at most 1.
    """
    as_target = pairs * (1 + negatives) * kept
    as_context = pairs * (kept + negatives * noise)
    targets, contexts = (
        np.minimum(1.0, limit / np.maximum(mass, 1e-9)).astype(np.float32)
        for mass in (as_target, as_context)
    )
    return targets, contexts


def stream(seed: tf.Tensor, purpose: int, epoch: tf.Tensor) -> tf.Tensor:
    """The two-word seed of one stream of random numbers, int64 [2]."""
    seed = tf.cast(seed, tf.int64)
    return tf.stack([seed * 8 + purpose, tf.cast(epoch, tf.int64)])


def position_key(key: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The seed for one position (a batch, a step) of a stream, int64 [2]."""
    return tf.cast(tf.random.fold_in(key, position, alg="philox"), tf.int64)


def uniform(shape: tf.Tensor, key: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Stateless uniform numbers in [0, 1): the same bits on every device."""
    return tf.random.stateless_uniform(shape, key, dtype=dtype, alg="philox")


def to_rows(
    documents: tf.RaggedTensor,
    *,
    keep: tf.Tensor,
    window: int,
    length: int,
    keep_key: tf.Tensor,
    reach_key: tf.Tensor,
) -> Rows:
    """Subsample documents, lay windows and cut the result into rows.

    Args:
        documents: Ragged int64 [documents, (tokens)] token ids.
        keep: float32 [types], see `keep_probability`.
        window: Longest reach, in kept tokens.
        length: Targets in a row.
        keep_key: int64 [2] seed that decides which occurrences are kept.
        reach_key: int64 [2] seed of the windows' reaches.

    Returns:
        The rows of all documents one behind the other; only the last is padded.
    """
    ids = documents.flat_values
    kept = uniform(tf.shape(ids), keep_key) < tf.gather(keep, ids)
    document = tf.boolean_mask(documents.value_rowids(), kept)
    ids = tf.cast(tf.boolean_mask(ids, kept), tf.int32)

    count = tf.size(ids)
    position = tf.range(count)
    lengths = tf.math.unsorted_segment_sum(tf.ones_like(ids), document, documents.nrows())
    ends = tf.cumsum(lengths)
    reach = tf.random.stateless_uniform(
        [count], reach_key, 1, window + 1, dtype=tf.int32, alg="philox"
    )
    left = tf.minimum(reach, position - tf.gather(ends - lengths, document))
    right = tf.minimum(reach, tf.gather(ends, document) - 1 - position)

    rows = (count + length - 1) // length
    padding = rows * length - count
    starts = tf.range(rows)[:, tf.newaxis] * length
    halo = tf.pad(ids, [[window, window + padding]])
    return Rows(
        tokens=tf.gather(halo, starts + tf.range(length + 2 * window)),
        left=tf.reshape(tf.pad(left, [[0, padding]]), [rows, length]),
        right=tf.reshape(tf.pad(right, [[0, padding]]), [rows, length]),
    )


def pair_mask(rows: Rows, *, window: int) -> tf.Tensor:
    """Which (target, token) combinations of a row are pairs.

    Returns:
        bool [rows, length, length + 2 * window].
    """
    length = rows.left.shape[1]
    offset = tf.range(length + 2 * window) - window - tf.range(length)[:, tf.newaxis]
    return (
        (offset >= -rows.left[:, :, tf.newaxis])
        & (offset <= rows.right[:, :, tf.newaxis])
        & (offset != 0)
    )


def explicit_pairs(rows: Rows, *, window: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The pairs of `rows`, spelled out.

    Returns:
        Targets and contexts, both int32 [pairs].
    """
    where = tf.where(pair_mask(rows, window=window))
    targets = tf.gather_nd(rows.tokens, where[:, :2] + tf.constant([0, window], tf.int64))
    contexts = tf.gather_nd(rows.tokens, tf.gather(where, [0, 2], axis=1))
    return targets, contexts


def draw_noise(shape: list[int], cdf: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Noise words by inversion.

    Args:
        shape: Of the result.
        cdf: float64 [types], see `noise_cdf`. (float32 cannot tell the tail of 2 M types apart.)
        key: int64 [2] seed.

    Returns:
        int32 ids of `shape`.
    """
    draws = uniform([np.prod(shape)], key, tf.float64)
    return tf.reshape(tf.searchsorted(cdf, draws, side="right"), shape)


class Gradients(NamedTuple):
    """What one step of skip-gram wants to change, before the learning rate.

    Attributes:
        targets: float32 [rows, length, dimensions] gradients of the targets' vectors.
        contexts: float32 [rows, length + 2 * window, dimensions] of the tokens' context vectors.
        noise: float32 [rows, noise, dimensions] of the noise words' context vectors.
        loss: float32 scalar, summed over the pairs, in nats.
        pairs: float32 scalar, how many pairs there were.
    """

    targets: tf.Tensor
    contexts: tf.Tensor
    noise: tf.Tensor
    loss: tf.Tensor
    pairs: tf.Tensor


def loss_and_gradients(
    targets: tf.Tensor,
    contexts: tf.Tensor,
    noise: tf.Tensor,
    mask: tf.Tensor,
    *,
    negatives: int,
) -> Gradients:
    """Loss of all pairs of some rows, and its gradients in closed form.

    A pair costs -log sigmoid(t.c) - sum over `negatives` noise words n of log sigmoid(-t.n). The
    noise words of a row are shared by its pairs (as in pWord2Vec, Ji et al. 2016), each weighted
    so that a pair still counts `negatives` of them: the same expectation with matrix products in
    place of gathers.

    Args:
        targets: float32 [rows, length, dimensions].
        contexts: float32 [rows, length + 2 * window, dimensions].
        noise: float32 [rows, noise, dimensions].
        mask: bool [rows, length, length + 2 * window], see `pair_mask`.
        negatives: Noise words that each pair is worth.
    """
    pair = tf.cast(mask, tf.float32)
    pairs = tf.reduce_sum(pair, -1, keepdims=True)  # [rows, length, 1]
    weight = pairs * (negatives / noise.shape[1])
    positive = tf.matmul(targets, contexts, transpose_b=True)
    negative = tf.matmul(targets, noise, transpose_b=True)
    loss = tf.reduce_sum(pair * tf.math.softplus(-positive)) + tf.reduce_sum(
        weight * tf.math.softplus(negative)
    )
    pull = (tf.sigmoid(positive) - 1.0) * pair
    push = tf.sigmoid(negative) * weight
    return Gradients(
        targets=tf.matmul(pull, contexts) + tf.matmul(push, noise),
        contexts=tf.matmul(pull, targets, transpose_a=True),
        noise=tf.matmul(push, targets, transpose_a=True),
        loss=loss,
        pairs=tf.reduce_sum(pairs),
    )
