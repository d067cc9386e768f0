"""The vocabulary on disk: `token<TAB>count`, one line per id, in the order of the ids."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from components.errors import SkipstreamError

_COLUMNS = {"token": pa.large_string(), "count": pa.int64()}
# Tokens hold neither white space nor newlines; quotes in them are letters like any other.
_PARSE = csv.ParseOptions(
    delimiter="\t", quote_char=False, escape_char=False, ignore_empty_lines=False
)
_BLOCK = 1 << 27  # Bytes; must hold the longest token, and so the longest document, 64 MiB.


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens and how often the corpus holds each.

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
        table = read(path)
        return cls(tuple(table["token"].to_pylist()), table["count"].to_numpy())

    @staticmethod
    def load_counts(path: Path) -> npt.NDArray[np.int64]:
        """The counts alone: 8 bytes of memory a type, where a whole vocabulary takes some 300.

        Raises:
            SkipstreamError: As `load`.
        """
        counts: npt.NDArray[np.int64] = read(path, ["count"])["count"].to_numpy()
        return counts

    @staticmethod
    def load_ids(path: Path, other: Path) -> npt.NDArray[np.int64]:
        """For each id of the vocabulary at `path`, its token's id in the one at `other`.

        Returns:
            int64 [types of `path`], -1 where `other` has no such token.

        Raises:
            SkipstreamError: One cannot be read.
        """
        tokens = [read(file, ["token"])["token"].combine_chunks() for file in (path, other)]
        ids = pc.index_in(tokens[0], value_set=tokens[1])
        found: npt.NDArray[np.int64] = ids.cast(pa.int64()).fill_null(-1).to_numpy()
        return found

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


def read(path: Path, columns: Sequence[str] = tuple(_COLUMNS)) -> pa.Table:
    """The vocabulary as Arrow has it: some 30 bytes a type, where Python's strings take 300.

    Args:
        path: The file.
        columns: Which are read.

    Returns:
        `token` (large_string) and `count` (int64), by id.

    Raises:
        SkipstreamError: It is missing, or a line is not UTF-8 `token<TAB>count`.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            ends_with_a_line = file.read() == b"\n"
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=list(_COLUMNS), block_size=_BLOCK),
            parse_options=_PARSE,
            convert_options=csv.ConvertOptions(
                column_types=_COLUMNS, include_columns=list(columns), null_values=[]
            ),
        )
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise SkipstreamError(f"{path} cannot be read ({reason}): run transform again") from error
    except pa.ArrowInvalid as error:
        raise SkipstreamError(
            f"{path} must hold UTF-8 lines of token<TAB>count ({error}): run transform again"
        ) from error
    if not ends_with_a_line:
        raise SkipstreamError(f"{path} ends within a line: run transform again")
    return table
