"""What Hypothesis draws: texts in all scripts, files of a corpus and what happens to them."""

import bz2
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import settings
from hypothesis import strategies as st

# Characters that the tokeniser, or a format, treats in different ways.
AWKWARD = (
    "aZéßİΣσςiIıﬁΩſǅⰯꟀ09½² \t\u00a0\u2028\u3000_-.,·‧·՚՛։'’ʼʻ\"״”;|\\/<>{}[]:"
    "אב׳ﬡक्र्नमाไทযবকগ각ᄀ각東京々〇ひラーカﾞ゙\u0301\u0307\u0323\u0328\u0345\u0300"
    "\u00ad\u200b\u200c\u200d\u200e\u202e\u2066\u034f\ufe0f\ufeff\ufffd\U000e0101˥😀👩👧❤🏽🇩🇪"
)


def examples(share: float) -> settings:
    """A share of the examples that are asked for, where one takes long."""
    return settings(max_examples=max(1, round(share * settings().max_examples)))


def texts(exclude: str = "", max_size: int = 40) -> st.SearchStrategy[str]:
    """Text of all code points but surrogates, awkward ones often."""
    often = st.sampled_from([character for character in AWKWARD if character not in exclude])
    any_ = st.characters(exclude_categories=["Cs"], exclude_characters=exclude)
    return st.text(st.one_of(often, often, any_), max_size=max_size)


def plain_texts(exclude: str = "", max_size: int = 40) -> st.SearchStrategy[str]:
    """Text without control characters, which make a file a binary one."""
    often = [character for character in AWKWARD if character not in exclude + "\t"]
    any_ = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=exclude)
    return st.text(st.one_of(st.sampled_from(often), any_), max_size=max_size)


def odd_texts(max_size: int = 40) -> st.SearchStrategy[bytes]:
    """What may be no text at all: bytes with invalid UTF-8, NULs and whole characters."""
    parts = [
        b"\0",
        b"\xff",
        b"\xe6\x9d",
        b"\xed\xa0\x80",
        b"\xf0\x9f",
        b"\x80",
        b"\r",
        b"\n",
        b"\x1c",
    ]
    part = st.one_of(
        st.sampled_from(parts), st.sampled_from(AWKWARD).map(str.encode), st.binary(max_size=3)
    )
    return st.lists(part, max_size=max_size).map(b"".join)


@dataclass(frozen=True)
class Stored:
    """A file of a corpus.

    Attributes:
        name: Of the file.
        content: Its bytes, unpacked.
        stored: Its bytes on the disk.
        format: How it is read.
        documents: What it was written from, of tables; None: `content` says it all.
        harmed: What was done to it after it was written whole.
    """

    name: str
    content: bytes
    stored: bytes
    format: str
    documents: list[str] | None = None
    harmed: str = ""


_ENDS = ("\n", "\r\n", "\r")
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, 1, mtime=0),
    ".bz2": lambda content: bz2.compress(content, 1),
    ".zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
}


def unpack(content: bytes, suffix: str) -> bytes:
    """All members of a packed file; raises for one that is damaged."""
    if suffix == ".gz":
        return gzip.decompress(content)
    if suffix == ".bz2":
        return bz2.decompress(content)
    unpacked = b""
    while suffix == ".zst" and content:
        frame = zstandard.ZstdDecompressor().decompressobj()
        unpacked += frame.decompress(content)
        if not frame.eof:
            raise EOFError
        content = frame.unused_data
    return unpacked if suffix == ".zst" else content


UNPACK_ERRORS = (OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError)


@st.composite
def _text(draw: st.DrawFn, format: str) -> tuple[str, bytes, None]:
    lines = draw(st.lists(plain_texts("\r\n"), max_size=12))
    end = draw(st.sampled_from(_ENDS))
    text = end.join(lines) + draw(st.sampled_from(["", end, end * 2]))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return ".txt", mark + text.encode(), None


def _json_values() -> st.SearchStrategy[Any]:
    return st.one_of(
        plain_texts(),
        st.none(),
        st.integers(),
        st.booleans(),
        st.lists(plain_texts(max_size=3), max_size=2),
        st.dictionaries(plain_texts(max_size=3), st.integers(), max_size=2),
    )


@st.composite
def _json_lines(draw: st.DrawFn) -> tuple[str, bytes, None]:
    others = st.dictionaries(plain_texts(max_size=4), _json_values(), max_size=2)
    record = st.tuples(others, _json_values()).map(lambda both: both[0] | {"text": both[1]})
    good = st.builds(json.dumps, record, ensure_ascii=st.booleans())
    bad = st.sampled_from(
        ["", " ", "{", '"text"', "[1]", "{'text': 1}", '{"text": "\\ud800"}', '{"text": NaN}']
    )
    odd = st.one_of(bad, st.builds(json.dumps, others), plain_texts("\r\n"))
    line = st.one_of(good, good, good, odd)
    end = draw(st.sampled_from(_ENDS))
    lines = [*draw(st.lists(good, max_size=1)), *draw(st.lists(line, max_size=12))]
    return ".jsonl", (end.join(lines) + draw(st.sampled_from(["", end]))).encode(), None


@st.composite
def _table(draw: st.DrawFn, format: str) -> tuple[str, bytes, list[str]]:
    values = draw(st.lists(plain_texts("\r\0", max_size=20), max_size=12))
    others = draw(st.integers(0, 2))
    place = draw(st.integers(0, others))
    delimiter = "\t" if format == "tsv" else draw(st.sampled_from(",;|\t"))
    file = io.StringIO(newline="")
    writer = csv.writer(
        file,
        delimiter=delimiter,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=draw(st.sampled_from(_ENDS)),
    )
    names = ["id", "label"][:others]
    names.insert(place, draw(st.sampled_from(["text", "Text", "TEXT "])))
    writer.writerow(names)
    for number, value in enumerate(values):
        row = [str(number), "x y"][:others]
        row.insert(place, value)
        writer.writerow(row)
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return f".{format}", mark + file.getvalue().encode(), values


@st.composite
def _parquet(draw: st.DrawFn) -> tuple[str, bytes, list[str]]:
    values = draw(st.lists(st.one_of(texts(), st.none()), max_size=12))
    kind = draw(
        st.sampled_from(
            [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]
        )
    )
    is_binary = kind in (pa.binary(), pa.large_binary())
    column = pa.array([v.encode() if is_binary and v is not None else v for v in values], kind)
    if kind == pa.string() and draw(st.booleans()):
        column = column.dictionary_encode()
    table = pa.table({"id": pa.array(range(len(values))), "text": column})
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        row_group_size=draw(st.integers(1, 5)),
        compression=draw(st.sampled_from(["none", "snappy", "gzip", "zstd"])),
        use_dictionary=draw(st.booleans()),
        data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
        write_page_checksum=draw(st.booleans()),
    )
    return ".parquet", file.getvalue(), [value or "" for value in values]


FORMATS = ("lines", "paragraphs", "files", "jsonl", "csv", "tsv", "parquet")


@st.composite
def whole_files(draw: st.DrawFn) -> Stored:
    """A file as a program writes it: any format, packed or not, in one member or several."""
    format = draw(st.sampled_from(FORMATS))
    made = {"jsonl": _json_lines, "parquet": _parquet}
    if format in ("csv", "tsv"):
        suffix, content, documents = draw(_table(format))
    else:
        suffix, content, documents = draw(made[format]() if format in made else _text(format))
    packing = draw(st.sampled_from(list(PACK))) if format != "parquet" else ""
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=2))) if packing else []
    bounds = [0, *cuts, len(content)]
    members = [content[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    stored = b"".join(map(PACK[packing], members))
    return Stored(f"a{suffix}{packing}", content, stored, format, documents)


_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp1251", "shift_jis")
_ENCODINGS += ("gb18030", "iso2022_jp", "koi8_r", "euc_jp")


@st.composite
def harmed_files(draw: st.DrawFn) -> Stored:
    """A file that was cut, changed, written over or written in another encoding."""
    file = draw(whole_files())
    how = draw(st.sampled_from(["cut", "flip", "behind", "inside", "encoding", "noise"]))
    stored = bytearray(file.stored)
    at = draw(st.integers(0, len(stored)))
    if how == "cut":
        stored = stored[:at]
    elif how == "flip" and stored:
        stored[at % len(stored)] ^= draw(st.integers(1, 255))
    elif how == "behind":
        stored += draw(st.one_of(st.binary(max_size=20), st.just(b"\0" * 600), st.just(b"\n")))
    elif how == "inside":
        stored[at:at] = draw(odd_texts(8))
    elif how == "noise":
        signs = st.text('"ab,;\t|\n\\ {}[]:0', max_size=30)
        table = st.builds(
            "{}{}".format, st.sampled_from(["", "sep=", "id,text\n", "text\n"]), signs
        )
        noise = draw(st.one_of(st.binary(max_size=200), odd_texts(), table.map(str.encode)))
        stored = bytearray(PACK[suffix_of(file.name)](noise) if draw(st.booleans()) else noise)
    elif how == "encoding" and file.format != "parquet":
        encoding = draw(st.sampled_from(_ENCODINGS))
        text = file.content.decode()
        packing = suffix_of(file.name)
        stored = bytearray(PACK[packing](text.encode(encoding, "replace")))
    return Stored(file.name, b"", bytes(stored), file.format, None, how)


def suffix_of(name: str) -> str:
    """How a file is packed, as PACK has it."""
    suffix = f".{name.rpartition('.')[2]}"
    return suffix if suffix in PACK else ""
