"""Reads vectors in the formats of word2vec.c: text, or binary."""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError

Vector = npt.NDArray[np.float32]


def read(path: Path, wanted: Mapping[str, int], dimensions: int) -> tuple[list[int], Vector]:
    """The vectors of the words that are wanted; others are read over.

    Args:
        path: Text (a line of words and dimensions, then a line each of word and numbers) or binary
            (the same line, then word, space and float32 numbers); .gz is unpacked.
        wanted: Ids by word.
        dimensions: That the vectors must have.

    Returns:
        Ids, and float32 [ids, dimensions]. Of a word that comes twice, the first.

    Raises:
        SkipstreamError: The file cannot be read, is no word2vec file, or has other dimensions.
    """
    found: dict[int, Vector] = {}
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for word, vector in _records(file, path, dimensions):
                id_ = wanted.get(word)
                if id_ is not None:
                    found.setdefault(id_, vector)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SkipstreamError(f"{path} cannot be read: {reason}") from error
    vectors = np.stack(list(found.values())) if found else np.zeros((0, dimensions), np.float32)
    if not np.isfinite(vectors).all():
        raise SkipstreamError(f"{path} must hold finite numbers only, got others")
    return list(found), vectors


def _records(
    file: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int
) -> Iterator[tuple[str, Vector]]:
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
    text: bool | None = None
    for index in range(words):
        word = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte:
                raise SkipstreamError(f"{path} must hold {words} words, got {index}: it is cut off")
            word += byte
        name = bytes(word).lstrip(b"\n").decode("utf-8", "replace")
        if text is None:
            text = _is_text(file, width)
        if text:
            line = file.readline()
            try:
                vector = np.array(line.split(), np.float32)
            except ValueError as error:
                raise SkipstreamError(
                    f"{path} must hold numbers, got {line[:50].decode(errors='replace')!r} for "
                    f"{name!r}"
                ) from error
        else:
            vector = np.frombuffer(file.read(4 * width), np.float32)
        if len(vector) != width:
            raise SkipstreamError(
                f"{path} must hold {width} numbers a word, got {len(vector)} for {name!r}"
            )
        yield name, vector


def _is_text(file: IO[bytes] | gzip.GzipFile, width: int) -> bool:
    """Whether what follows a word reads as numbers; plain and unpacked files can seek."""
    place = file.tell()
    line = file.readline(40 * width).split()
    file.seek(place)
    try:
        return len([float(field) for field in line]) == width
    except ValueError:
        return False
