"""Reads a unit into blocks of documents."""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import SkipstreamError
from components.example_gen import formats
from components.example_gen.files import is_remote
from components.example_gen.formats import CHUNK, LONGEST, Batch
from components.example_gen.units import Piece, Unit
from components.names import shown

BLOCK_BYTES = 2**20
DAMAGED = "damaged_parts"

_UTF8_BOM = b"\xef\xbb\xbf"
# A file that begins like this is not text, whatever its name says.
_NOT_TEXT = {
    b"\xff\xfe": "UTF-16 or UTF-32: convert it with `iconv -t UTF-8`",
    b"\xfe\xff": "UTF-16: convert it with `iconv -t UTF-8`",
    b"\x00\x00\xfe\xff": "UTF-32: convert it with `iconv -t UTF-8`",
    b"\x1f\x8b": "gzip data: give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "Zstandard data: give it a name that ends in .zst",
    b"BZh91AY&SY": "bzip2 data: give it a name that ends in .bz2",
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"PAR1\x15": "a Parquet file: set example_gen.format to parquet",
}


@dataclass(frozen=True)
class Block:
    """Documents that are tokenised together, about BLOCK_BYTES of text.

    Attributes:
        documents: binary [documents], none empty, in the order of the corpus.
        counts: `documents` and `bytes` that the block holds; documents that were dropped, by
            reason: `empty`, `invalid_json`, `missing_field`, `too_long`; and repairs:
            `invalid_utf8` (documents that hold invalid UTF-8, kept as they are) and `cut`
            (places where a document of more than 64 MiB was cut in two); DAMAGED: files, or
            parts of a large one, that were skipped. Zeros are left out.
    """

    documents: pa.Array
    counts: dict[str, int]


def read(unit: Unit) -> Iterator[Block]:
    """All documents of `unit`, in blocks whose bounds depend on the files alone.

    A unit without documents gives one empty block.

    Raises:
        SkipstreamError: A file is missing, unreadable, damaged, shorter than when it was listed,
            not text, or a Parquet file without the column. The message names the file.
    """
    batches = (batch for piece in unit.pieces for batch in _whole(piece, unit))
    return _blocks(batches)


def _whole(piece: Piece, unit: Unit) -> Iterator[Batch]:
    """All of a piece; of one that is damaged, if those are skipped, nothing."""
    batches = _batches(piece, unit.field)
    if unit.skip_damaged:
        try:
            for _ in _batches(piece, unit.field):
                pass  # Read to its end before any of it is used.
            # Opened again: a local file that is deleted from here on is read all the same.
            first = list(itertools.islice(batches, 1))
        except SkipstreamError as error:
            logging.getLogger(__name__).warning("skipped: %s", error)
            yield Batch(pa.array([], pa.binary()), {DAMAGED: 1})
            return
        yield from first
    yield from batches


def fingerprint(piece: Piece) -> bytes:
    """A digest of the stored bytes that `read` sees of a piece; 16 bytes.

    Raises:
        SkipstreamError: As `read` does for a file that is missing or unreadable.
    """
    digest = hashlib.blake2b(digest_size=16)
    # A range sees the byte before it, and the line that its end cuts to that line's end.
    position = max(0, piece.start - 1)
    with _naming(piece), _opened(piece.path) as file:
        file.seek(position)
        while position < piece.stop and (text := file.read(min(CHUNK, piece.stop - position))):
            digest.update(text)
            position += len(text)
        while position >= piece.stop and (text := file.read(CHUNK)):
            head, newline, _ = text.partition(b"\n")
            digest.update(head + newline)
            if newline:
                break
    return digest.digest()


def _blocks(batches: Iterable[Batch]) -> Iterator[Block]:
    size, any_yet = 0, False
    pending: list[pa.Array] = []
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(batch.counts)
        for documents, stored in _slices(batch.documents):
            pending.append(documents)
            size += stored
            if size >= BLOCK_BYTES // 2:  # Slices are about a block, so one rarely has company.
                yield _block(pending, size, counts)
                any_yet, size, pending, counts = True, 0, [], Counter()
    if pending or any(counts.values()) or not any_yet:
        yield _block(pending, size, counts)


def _slices(documents: pa.Array) -> Iterator[tuple[pa.Array, int]]:
    """Runs of `documents` with at most a block's bytes beside their last one, and their bytes."""
    ends = np.cumsum(pc.binary_length(documents).to_numpy(zero_copy_only=False), dtype=np.int64)
    block = ends // BLOCK_BYTES
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(ends)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if start < stop:
            yield documents[start:stop], int(ends[stop - 1] - (ends[start - 1] if start else 0))


def _block(pending: list[pa.Array], size: int, counts: Counter[str]) -> Block:
    documents = pa.concat_arrays(pending) if pending else pa.array([], pa.binary())
    counts.update(documents=len(documents), bytes=size, invalid_utf8=_invalid_utf8(documents))
    return Block(documents, {name: count for name, count in counts.items() if count})


def _invalid_utf8(documents: pa.Array) -> int:
    try:
        documents.cast(pa.string())
    except pa.ArrowInvalid:
        return sum(not _is_utf8(document) for document in documents.to_pylist())
    return 0


def _is_utf8(document: bytes) -> bool:
    try:
        document.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _batches(piece: Piece, field: str) -> Iterator[Batch]:
    with _naming(piece), _opened(piece.path) as file:
        if piece.format == "parquet":
            yield from formats.rows(file, path=shown(piece.path), field=field, longest=LONGEST)
            return
        texts = _decompressed(file, piece) if piece.compression else _stored(file, piece)
        if piece.start == 0:
            texts = _checked(texts, shown(piece.path))
        by_line = piece.format != "files"
        chunks = formats.carve(texts, by_line=by_line, longest=LONGEST)
        match piece.format:
            case "lines":
                yield from formats.lines(chunks)
            case "paragraphs":
                yield from formats.paragraphs(chunks, longest=LONGEST)
            case "files":
                yield from formats.whole(chunks)
            case "jsonl":
                yield from formats.records(chunks, field=field)


def _opened(path: str) -> IO[bytes]:
    file: IO[bytes] = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return file


@contextmanager
def _naming(piece: Piece) -> Iterator[None]:
    """Turn what reading can raise into an error that names the file."""
    path = shown(piece.path)
    try:
        yield
    except (SkipstreamError, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise SkipstreamError(
            f"{path} was listed and is gone now: leave the corpus in place and run again"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            raise SkipstreamError(f"cannot read {path}: {error.strerror}") from error
        if isinstance(error, (OSError, pa.ArrowInvalid)):
            kind = piece.compression or piece.format
            raise SkipstreamError(
                f"corrupt or truncated {kind} data in {path} ({reason}): replace the file"
            ) from error
        if is_remote(path):  # Every cloud library has exceptions of its own.
            raise SkipstreamError(f"cannot read {path}: {reason}") from error
        raise


def _fill(file: IO[bytes], size: int) -> bytes:
    """`size` bytes, less only at the end: some files give what they happen to have."""
    data = file.read(size)
    if not data or len(data) == size:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := file.read(missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def _decompressed(file: IO[bytes], piece: Piece) -> Iterator[bytes]:
    # Beam's own decompression takes a truncated file for a whole one; Arrow's does not, reads
    # concatenated members too, and is twice as fast as Python's.
    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), piece.compression) as stream:
        while text := _fill(stream, CHUNK):
            yield text


def _stored(file: IO[bytes], piece: Piece) -> Iterator[bytes]:
    """The lines whose first byte lies in start..stop; of other formats, the whole file."""
    position = piece.start
    if position:
        # A line begins at `start` if the byte before it ends one.
        position -= 1
        file.seek(position)
        while True:
            text = _fill(file, min(CHUNK, piece.stop - position))
            position += len(text)
            end = text.find(b"\n") + 1
            if end:
                break
            if position >= piece.stop:
                return
            _refuse_end(text, piece)
        text = text[end:]
        if not text and position >= piece.stop:
            return
        yield text
    else:
        text = b"\n"
    while position < piece.stop:
        text = _fill(file, min(CHUNK, piece.stop - position))
        _refuse_end(text, piece)
        position += len(text)
        yield text
    # The last line may end in the next range.
    while text and not text.endswith(b"\n"):
        text = _fill(file, CHUNK)
        end = text.find(b"\n") + 1
        if end:
            yield text[:end]
            return
        yield text


def _refuse_end(text: bytes, piece: Piece) -> None:
    if not text:
        raise SkipstreamError(
            f"{shown(piece.path)} is shorter than when it was listed: run again when it is complete"
        )


def _checked(texts: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Without the byte order mark; refuses a file that is not text."""
    first = next(texts, b"")
    for magic, remedy in _NOT_TEXT.items():
        if first.startswith(magic):
            raise SkipstreamError(f"{path} must be UTF-8 text, got {remedy}")
    if first[257:262] == b"ustar":
        raise SkipstreamError(f"{path} must be UTF-8 text, got a tar archive: unpack it")
    yield first.removeprefix(_UTF8_BOM)
    yield from texts
