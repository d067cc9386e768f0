"""Reads the models that fastText writes (.bin): words, n-grams and what it predicted with.

The layout is that of fastText's source (`FastText::saveModel`), little-endian, without padding: a
head of 92 bytes; each word with its count; a matrix of the words' own parts and of the buckets; a
matrix of what it predicted with. Facebook's have 2 million words and as many buckets of 300
numbers, 7 GB: they are read once from the front, also as `.bin.gz`, a block at a time.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from components.errors import SkipstreamError
from components.subwords import Buckets, Subwords, ngrams
from components.word2vec_files import opened, other_dimensions, unreadable

MAGIC, VERSION = 793712314, 12
# Magic, version; 12 settings and `t`; entries, words, labels; tokens, and entries of a pruning.
HEAD = struct.Struct("<2i 12i d 3i 2q")
ENTRY = struct.Struct("<qb")  # Behind a word and its NUL: count, and whether it is a label.
MATRIX = struct.Struct("<?2q")  # In front of its numbers: quantised or not, rows, columns.
SKIPGRAM, NEGATIVE_SAMPLING, NOT_PRUNED = 2, 2, -1
_CLASSIFIER = 3
_LONGEST_NGRAM = 20  # As of trainer.max_ngram.
_LONGEST_WORD = 1 << 20  # Bytes.
_BLOCK_BYTES = 1 << 24  # Of rows, read at a time.
_BLOCK_NGRAMS = 1 << 16  # Whose rows are added at a time.

_Rows = npt.NDArray[np.float32]
_Ids = npt.NDArray[np.int64]
_Places = TypeVar("_Places", npt.NDArray[np.int32], npt.NDArray[np.int64])


class _Head(NamedTuple):
    """What a file says it holds.

    Attributes:
        dimensions: Numbers of a row.
        words, labels: Entries; labels follow the words, and have no rows.
        buckets: Rows of n-grams; some may have been left without n-grams.
        subwords: Which n-grams; None: words alone have vectors.
        sampled: Whether it has a context vector of each word: trained by negative sampling.
    """

    dimensions: int
    words: int
    labels: int
    buckets: int
    subwords: Subwords | None
    sampled: bool

    @property
    def matrices(self) -> int:
        """Bytes of all that follows the entries."""
        rows = 2 * self.words + self.buckets
        return 2 * MATRIX.size + 4 * rows * self.dimensions


def is_one(path: Path) -> bool:
    """Whether the file, packed by gzip or bzip2 or not, begins as fastText's models do."""
    try:
        with opened(path) as file:
            return file.read(4) == struct.pack("<i", MAGIC)
    except (OSError, EOFError, zlib.error):
        return False


def check(path: Path, dimensions: int, subwords: Subwords | None) -> None:
    """Look at the head and the size of the file alone: whether `read` could take it.

    Args:
        path: For which `is_one`.
        dimensions: That the vectors must have.
        subwords: The n-grams that it must have; None: any or none.

    Raises:
        SkipstreamError: As `read`.
    """
    with _reading(path) as file:
        _head(file, path, dimensions, subwords)


def read(
    path: Path,
    wanted: Mapping[str, int],
    vectors: _Rows,
    contexts: _Rows | None = None,
    buckets: Buckets | None = None,
) -> _Ids:
    """Copy what the file knows into tables; other rows stay as they are.

    With `buckets`, `vectors` gets the words' own parts, else their whole vectors: means of such a
    part and of the n-grams'. For those the n-grams of the words are listed, 20 bytes each at most;
    otherwise memory does not grow with the file.

    Args:
        path: For which `is_one`.
        wanted: Rows of `vectors` and `contexts` by word.
        vectors: float32 [types, dimensions].
        contexts: float32 [types, dimensions], gets what the model predicted the words with, if it
            was trained by negative sampling.
        buckets: Its rows get those of the buckets that it names.

    Returns:
        int64 [words], the rows of those that are known.

    Raises:
        SkipstreamError: The file is cut short or damaged, of a classifier, quantised, or has other
            dimensions or n-grams than the tables. They may have been written to.
    """
    with _reading(path) as file:
        head = _head(file, path, vectors.shape[1], buckets.subwords if buckets else None)
        tokens, rows, ids = _entries(file, path, head, wanted)
        size = _size(file)
        if size not in (None, whole := file.tell() + head.matrices):
            raise _damaged(path, f"{size} bytes of {whole}")
        _matrix(file, path, head.words + head.buckets, head.dimensions)
        for part, found in _blocks(file, path, "words", (head.words, head.dimensions), rows):
            vectors[ids[part]] = found
        shape = head.buckets, head.dimensions
        if buckets:
            for part, found in _blocks(file, path, "buckets", shape, buckets.ids):
                buckets.rows[part] = found
        elif head.subwords and tokens:
            blocks = _blocks(file, path, "buckets", shape, None)
            _compose(vectors, ids, tokens, head.subwords, blocks)
        else:
            _skip(file, path, 4 * head.buckets * head.dimensions)
        _matrix(file, path, head.words, head.dimensions)
        taken = rows if contexts is not None and head.sampled else rows[:0]
        shape = head.words, head.dimensions
        for part, found in _blocks(file, path, "contexts", shape, taken):
            if contexts is not None:
                contexts[ids[part]] = found
        if file.read(1):
            raise _damaged(path, "more behind its end")
    return ids


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with opened(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def _head(file: IO[bytes], path: Path, dimensions: int, subwords: Subwords | None) -> _Head:
    content = file.read(HEAD.size)
    if len(content) < HEAD.size:
        raise _damaged(path, f"{len(content)} bytes of a head of {HEAD.size}")
    _, version, width, *settings, entries, words, labels, _, pruned = HEAD.unpack(content)
    _, _, _, _, _, loss, model, buckets, shortest, longest, _, _ = settings
    if version not in (11, VERSION):
        raise SkipstreamError(
            f"{path} must have the version 11 or {VERSION} of fastText's format, got {version}: "
            "load it with the fastText that wrote it, and write its vectors as text"
        )
    if model == _CLASSIFIER:
        raise SkipstreamError(
            f"{path} must be a model of fastText's skipgram or cbow, got one of supervised, which "
            "tells labels apart: give another"
        )
    if pruned != NOT_PRUNED:
        raise _quantised(path)
    if min(words, labels, buckets) < 0 or entries != words + labels or width < 1:
        sizes = f"{entries} entries, {words} words, {labels} labels, {buckets} buckets"
        raise _damaged(path, f"{sizes} and {width} dimensions")
    if width != dimensions:
        raise other_dimensions(path, dimensions, width)
    found = None
    if longest > 0 and shortest <= longest:
        found = Subwords(max(shortest, 1), longest, buckets)
    _check_subwords(path, found, subwords)
    head = _Head(width, words, labels, buckets, found, loss == NEGATIVE_SAMPLING)
    least = HEAD.size + entries * (len(b"\0") + ENTRY.size) + head.matrices
    if (size := _size(file)) is not None and size < least:
        raise _damaged(path, f"{size} bytes of at least {least}")
    return head


def _check_subwords(path: Path, found: Subwords | None, wanted: Subwords | None) -> None:
    if found and not found.buckets:
        raise _damaged(path, "n-grams without buckets")
    if found and found.longest > _LONGEST_NGRAM:
        raise SkipstreamError(
            f"the n-grams of {path} must have at most {_LONGEST_NGRAM} characters, got "
            f"{found.longest}: give the .vec file of the same model, which holds whole vectors"
        )
    if not wanted or found == wanted:
        return
    shortest, longest, buckets = found or (0, 0, wanted.buckets)
    got = f"{shortest}, {longest} and {buckets}" if found else "a model without"
    raise SkipstreamError(
        f"the n-grams of {path} must have trainer.min_ngram, max_ngram and buckets = "
        f"{wanted.shortest}, {wanted.longest} and {wanted.buckets}, got {got}: give another, or "
        f"--set trainer.min_ngram={shortest} trainer.max_ngram={longest} trainer.buckets={buckets}"
    )


def _entries(
    file: IO[bytes], path: Path, head: _Head, wanted: Mapping[str, int]
) -> tuple[list[str], _Ids, _Ids]:
    """Of the words that are wanted: themselves, their rows in the file, and in the tables."""
    missing = dict(wanted)
    found: list[tuple[str, int, int]] = []
    for row in range(head.words + head.labels):
        word = bytearray()
        while (byte := file.read(1)) != b"\0":
            word += byte
            if not byte:
                raise _damaged(path, f"an end within word {row + 1}")
            if len(word) > _LONGEST_WORD:
                raise _damaged(path, f"more than {_LONGEST_WORD} bytes of word {row + 1}")
        entry = file.read(ENTRY.size)
        if len(entry) < ENTRY.size:
            raise _damaged(path, f"an end behind word {row + 1}")
        if ENTRY.unpack(entry)[1] != (row >= head.words):
            raise _damaged(path, f"labels among its {head.words} words")
        # Files of Facebook's hold words that are no UTF-8: they equal none that is wanted.
        token = word.decode("utf-8", "surrogateescape")
        if row < head.words and (id_ := missing.pop(token, None)) is not None:
            found.append((token, row, id_))
    tokens, rows, ids = zip(*found, strict=True) if found else ((), (), ())
    return list(tokens), np.array(rows, np.int64), np.array(ids, np.int64)


def _matrix(file: IO[bytes], path: Path, rows: int, columns: int) -> None:
    """Read over what stands in front of a matrix, which must have that shape."""
    content = file.read(MATRIX.size)
    if len(content) < MATRIX.size:
        raise _damaged(path, "an end in front of a matrix")
    quantised, *shape = MATRIX.unpack(content)
    if quantised:
        raise _quantised(path)
    if shape != [rows, columns]:
        raise _damaged(path, f"a matrix of {shape[0]} x {shape[1]} in place of {rows} x {columns}")


def _blocks(
    file: IO[bytes], path: Path, what: str, shape: tuple[int, int], wanted: _Places | None
) -> Iterator[tuple[slice, _Rows]]:
    """Rows of a matrix of that shape; the file stands behind it afterwards.

    Args:
        file: Stands in front of the rows.
        path: Of it.
        what: The rows are, for messages.
        shape: Rows and columns.
        wanted: [rows], ascending; None: all.

    Yields:
        Which of `wanted`, and float32 [as many, columns].
    """
    rows, columns = shape
    step = max(1, _BLOCK_BYTES // (4 * columns))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        first, last = start, start + count
        if wanted is not None:
            first, last = np.searchsorted(wanted, [first, last]).tolist()
        if first == last:
            _skip(file, path, 4 * count * columns)
            continue
        content = file.read(4 * count * columns)
        if len(content) < 4 * count * columns:
            raise _damaged(path, f"an end in its {what}")
        block = np.frombuffer(content, "<f4").reshape(count, columns)
        found = block if wanted is None else block[wanted[first:last] - start]
        if not np.isfinite(found).all():
            row, column = np.argwhere(~np.isfinite(found))[0]
            place = first + row if wanted is None else wanted[first + row]
            raise SkipstreamError(
                f"row {place + 1} of the {what} of {path} must have finite numbers, got "
                f"{found[row, column]}: fetch or train it again"
            )
        yield slice(first, last), found


def _compose(
    vectors: _Rows,
    ids: _Ids,
    tokens: list[str],
    subwords: Subwords,
    blocks: Iterator[tuple[slice, _Rows]],
) -> None:
    """Make whole vectors of own parts: add the rows of all n-grams, divide by how many there are.

    The buckets pass by once, so it goes bucket by bucket, not word by word.
    """
    found = ngrams(tokens, subwords)
    # Each n-gram as one number, its bucket in the upper half and its word in the lower.
    keys = found.buckets.astype(np.int64)
    keys <<= 32
    keys |= np.repeat(ids, found.counts)
    keys.sort()
    for buckets, rows in blocks:
        first, last = np.searchsorted(keys, [buckets.start << 32, buckets.stop << 32])
        for start in range(first, last, _BLOCK_NGRAMS):
            some = keys[start : min(start + _BLOCK_NGRAMS, last)]
            order = np.argsort(some & 0xFFFFFFFF, kind="stable")
            words, places = (some & 0xFFFFFFFF)[order], (some >> 32)[order] - buckets.start
            # Few words have two in a block, so this is four times as fast as `np.add.reduceat`.
            while len(words):
                first = np.diff(words, prepend=-1) > 0
                vectors[words[first]] += rows[places[first]]
                words, places = words[~first], places[~first]
    parts = (found.counts + 1).astype(np.float32)[:, np.newaxis]
    for start in range(0, len(ids), _BLOCK_NGRAMS):
        block = slice(start, start + _BLOCK_NGRAMS)
        vectors[ids[block]] /= parts[block]


def _skip(file: IO[bytes], path: Path, size: int) -> None:
    """Go on by so many bytes; what is packed is read for that."""
    end = file.tell() + size
    if file.seek(end) != end:
        raise _damaged(path, "an end before its own")


def _size(file: IO[bytes]) -> int | None:
    """Bytes of the file; None: it is packed, and nobody knows before the end."""
    if isinstance(getattr(file, "raw", None), io.FileIO):
        return Path(file.name).stat().st_size
    return None


def _damaged(path: Path, got: str) -> SkipstreamError:
    return SkipstreamError(
        f"{path} must be a whole model of fastText, got {got}: fetch or write it again"
    )


def _quantised(path: Path) -> SkipstreamError:
    return SkipstreamError(
        f"{path} must hold all numbers as they were trained, got a quantised model of fastText "
        "(.ftz): give the .bin that it was made of"
    )
