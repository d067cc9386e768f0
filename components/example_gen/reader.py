"""Reads a unit into blocks of documents."""

import hashlib
import itertools
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.errors import SkipstreamError
from components.example_gen import content, encodings, formats, json_lines, tables, unpacking
from components.example_gen.files import is_remote
from components.example_gen.formats import CHUNK, LONGEST, Block
from components.example_gen.units import Piece, Rules, Unit
from components.names import shown

BLOCK_BYTES = 2**20
DAMAGED = "damaged_parts"
UNREADABLE = ("invalid_csv", "invalid_json", "missing_field", "not_text", "too_long")

_UTF8_BOM = b"\xef\xbb\xbf"
_MANY_RECORDS = 100  # without text: so many are no accident


def read(unit: Unit) -> Iterator[Block]:
    """All documents of `unit`, in blocks of about BLOCK_BYTES, cut as the files alone say.

    A unit without documents gives one empty block. The counts are of `documents` and `bytes` that
    the block holds; of documents that were dropped, by reason: `empty`, and those of UNREADABLE; of
    repairs: `invalid_utf8` and `nul` (documents that hold invalid UTF-8 or NUL bytes, which the
    tokeniser replaces) and `cut` (places where a document of more than 64 MiB was cut in two); and
    of DAMAGED pieces that were skipped. Zeros are left out.

    Raises:
        SkipstreamError: A file is missing, unreadable, damaged, shorter than when it was listed,
            not text, or a Parquet file without the column. The message names the file.
    """
    blocks = (block for piece in unit.pieces for block in _whole(piece, unit))
    return _regrouped(blocks)


def blocks_of(unit: Unit) -> Iterator[tuple[str, Block]]:
    """Blocks as the formats make them, with their file; of what cannot be read, nothing."""
    for piece in unit.pieces:
        try:
            for block in _blocks(piece, unit.rules):
                yield piece.path, block
        except SkipstreamError:
            continue


def _whole(piece: Piece, unit: Unit) -> Iterator[Block]:
    """All of a piece; of one that is damaged, if those are skipped, nothing."""
    blocks = _blocks(piece, unit.rules)
    if unit.rules.skip_damaged:
        try:
            for _ in _blocks(piece, unit.rules):
                pass  # Read to its end before any of it is used.
            # Opened again: a local file that is deleted from here on is read all the same.
            first = list(itertools.islice(blocks, 1))
        except SkipstreamError as error:
            logging.getLogger(__name__).warning("skipped: %s", error)
            yield Block(pa.array([], pa.binary()), {DAMAGED: 1})
            return
        yield from first
    yield from blocks


def fingerprint(piece: Piece) -> bytes:
    """A digest of the stored bytes that `read` sees of a piece; 16 bytes.

    Raises:
        SkipstreamError: As `read` does for a file that is missing or unreadable.
    """
    digest = hashlib.blake2b(digest_size=16)
    # A range sees the byte before it, and the line that its end cuts to that line's end.
    position = max(0, piece.start - 1)
    any_line = piece.start == 0
    with _naming(piece), _opened(piece.path) as file:
        file.seek(position)
        while position < piece.stop and (text := file.read(min(CHUNK, piece.stop - position))):
            digest.update(text)
            position += len(text)
            any_line = any_line or b"\n" in text
        while any_line and position >= piece.stop and (text := file.read(CHUNK)):
            head, newline, _ = text.partition(b"\n")
            digest.update(head + newline)
            if newline:
                break
    return digest.digest()


def _regrouped(blocks: Iterable[Block]) -> Iterator[Block]:
    size, any_yet = 0, False
    pending: list[pa.Array] = []
    counts: Counter[str] = Counter()
    for block in blocks:
        counts.update(block.counts)
        for documents, stored in _slices(block.documents):
            pending.append(documents)
            size += stored
            if size >= BLOCK_BYTES // 2:  # Slices are about a block, so one rarely has company.
                yield _merged(pending, size, counts)
                any_yet, size, pending, counts = True, 0, [], Counter()
    if pending or any(counts.values()) or not any_yet:
        yield _merged(pending, size, counts)


def _slices(documents: pa.Array) -> Iterator[tuple[pa.Array, int]]:
    """Runs of `documents` with at most a block's bytes beside their last one, and their bytes."""
    ends = np.cumsum(pc.binary_length(documents).to_numpy(zero_copy_only=False), dtype=np.int64)
    block = ends // BLOCK_BYTES
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(ends)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if start < stop:
            yield documents[start:stop], int(ends[stop - 1] - (ends[start - 1] if start else 0))


def _merged(pending: list[pa.Array], size: int, counts: Counter[str]) -> Block:
    documents = pa.concat_arrays(pending) if pending else pa.array([], pa.binary())
    counts.update(
        documents=len(documents),
        bytes=size,
        invalid_utf8=_invalid_utf8(documents),
        nul=_with_nul(documents),
    )
    return Block(documents, {name: count for name, count in counts.items() if count})


def _invalid_utf8(documents: pa.Array) -> int:
    try:
        documents.cast(pa.string())
    except pa.ArrowInvalid:
        return sum(not encodings.is_utf8(document) for document in documents.to_pylist())
    return 0


def _with_nul(documents: pa.Array) -> int:
    stored = documents.buffers()[2]
    if not stored or np.frombuffer(stored, np.uint8).min(initial=1):  # A look at all is fast.
        return 0
    return int(pc.sum(pc.match_substring(documents, "\0")).as_py() or 0)


def _blocks(piece: Piece, rules: Rules) -> Iterator[Block]:
    path, field = piece.path, rules.field
    with _naming(piece), _opened(path) as file:
        if piece.format == "parquet":
            limit = unpacking.Limit(path, piece.stop, rules.max_expansion)
            yield from tables.parquet(
                file, path=shown(path), field=field, longest=LONGEST, limit=limit
            )
            return
        if piece.compression:
            limit = unpacking.Limit(path, piece.stop, rules.max_expansion)
            texts = unpacking.unpacked(file, path, piece.compression, CHUNK, limit)
        else:
            texts = _stored(file, piece)
        if piece.start == 0:
            texts = _checked(texts, piece, rules)
        if piece.format == "files":
            yield from formats.whole(formats.carve(texts, by_line=False, longest=LONGEST))
            return
        chunks = formats.carve(formats.newlines(texts), by_line=True, longest=LONGEST)
        match piece.format:
            case "lines":
                yield from formats.lines(chunks)
            case "paragraphs":
                yield from formats.paragraphs(chunks, longest=LONGEST)
            case "jsonl":
                yield from _checked_records(
                    json_lines.records(chunks, path=path, field=field), piece, rules
                )
            case "csv" | "tsv":
                tabs = piece.format == "tsv"
                yield from tables.delimited(
                    chunks, path=path, field=field, tabs=tabs, longest=LONGEST
                )


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
        # The last: Arrow takes names of columns for UTF-8.
        if isinstance(error, (OSError, pa.ArrowException, zlib.error, UnicodeDecodeError)):
            kind = piece.compression or piece.format
            raise SkipstreamError(
                f"corrupt or truncated {kind} data in {path} ({reason}): replace the file"
            ) from error
        if is_remote(path):  # Every cloud library has exceptions of its own.
            raise SkipstreamError(f"cannot read {path}: {reason}") from error
        raise


def _stored(file: IO[bytes], piece: Piece) -> Iterator[bytes]:
    """The lines whose first byte lies in start..stop; of other formats, the whole file."""
    position = piece.start
    if position:
        # A line begins at `start` if the byte before it ends one.
        position -= 1
        file.seek(position)
        while True:
            text = unpacking.filled(file, min(CHUNK, piece.stop - position))
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
        text = unpacking.filled(file, min(CHUNK, piece.stop - position))
        _refuse_end(text, piece)
        position += len(text)
        yield text
    # The last line may end in the next range.
    while text and not text.endswith(b"\n"):
        text = unpacking.filled(file, CHUNK)
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


def _checked(texts: Iterator[bytes], piece: Piece, rules: Rules) -> Iterator[bytes]:
    """Without the byte order mark; refuses a file that is not what it is read as."""
    held: list[bytes] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= content.SAMPLE:
            break
    start = b"".join(held)
    mark = len(_UTF8_BOM) if start.startswith(_UTF8_BOM) else 0
    sample, path = start[mark:][: content.SAMPLE], piece.path
    content.check(sample, path, mark_up=rules.by_name, most_invalid=rules.most_invalid)
    if piece.format == "jsonl":
        json_lines.check(sample, path, field=rules.field)
    elif piece.format == "lines" and rules.by_name:
        json_lines.check_no_json(sample, path)
        tables.check_no_table(sample, path)
    for text in held:
        yield text[mark:]
        mark = max(0, mark - len(text))
    yield from texts


def _checked_records(blocks: Iterator[Block], piece: Piece, rules: Rules) -> Iterator[Block]:
    """Refuses a file in whose beginning is no record that can be read."""
    if (first := next(blocks, None)) is None:  # No line begins in this piece.
        return
    unreadable = {reason: first.counts.get(reason, 0) for reason in UNREADABLE}
    most = max(UNREADABLE, key=lambda reason: unreadable[reason])
    if (
        piece.start == 0
        and not rules.any_unreadable
        and not len(first.documents)
        and unreadable[most] >= _MANY_RECORDS
    ):
        raise SkipstreamError(
            f"{piece.path} must hold text in the field '{rules.field}' of each record, and none of "
            f"its first {unreadable[most]:,} does: {first.examples[most]}"
        )
    yield first
    yield from blocks
