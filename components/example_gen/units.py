"""Cuts a corpus into units of work that do not depend on who will do them."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from components.artifacts import Corpus
from components.errors import SkipstreamError
from components.example_gen.files import is_remote
from components.names import shown

Format = Literal["lines", "paragraphs", "files", "jsonl", "csv", "tsv", "parquet"]
Compression = Literal["gzip", "bz2", "zstd"]

# Of text: a second of work, so that few files keep all cores busy. The last piece of a file may be
# half as much again.
UNIT_BYTES = 16 * 2**20
_RATIO = 4  # Bytes of text in a byte of gzip, roughly.
MAX_EXPANSION = 200.0  # As the setting's.
_FILE_BYTES = 4096  # What opening a file costs, in bytes read: no unit gets a million files.

_COMPRESSIONS: dict[str, Compression] = {
    ".gz": "gzip",
    ".bz2": "bz2",
    ".zst": "zstd",
    ".zstd": "zstd",
}
_UNREADABLE = (".xz", ".lzma", ".7z", ".zip", ".tar", ".tgz", ".rar", ".deflate", ".lz4", ".z")
_DUMPS = {
    ".xml": "wikiextractor makes JSON Lines of MediaWiki's dumps",
    ".warc": "warcio reads it, trafilatura finds the text in its pages",
    ".wat": "it holds metadata, take the .warc or .wet beside it",
    ".wet": "warcio reads it",
}
_PAGES = (".html", ".htm", ".xhtml")
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Piece:
    """Bytes start..stop of a file as stored; of `lines` and `jsonl`, the lines that start there."""

    path: str
    start: int
    stop: int
    format: Format
    compression: Compression | None


@dataclass(frozen=True)
class Rules:
    """How files are read, and when they are refused before they are read to their end.

    Attributes:
        field: JSON field, or column of a table, of the text.
        by_name: Whether formats are chosen by the names of files, so that other content is a
            mistake; else it is as the user says.
        most_invalid: Share of a file's first lines that may hold invalid UTF-8.
        any_unreadable: Whether a file may begin with records without text, however many.
        skip_damaged: Whether a piece that cannot be read is left out; else it is an error.
        max_expansion: Bytes that a stored byte may unpack to; see `unpacking.Limit`.
    """

    field: str
    by_name: bool
    most_invalid: float
    any_unreadable: bool
    skip_damaged: bool
    max_expansion: float = MAX_EXPANSION


@dataclass(frozen=True)
class Unit:
    """What one worker reads at a time.

    Attributes:
        index: Place in the corpus, from 0.
        pieces: What to read, in order.
        rules: The same in all units.
    """

    index: int
    pieces: tuple[Piece, ...]
    rules: Rules


@dataclass(frozen=True)
class Listing:
    """The content of corpus.json.

    Attributes:
        files: Path, ready to open, and bytes as stored.
        urls: The patterns that found the files that are not local.
        format: As in the settings, and so are `field`, `eval_share`, `damaged_files`,
            `max_unreadable`, `max_invalid_utf8` and `max_expansion`.
        skipped: Matches that were left out, by reason.
        modified: When each of `files` was changed, in nanoseconds since 1970; None: the artifact
            brings it along.
    """

    files: tuple[tuple[str, int], ...]
    urls: tuple[str, ...]
    format: str
    field: str
    eval_share: float
    damaged_files: str
    skipped: dict[str, int]
    max_unreadable: float
    max_invalid_utf8: float
    modified: tuple[int | None, ...]
    max_expansion: float = MAX_EXPANSION

    @classmethod
    def load(cls, corpus: Corpus, *, fetched: bool = True) -> "Listing":
        """Read it.

        Args:
            corpus: Paths of files that it brings along are relative to it.
            fetched: Whether those are fetched from a bucket; else they are named where they lie.

        Raises:
            SkipstreamError: A file cannot be fetched.
        """
        content: dict[str, Any] = json.loads((corpus / Corpus.LISTING).read_text(encoding="utf-8"))
        files = content.pop("files")

        def path_of(file: dict[str, Any]) -> str:
            path: str = file["path"]
            if os.path.isabs(path) or is_remote(path):
                return path
            if corpus.remote and not fetched:
                return f"{corpus.address}/{path}"
            return os.path.abspath(corpus / path)

        paths = list(map(path_of, files))
        return cls(
            files=tuple((path, file["size"]) for path, file in zip(paths, files, strict=True)),
            modified=tuple(file["modified"] for file in files),
            urls=tuple(content.pop("urls")),
            **content,
        )

    @property
    def rules(self) -> Rules:
        """For all units."""
        return Rules(
            self.field,
            by_name=self.format == "auto",
            # Below half, what the file's beginning says is not clear enough.
            most_invalid=max(0.5, self.max_invalid_utf8),
            any_unreadable=self.max_unreadable == 1,
            max_expansion=self.max_expansion,
            skip_damaged=self.damaged_files == "skip",
        )

    def to_json(self) -> dict[str, Any]:
        """What `load` reads."""
        files = [
            {"path": path, "size": size, "modified": modified}
            for (path, size), modified in zip(self.files, self.modified, strict=True)
        ]
        others = {name: value for name, value in vars(self).items() if name != "modified"}
        return others | {"files": files, "urls": list(self.urls)}

    @property
    def states(self) -> dict[str, tuple[int, int]]:
        """Bytes and time of change when they were listed, as `files.state_of` has them."""
        return {
            path: (size, modified)
            for (path, size), modified in zip(self.files, self.modified, strict=True)
            if modified is not None
        }


def detect(path: str, format: str) -> tuple[Format, Compression | None]:
    """How a file is to be read, by its name where `format` is "auto".

    >>> detect("a/news.JSONL.gz", "auto")
    ('jsonl', 'gzip')
    >>> detect("a/book.txt", "paragraphs")
    ('paragraphs', None)

    Raises:
        SkipstreamError: The name says that it is compressed in a way that is not supported, or, for
            "auto", a dump or a page whose mark-up would be taken for text.
    """
    stem, suffix = os.path.splitext(path.lower())
    compression = _COMPRESSIONS.get(suffix)
    inner = os.path.splitext(stem)[1] if compression else suffix
    name = shown(path)
    for refused in (suffix, inner):
        if refused in _UNREADABLE:
            raise SkipstreamError(
                f"{name} is packed as {refused}, expected plain text, .gz, .bz2 or .zst: "
                "unpack it, or leave it out of example_gen.input"
            )
    # Wikipedia's are cut into parts such as pages.xml-p1p41242.bz2.
    dump = inner.partition("-")[0]
    if format == "auto" and dump in _DUMPS:
        raise SkipstreamError(
            f"{name} is a {dump} dump, whose mark-up is no text: extract its text first "
            f"({_DUMPS[dump]}), or set example_gen.format to read it as it is"
        )
    if format == "auto" and inner in _PAGES:
        raise SkipstreamError(
            f"{name} is a web page, whose mark-up is no text: extract its text first (trafilatura "
            "does), or set example_gen.format to read it as it is"
        )
    chosen: Format = _FORMATS.get(inner, "lines") if format == "auto" else format  # type: ignore[assignment]
    if chosen == "parquet" and compression:
        raise SkipstreamError(
            f"{name} is a compressed Parquet file, which cannot be read in parts: unpack it "
            "(Parquet compresses its columns itself)"
        )
    return chosen, compression


def plan(listing: Listing) -> list[Unit]:
    """The units of a corpus, in its order: a function of the listing, not of the workers."""
    return [
        Unit(index, pieces, listing.rules)
        for index, pieces in enumerate(_packed(_pieces(listing, UNIT_BYTES), UNIT_BYTES))
    ]


def _pieces(listing: Listing, unit_bytes: int) -> Iterator[Piece]:
    for path, size in listing.files:
        format, compression = detect(path, listing.format)
        bounds = [0, size]
        if compression is None and format in ("lines", "jsonl"):
            # What is appended to a file leaves the pieces before its last one as they are. That is
            # never so short that others, of other files, are late because of it.
            bounds = [0, *range(unit_bytes, size - unit_bytes // 2, unit_bytes), size]
        for start, stop in zip(bounds, bounds[1:], strict=False):
            yield Piece(path, start, stop, format, compression)


def _packed(pieces: Iterable[Piece], unit_bytes: int) -> Iterator[tuple[Piece, ...]]:
    unit: list[Piece] = []
    size = 0
    for piece in pieces:
        stored = piece.stop - piece.start
        cost = max(_FILE_BYTES, stored * _RATIO if piece.compression else stored)
        # A directory begins a unit, so that a new day among the others leaves their units as they
        # are; not if that made units too small to be worth a file.
        new = unit and os.path.dirname(piece.path) != os.path.dirname(unit[-1].path)
        if unit and (size + cost > unit_bytes or (new and size > unit_bytes // 8)):
            yield tuple(unit)
            unit, size = [], 0
        unit.append(piece)
        size += cost
    if unit:
        yield tuple(unit)
