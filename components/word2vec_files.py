"""Reads vectors in the formats of word2vec.c (text or binary) and GloVe; names other formats."""

import bz2
import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError
from components.names import quoted

Vector = npt.NDArray[np.float32]
BLOCK_ROWS = 65_536
_LONGEST_LINE = 1 << 20  # Bytes, or a file without a line's end would fill the memory.
_DIGITS = 19  # A number of fewer fits into 64 bits.
_NUMBER_CHARACTERS = frozenset(b"0123456789+-.einfaEINFA")


class _Record(NamedTuple):
    """A word with its vector, not yet looked at.

    Attributes:
        place: Of the file, for messages.
        word: As bytes.
        numbers: Of text, each as bytes; of binary, float32.
    """

    place: str
    word: bytes
    numbers: list[bytes] | Vector


class _Head(NamedTuple):
    """How a file begins.

    Attributes:
        words: How many there should be; None: as many as there are lines, as in GloVe's files.
        start: Where the first word begins, in bytes.
        text: Whether numbers are written out.
    """

    words: int | None
    start: int
    text: bool


def read(
    path: Path, wanted: Mapping[str, int], dimensions: int
) -> Iterator[tuple[list[int], Vector]]:
    """The vectors of the words that are wanted, in blocks; others are read over.

    Args:
        path: Text (a line each of word and numbers; before them word2vec.c and fastText write a
            line of words and dimensions, GloVe none) or binary (that line, then word, space and
            little-endian float32 numbers). What gzip or bzip2 packed is unpacked.
        wanted: Ids by word.
        dimensions: That the vectors must have.

    Yields:
        Ids, and float32 [ids, dimensions]. Of a word that comes twice, the first.

    Raises:
        SkipstreamError: The file cannot be read, is none of these, or has other dimensions.
    """
    missing = dict(wanted)
    ids: list[int] = []
    vectors: list[Vector] = []
    try:
        with opened(path) as file:
            for place, word, numbers in _records(file, path, dimensions):
                if (id_ := missing.pop(word.decode("utf-8", "replace"), None)) is None:
                    continue
                ids.append(id_)
                vectors.append(_vector(place, numbers))
                if len(ids) == BLOCK_ROWS:
                    yield ids, np.stack(vectors)
                    ids, vectors = [], []
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    if ids:
        yield ids, np.stack(vectors)


def check(path: Path, dimensions: int) -> None:
    """Look at the beginning of the file alone: whether `read` could take it.

    Raises:
        SkipstreamError: As `read`.
    """
    try:
        with opened(path) as file:
            _head(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> SkipstreamError:
    """What to say of a file of start vectors that cannot be read."""
    if isinstance(error, IsADirectoryError):
        return SkipstreamError(
            f"trainer.start_vectors takes files, got the directory {path}: an output directory is "
            f"given as --set {quoted(f'trainer.warm_start={path}')}"
        )
    return SkipstreamError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


def other_dimensions(path: Path, dimensions: int, width: int) -> SkipstreamError:
    """What to say of vectors with `width` numbers where there must be `dimensions`."""
    return SkipstreamError(
        f"the vectors of {path} must have trainer.dimensions = {dimensions}, got {width}: "
        f"give others, or --set trainer.dimensions={width}"
    )


def opened(path: Path) -> IO[bytes]:
    """The content; of what gzip or bzip2 packed, unpacked."""
    with path.open("rb") as file:
        magic = file.read(4)
    packed: gzip.GzipFile | bz2.BZ2File
    if magic.startswith(b"\x1f\x8b"):
        packed = gzip.GzipFile(path)
    elif magic.startswith(b"BZh"):
        packed = bz2.BZ2File(path)
    else:
        return path.open("rb")
    reader: IO[bytes] = BufferedReader(packed, 1 << 20)  # gzip's own does not read ahead.
    return reader


def _records(file: IO[bytes], path: Path, dimensions: int) -> Iterator[_Record]:
    words, start, text = _head(file, path, dimensions)
    file.seek(start)
    records = _text_records if text else _binary_records
    found = 0
    for record in itertools.islice(records(file, path, dimensions, 1 if start else 0), words):
        yield record
        found += 1
    if words is not None and found < words:
        raise SkipstreamError(
            f"{path} must hold {words} words of {dimensions} numbers each, as its first line says, "
            f"got {found} that are whole: fetch or write it again"
        )


def _text_records(file: IO[bytes], path: Path, width: int, header: int) -> Iterator[_Record]:
    lines = iter(lambda: file.readline(_LONGEST_LINE + 1), b"")
    for number, line in enumerate(lines, 1 + header):
        if len(line) > _LONGEST_LINE:
            raise _too_long(f"line {number} of {path}")
        fields = line.rstrip().rsplit(None, width)  # A word may hold spaces itself.
        if not fields:
            continue
        if len(fields) <= width:
            raise SkipstreamError(
                f"{path}:{number} must be a word and {width} numbers, got {_shown(line)}"
            )
        yield _Record(f"{path}:{number}", fields[0], fields[1:])


def _binary_records(file: IO[bytes], path: Path, width: int, _: int) -> Iterator[_Record]:
    for number in itertools.count(1):
        word = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte:
                return
            word += byte
            if len(word) > _LONGEST_LINE:
                raise _too_long(f"word {number} of {path}")
        content = file.read(4 * width)
        if len(content) != 4 * width:
            return
        vector = np.frombuffer(content, "<f4")
        yield _Record(f"word {number} of {path}", bytes(word).lstrip(b"\n"), vector)


def _too_long(place: str) -> SkipstreamError:
    return SkipstreamError(
        f"{place} must have at most {_LONGEST_LINE:,} bytes, and has more: fetch or write the file "
        "again"
    )


def _vector(place: str, numbers: list[bytes] | Vector) -> Vector:
    try:
        with np.errstate(over="ignore"):  # It is infinite then, and refused.
            vector = np.array(numbers, np.float32)
    except ValueError as error:
        shown = b" ".join(numbers)
        raise SkipstreamError(f"{place} must have numbers alone, got {_shown(shown)}") from error
    if not np.isfinite(vector).all():
        other = vector[~np.isfinite(vector)][0]
        raise SkipstreamError(f"{place} must have finite numbers, got {other}")
    return vector


def _head(file: IO[bytes], path: Path, dimensions: int) -> _Head:
    first = file.readline(_LONGEST_LINE)
    if other := _other_format(first, path):
        raise SkipstreamError(f"{path} {other}")
    fields = first.removeprefix(b"\xef\xbb\xbf").split()
    if len(fields) == 2 and all(field.isdigit() and len(field) < _DIGITS for field in fields):
        words, width = map(int, fields)
        start = len(first)
        numbers = file.readline(_LONGEST_LINE).split()[-width:]
        head = _Head(words, start, len(numbers) == width and all(map(_is_number, numbers)))
    else:
        # All but the first: it may be a number, too, as a word.
        width = len(list(itertools.takewhile(_is_number, reversed(fields[1:]))))
        head = _Head(None, len(first) - len(first.removeprefix(b"\xef\xbb\xbf")), text=True)
    if not width:
        raise SkipstreamError(
            f"{path} must begin with the number of words and of dimensions, as word2vec's files "
            f"do, or with a word and its numbers, as GloVe's, got {_shown(first)}"
        )
    if width != dimensions:
        raise other_dimensions(path, dimensions, width)
    return head


def _is_number(field: bytes) -> bool:
    return _NUMBER_CHARACTERS.issuperset(field)


_TO_BINARY = (
    "import sys; from gensim.utils import SaveLoad; m = SaveLoad.load(sys.argv[1]); "
    'getattr(m, "wv", m).save_word2vec_format(sys.argv[2], binary=True)'
)


def _other_format(start: bytes, path: Path) -> str | None:
    """What a file is instead, and the way out."""
    name = quoted(str(path))
    if not start:
        return "is empty"
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        command = " ".join(map(quoted, ["python", "-c", _TO_BINARY, str(path), f"{path}.word2vec"]))
        return f"is a pickle; if gensim saved it: {command}"
    if start.startswith(b"\x93NUMPY") or path.suffix == ".npz":
        return "is of numpy, and no format of words and vectors: write it as text, a word a line"
    for magic, command in (
        (b"PK\3\4", "unzip"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
        (b"\xfd7zXZ", "unxz -k"),
    ):
        if start.startswith(magic):
            return f"is packed in a way that is not read here: {command} {name}"
    return None


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace").strip())
