"""What a SavedModel of skipstream holds, read without TensorFlow: words, vectors, n-grams, counts.

The signatures are not asked here. `saved_model.pb` is looked at only as far as it says what the
files beside it must hold, and how the text was tokenised.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.artifacts import versions_in
from components.errors import SkipstreamError
from components.exporter import tensor_bundle
from components.exporter.storage import Stored, Vectors
from components.names import quoted
from components.phrases import FILE as PHRASES
from components.phrases import Phrases
from components.spelling import WHITE_SPACE, Tokenizer
from components.subwords import Buckets, Subwords

# How often the corpus holds each token: a line each, by id. TensorFlow leaves that folder alone.
COUNTS = "assets.extra/counts.txt"
_DIGITS = 19  # A number of fewer fits into 64 bits.
SIGNATURES = frozenset({"serving_default", "embed_text", "nearest", "analogy"})
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"  # What TensorFlow puts behind an attribute's name.
# An attribute of the nodes that read assets: how many lines there must be. See attr_value.proto.
_VOCABULARY_SIZE = re.compile(rb"\x0a\x0avocab_size\x12.(\x18[\x80-\xff]*[\0-\x7f])", re.DOTALL)


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


@dataclass(frozen=True, eq=False)
class Ngrams:
    """The vectors of n-grams as they are stored.

    Attributes:
        subwords: Which n-grams they are of.
        ids: int32 [rows] buckets, ascending.
        stored: [rows, dimensions].
    """

    subwords: Subwords
    ids: npt.NDArray[np.int32]
    stored: Stored


@dataclass(frozen=True, eq=False)
class Served:
    """The tables of a SavedModel, mapped into memory.

    Attributes:
        path: Its directory.
        words: The vocabulary, in the order of the ids.
        stored: The vectors [types, dimensions], by id.
        inverse_norms: float32 [types], 1 / length of each row of `stored.values`; 0 for zeros.
        ngrams: The vectors of n-grams; None: it has none.
        tokenizer: How the training text was split.
        lowercase: Whether the training text was lowered.
    """

    path: Path
    words: list[str]
    stored: Stored
    inverse_norms: npt.NDArray[np.float32]
    ngrams: Ngrams | None
    tokenizer: Tokenizer
    lowercase: bool

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
        try:
            graph = (path / "saved_model.pb").read_bytes()
            if missing := sorted(SIGNATURES - _signatures(graph)):
                raise SkipstreamError(
                    f"MODEL must have the signatures of a skipstream export, got {address or path} "
                    f"without {', '.join(missing)}: name a model that skipstream exported"
                )
            words = _lines(path / "assets" / "vocabulary.txt", graph).decode().split("\n")[:-1]
            if (path / "assets" / PHRASES).exists():
                _lines(path / "assets" / PHRASES, graph)
            tables = {
                name.removesuffix(_VARIABLE): tensor
                for name, tensor in tensor_bundle.read(path / "variables" / "variables").items()
            }
            rows = slice(len(words))  # What follows are rows of no word.
            stored = _stored(tables, "", "vectors", rows)
            inverse_norms = tables["inverse_norms"][rows]
            if not len(stored.values) == len(inverse_norms) == len(words):
                raise ValueError("other numbers of words and of vectors")
            return cls(
                path,
                words,
                stored,
                inverse_norms,
                _ngrams(tables) if "ngrams/buckets" in tables else None,
                "whitespace" if WHITE_SPACE.encode() in graph else "words",
                b"StringLower" in graph,
            )
        except SkipstreamError:
            raise
        except Exception as error:  # Whatever the damage leads the reader into.
            reason = " ".join(str(error).split())[:200]
            raise SkipstreamError(
                f"MODEL must be a whole SavedModel, got {address or path} "
                f"({type(error).__name__}: {reason}): export or push it again"
            ) from error

    @cached_property
    def vectors(self) -> Vectors:
        """float32 [types, dimensions], by id, read-only."""
        vectors = self.stored.restored().view()
        vectors.flags.writeable = False
        return vectors

    @cached_property
    def counts(self) -> npt.NDArray[np.int64] | None:
        """int64 [types], occurrences in the corpus by id; None if the model has none.

        Raises:
            SkipstreamError: They are damaged.
        """
        path = self.path / COUNTS
        if not path.exists():
            return None
        lines = path.read_bytes().split() if path.is_file() else []
        numbers = (line.isdigit() and len(line) < _DIGITS for line in lines)
        if len(lines) != len(self.words) or not all(numbers):
            raise SkipstreamError(
                f"{path} must hold a number for each word, and does not: export or push it again"
            )
        return np.array(lines, np.int64)

    @cached_property
    def phrases(self) -> Phrases:
        """Pairs of tokens that became one.

        Raises:
            SkipstreamError: Their file is damaged.
        """
        return Phrases.load(self.path / "assets" / PHRASES)

    def buckets(self) -> Buckets | None:
        """The vectors of n-grams, those that are not zeros; None: the model has none."""
        if not (ngrams := self.ngrams):
            return None
        return Buckets(ngrams.subwords, ngrams.ids, ngrams.stored.restored())


def _signatures(graph: bytes) -> set[str]:
    """The names of a SavedModel proto's signatures; see saved_model.proto and meta_graph.proto."""
    fields = tensor_bundle.fields
    metas = [content for number, content in fields(graph) if number == 2]
    maps = [content for meta in metas for number, content in fields(meta) if number == 5]
    return {dict(fields(entry)).get(1, b"").decode() for entry in maps}


def _lines(path: Path, graph: bytes) -> bytes:
    """An asset, all of whose lines are there."""
    if not path.is_file():  # A link may lead to a device.
        raise ValueError(f"{path.name} is no file")
    content = path.read_bytes()
    sizes = {
        dict(tensor_bundle.fields(size)).get(3) for size in _VOCABULARY_SIZE.findall(graph)
    } - {(1 << 64) - 1}  # -1: any number.
    if content[-1:] != b"\n" or (sizes and content.count(b"\n") not in sizes):
        raise ValueError(f"{path.name} is cut off")
    return content


def _stored(tables: dict[str, tensor_bundle.Array], module: str, name: str, rows: slice) -> Stored:
    values, scales = tables[module + name][rows], tables.get(f"{module}scales")
    if values.ndim != 2 or not (scales is None or len(scales[rows]) == len(values)):
        raise ValueError(f"{module}{name} is no table")
    return Stored(values, None if scales is None else scales[rows])


def _ngrams(tables: dict[str, tensor_bundle.Array]) -> Ngrams:
    rows = slice(-1)  # The last row is of no bucket.
    shortest, longest, number = tables["ngrams/settings"].tolist()
    subwords = Subwords(shortest, longest, number)
    ids, stored = tables["ngrams/ids"][rows], _stored(tables, "ngrams/", "buckets", rows)
    if len(ids) != len(stored.values) or not (0 < shortest <= longest and number > 0):
        raise ValueError("other numbers of n-grams and of vectors")
    return Ngrams(subwords, ids, stored)
