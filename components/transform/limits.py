"""What the settings allow to be wrong with the documents of a corpus, judged when all is read."""

import itertools
from collections.abc import Iterator

from components.errors import SkipstreamError
from components.example_gen import encodings, reader, remedies
from components.example_gen.formats import Block
from components.example_gen.units import Listing, plan

_BLOCKS = 1000  # of about a mebibyte, in which an example is looked for: some seconds
_SAMPLE = 2**16  # bytes of text by which an encoding is guessed


def check(read: dict[str, int], listing: Listing) -> None:
    """Refuse a corpus of which too much cannot be read.

    Args:
        read: What `reader.read` counted, of all units.
        listing: The corpus.

    Raises:
        SkipstreamError: Too many documents are unreadable, or hold invalid UTF-8. The message has
            an example out of the corpus, which is looked at once more for that.
    """
    documents = read.get("documents", 0)
    unreadable = {reason: read[reason] for reason in reader.UNREADABLE if read.get(reason)}
    bad = sum(unreadable.values())
    share, limit = bad / max(1, bad + documents), listing.max_unreadable
    if share > limit:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in unreadable.items())
        most = max(unreadable, key=lambda reason: unreadable[reason])
        raise SkipstreamError(
            f"at most {limit:.1%} of the documents may be unreadable (example_gen.max_unreadable), "
            f"got {share:.1%} ({counts}){_example(listing, most)}"
        )
    share, limit = read.get("invalid_utf8", 0) / max(1, documents), listing.max_invalid_utf8
    if share > limit:
        raise SkipstreamError(
            f"at most {limit:.1%} of the documents may hold invalid UTF-8 "
            f"(example_gen.max_invalid_utf8), got {share:.1%}; "
            f"{_advice(listing, limit)}, or raise the limit"
        )


def advice(read: dict[str, int], listing: Listing) -> dict[str, str]:
    """What to do about repairs that are news, by their reason; the corpus is looked at for that.

    Args:
        read: What `reader.read` counted, of all units.
        listing: The corpus.
    """
    if read.get("invalid_utf8", 0) > remedies.NEWS * read.get("documents", 0):
        return {"invalid_utf8": _advice(listing, remedies.NEWS)}
    return {}


def _blocks(listing: Listing) -> Iterator[tuple[str, Block]]:
    blocks = (found for unit in plan(listing) for found in reader.blocks_of(unit))
    return itertools.islice(blocks, _BLOCKS)


def _example(listing: Listing, reason: str) -> str:
    for path, block in _blocks(listing):
        if example := block.examples.get(reason):
            return f": in {path}, for example, {example}"
    return ": check example_gen.field and example_gen.format"


def _advice(listing: Listing, limit: float) -> str:
    """On the first file of which too much is invalid, or else on the first with any."""
    found = None
    for path, block in _blocks(listing):
        documents = block.documents.to_pylist()
        invalid = sum(not encodings.is_utf8(document) for document in documents)
        if invalid and (found is None or invalid > limit * len(documents)):
            # The end of a document that is cut may be the middle of a character.
            found = path, b"\n".join(document[:_SAMPLE] for document in documents)
        if invalid > limit * len(documents):
            break
    if found is None:
        return "convert the files to UTF-8"
    path, text = found
    return f"{path} {encodings.advice(path, _lines(text))}"


def _lines(text: bytes) -> bytes:
    """Its lines that are not ASCII, until they are enough."""
    size, chosen = 0, []
    for line in text.splitlines():
        if not line.isascii():
            chosen.append(line)
            size += len(line)
        if size > _SAMPLE:
            break
    return b"\n".join(chosen)
