"""The vectors as parts of other libraries: a Keras layer, gensim's KeyedVectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError
from components.exporter.storage import Vectors
from components.subwords import Buckets

_UNKNOWN = "[UNK]"  # What Keras calls them.


def keras_layer(words: Sequence[str], vectors: Vectors, *, trainable: bool) -> Any:
    """A layer from tokens to their vectors: a StringLookup and an Embedding.

    It is made of Keras's own layers alone, so a model that has it is saved and loaded without
    skipstream. Tokens are looked up as they are; unknown ones, and "" that fills a row, have
    zeros.

    Args:
        words: By id.
        vectors: float32 [types, dimensions], by id.
        trainable: Whether training a model changes the vectors.

    Returns:
        keras.Sequential, from string [batch, tokens] to float32 [batch, tokens, dimensions].
    """
    import keras

    unknown = _UNKNOWN
    known = set(words)
    while unknown in known:
        unknown += "_"
    table = np.concatenate([np.zeros_like(vectors[:1]), vectors])
    embedding = keras.layers.Embedding(
        *table.shape, weights=table, trainable=trainable, name="vectors"
    )
    look_up = keras.layers.StringLookup(vocabulary=list(words), oov_token=unknown, name="ids")
    layers = [keras.Input([None], dtype="string"), look_up, embedding]
    return keras.Sequential(layers, name="skipstream", trainable=trainable)


def to_gensim(
    words: Sequence[str],
    vectors: Vectors,
    counts: npt.NDArray[np.int64] | None,
    buckets: Buckets | None,
) -> Any:
    """The vectors as gensim's KeyedVectors, or with n-grams its FastTextKeyedVectors.

    gensim keeps a row for each bucket, trained or not: 2,000,000 of 100 dimensions are 0.8 GB.

    Args:
        words: By id.
        vectors: float32 [types, dimensions], by id.
        counts: int64 [types], if they are known.
        buckets: The vectors of n-grams, if there are any.

    Raises:
        SkipstreamError: gensim is not installed.
    """
    try:
        from gensim.models.fasttext import FastTextKeyedVectors
        from gensim.models.keyedvectors import KeyedVectors
    except ImportError as error:
        raise SkipstreamError(
            f"to_gensim needs gensim, which cannot be imported ({error}): "
            "pip install 'gensim>=4.4,<5'"
        ) from error

    dimensions = vectors.shape[1]
    if buckets:
        shortest, longest, number = buckets.subwords
        made = FastTextKeyedVectors(
            dimensions, min_n=shortest, max_n=longest, bucket=number, dtype=np.float32
        )
    else:
        made = KeyedVectors(dimensions, dtype=np.float32)
    made.index_to_key = list(words)
    made.key_to_index = {word: id_ for id_, word in enumerate(words)}
    made.next_index = len(words)
    made.vectors = np.array(vectors)
    if buckets:
        made.vectors_vocab = buckets.own(words, vectors)
        made.vectors_ngrams = np.zeros((number, dimensions), np.float32)
        made.vectors_ngrams[buckets.ids] = buckets.rows
        made.recalc_char_ngram_buckets()
    if counts is not None:
        made.expandos["count"] = counts
    return made
