"""n-grams in the graph are those of `components.subwords`, however long, many and odd words are."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf
from test_subwords import SOME, WORDS

from components.exporter import subword_ops
from components.exporter.storage import store
from components.exporter.subword_ops import NgramVectors
from components.settings import Storage
from components.subwords import Buckets, Subwords, ngrams

DIMENSIONS = 5
Compose = Callable[[list[Any]], tuple[np.ndarray, np.ndarray]]


def buckets(subwords: Subwords = SOME[0], words: list[str] = WORDS, seed: int = 0) -> Buckets:
    """Vectors of half of the n-grams of `words`, and one of zeros."""
    draw = np.random.default_rng(seed)
    ids = np.unique(ngrams(words, subwords).buckets)
    ids = ids[draw.random(len(ids)) < 0.5]
    rows = draw.normal(size=(len(ids), DIMENSIONS)).astype(np.float32)
    rows[:1] = 0
    return Buckets(subwords, ids, rows)


def composer(trained: Buckets, storage: Storage = "float32") -> Compose:
    """From words to a vector for each, and whether it has one."""
    module = NgramVectors(trained, storage)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def add(words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.size(words, tf.int64)
        return module.add(words, tf.range(count), tf.zeros([count, DIMENSIONS]))

    def compose(words: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        vectors, found = add(tf.constant(words, tf.string, [len(words)]))
        return vectors.numpy(), found.numpy()

    return compose


@pytest.mark.parametrize("subwords", SOME)
@pytest.mark.parametrize("block", [7, 2048])
def test_words_have_the_vectors_that_numpy_makes_of_their_ngrams(
    subwords: Subwords, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subword_ops, "_BLOCK", block)
    trained = buckets(subwords)
    vectors, found = composer(trained)(WORDS)
    expected = trained.compose(WORDS)
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found, expected.any(axis=1))


def test_words_of_random_characters_have_them_too() -> None:
    draw = np.random.default_rng(1)
    alphabet = list("ab<>/s é東\u0301\uffff") + ["😀", "\U0010ffff"]
    words = ["".join(draw.choice(alphabet, length)) for length in draw.integers(0, 40, 300)]
    trained = buckets(Subwords(1, 6, 300), words)
    vectors, _ = composer(trained)(words)
    np.testing.assert_allclose(vectors, trained.compose(words), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("storage", get_args(Storage))
def test_fewer_bytes_are_added_up_as_they_are_restored(storage: Storage) -> None:
    trained = buckets()
    rounded = Buckets(trained.subwords, trained.ids, store(trained.rows, storage).restored())
    vectors, _ = composer(trained, storage)(WORDS)
    np.testing.assert_allclose(vectors, rounded.compose(WORDS), rtol=1e-5, atol=1e-6)


def test_a_word_has_the_same_bits_in_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subword_ops, "_BLOCK", 16)
    compose = composer(buckets())
    together, _ = compose(WORDS)
    for row, word in enumerate(WORDS):
        np.testing.assert_array_equal(compose([word])[0][0], together[row])
        np.testing.assert_array_equal(compose(["walking", word])[0][1], together[row])


def test_words_of_a_row_add_up_to_the_same_bits_whatever_is_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subword_ops, "_BLOCK", 16)
    trained = buckets()
    signature = [
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, DIMENSIONS]),
    ]
    module = NgramVectors(trained, "float32")
    add = tf.function(module.add, input_signature=signature, autograph=False)
    rows = np.repeat([0, 2, 3, 4], [1, 5, 4, 2])
    onto = np.random.default_rng(2).normal(size=(6, DIMENSIONS)).astype(np.float32)
    together, _ = add(tf.constant(WORDS), tf.constant(rows), tf.constant(onto))
    vectors = trained.compose(WORDS)
    for row in range(6):
        here = rows == row
        expected = onto[row] + vectors[here].sum(axis=0)
        np.testing.assert_allclose(together[row], expected, rtol=1e-5, atol=1e-5)
        words = [word for word, is_here in zip(WORDS, here, strict=True) if is_here]
        zeros = tf.zeros(len(words), tf.int64)
        alone, _ = add(tf.constant(words, tf.string), zeros, tf.constant(onto[row : row + 1]))
        np.testing.assert_array_equal(alone[0], together[row])


def test_what_is_no_utf8_is_read_as_replaced() -> None:
    trained = buckets(words=["a\ufffdb", "\ufffd" * 9])
    vectors, _ = composer(trained)([b"a\xffb", b"\x80" * 9])
    expected = trained.compose(["a\ufffdb", "\ufffd" * 9])
    assert expected.any()
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_without_any_trained_bucket_words_have_zeros() -> None:
    none = Buckets(SOME[0], np.zeros(0, np.int32), np.zeros((0, DIMENSIONS), np.float32))
    compose = composer(none, "int8")
    vectors, found = compose(WORDS)
    assert not vectors.any()
    assert not found.any()
    assert compose([])[0].shape == (0, DIMENSIONS)


def test_buckets_of_zeros_are_not_stored() -> None:
    trained = buckets()
    module = NgramVectors(trained, "float32")
    np.testing.assert_array_equal(module.ids[:-1], trained.ids[1:])
    np.testing.assert_array_equal(module.buckets[:-1], trained.rows[1:])
    assert module.settings.numpy().tolist() == list(trained.subwords)
