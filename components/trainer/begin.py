"""What a training starts from: files of vectors, or another model, by word."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components import fasttext_files, word2vec_files
from components.artifacts import VOCABULARY, Examples, Model
from components.errors import SkipstreamError
from components.settings import TrainerSettings
from components.subwords import Buckets, Subwords
from components.trainer import warm_start
from components.trainer.model import SkipGram
from components.trainer.tables import BLOCK_ROWS, Table
from components.vocabulary import Vocabulary

# n-grams out of a file of fastText's, float32 [buckets, dimensions]; here until the training ends.
_FROM_FILE = "start-buckets.npy"

Known = npt.NDArray[np.bool_]


def from_files(paths: Sequence[str], model: SkipGram, examples: Examples, directory: Path) -> Known:
    """Give the words that files know their vectors, later files winning.

    Of a model of fastText's words also get their context vectors, and with n-grams its n-grams are
    started from, too: a word that none of the files knows begins with the mean of its own.

    Args:
        paths: As `trainer.start_vectors`.
        model: Has not been trained yet.
        examples: Their vocabulary.
        directory: Where n-grams find room.

    Returns:
        bool [types], which words the files know.

    Raises:
        SkipstreamError: A file knows none of the words, or cannot be read.
    """
    known = np.zeros(model.vectors.types, np.bool_)
    tokens = Vocabulary.load(examples / VOCABULARY).tokens if paths else ()
    wanted = {token: id_ for id_, token in enumerate(tokens)}
    buckets = None
    for path in map(Path, paths):
        if fasttext_files.is_one(path):
            buckets = _file_of_buckets(model.training.settings, directory / _FROM_FILE)
            tables = model.vectors.rows, model.contexts.rows
            ids = fasttext_files.read(path, wanted, *tables, buckets)
            if buckets:  # Only the words' own parts came.
                _add_ngrams(model.vectors, ids, tokens, buckets)
            known[ids] = True
            found = len(ids)
        else:
            found = 0
            for some, vectors in word2vec_files.read(path, wanted, model.vectors.dimensions):
                model.vectors.rows[some] = vectors
                known[some] = True
                found += len(some)
        if not found:
            raise SkipstreamError(
                f"trainer.start_vectors must know a word of the vocabulary, got {path} with none: "
                "its words must be as the tokeniser writes them"
            )
    if buckets:
        _compose(model.vectors, np.flatnonzero(~known), tokens, buckets)
    return known


def carry_over(
    start: Model, model: SkipGram, examples: Examples, given: Known | None
) -> dict[str, str | int]:
    """Let the words that `start` knows go on from there, and say how many do.

    With n-grams on both sides, a word that nobody knows begins with what its n-grams make.

    Args:
        start: Another model.
        model: To be trained.
        examples: Their vocabulary.
        given: bool [types], which words have vectors of files; those that go on are added. None: it
            is being trained already.
    """
    ids = warm_start.ids_in(start, examples / VOCABULARY)
    known = int(np.count_nonzero(ids >= 0))
    if not known:
        raise SkipstreamError(
            f"trainer.warm_start must know a word of the vocabulary, got {start.address} with "
            "none: name another model, or leave it out"
        )
    buckets = _same(start.buckets, model.training.settings)
    if given is not None:
        given |= ids >= 0
        tables = {"vectors": model.vectors, "contexts": model.contexts}
        warm_start.carry_over(start, ids, tables)
        if buckets:
            tokens = Vocabulary.load(examples / VOCABULARY).tokens
            _compose(model.vectors, np.flatnonzero(~given), tokens, buckets)
    return {
        "warm_start": start.fingerprint,
        "words_carried_over": known,
        "new_words": len(ids) - known,
        **({"buckets_carried_over": len(buckets.ids)} if buckets else {}),
    }


def buckets(start: Model | None, settings: TrainerSettings, directory: Path) -> Buckets | None:
    """The n-grams that a training began with, not in memory; None: with none."""
    if start and (found := _same(start.buckets, settings)):
        return found
    if not (subwords := Subwords.of(settings)):
        return None
    files = [file for file in map(Path, settings.start_vectors) if fasttext_files.is_one(file)]
    if not files:
        return None
    path = directory / _FROM_FILE
    if not path.exists():  # The training began on another machine, and only its tables came here.
        none, part = np.zeros((0, settings.dimensions), np.float32), path.with_suffix(".part")
        fasttext_files.read(files[-1], {}, none, buckets=_file_of_buckets(settings, part))
        part.rename(path)
    return Buckets(subwords, _all(subwords), np.load(path, mmap_mode="r"))


def clean_up(directory: Path) -> None:
    """Remove what only a training needs."""
    (directory / _FROM_FILE).unlink(missing_ok=True)


def _all(subwords: Subwords) -> npt.NDArray[np.int32]:
    return np.arange(subwords.buckets, dtype=np.int32)


def _same(found: Buckets | None, settings: TrainerSettings) -> Buckets | None:
    """Of n-grams of other lengths, or in other buckets, there is nothing to go on from."""
    return found if found and found.subwords == Subwords.of(settings) else None


def _file_of_buckets(settings: TrainerSettings, path: Path) -> Buckets | None:
    if not (subwords := Subwords.of(settings)):
        return None
    shape = subwords.buckets, settings.dimensions
    rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    return Buckets(subwords, _all(subwords), rows)


def _add_ngrams(
    table: Table, ids: npt.NDArray[np.int64], tokens: Sequence[str], buckets: Buckets
) -> None:
    """Make whole vectors of words' own parts."""
    for start in range(0, len(ids), BLOCK_ROWS):
        some = ids[start : start + BLOCK_ROWS]
        sums, counts = buckets.sums([tokens[id_] for id_ in some])
        table.rows[some] = (table.rows[some] + sums) / (1 + counts)[:, np.newaxis]


def _compose(
    table: Table, ids: npt.NDArray[np.int64], tokens: Sequence[str], buckets: Buckets
) -> None:
    """Start words from their n-grams, where these say something."""
    for start in range(0, len(ids), BLOCK_ROWS):
        some = ids[start : start + BLOCK_ROWS]
        vectors = buckets.compose([tokens[id_] for id_ in some])
        there = vectors.any(axis=1)
        table.rows[some[there]] = vectors[there]
