"""What is text, and what else the beginning of a file says that it is."""

import re

from components.errors import SkipstreamError
from components.example_gen import encodings, remedies

SAMPLE = 2**16  # Bytes of a file that are looked at.

_LEAVE = "leave it out of example_gen.input"
_UNPACK = "unpack it"
_NAME = "give it a name that ends in"
_AS_TEXT = "save it as plain text, as pandoc or LibreOffice can"
_AS_CSV = "save its sheet as CSV in UTF-8"
_AS_IT_IS = "or set example_gen.format to read it as it is"

# The first that matches counts.
_BINARY = {
    rb"\x1f\x8b": ("gzip data", f"{_NAME} .gz"),
    rb"\x28\xb5\x2f\xfd": ("Zstandard data", f"{_NAME} .zst"),
    rb"BZh[1-9]1AY&SY": ("bzip2 data", f"{_NAME} .bz2"),
    rb"PK\x03\x04.*word/": ("a Word document (.docx)", _AS_TEXT),
    rb"PK\x03\x04.*xl/w": ("an Excel workbook (.xlsx)", _AS_CSV),
    rb"PK\x03\x04.*ppt/": ("a PowerPoint presentation (.pptx)", _AS_TEXT),
    rb"PK\x03\x04.{26}mimetypeapplication/epub": ("an EPUB book", _AS_TEXT),
    rb"PK\x03\x04.{26}mimetypeapplication/vnd.oasis": (
        "an OpenDocument file (.odt, .ods)",
        _AS_TEXT,
    ),
    rb"PK\x03\x04|PK\x05\x06": ("a ZIP archive", _UNPACK),
    rb".{257}ustar": ("a tar archive", _UNPACK),
    rb"\xfd7zXZ\0": ("xz data", _UNPACK),
    rb"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    rb"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    rb"\x04\x22\x4d\x18": ("LZ4 data", _UNPACK),
    rb"\s{0,9}%PDF-": ("a PDF document", "extract its text first, as pdftotext does"),
    rb"%!PS": ("a PostScript document", "extract its text first, as ps2ascii does"),
    rb"\{\\rtf": ("an RTF document", _AS_TEXT),
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document (.doc, .xls)", _AS_TEXT),
    rb"PAR1[^ -~\s]": ("a Parquet file", "--set example_gen.format=parquet"),
    rb"ARROW1\0|ORC[^ -~\s]|Obj\x01": (
        "a table in Arrow's, ORC's or Avro's format",
        "write it as Parquet",
    ),
    rb"SQLite format 3\0": ("an SQLite database", "export the texts as CSV or JSON Lines"),
    rb"\x80[\x02-\x05][^ -~\s]|\x93NUMPY": ("pickled or NumPy data", "write it as text"),
    rb"\x89PNG": ("a PNG image", _LEAVE),
    rb"\xff\xd8\xff": ("a JPEG image", _LEAVE),
    rb"GIF8[79]a": ("a GIF image", _LEAVE),
    rb"RIFF.{4}WEBP": ("a WebP image", _LEAVE),
    rb"II\*\0|MM\0\*": ("a TIFF image", _LEAVE),
    rb"BM.{4}\0{4}": ("a BMP image", _LEAVE),
    rb"RIFF.{4}(WAVE|AVI )|\0.{3}ftyp|ID3[\x02-\x04]|OggS\0|fLaC|\x1aE\xdf\xa3|\0\0\x01\xba": (
        "audio, a video or an image",
        _LEAVE,
    ),
    rb"\x7fELF|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe|MZ.\0": ("a program", _LEAVE),
}
_HTML = ("an HTML page", f"extract its text first, as trafilatura does, {_AS_IT_IS}")
_MARK_UP = {
    rb"\s*(<\?xml[^>]*>\s*)?(<!--(?:(?!-->).)*-->\s*)*<(!doctype\s+html|html|head|body)\b": _HTML,
    rb"\s*(<\?xml.{0,200})?(<!--(?:(?!-->).)*-->\s*)*<mediawiki\b": (
        "a MediaWiki dump",
        f"wikiextractor makes JSON Lines of it, {_AS_IT_IS}",
    ),
    rb"\s*(<!--(?:(?!-->).)*-->\s*)*<(\?xml|rss|svg)\b": (
        "an XML file",
        f"extract its text first, {_AS_IT_IS}",
    ),
    rb"WARC/[01]\.": ("a WARC file", f"warcio reads it, trafilatura finds the text, {_AS_IT_IS}"),
}


# One look is enough at what matches none of them, as almost all files do.
_ANY_BINARY, _ANY_MARK_UP = (
    re.compile(b"|".join(b"(?:%s)" % pattern for pattern in kinds), re.DOTALL | re.IGNORECASE)
    for kinds in (_BINARY, _MARK_UP)
)
# What a part of a page begins with, as programs that cut pages write it.
_FRAGMENT = re.compile(
    rb"\s*(?:<!--(?:(?!-->).)*-->\s*)*<(?:title|meta|link|style|script|header|nav|main"
    rb"|article|section|div|span|table|tr|ul|ol|li|h[1-6]|p|a|br|img)(?:\s[^<>]*)?/?>",
    re.DOTALL | re.IGNORECASE,
)
_CLOSED = re.compile(rb"</[a-z][a-z0-9]*\s*>", re.IGNORECASE)
_MANY_CLOSED = 3  # tags, and one in so many bytes:
_CLOSED_EVERY = 500
_CONTROL = bytes(encodings.CONTROL)
_FEW = 10  # Bytes, of any share, that a small file may hold by mistake.
_MANY_LINES = 30  # with invalid UTF-8, before their share of a sample says something of the file


def kind_of(sample: bytes, *, mark_up: bool = False) -> tuple[str, str] | None:
    r"""What a file is, other than text, and the remedy; None: nothing that is known.

    Args:
        sample: Its first SAMPLE bytes.
        mark_up: Whether pages and dumps are looked for, too.

    >>> kind_of(b"%PDF-1.7\n")
    ('a PDF document', 'extract its text first, as pdftotext does')
    >>> kind_of(b"<html><body>", mark_up=True)[0]
    'an HTML page'
    """
    if _ANY_BINARY.match(sample):
        for pattern, said in _BINARY.items():
            if re.match(pattern, sample, re.DOTALL):
                return said
    if mark_up and _ANY_MARK_UP.match(sample):
        for pattern, said in _MARK_UP.items():
            if re.match(pattern, sample, re.DOTALL | re.IGNORECASE):
                return said
    if mark_up and _FRAGMENT.match(sample):
        closed = len(_CLOSED.findall(sample))
        if closed >= _MANY_CLOSED and closed * _CLOSED_EVERY >= len(sample):
            return _HTML
    return None


def _nuls_in(sample: bytes) -> int:
    """How many NUL bytes there are; to see that there are none is fast."""
    return sample.count(b"\0") if b"\0" in sample else 0


def is_binary(sample: bytes) -> bool:
    r"""Whether so many bytes are control characters, or NUL, that this is no text.

    >>> is_binary(bytes(range(256))), is_binary(b"a\0b\x01c"), is_binary(b"a\0" * 99)
    (True, False, True)
    """
    controls = len(sample) - len(sample.translate(None, _CONTROL))
    nuls = _nuls_in(sample)
    return controls + nuls > _FEW and (20 * controls > len(sample) or 4 * nuls > len(sample))


def check(sample: bytes, path: str, *, mark_up: bool, most_invalid: float) -> None:
    """Refuse what is not UTF-8 text.

    Args:
        sample: The first SAMPLE bytes of the file at `path`, unpacked.
        path: Its name; a suffix says whether it is compressed.
        mark_up: Whether pages and dumps are refused, too.
        most_invalid: Share of the lines that may hold invalid UTF-8, if they are many.

    Raises:
        SkipstreamError: It is something else; the message says what, and the remedy.
    """
    if kind := kind_of(sample, mark_up=mark_up):
        what, remedy = kind
        if remedy.startswith(_NAME) and remedies.unpacked_name(path) != path:
            remedy = _UNPACK  # for the second time
        raise _not_text(path, f"{what}: {remedy}")
    encoding = encodings.marked(sample)
    nuls = _nuls_in(sample)
    many_nuls = nuls > max(_FEW, len(sample) // 1000) or 3 * nuls > len(sample) > _FEW
    invalid = not encodings.starts_utf8(sample)
    if not encoding and (many_nuls or (nuls and invalid)):
        encoding = encodings.wide(sample)
    if encoding:
        how = remedies.iconv(path, encoding)
        raise _not_text(path, f"{encoding}: convert it with `{how}` and give that in its place")
    if is_binary(sample):
        raise _not_text(path, f"binary data: {_LEAVE}")
    if many_nuls:
        # Where no lines are, NULs end the records.
        to = "\\n" if sample.count(b"\n") < nuls // 2 else " "
        out = remedies.beside(path, "clean")
        how = remedies.command(f"tr '\\000' '{to}'", path, out, redirect=True)
        share = f"{nuls / len(sample):.1%} NUL bytes"
        raise _not_text(path, f"{share}: replace them with `{how}` and give that in its place")
    if invalid:
        _check_lines(sample, path, most_invalid)


def _not_text(path: str, got: str) -> SkipstreamError:
    inside = "" if remedies.unpacked_name(path) == path else ", unpacked,"
    return SkipstreamError(f"{path}{inside} must be UTF-8 text, got {got}")


def _check_lines(sample: bytes, path: str, most_invalid: float) -> None:
    lines = [line for line in sample.splitlines()[: -1 if len(sample) >= SAMPLE else None] if line]
    invalid = sum(not encodings.is_utf8(line) for line in lines)
    if invalid >= _MANY_LINES and invalid > most_invalid * len(lines):
        raise SkipstreamError(
            f"{path} must be UTF-8 text, and of its first {len(lines):,} lines {invalid:,} are "
            f"not; it {encodings.advice(path, sample)}, or raise example_gen.max_invalid_utf8"
        )
