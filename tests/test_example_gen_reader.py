"""Files -> blocks of documents: every format, every compression, and what real files do."""

import bz2
import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from components.artifacts import Corpus
from components.errors import SkipstreamError
from components.example_gen import formats, reader, units
from components.example_gen.build import build
from components.settings import ExampleGenSettings

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


def corpus_of(tmp_path: Path, files: dict[str, bytes], **settings: str) -> Corpus:
    folder = tmp_path / "corpus"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    out = tmp_path / "artifact"
    out.mkdir(exist_ok=True)
    chosen = ExampleGenSettings(input=(f"{folder}/*",), **settings)
    return build(settings=chosen, out=Corpus(out, "f"))


def read_all(corpus: Corpus) -> tuple[list[bytes], dict[str, int]]:
    counts: Counter[str] = Counter()
    documents: list[bytes] = []
    for unit in units.plan(units.Listing.load(corpus)):
        for block in reader.read(unit):
            documents += block.documents.to_pylist()
            counts.update(block.counts)
    assert counts["documents"] == len(documents)
    assert counts["bytes"] == sum(map(len, documents))
    reasons = {name: n for name, n in counts.items() if name not in ("documents", "bytes")}
    return documents, reasons


def read_one(
    tmp_path: Path, content: bytes, name: str = "a.txt", **settings: str
) -> tuple[list[bytes], dict[str, int]]:
    return read_all(corpus_of(tmp_path, {name: content}, **settings))


@pytest.mark.parametrize(
    ("content", "documents", "reasons"),
    [
        (b"one\ntwo\n", [b"one", b"two"], {}),
        (b"one\ntwo", [b"one", b"two"], {}),
        (b"one\r\n\r\ntwo\r", [b"one", b"two"], {"empty": 1}),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", [b"one", b"\xef\xbb\xbftwo"], {}),
        (b"\n \t\none", [b"one"], {"empty": 2}),
        (b"a\0b\n\0\n", [b"a\0b", b"\0"], {}),
        (b"a\xff\nb\n\xc3\n", [b"a\xff", b"b", b"\xc3"], {"invalid_utf8": 2}),
        (b"", [], {}),
        (b"\n", [], {"empty": 1}),
        ("🙂 é\n東京".encode(), ["🙂 é".encode(), "東京".encode()], {}),
    ],
)
def test_a_line_is_a_document(tmp_path, content, documents, reasons):
    assert read_one(tmp_path, content) == (documents, reasons)


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (b"one\ntwo\n\nthree\n", [b"one two", b"three"]),
        (b"\xef\xbb\xbf\r\n\r\none\r\ntwo\r\n \r\n\t\r\nthree", [b"one two", b"three"]),
        (b"one\n\n\n\n\ntwo\n\n", [b"one", b"two"]),
        (b"\n\n", []),
        (b"", []),
    ],
)
def test_a_paragraph_is_a_document(tmp_path, content, documents):
    assert read_one(tmp_path, content, format="paragraphs") == (documents, {})


def test_a_file_is_a_document(tmp_path):
    files = {"a": b"\xef\xbb\xbfone\n\ntwo\n", "b": b"", "c": b" \n", "d": b"three"}
    corpus = corpus_of(tmp_path, files, format="files")
    assert read_all(corpus) == ([b"one\n\ntwo\n", b"three"], {"empty": 2})


def test_a_json_record_is_a_document(tmp_path):
    content = (
        b'\xef\xbb\xbf{"body": "one\\ntwo"}\r\n'
        b'{"body": null}\n{"body": 3}\n{"text": "x"}\n["body"]\n"body"\n'
        b'{"body": "x"\nnot json\n' + b"[" * 100_000 + b"\n"
        b'\n{"body": " "}\n'
        b'{"body": "\xff"}\n{"body": "\\ud800"}\n'
        b'{"body": "\\u00e9"}'
    )
    documents, reasons = read_one(tmp_path, content, "a.jsonl", field="body")
    assert [document.decode(errors="replace").strip("\ufffd") for document in documents] == [
        "one\ntwo",
        "",
        "",
        "é",
    ]
    assert reasons == {"missing_field": 5, "invalid_json": 3, "empty": 2, "invalid_utf8": 2}


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_a_parquet_row_is_a_document(tmp_path, kind):
    values = pa.array(["one", None, "", "two\nthree", "one"]).cast(kind)
    sink = pa.BufferOutputStream()
    table = pa.table({"id": range(5), "body": values})
    pq.write_table(table, sink, row_group_size=2)
    content = sink.getvalue().to_pybytes()
    documents, reasons = read_one(tmp_path, content, "a.parquet", field="body")
    assert documents == [b"one", b"two\nthree", b"one"]
    assert reasons == {"missing_field": 1, "empty": 1}


def test_a_parquet_error_names_the_columns(tmp_path):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1], "body": ["x"]}), sink)
    content = sink.getvalue().to_pybytes()
    with pytest.raises(SkipstreamError, match=r"a\.parquet has no column 'text', only 'id', 'bo"):
        read_one(tmp_path, content, "a.parquet")
    with pytest.raises(SkipstreamError, match="'id' of .*a.parquet must hold strings, got int64"):
        read_one(tmp_path, content, "a.parquet", field="id")
    with pytest.raises(SkipstreamError, match="corrupt or truncated parquet data in .*a.parquet"):
        read_one(tmp_path, content[:-20], "a.parquet", field="body")


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files_hold_the_same_documents(tmp_path, suffix):
    pack = PACK[suffix]
    files = {
        f"a.txt{suffix}": pack(b"\xef\xbb\xbfone\nt") + pack(b"wo\n"),  # members are one stream
        f"b.jsonl{suffix}": pack(b'{"text": "three"}\n'),
        f"c{suffix}": b"",
    }
    assert read_all(corpus_of(tmp_path, files)) == ([b"one", b"two", b"three"], {})


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_compressed_files_are_refused(tmp_path, suffix):
    text = random.Random(0).randbytes(3000).hex().encode() + b"\n"
    packed = PACK[suffix](text)
    damaged = {
        "truncated": packed[: len(packed) // 2],
        "trailer lost": packed[:-1],
        "second member truncated": packed + packed[:-1],
        "garbage behind": packed + b"garbage",
        "not compressed": b"plain text",
    }
    for content in damaged.values():
        with pytest.raises(SkipstreamError, match=rf"corrupt or truncated .* in .*/a\.txt{suffix}"):
            read_one(tmp_path, content, f"a.txt{suffix}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text".encode("utf-16"), "got UTF-16"),
        ("text".encode("utf-32"), "iconv -t UTF-8"),
        (b"\xfe\xff\0t", "got UTF-16"),
        (gzip.compress(b"text", mtime=0), "ends in .gz"),
        (b"PK\x03\x04\0", "ZIP archive"),
        (b"x" * 257 + b"ustar\0", "tar archive"),
    ],
)
def test_files_that_are_not_text_are_refused(tmp_path, content, message):
    with pytest.raises(SkipstreamError, match=rf"a\.txt must be UTF-8 text, .*{message}"):
        read_one(tmp_path, content)


def test_files_that_changed_since_the_listing_are_refused(tmp_path):
    corpus = corpus_of(tmp_path, {"a.txt": b"one\ntwo\n"})
    path = tmp_path / "corpus" / "a.txt"
    path.write_bytes(b"one\n")
    with pytest.raises(SkipstreamError, match=r"a\.txt is shorter than when it was listed"):
        read_all(corpus)
    path.unlink()
    with pytest.raises(SkipstreamError, match=r"a\.txt was listed and is gone now"):
        read_all(corpus)
    path.mkdir()
    with pytest.raises(SkipstreamError, match=r"cannot read .*a\.txt: Is a directory"):
        read_all(corpus)


def test_a_file_that_vanishes_while_it_is_read_can_be_skipped(tmp_path, monkeypatch):
    opened = reader._opened

    def meddle(path):
        file = opened(path)
        Path(path).unlink()  # Tried, it is whole; then it is opened again.
        return file

    monkeypatch.setattr(reader, "_opened", meddle)
    found = read_one(tmp_path, b"one\n", damaged_files="skip")
    assert found == ([], {"damaged_parts": 1})


def test_ranges_hold_each_line_once(tmp_path, monkeypatch):
    """Against a naive split, at all sizes of unit and chunk."""
    monkeypatch.setattr(units, "_FILE_BYTES", 0)
    random_ = random.Random(1)
    for _ in range(60):
        alphabet = [b"a", "é".encode(), b"\n", b"\n", b"\r\n", b" ", b"\xff"]
        texts = [b"".join(random_.choices(alphabet, k=random_.randrange(60))) for _ in range(3)]
        monkeypatch.setattr(units, "UNIT_BYTES", random_.randrange(1, 70))
        monkeypatch.setattr(reader, "CHUNK", random_.randrange(1, 20))
        monkeypatch.setattr(reader, "BLOCK_BYTES", random_.randrange(2, 40))
        corpus = corpus_of(tmp_path, {f"{i}.txt": text for i, text in enumerate(texts)})
        lines = [
            line.removesuffix(b"\r")
            for text in texts
            for line in text.removesuffix(b"\n").split(b"\n")
            if text
        ]
        documents, reasons = read_all(corpus)
        assert documents == [line for line in lines if line.strip()]
        assert reasons.get("empty", 0) == sum(not line.strip() for line in lines)


@pytest.mark.parametrize("format", ["lines", "paragraphs", "files"])
def test_chunks_leave_no_trace(tmp_path, monkeypatch, format):
    random_ = random.Random(2)
    for _ in range(25):
        text = b"".join(random_.choices([b"ab", b"\n", b"\n", b" ", b"\r\n"], k=60)) + b"x"
        corpus = corpus_of(tmp_path, {"a": text, "b.gz": gzip.compress(text)}, format=format)
        monkeypatch.setattr(reader, "CHUNK", 2**20)
        whole = read_all(corpus)
        monkeypatch.setattr(reader, "CHUNK", random_.randrange(1, 30))
        assert read_all(corpus) == whole
        assert whole[0][: len(whole[0]) // 2] == whole[0][len(whole[0]) // 2 :]


@pytest.mark.parametrize("format", ["lines", "paragraphs", "files"])
def test_long_documents_are_cut_at_white_space(tmp_path, monkeypatch, format):
    monkeypatch.setattr(reader, "LONGEST", 100)
    monkeypatch.setattr(reader, "CHUNK", 16)
    words = [b"word%d" % number for number in range(100)]
    text = b" ".join(words) + b"\n\nshort\n"
    documents, reasons = read_one(tmp_path, text, format=format)
    assert b" ".join(documents).split() == [*words, b"short"]
    assert max(map(len, documents)) <= 100 + 16
    assert reasons["cut"] >= 6


def test_long_records_are_dropped_and_those_behind_them_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LONGEST", 100)
    monkeypatch.setattr(reader, "CHUNK", 16)
    records = [{"text": "one"}, {"text": "{} " * 200}, {"text": "two"}, {"text": "x" * 300}]
    content = "\n".join(map(json.dumps, records)).encode()
    assert read_one(tmp_path, content, "a.jsonl") == ([b"one", b"two"], {"too_long": 2})


def test_long_rows_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LONGEST", 10)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["one two three four", "東京東京東京"]}), sink)
    documents, reasons = read_one(tmp_path, sink.getvalue().to_pybytes(), "a.parquet")
    texts = [document.decode() for document in documents]
    assert texts == ["one two ", "three four", "東京東", "京東京"]
    assert reasons == {"cut": 2}


def test_a_line_of_50_mb_is_one_document(tmp_path):
    line = b"word " * 10_000_000
    documents, reasons = read_one(tmp_path, b"first\n" + line + b"\nlast\n")
    assert list(map(len, documents)) == [5, 50_000_000, 4]
    assert reasons == {}


def test_blocks_are_about_a_mebibyte(tmp_path):
    files = {"large.txt": (b"x" * 99 + b"\n") * 60_000}
    files |= {f"small{i}.txt": b"y" * 999 for i in range(2000)}
    (unit,) = units.plan(units.Listing.load(corpus_of(tmp_path, files)))
    blocks = list(reader.read(unit))
    sizes = [block.counts["bytes"] for block in blocks]
    assert sum(sizes) == 60_000 * 99 + 2000 * 999
    assert all(2**19 <= size <= 2**20 + 2**19 for size in sizes[:-1])


def test_paragraph_pieces_stay_in_their_chunk_order():
    chunks = [formats.Chunk(b"one\n", False), formats.Chunk(b"two\n\nthree", False)]
    found = [b.documents.to_pylist() for b in formats.paragraphs(iter(chunks), longest=99)]
    assert sum(found, []) == [b"one two", b"three"]
