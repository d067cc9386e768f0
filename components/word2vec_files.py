"""Reads vectors in the formats of word2vec.c: text, or binary."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError

Vector = npt.NDArray[np.float32]
BLOCK_ROWS = 65_536


def read(
    path: Path, wanted: Mapping[str, int], dimensions: int
) -> Iterator[tuple[list[int], Vector]]:
    """The vectors of the words that are wanted, in blocks; others are read over.

    Args:
        path: Text (a line of words and dimensions, then a line each of word and numbers) or binary
            (the same line, then word, space and little-endian float32 numbers); .gz is unpacked.
        wanted: Ids by word.
        dimensions: That the vectors must have.

    Yields:
        Ids, and float32 [ids, dimensions]. Of a word that comes twice, the first.

    Raises:
        SkipstreamError: The file cannot be read, is no word2vec file, or has other dimensions.
    """
    missing = dict(wanted)
    ids: list[int] = []
    vectors: list[Vector] = []
    try:
        with _open(path) as file:
            for word, vector in _records(file, path, dimensions):
                if (id_ := missing.pop(word, None)) is None:
                    continue
                if not np.isfinite(vector).all():
                    raise SkipstreamError(
                        f"{path} must hold finite numbers, got others for {word!r}"
                    )
                ids.append(id_)
                vectors.append(vector)
                if len(ids) == BLOCK_ROWS:
                    yield ids, np.stack(vectors)
                    ids, vectors = [], []
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SkipstreamError(f"{path} cannot be read: {reason}") from error
    if ids:
        yield ids, np.stack(vectors)


def _open(path: Path) -> IO[bytes]:
    if path.suffix != ".gz":
        return path.open("rb")
    # gzip's own reader does not read ahead.
    reader: IO[bytes] = BufferedReader(gzip.GzipFile(path), 1 << 20)
    return reader


def _records(file: IO[bytes], path: Path, dimensions: int) -> Iterator[tuple[str, Vector]]:
    header = file.readline(100).split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        raise SkipstreamError(
            f"{path} must begin with a line of its number of words and of dimensions, as word2vec "
            f"writes it, got {b' '.join(header)[:50].decode(errors='replace')!r}"
        )
    words, width = map(int, header)
    if width != dimensions:
        raise SkipstreamError(
            f"the vectors of {path} must have trainer.dimensions = {dimensions}, got {width}: "
            "give other vectors or change that setting"
        )
    record = _text_record if _is_text(file, width) else _binary_record
    for index in range(words):
        found = record(file, width)
        if found is None:
            raise SkipstreamError(
                f"{path} must hold {words} words of {width} numbers each, got {index} that are "
                "whole"
            )
        yield found[0].decode("utf-8", "replace"), found[1]


def _is_text(file: IO[bytes], width: int) -> bool:
    """Whether the first record's bytes are all those that text has."""
    place = file.tell()
    start = file.readline(1 << 16)
    file.seek(place)
    numbers = start.split()[-width:]
    characters = set(b"0123456789+-.einfaEINFA")
    return len(numbers) == width and all(set(number) <= characters for number in numbers)


def _text_record(file: IO[bytes], width: int) -> tuple[bytes, Vector] | None:
    fields = file.readline().rstrip().rsplit(None, width)  # A word may hold spaces itself.
    try:
        vector = np.array(fields[1:], np.float32)
    except ValueError:
        return None
    return (fields[0], vector) if len(vector) == width else None


def _binary_record(file: IO[bytes], width: int) -> tuple[bytes, Vector] | None:
    word = bytearray()
    while (byte := file.read(1)) != b" ":
        if not byte:
            return None
        word += byte
    content = file.read(4 * width)
    if len(content) != 4 * width:
        return None
    return bytes(word).lstrip(b"\n"), np.frombuffer(content, "<f4")
