"""The pairs, the noise and the gradients, each against a naive reference."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from components.trainer import skipgrams


def random_documents(seed: int, types: int = 30) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(0, 60, size=draw.integers(1, 12))
    return [draw.integers(0, types, size=length).tolist() for length in lengths]


def naive_pairs(
    documents: list[list[int]],
    keep: np.ndarray,
    window: int,
    keep_key: tf.Tensor,
    reach_key: tf.Tensor,
) -> Iterator[tuple[int, int]]:
    """word2vec.c's loop over the same random numbers."""
    draws = iter(skipgrams.uniform([sum(map(len, documents))], keep_key).numpy())
    kept = [[id_ for id_ in document if next(draws) < keep[id_]] for document in documents]
    reaches = iter(
        tf.random.stateless_uniform(
            [sum(map(len, kept))], reach_key, 1, window + 1, dtype=tf.int32, alg="philox"
        ).numpy()
    )
    for document in kept:
        for place, target in enumerate(document):
            reach = next(reaches)
            for other in range(max(0, place - reach), min(len(document), place + reach + 1)):
                if other != place:
                    yield target, document[other]


@pytest.mark.parametrize("seed", range(12))
def test_pairs_equal_the_naive_loop(seed: int) -> None:
    documents = random_documents(seed)
    window, length = 1 + seed % 6, (1, 4, 8, 32)[seed % 4]
    keep = np.random.default_rng(seed).uniform(0.2, 1.0, 30).astype(np.float32)
    keep_key, reach_key = tf.constant([seed, 1], tf.int64), tf.constant([seed, 2], tf.int64)
    rows = skipgrams.to_rows(
        tf.ragged.constant(documents, tf.int64, row_splits_dtype=tf.int64),
        keep=tf.constant(keep),
        window=window,
        length=length,
        keep_key=keep_key,
        reach_key=reach_key,
    )
    targets, contexts = skipgrams.explicit_pairs(rows, window=window)
    pairs = list(zip(targets.numpy().tolist(), contexts.numpy().tolist(), strict=True))
    assert pairs == list(naive_pairs(documents, keep, window, keep_key, reach_key))


def test_pairs_never_cross_a_document() -> None:
    documents = [[1, 2], [3], [], [4, 5, 6]]
    key = tf.constant([0, 0], tf.int64)
    rows = skipgrams.to_rows(
        tf.ragged.constant(documents, tf.int64, row_splits_dtype=tf.int64),
        keep=tf.ones([7]),
        window=5,
        length=4,
        keep_key=key,
        reach_key=key,
    )
    targets, contexts = skipgrams.explicit_pairs(rows, window=5)
    together = {frozenset(pair) for pair in zip(targets.numpy(), contexts.numpy(), strict=True)}
    assert together <= {frozenset(pair) for pair in [(1, 2), (4, 5), (4, 6), (5, 6)]}
    assert frozenset((1, 2)) in together


def test_subsampling_keeps_the_share_that_word2vec_does() -> None:
    counts = np.array([1_000_000, 10_000, 100])
    sample = 1e-3
    expected = [
        min(1, (np.sqrt(c / (sample * counts.sum())) + 1) * sample * counts.sum() / c)
        for c in counts
    ]
    np.testing.assert_allclose(skipgrams.keep_probability(counts, sample), expected, rtol=1e-6)
    assert skipgrams.keep_probability(counts, 0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("exponent", [0.75, 0.0, 1.0, -0.5])
def test_noise_follows_the_counts_to_the_power(exponent: float) -> None:
    counts = np.array([1000, 300, 100, 30, 1])
    cdf = tf.constant(skipgrams.noise_cdf(counts, exponent))
    draws = skipgrams.draw_noise([400, 500], cdf, tf.constant([3, 4], tf.int64)).numpy()
    drawn = Counter(draws.ravel().tolist())
    expected = counts**exponent / (counts**exponent).sum()
    observed = np.array([drawn[id_] for id_ in range(5)]) / draws.size
    np.testing.assert_allclose(observed, expected, atol=4 * np.sqrt(0.25 / draws.size))


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_loss(seed: int) -> None:
    draw = np.random.default_rng(seed)
    targets, contexts, noise = (
        tf.constant(draw.normal(size=[3, width, 7]), tf.float32) for width in (4, 8, 5)
    )
    rows = skipgrams.Rows(
        tf.zeros([3, 8], tf.int32),
        tf.constant(draw.integers(0, 3, [3, 4]), tf.int32),
        tf.constant(draw.integers(0, 3, [3, 4]), tf.int32),
    )
    mask = skipgrams.pair_mask(rows, window=2)
    with tf.GradientTape() as tape:
        tape.watch([targets, contexts, noise])
        gradients = skipgrams.loss_and_gradients(targets, contexts, noise, mask, negatives=6)
    by_tape = tape.gradient(gradients.loss, [targets, contexts, noise])
    for closed, automatic in zip(gradients[:3], by_tape, strict=True):
        np.testing.assert_allclose(closed, automatic, atol=2e-5)


def test_loss_is_the_naive_sum_over_pairs() -> None:
    draw = np.random.default_rng(5)
    window, length, negatives = 2, 4, 3
    targets, contexts, noise = (
        draw.normal(size=[2, width, 6]).astype(np.float32) for width in (4, 8, 5)
    )
    left, right = draw.integers(0, 3, [2, 2, 4])
    naive, pairs = 0.0, 0

    def cost(score: float) -> float:
        return float(np.log1p(np.exp(-score)))

    for row in range(2):
        for i in range(length):
            for j in range(i + window - left[row, i], i + window + right[row, i] + 1):
                if j == i + window:
                    continue
                pairs += 1
                naive += cost(targets[row, i] @ contexts[row, j])
                naive += negatives * np.mean([cost(-targets[row, i] @ z) for z in noise[row]])
    rows = skipgrams.Rows(
        tf.zeros([2, 8], tf.int32), tf.constant(left, tf.int32), tf.constant(right, tf.int32)
    )
    gradients = skipgrams.loss_and_gradients(
        targets, contexts, noise, skipgrams.pair_mask(rows, window=window), negatives=negatives
    )
    assert float(gradients.pairs) == pairs
    assert float(gradients.loss) == pytest.approx(naive, rel=1e-5)
