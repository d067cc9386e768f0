"""The pairs, the noise and the gradients, each against a naive reference."""

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
    shrink: bool,
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
            reach = next(reaches) if shrink else window
            for other in range(max(0, place - reach), min(len(document), place + reach + 1)):
                if other != place:
                    yield target, document[other]


def rows_of(
    documents: list[list[int]],
    keep: np.ndarray,
    window: int,
    length: int,
    keep_key: tf.Tensor,
    reach_key: tf.Tensor,
    shrink: bool = True,
) -> skipgrams.Rows:
    parts = skipgrams.to_rows(
        tf.ragged.constant(documents, tf.int64, row_splits_dtype=tf.int64),
        keep=tf.constant(keep),
        window=window,
        shrink=shrink,
        length=length,
        keep_key=keep_key,
        reach_key=reach_key,
    )
    return skipgrams.Rows(*parts, noise=tf.zeros([len(parts[0]), 1], tf.int32))


@pytest.mark.parametrize("seed", range(16))
def test_pairs_equal_the_naive_loop(seed: int) -> None:
    documents = random_documents(seed)
    window, length, shrink = 1 + seed % 6, (1, 4, 8, 32)[seed % 4], seed < 12
    keep = np.random.default_rng(seed).uniform(0.2, 1.0, 30).astype(np.float32)
    keys = tf.constant([seed, 1], tf.int64), tf.constant([seed, 2], tf.int64)
    rows = rows_of(documents, keep, window, length, *keys, shrink)
    targets, contexts = skipgrams.explicit_pairs(rows, window=window)
    pairs = list(zip(targets.numpy().tolist(), contexts.numpy().tolist(), strict=True))
    assert pairs == list(naive_pairs(documents, keep, window, *keys, shrink))


def test_pairs_never_cross_a_document() -> None:
    documents = [[1, 2], [3], [], [4, 5, 6]]
    key = tf.constant([0, 0], tf.int64)
    rows = rows_of(documents, np.ones(7, np.float32), 5, 4, key, key)
    targets, contexts = skipgrams.explicit_pairs(rows, window=5)
    together = {frozenset(pair) for pair in zip(targets.numpy(), contexts.numpy(), strict=True)}
    assert together <= {frozenset(pair) for pair in [(1, 2), (4, 5), (4, 6), (5, 6)]}
    assert frozenset((1, 2)) in together


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (1, 1), (7, 2), (8, 2), (9, 3)])
def test_only_the_last_row_is_padded(count: int, rows: int) -> None:
    key = tf.constant([0, 0], tf.int64)
    ids = list(range(1, 1 + count))
    found = rows_of([ids], np.ones(1 + count, np.float32), 2, 4, key, key, shrink=False)
    assert found.tokens.shape == (rows, 4 + 2 * 2)
    assert found.tokens.numpy()[:, 2:-2].ravel()[:count].tolist() == ids
    reaches = (found.left + found.right).numpy().ravel()
    assert not reaches[count:].any()


def test_no_two_streams_of_random_numbers_meet() -> None:
    epochs = [skipgrams.streams(seed, epoch) for seed in range(9) for epoch in range(3)]
    keys = [tuple(key.numpy().tolist()) for streams in epochs for key in streams]
    assert len(set(keys)) == len(keys) == 9 * 3 * 4


def test_scores_of_frequencies_are_those_of_the_words_that_are_kept() -> None:
    counts, sample = np.array([9000, 900, 90]), 0.01
    keep = skipgrams.keep_probability(counts, sample)
    assert keep[0] < 0.2 < keep[2] == 1
    kept, noise = counts * keep, counts**0.75
    expected = np.log(kept / kept.sum()) - np.log(5 * noise / noise.sum())
    found = skipgrams.frequency_scores(counts, sample, noise_exponent=0.75, negatives=5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_subsampling_keeps_the_share_that_word2vec_does() -> None:
    counts = np.array([1_000_000, 10_000, 100])
    sample = 1e-3
    expected = [
        min(1, (np.sqrt(c / (sample * counts.sum())) + 1) * sample * counts.sum() / c)
        for c in counts
    ]
    np.testing.assert_allclose(skipgrams.keep_probability(counts, sample), expected, rtol=1e-6)
    assert skipgrams.keep_probability(counts, 0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(40))
def test_alias_table_has_the_given_shares(seed: int) -> None:
    draw = np.random.default_rng(seed)
    weights = draw.random(draw.integers(1, 60)) ** draw.integers(1, 20)
    if seed % 7 == 0:
        weights[:] = 0.1  # Their mean may be rounded up.
    if seed % 5 == 0:
        weights[1:3] = 0
    check_shares(weights)


@pytest.mark.parametrize("weights", [[2, 3, 1], [0.1, 0.2, 0.3], [0.3, 0.8, 0.6, 0.7]], ids=str)
def test_alias_table_bears_weights_at_the_mean_and_sums_that_are_rounded(
    weights: list[float],
) -> None:
    check_shares(np.array(weights))


def check_shares(weights: np.ndarray) -> None:
    threshold, alias = skipgrams.alias_table(weights)
    share = threshold.astype(np.float64)
    np.add.at(share, alias, 1 - threshold.astype(np.float64))
    np.testing.assert_allclose(share / len(weights), weights / weights.sum(), atol=1e-6)
    assert ((threshold >= 0) & (threshold <= 1)).all()


@pytest.mark.parametrize("exponent", [0.75, 0.0, 1.0, -0.5])
def test_noise_follows_the_counts_to_the_power(exponent: float) -> None:
    counts = np.array([1000.0, 300, 100, 30, 1])
    table = skipgrams.alias_table(counts**exponent)
    draws = skipgrams.draw_noise(tf.constant([400, 500]), table, tf.constant([3, 4], tf.int64))
    observed = np.bincount(draws.numpy().ravel(), minlength=5) / 200_000
    expected = counts**exponent / (counts**exponent).sum()
    deviation = np.sqrt(expected * (1 - expected) / 200_000)
    assert (np.abs(observed - expected) < 5 * deviation).all()


WINDOW, LENGTH, ROWS, GROUPS, NOISE, DIMENSIONS = 2, 4, 6, 3, 5, 7


def random_step(seed: int) -> tuple[skipgrams.Rows, skipgrams.Parts]:
    """Rows and the vectors of their targets, tokens and noise words."""
    draw = np.random.default_rng(seed)
    left, right = draw.integers(0, WINDOW + 1, [2, ROWS, LENGTH])
    rows = skipgrams.Rows(
        tf.zeros([ROWS, LENGTH + 2 * WINDOW], tf.int32),
        tf.constant(left, tf.int32),
        tf.constant(right, tf.int32),
        tf.zeros([ROWS, 1], tf.int32),
    )
    shapes = [(ROWS, LENGTH), (ROWS, LENGTH + 2 * WINDOW), (GROUPS, NOISE)]
    parts = [tf.constant(draw.normal(size=[*s, DIMENSIONS]), tf.float32) for s in shapes]
    return rows, skipgrams.Parts(*parts)


def naive_step(
    rows: skipgrams.Rows, vectors: skipgrams.Parts, negatives: int
) -> tuple[float, int, list[np.ndarray]]:
    """Loss, pairs and loads, pair by pair."""
    targets, contexts, noise = (part.numpy() for part in vectors)
    loads = [np.zeros(part.shape[:2]) for part in vectors]
    total, pairs = 0.0, 0

    def cost(score: float) -> float:
        return float(np.log1p(np.exp(-score)))

    def sigmoid(score: float) -> float:
        return float(1 / (1 + np.exp(-score)))

    for row in range(ROWS):
        group = row * GROUPS // ROWS
        for i in range(LENGTH):
            first, last = i + WINDOW - rows.left[row, i], i + WINDOW + rows.right[row, i]
            for j in [j for j in range(first, last + 1) if j != i + WINDOW]:
                pairs += 1
                total += cost(targets[row, i] @ contexts[row, j])
                total += negatives * np.mean([cost(-targets[row, i] @ z) for z in noise[group]])
                error = sigmoid(-targets[row, i] @ contexts[row, j])
                loads[0][row, i] += error
                loads[1][row, j] += error
                for word, z in enumerate(noise[group]):
                    error = sigmoid(targets[row, i] @ z) * negatives / NOISE
                    loads[0][row, i] += error
                    loads[2][group, word] += error
    return total, pairs, loads


@pytest.mark.parametrize("seed", range(4))
def test_loss_and_loads_are_the_naive_sums_over_pairs(seed: int) -> None:
    rows, vectors = random_step(seed)
    total, pairs, naive = naive_step(rows, vectors, negatives=3)
    scores = skipgrams.scores(vectors)
    assert int(tf.reduce_sum(rows.left + rows.right)) == pairs
    loss = skipgrams.loss(scores, rows, window=WINDOW, negatives=3)
    assert float(loss) == pytest.approx(total, rel=1e-5)
    errors = skipgrams.errors(scores, rows, window=WINDOW, negatives=3)
    for load, expected in zip(skipgrams.loads(errors), naive, strict=True):
        np.testing.assert_allclose(load, expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_loss(seed: int) -> None:
    rows, vectors = random_step(seed)
    with tf.GradientTape() as tape:
        tape.watch(list(vectors))
        scores = skipgrams.scores(vectors)
        loss = skipgrams.loss(scores, rows, window=WINDOW, negatives=6)
    errors = skipgrams.errors(scores, rows, window=WINDOW, negatives=6)
    expected = tape.gradient(loss, list(vectors))
    for gradient, of_loss in zip(skipgrams.gradients(errors, vectors), expected, strict=True):
        np.testing.assert_allclose(gradient, of_loss, atol=2e-5)


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_loss_of_a_step_as_it_is_trained_is_that_of_float64_on_every_cpu(spread: float) -> None:
    draw = np.random.default_rng(0)
    rows, length, window, groups, noise = 64, 32, 5, 32, 32
    left, right = draw.integers(0, window + 1, [2, rows, length]).astype(np.int32)
    tokens, words = tf.zeros([rows, length + 2 * window], tf.int32), tf.zeros([rows, 16], tf.int32)
    step = skipgrams.Rows(tokens, tf.constant(left), tf.constant(right), words)
    positive = draw.normal(0, spread, [rows, length + 2 * window, length]).astype(np.float32)
    negative = draw.normal(0, spread, [groups, 2 * length, noise]).astype(np.float32)
    compiled = tf.function(skipgrams.loss, autograph=False, jit_compile=True)
    scores = skipgrams.Scores(tf.constant(positive), tf.constant(negative))
    found = compiled(scores, step, window=window, negatives=5)

    def softplus(x: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, x.astype(np.float64))

    are_pairs = skipgrams.are_pairs(step, window=window).numpy()
    weight = (left + right).reshape(groups, -1, 1) * 5 / noise
    expected = softplus(-positive)[are_pairs].sum() + (weight * softplus(negative)).sum()
    assert float(found) == pytest.approx(expected, rel=2e-7)
