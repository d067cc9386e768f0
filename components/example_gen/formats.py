"""What a document is, format by format: text in chunks in, batches of documents out.

A chunk holds whole lines, about CHUNK bytes of them, so that the cost is per chunk. The one
exception is a line beyond LONGEST bytes, which comes in several chunks marked `cut`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import SkipstreamError

CHUNK = 2**20
LONGEST = 64 * 2**20

# Spaces may stand on a blank line. A chunk that begins a line gets a newline in front, so the
# pattern also sees a blank line that begins it.
_BLANK_LINES = re.compile(rb"\n(?:[ \t\r\f\v]*\n)+")


class Chunk(NamedTuple):
    """Text, and whether it ends inside a line because that was too long."""

    text: bytes
    cut: bool


class Batch(NamedTuple):
    """binary [documents], none empty, and what was dropped or changed on the way, by reason."""

    documents: pa.Array
    counts: dict[str, int]


def cut_point(text: bytes, longest: int) -> int:
    """Where to cut `text` so that at most `longest` bytes come before: behind white space.

    >>> cut_point(b"one two three", 9), cut_point("ééé".encode(), 3)
    (8, 2)
    """
    # White space in the first half would make tiny pieces of text that has hardly any.
    end = max(text.rfind(space, longest // 2, longest) for space in (b" ", b"\t", b"\r", b"\n"))
    if end >= 0:
        return end + 1
    # No white space (Chinese, base64): at least do not tear a character.
    starts = (at for at in range(longest, longest - 4, -1) if at > 0 and text[at] & 0xC0 != 0x80)
    return next(starts, longest)


def carve(texts: Iterable[bytes], *, by_line: bool, longest: int) -> Iterator[Chunk]:
    """Cut the stream that `texts` make at ends of lines, or, not `by_line`, only when too long."""
    pending: list[bytes] = []
    size = 0
    for text in texts:
        end = text.rfind(b"\n") + 1 if by_line else 0
        if end:
            yield Chunk(b"".join((*pending, text[:end])), cut=False)
            pending, size = [text[end:]], len(text) - end
            continue
        pending.append(text)
        size += len(text)
        while size > longest:
            joined = b"".join(pending)
            end = cut_point(joined, longest)
            yield Chunk(joined[:end], cut=True)
            pending, size = [joined[end:]], len(joined) - end
    if size:
        yield Chunk(b"".join(pending), cut=False)


def _batch(documents: list[bytes], **counts: int) -> Batch:
    kept = [document for document in documents if document and not document.isspace()]
    return Batch(pa.array(kept, pa.binary()), counts | {"empty": len(documents) - len(kept)})


def lines(chunks: Iterable[Chunk]) -> Iterator[Batch]:
    r"""A document a line, ended by \n or \r\n.

    >>> (batch,) = lines([Chunk(b"one\r\n\n \ntwo", cut=False)])
    >>> batch.documents.to_pylist(), batch.counts
    ([b'one', b'two'], {'cut': 0, 'empty': 2})
    """
    for text, cut in chunks:
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
        yield _batch(text.removesuffix(b"\n").split(b"\n"), cut=int(cut))


def whole(chunks: Iterable[Chunk]) -> Iterator[Batch]:
    """A document a file; `chunks` are the file, in one unless it was too long."""
    seen = False
    for text, cut in chunks:
        seen = True
        yield _batch([text], cut=int(cut))
    if not seen:
        yield _batch([b""])


def paragraphs(chunks: Iterable[Chunk], *, longest: int) -> Iterator[Batch]:
    r"""A document a paragraph, its lines joined by spaces; blank lines stand between.

    >>> chunks = [Chunk(b"one\ntwo\n \n\nthree\n", cut=False)]
    >>> [batch.documents.to_pylist() for batch in paragraphs(chunks, longest=100)]
    [[b'one two'], [b'three']]
    """
    pending: list[bytes] = []  # of the paragraph that is not over yet
    start = b"\n"
    for text, cut in chunks:
        first, *others = _BLANK_LINES.split(start + text.replace(b"\r\n", b"\n"))
        pending.append(first.removeprefix(start))
        start = b"" if cut else b"\n"
        documents: list[bytes] = []
        if others:
            documents = [b"".join(pending), *others[:-1]]
            pending = [others[-1]]
        too_long = cut or sum(map(len, pending)) > longest
        if too_long:
            documents.append(b"".join(pending))
            pending = []
        yield _paragraphs(documents, cut=int(too_long))
    yield _paragraphs([b"".join(pending)], cut=0)


def _paragraphs(texts: list[bytes], cut: int) -> Batch:
    # White space around a separator is none of the user's documents: nothing was dropped.
    documents = [text.strip().replace(b"\n", b" ") for text in texts]
    return _batch([document for document in documents if document], cut=cut)


def records(chunks: Iterable[Chunk], *, field: str) -> Iterator[Batch]:
    r"""A document a line of JSON, an object whose `field` is the text.

    >>> chunk = Chunk(b'{"text": "one"}\n{"text": null}\n{"te', cut=False)
    >>> (batch,) = records([chunk], field="text")
    >>> batch.documents.to_pylist(), {name: n for name, n in batch.counts.items() if n}
    ([b'one'], {'invalid_json': 1, 'missing_field': 1})
    """
    inside = False  # a line that was too long to be parsed
    for text, cut in chunks:
        if inside:
            text = text[text.find(b"\n") + 1 :] if b"\n" in text else b""
        too_long, inside = int(cut and not inside), cut
        if cut:
            text = b""
        try:
            decoded = text.decode("utf-8")
        except UnicodeDecodeError:
            decoded = text.decode("utf-8", "surrogateescape")
        documents: list[bytes] = []
        counts = {"invalid_json": 0, "missing_field": 0, "too_long": too_long}
        for line in decoded.removesuffix("\n").split("\n") if decoded else ():
            if not line or line.isspace():
                documents.append(b"")
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                counts["invalid_json"] += 1
                continue
            value = record.get(field) if isinstance(record, dict) else None
            if isinstance(value, str):
                documents.append(_encoded(value))
            else:
                counts["missing_field"] += 1
        yield _batch(documents, **counts)


def _encoded(text: str) -> bytes:
    """UTF-8; what cannot be, such as half a surrogate pair, becomes bytes that are not UTF-8."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def rows(file: IO[bytes], *, path: str, field: str, longest: int) -> Iterator[Batch]:
    """A document a row of the Parquet `file`, from its column `field`.

    Raises:
        SkipstreamError: There is no such column, or it does not hold text.
    """
    parquet = pq.ParquetFile(file, buffer_size=CHUNK)
    schema = parquet.schema_arrow
    if field not in schema.names:
        raise SkipstreamError(
            f"{path} has no column '{field}', only {', '.join(map(repr, schema.names))}: "
            "set example_gen.field to the one that holds the text"
        )
    kind = schema.field(field).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not _is_text(value):
        raise SkipstreamError(
            f"column '{field}' of {path} must hold strings, got {kind}: "
            "set example_gen.field to the one that holds the text"
        )
    for batch in parquet.iter_batches(_rows_a_chunk(parquet, field), columns=[field]):
        yield _column(batch.column(0), value, longest)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
    )


def _rows_a_chunk(parquet: pq.ParquetFile, field: str) -> int:
    """Rows that hold about CHUNK bytes, as the file's own metadata has it."""
    size = 0
    for group in map(parquet.metadata.row_group, range(parquet.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in columns if c.path_in_schema == field)
    number: int = parquet.metadata.num_rows * CHUNK // max(1, size)
    return max(1, min(2**14, number))


def _column(column: pa.Array, kind: pa.DataType, longest: int) -> Batch:
    values = column.cast(kind).cast(pa.large_binary()).drop_null()
    documents: list[bytes] = []
    cuts = 0
    for document in values.to_pylist():
        while len(document) > longest:
            end = cut_point(document, longest)
            documents.append(document[:end])
            document = document[end:]
            cuts += 1
        documents.append(document)
    return _batch(documents, missing_field=len(column) - len(values), cut=cuts)
