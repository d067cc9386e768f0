"""What a document is in text: chunks of text in, blocks of documents out.

A chunk holds whole lines, about CHUNK bytes of them, so that the cost is per chunk. The one
exception is a line beyond LONGEST bytes, which comes in several chunks marked `cut`.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

CHUNK = 2**20
LONGEST = 64 * 2**20

# Spaces may stand on a blank line. A chunk that begins a line gets a newline in front, so the
# pattern also sees a blank line that begins it.
_BLANK_LINES = re.compile(rb"\n(?:[ \t\f\v]*\n)+")


class Chunk(NamedTuple):
    """Text of a piece, and whether it ends inside a line because that was too long."""

    text: bytes
    cut: bool


class Block(NamedTuple):
    """Documents that follow each other, and what was dropped or changed on the way.

    Attributes:
        documents: binary [documents], none empty.
        counts: How many were dropped or changed, by reason.
        examples: What the first one that cannot be read looks like, and what to do, by reason.
    """

    documents: pa.Array
    counts: dict[str, int]
    examples: Mapping[str, str] = {}


def cut_point(text: bytes, longest: int) -> int:
    """Where to cut `text` so that at most `longest` bytes come before: behind white space.

    >>> cut_point(b"one two three", 9), cut_point("ééé".encode(), 3)
    (8, 2)
    """
    # White space in the first half would make tiny documents of text that has hardly any.
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


def newlines(texts: Iterable[bytes]) -> Iterator[bytes]:
    r"""The stream that `texts` make, with \n for the line ends of all systems: \r\n, and \r alone.

    >>> list(newlines([b"one\r", b"\ntwo\rthree", b"\n"]))
    [b'one', b'\ntwo\nthree', b'\n']
    """
    held = b""  # Of \r at the end of a text, the next one says what it means.
    for text in texts:
        if held or b"\r" in text:
            text = held + text
            held = text[len(text.rstrip(b"\r")) :]
            text = text.removesuffix(held).replace(b"\r\n", b"\n")
            # A text that was converted twice has \r\r\n.
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield text
    if held:
        yield held.replace(b"\r", b"\n")


def block_of(
    documents: list[bytes], examples: Mapping[str, str] | None = None, **counts: int
) -> Block:
    """A block of those `documents` that are not empty; those that are, are counted."""
    kept = [document for document in documents if document and not document.isspace()]
    counts["empty"] = len(documents) - len(kept)
    return Block(pa.array(kept, pa.binary()), counts, examples or {})


def excerpt(value: Any, longest: int = 60) -> str:
    """The beginning of a value, for a message.

    >>> excerpt(12), excerpt("x" * 99, 3)
    ("'12'", "'xxx…'")
    """
    text = str(value)
    shown = text if len(text) <= longest else f"{text[:longest]}…"
    return repr(shown)


def listed(names: Iterable[str]) -> str:
    """Names of fields, for a message.

    >>> listed(["id", "text"]), listed(map(str, range(99)))[-19:]
    ("'id', 'text'", "'18', '19' and more")
    """
    shown = [excerpt(name, 40) for name in itertools.islice(names, 21)]
    return ", ".join(shown[:20]) + (" and more" if len(shown) > 20 else "")


def lines(chunks: Iterable[Chunk]) -> Iterator[Block]:
    r"""A document a line, ended by \n.

    >>> (block,) = lines([Chunk(b"one\n\n \ntwo", cut=False)])
    >>> block.documents.to_pylist(), block.counts
    ([b'one', b'two'], {'cut': 0, 'empty': 2})
    """
    for text, cut in chunks:
        yield block_of(text.removesuffix(b"\n").split(b"\n"), cut=int(cut))


def whole(chunks: Iterable[Chunk]) -> Iterator[Block]:
    """A document a file; `chunks` are the file, in one unless it was too long."""
    seen = False
    for text, cut in chunks:
        seen = True
        yield block_of([text], cut=int(cut))
    if not seen:
        yield block_of([b""])


def paragraphs(chunks: Iterable[Chunk], *, longest: int) -> Iterator[Block]:
    r"""A document a paragraph, its lines joined by spaces; blank lines stand between.

    >>> chunks = [Chunk(b"one\ntwo\n \n\nthree\n", cut=False)]
    >>> [block.documents.to_pylist() for block in paragraphs(chunks, longest=100)]
    [[b'one two'], [b'three']]
    """
    pending: list[bytes] = []  # of the paragraph that is not over yet
    start = b"\n"
    for text, cut in chunks:
        first, *others = _BLANK_LINES.split(start + text)
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


def _paragraphs(texts: list[bytes], cut: int) -> Block:
    # White space around a separator is none of the user's documents: nothing was dropped.
    documents = [text.strip().replace(b"\n", b" ") for text in texts]
    return block_of([document for document in documents if document], cut=cut)
