"""The vocabulary on disk: `token<TAB>count`, one line per id, in the order of the ids."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError

FILE = "vocabulary.tsv"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens and how often the corpus holds each.

    The file is read and written as bytes: a token may hold quotes or control characters, which
    a CSV reader would interpret; it never holds white space.

    Attributes:
        tokens: The token of each id.
        counts: int64 [types], occurrences in the corpus.
    """

    tokens: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `path`.

        Raises:
            SkipstreamError: It is missing, or a line is not UTF-8 `token<TAB>count`.
        """
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise _unreadable(path, error) from error
        if lines[-1]:
            raise _cut_off(path)
        lines.pop()
        pairs = [line.rpartition(b"\t") for line in lines]
        try:
            tokens = tuple(token.decode() for token, _, _ in pairs)
            counts = np.array([int(count) for _, _, count in pairs], np.int64)
        except ValueError as error:
            raise _malformed(path, error) from error
        return cls(tokens, counts)

    @staticmethod
    def load_counts(path: Path) -> npt.NDArray[np.int64]:
        """The counts alone: 8 bytes of memory a type, where a whole vocabulary takes some 300.

        Raises:
            SkipstreamError: As `load`.
        """
        try:
            with path.open("rb") as file:
                counts = np.fromiter((int(line.rpartition(b"\t")[2]) for line in file), np.int64)
                file.seek(max(file.tell() - 1, 0))
                ends_with_a_line = file.read() in (b"", b"\n")
        except OSError as error:
            raise _unreadable(path, error) from error
        except ValueError as error:
            raise _malformed(path, error) from error
        if not ends_with_a_line:
            raise _cut_off(path)
        return counts

    @staticmethod
    def load_ids(path: Path, other: Path) -> npt.NDArray[np.int64]:
        """For each id of the vocabulary at `path`, its token's id in the one at `other`.

        Holds one of them in memory, some 200 bytes a type.

        Returns:
            int64 [types of `path`], -1 where `other` has no such token.

        Raises:
            SkipstreamError: One cannot be read.
        """
        try:
            with other.open("rb") as file:
                ids = {line.rpartition(b"\t")[0]: id_ for id_, line in enumerate(file)}
        except OSError as error:
            raise _unreadable(other, error) from error
        try:
            with path.open("rb") as file:
                tokens = (line.rpartition(b"\t")[0] for line in file)
                return np.fromiter((ids.get(token, -1) for token in tokens), np.int64)
        except OSError as error:
            raise _unreadable(path, error) from error

    def save(self, path: Path) -> None:
        """Write to `path`, which only ever holds a whole vocabulary."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.writelines(
                b"%s\t%d\n" % (token.encode(), count)
                for token, count in zip(self.tokens, self.counts.tolist(), strict=True)
            )
        temporary.replace(path)

    def __len__(self) -> int:
        """Number of types."""
        return len(self.tokens)

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of each token."""
        return {token: id_ for id_, token in enumerate(self.tokens)}


def _unreadable(path: Path, error: OSError) -> SkipstreamError:
    return SkipstreamError(f"{path} cannot be read ({error.strerror}): run transform again")


def _cut_off(path: Path) -> SkipstreamError:
    return SkipstreamError(f"{path} ends within a line: run transform again")


def _malformed(path: Path, error: ValueError) -> SkipstreamError:
    return SkipstreamError(
        f"{path} must hold UTF-8 lines of token<TAB>count ({error}): run transform again"
    )
