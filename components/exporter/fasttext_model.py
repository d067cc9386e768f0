"""Writes models as fastText does (.bin), with n-grams; `components.fasttext_files` reads them."""

from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError
from components.fasttext_files import (
    ENTRY,
    HEAD,
    MAGIC,
    MATRIX,
    NEGATIVE_SAMPLING,
    NOT_PRUNED,
    SKIPGRAM,
    VERSION,
)
from components.subwords import Buckets

_Vectors = npt.NDArray[np.float32]
_BLOCK_BYTES = 1 << 24  # Of rows, written at a time.


def write(
    file: IO[bytes],
    tokens: Sequence[str],
    vectors: _Vectors,
    counts: npt.NDArray[np.int64] | None,
    buckets: Buckets | None,
) -> None:
    """Write a model that fastText loads, and gensim with `load_facebook_model`.

    Both go on training it if they are asked to; what it predicts with starts from zeros then.

    Args:
        file: To write to.
        tokens: The vocabulary.
        vectors: float32 [types, dimensions]; with `buckets` means of own parts and n-grams'.
        counts: int64 [types]; None: each is said to have come once.
        buckets: The vectors of n-grams; None: the model has none.

    Raises:
        SkipstreamError: A token holds NUL, which ends words there.
    """
    types, dimensions = vectors.shape
    shortest, longest, rows = buckets.subwords if buckets else (0, 0, 0)
    if counts is None:
        counts = np.ones(types, np.int64)
    # What a SavedModel does not know is as fastText has it by default: window, epochs, minimum
    # count, negatives; n-grams of words, and `lrUpdateRate`; `t`.
    common = (dimensions, 5, 5, 5, 5, 1, NEGATIVE_SAMPLING, SKIPGRAM)
    sizes = (types, types, 0, int(counts.sum()), NOT_PRUNED)
    ngrams = (rows, shortest, longest)
    file.write(HEAD.pack(MAGIC, VERSION, *common, *ngrams, 100, 1e-4, *sizes))
    for token, count in zip(tokens, counts.tolist(), strict=True):
        if "\0" in token:
            raise SkipstreamError(
                f"words in fastText's files must be without NUL, got {token!r}: choose keyedvectors"
            )
        file.write(token.encode() + b"\0" + ENTRY.pack(count, False))
    file.write(MATRIX.pack(False, types + rows, dimensions))
    for block in _blocks(types, dimensions):
        own = vectors[block]
        if buckets:
            own = buckets.own(tokens[block], own)
        file.write(own.astype("<f4", copy=False).tobytes())
    for block in _blocks(rows, dimensions):
        some = np.zeros((block.stop - block.start, dimensions), "<f4")
        if buckets:
            trained = slice(*np.searchsorted(buckets.ids, [block.start, block.stop]))
            some[buckets.ids[trained] - block.start] = buckets.rows[trained]
        file.write(some.tobytes())
    file.write(MATRIX.pack(False, types, dimensions))
    for block in _blocks(types, dimensions):
        file.write(bytes(4 * (block.stop - block.start) * dimensions))


def _blocks(rows: int, dimensions: int) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (4 * dimensions))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
