"""Exported models for Python callers: find one, load it, ask it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from components.artifacts import versions_in
from components.errors import SkipstreamError
from components.exporter.storage import Stored
from components.names import quoted
from components.subwords import Buckets, Subwords

# How often the corpus holds each token: a line each, by id. TensorFlow leaves that folder alone.
COUNTS = "assets.extra/counts.txt"
Neighbors = list[tuple[str, float]]


def resolve(path: Path, address: str | None = None) -> Path:
    """The SavedModel that `path` means.

    Args:
        path: A SavedModel directory, or a serving root whose newest version is meant.
        address: What it is called in messages, if `path` is a copy of it.

    Raises:
        SkipstreamError: It is neither.
    """
    if _is_saved_model(path):
        return path
    got = f"{address or path}: run.json names the model of a run"
    versions = []
    try:
        versions = [child for child in versions_in(path).values() if _is_saved_model(child)]
    except NotADirectoryError:
        got = (
            f"the file {path}: vectors of other programs are of use where a training begins "
            f"(--set {quoted(f'trainer.start_vectors={path}')})"
        )
    except OSError as error:
        got = f"{address or path} ({error.strerror}): check the path"
    if not versions:
        raise SkipstreamError(
            "MODEL must be a SavedModel directory (with saved_model.pb), a serving root (with such "
            "directories named 1, 2, …) or the output directory of a run that pushed one, "
            f"got {got}"
        )
    return versions[-1]


def _is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file()


@dataclass(frozen=True)
class Embeddings:
    """A loaded SavedModel, asked in Python strings and numpy arrays.

    Attributes:
        path: The SavedModel's directory.
    """

    path: Path
    _model: Any

    @classmethod
    def load(cls, path: Path, address: str | None = None) -> Self:
        """Load what `resolve(path)` finds.

        Args:
            path: What it takes.
            address: What that is called in messages, if it is a copy.

        Raises:
            SkipstreamError: There is none, it is damaged, or skipstream did not export it.
        """
        path = resolve(path, address)
        import tensorflow as tf

        try:
            model = tf.saved_model.load(str(path))
        except Exception as error:  # The loader raises whatever the damage leads it into.
            reason = " ".join(str(error).split())[:200]
            raise SkipstreamError(
                f"MODEL must be a whole SavedModel, got {address or path} "
                f"({type(error).__name__}: {reason}): export or push it again"
            ) from error
        expected = {"serving_default", "embed_text", "nearest", "analogy"}
        if missing := sorted(expected - set(model.signatures)):
            raise SkipstreamError(
                f"MODEL must have the signatures of a skipstream export, got {address or path} "
                f"without {', '.join(missing)}: name a model that skipstream exported"
            )
        return cls(path, model)

    def vectors_of(
        self, words: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The vectors of `words`, and which of them are in the vocabulary.

        Returns:
            float32 [words, dimensions], and bool [words]. Words that are not in the vocabulary have
            the mean of their n-grams; zeros where the model knows none of these.
        """
        answer = self._call("serving_default", words=words)
        return answer["embedding"], answer["in_vocabulary"]

    def embed(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """The mean vector of those of each text's tokens that have one.

        Returns:
            float32 [texts, dimensions], zeros where no token has a vector; int32 [texts] tokens;
            int32 [texts] tokens of the vocabulary.
        """
        answer = self._call("embed_text", text=texts)
        return answer["embedding"], answer["token_count"], answer["known_count"]

    def nearest(self, words: Sequence[str], k: int) -> list[Neighbors | None]:
        """Up to `k` (word, cosine) for each of `words`, nearest first; None: it has no vector."""
        answer = self._call("nearest", words=words, k=self._useful(k))
        rows = _pairs(answer)
        return [
            row if known or row else None
            for row, known in zip(rows, answer["in_vocabulary"].tolist(), strict=True)
        ]

    def analogy(self, a: str, b: str, c: str, k: int) -> Neighbors | None:
        """Up to `k` (word, cosine) that are to `c` as `b` is to `a`; None: one has no vector."""
        vectors, known = self.vectors_of([a, b, c])
        if not (known | vectors.any(axis=1)).all():
            return None
        return _pairs(self._call("analogy", a=[a], b=[b], c=[c], k=self._useful(k)))[0]

    def tokens(self) -> list[str]:
        """The vocabulary, in the order of the ids."""
        lines = (self.path / "assets" / "vocabulary.txt").read_bytes().split(b"\n")
        return [line.decode() for line in lines[:-1]]

    def counts(self) -> npt.NDArray[np.int64] | None:
        """int64 [types], occurrences in the corpus by id; None if the model has none.

        Raises:
            SkipstreamError: They are damaged.
        """
        path = self.path / COUNTS
        if not path.exists():
            return None
        lines = path.read_bytes().split()
        if len(lines) != len(self.tokens()) or not all(map(bytes.isdigit, lines)):
            raise SkipstreamError(
                f"{path} must hold a number for each word, and does not: export or push it again"
            )
        return np.array(lines, np.int64)

    def vectors(self) -> npt.NDArray[np.float32]:
        """float32 [types, dimensions], by id."""
        # What follows are rows of no token.
        return _restored(self._model, "vectors")[: len(self.tokens())]

    @property
    def subwords(self) -> Subwords | None:
        """Which n-grams it knows; None: it has none."""
        ngrams = getattr(self._model, "ngrams", None)
        return Subwords(*ngrams.settings.numpy().tolist()) if ngrams else None

    def buckets(self) -> Buckets | None:
        """The vectors of n-grams, those that are not zeros; None: the model has none."""
        if not (subwords := self.subwords):
            return None
        ngrams = self._model.ngrams
        # The last row is of no bucket.
        return Buckets(subwords, ngrams.ids.numpy()[:-1], _restored(ngrams, "buckets")[:-1])

    def _useful(self, k: int) -> int:
        """At most as many as there are rows: the signatures fill more with blanks, and memory."""
        if k < 1:
            raise SkipstreamError(f"the number of answers (-k) must be at least 1, got {k}")
        return min(k, int(self._model.vectors.shape[0]))

    def _call(self, signature: str, **inputs: Sequence[str] | int) -> dict[str, Any]:
        import tensorflow as tf

        tensors = {
            name: tf.constant(value, tf.int32)
            if isinstance(value, int)
            # A command line hands over bytes that are no UTF-8 as surrogates.
            else tf.constant([_bytes(word) for word in value], tf.string, [len(value)])
            for name, value in inputs.items()
        }
        answer = self._model.signatures[signature](**tensors)
        return {name: tensor.numpy() for name, tensor in answer.items()}


def _restored(module: Any, name: str) -> npt.NDArray[np.float32]:
    scales = getattr(module, "scales", None)
    stored = Stored(getattr(module, name).numpy(), None if scales is None else scales.numpy())
    return stored.restored()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _pairs(answer: dict[str, Any]) -> list[Neighbors]:
    """Rows of (word, cosine), without the blanks that fill the signature's [batch, k]."""
    return [
        [(word.decode(), score) for word, score in zip(words, scores, strict=True) if word]
        for words, scores in zip(
            answer["neighbors"].tolist(), answer["similarity"].tolist(), strict=True
        )
    ]
