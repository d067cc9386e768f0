"""Files -> blocks of documents: every format, every compression, and what real files do."""

import bz2
import gzip
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from components.artifacts import Corpus
from components.errors import SkipstreamError
from components.example_gen import formats, reader, units, unpacking
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
        (b"one\rtwo\r\rthree\r", [b"one", b"two", b"three"], {"empty": 1}),
        (b"one\r\r\ntwo\r\r\n", [b"one", b"two"], {}),
        (b"\n \t\none", [b"one"], {"empty": 2}),
        (b"a\0b\n\0\nc", [b"a\0b", b"\0", b"c"], {"nul": 2}),
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
        (b"one\rtwo\r\r \r\rthree", [b"one two", b"three"]),
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


def test_without_json_records_there_are_no_documents(tmp_path, monkeypatch):
    """Neither in an empty file nor in a piece in which no line begins."""
    assert read_one(tmp_path, b"", "a.jsonl") == ([], {})
    monkeypatch.setattr(units, "UNIT_BYTES", 64)
    content = b'{"text": "%s"}\n{"text": "two"}' % (b"x" * 300)
    assert read_one(tmp_path, content, "a.jsonl") == ([b"x" * 300, b"two"], {})


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("members", [["", ""], ["", "one\n"], ["one\n", "", "", "two\n", ""]])
def test_members_of_a_packed_file_may_hold_nothing(tmp_path, suffix, members):
    stored = b"".join(PACK[suffix](member.encode()) for member in members)
    documents, reasons = read_one(tmp_path, stored, f"a.txt{suffix}")
    assert (documents, reasons) == ("".join(members).encode().split(), {})
    with pytest.raises(SkipstreamError, match="corrupt or truncated"):
        read_one(tmp_path, stored + b"more", f"a.txt{suffix}")


def test_a_json_record_is_a_document(tmp_path):
    content = (
        b'\xef\xbb\xbf{"body": "one\\ntwo"}\r\n'
        b'{"body": null}\r{"body": 3}\n{"text": "x"}\n["body"]\n"body"\n'
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
    assert reasons == {
        "missing_field": 3,
        "not_text": 1,
        "invalid_json": 3,
        "empty": 3,
        "invalid_utf8": 2,
    }


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
    assert reasons == {"empty": 2}


def test_a_parquet_error_names_the_columns(tmp_path):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1], "body": ["x"]}), sink)
    content = sink.getvalue().to_pybytes()
    with pytest.raises(
        SkipstreamError, match=r"no column 'text', only .* --set example_gen.field=body"
    ):
        read_one(tmp_path, content, "a.parquet")
    with pytest.raises(SkipstreamError, match="'id' of .*a.parquet must hold strings, got int64"):
        read_one(tmp_path, content, "a.parquet", field="id")
    with pytest.raises(SkipstreamError, match="corrupt or truncated parquet data in .*a.parquet"):
        read_one(tmp_path, content[:-20], "a.parquet", field="body")
    start, _, end = content.rpartition(b"\x18\x02id")
    with pytest.raises(SkipstreamError, match="corrupt or truncated parquet data in .*a.parquet"):
        read_one(tmp_path, start + b"\x18\x02\xe9d" + end, "a.parquet", field="body")
    with pytest.raises(SkipstreamError, match=r"a\.parquet must be a Parquet file, got .* text"):
        read_one(tmp_path, b"one\ntwo\n", "a.parquet")


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
    }
    for content in damaged.values():
        with pytest.raises(SkipstreamError, match=rf"corrupt or truncated .* in .*/a\.txt{suffix}"):
            read_one(tmp_path, content, f"a.txt{suffix}")


def test_compressed_files_that_hold_something_else_are_refused(tmp_path):
    packed, text = gzip.compress(b"one\n", mtime=0), b"one\ntwo\n"
    for name, content, what in [
        ("a.gz", text, "gzip data, as its name says, got what looks like text: take .gz off"),
        ("a.zst", text, "zstd data, as its name says, got what looks like text: take .zst off"),
        ("a.bz2", packed, "bz2 data, as its name says, got gzip data: .* ends in .gz"),
        ("a.zst", bytes(range(256)), "zstd data, as its name says, got binary data"),
    ]:
        with pytest.raises(SkipstreamError, match=rf"/{name} must hold {what}"):
            read_one(tmp_path, content, name)
        (tmp_path / "corpus" / name).unlink()
    for content, what in [(b"x" * 257 + b"ustar\0", "a tar archive"), (packed, "gzip data")]:
        with pytest.raises(SkipstreamError, match=rf"a\.gz, unpacked, .* got {what}: unpack it"):
            read_one(tmp_path, gzip.compress(content), "a.gz")


def test_zeros_behind_gzip_data_are_no_damage(tmp_path, monkeypatch):
    """As tapes and object stores pad files; gzip(1) reads them, too."""
    for read in (1, 7, 2**18):
        monkeypatch.setattr(unpacking, "_READ", read)
        for zeros in (1, 3, 600):
            padded = (gzip.compress(b"one\n") + bytes(zeros)) * 2
            assert read_one(tmp_path, padded, "a.gz") == ([b"one", b"one"], {})
    with pytest.raises(SkipstreamError, match="a.gz .what follows its end is no gzip data"):
        read_one(tmp_path, padded + b"garbage", "a.gz")


def test_a_zstd_file_that_needs_too_much_memory_comes_with_the_command(tmp_path):
    # A frame by hand, with a window of 2 GB and one raw block: to make one takes that memory.
    content = b"one\ntwo\n"
    block = (len(content) << 3 | 1).to_bytes(3, "little") + content
    frame = b"\x28\xb5\x2f\xfd\x00\xa8" + block
    with pytest.raises(SkipstreamError, match="at most 128 MB of memory") as caught:
        read_one(tmp_path, frame, "a.txt.zst")
    folder = tmp_path / "corpus"
    (command,) = re.findall("`(.+?)`", str(caught.value))
    assert command == f"zstd -d --long=31 {folder}/a.txt.zst -o {folder}/a.txt"
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    (folder / "a.txt.zst").unlink()
    assert read_all(corpus_of(tmp_path, {})) == ([b"one", b"two"], {})


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
        alphabet = [b"a", "é".encode(), b"\n", b"\n", b"\r\n", b"\r", b" ", b"\xff"]
        texts = [b"".join(random_.choices(alphabet, k=random_.randrange(60))) for _ in range(3)]
        monkeypatch.setattr(units, "UNIT_BYTES", random_.randrange(1, 70))
        monkeypatch.setattr(reader, "CHUNK", random_.randrange(1, 20))
        monkeypatch.setattr(reader, "BLOCK_BYTES", random_.randrange(2, 40))
        corpus = corpus_of(tmp_path, {f"{i}.txt": text for i, text in enumerate(texts)})
        split = [re.split(rb"\r?\r?\n|\r", text) for text in texts]
        lines = [line for found in split for line in (found if found[-1] else found[:-1])]
        documents, reasons = read_all(corpus)
        assert documents == [line for line in lines if line.strip()]
        assert reasons.get("empty", 0) == sum(not line.strip() for line in lines)


@pytest.mark.parametrize("format", ["lines", "paragraphs", "files", "csv", "tsv"])
def test_chunks_leave_no_trace(tmp_path, monkeypatch, format):
    random_ = random.Random(2)
    for _ in range(25):
        pieces = [b"ab", b"\n", b"\n", b" ", b"\r\n", b"\r", b'"\n"', b",", b"\t"]
        text = b"id,text\n" + b"".join(random_.choices(pieces, k=60)) + b'"\nx'
        text = text.replace(b'"', b"") if format != "csv" or text.count(b'"') % 2 else text
        files = {"a": text, "b.gz": gzip.compress(text)}
        corpus = corpus_of(tmp_path, files, format=format, field="id")
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
