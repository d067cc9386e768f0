"""Training that goes on from another model, by word: vocabularies grow, shrink and are reordered.

A word that the other model knows goes on from its vector and its context vector there. A new one
starts as in a cold start: a small random vector, a context vector of zeros. So it scores about 0
with every word, says nothing that nobody has learned, and its first steps lead to the words that it
stands with, whose vectors are there already. (Kaji and Kobayashi, "Incremental Skip-gram Model with
Negative Sampling", 2017, and gensim's `build_vocab(update=True)` let new words start so, too.)

Of gradient descent there is nothing to carry over but the rate, which falls with the rounds that
are done. Each training begins it anew.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.artifacts import VOCABULARY, Model
from components.errors import SkipstreamError
from components.trainer.tables import BLOCK_ROWS, Table
from components.vocabulary import Vocabulary


def ids_in(source: Model, vocabulary: Path) -> npt.NDArray[np.int64]:
    """For each token of the vocabulary in the file, its row in `source`.

    Returns:
        int64 [types], -1 where `source` does not know the token.
    """
    return Vocabulary.load_ids(vocabulary, source / VOCABULARY)


def check(source: Model, dimensions: int) -> None:
    """See to it that a training with vectors of that length can start from `source`.

    Raises:
        SkipstreamError: It cannot.
    """
    if not (source / VOCABULARY).exists():
        raise SkipstreamError(
            f"trainer.warm_start must be a model with its {VOCABULARY}, got {source.address} "
            "without: train it again"
        )
    if source.dimensions != dimensions:
        raise SkipstreamError(
            f"the vectors of trainer.warm_start must have trainer.dimensions = {dimensions}, got "
            f"{source.dimensions} in {source.address}: change that setting, or leave warm_start out"
        )


def carry_over(source: Model, ids: npt.NDArray[np.int64], tables: Mapping[str, Table]) -> None:
    """Copy rows of `source`; others stay as they are. A block at a time: tables may be large.

    Args:
        source: Has a table of each name.
        ids: int64 [types], for each row of `tables` the row in `source`; -1: none.
        tables: By name, with vectors as long as `source`'s.
    """
    known = np.flatnonzero(ids >= 0)
    for name, table in tables.items():
        rows = np.load(source / f"{name}.npy", mmap_mode="r")
        for start in range(0, len(known), BLOCK_ROWS):
            block = known[start : start + BLOCK_ROWS]
            table.rows[block] = rows[ids[block]]
