"""What is not text is refused by what is in it, and the command that a message prints mends it."""

import bz2
import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.errors import SkipstreamError
from components.example_gen import reader, units
from components.example_gen.units import Listing
from components.transform import limits
from pipeline.notices import notices

NOISE = random.Random(0).randbytes(3000)
GERMAN = ["Der Bäcker in München kauft süße Äpfel", "Die Straße führt über die Brücke"]
RUSSIAN = ["Мама мыла раму, а папа читал газету", "Собака бежит по улице и лает на кошку"]
JAPANESE = ["私は毎朝コーヒーを飲みます。猫が庭で寝ています。", "東京は日本の首都です。"]
CHINESE = ["我每天早上喝咖啡。猫在花园里睡觉。", "北京是中国的首都。"]


def listing_of(*paths: Path, format: str = "auto", most_invalid: float = 0.1) -> Listing:
    files = tuple((str(path), path.stat().st_size) for path in paths)
    times = (None,) * len(files)
    return Listing(files, (), format, "text", 0.0, "fail", {}, 0.01, most_invalid, times)


def read_all(listing: Listing) -> tuple[list[bytes], dict[str, int]]:
    """The documents and the counts of a corpus, judged as a whole as well."""
    documents: list[bytes] = []
    counts: Counter[str] = Counter()
    for unit in units.plan(listing):
        for block in reader.read(unit):
            documents += block.documents.to_pylist()
            counts.update(block.counts)
    limits.check(counts, listing)
    return documents, {name: n for name, n in counts.items() if name not in ("documents", "bytes")}


def refused(path: Path, **options: float) -> str:
    with pytest.raises(SkipstreamError) as caught:
        read_all(listing_of(path, **options))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def commands_in(message: str) -> list[str]:
    return re.findall("`(.+?)`", message)


def run_in_c(command: str, directory: Path) -> list[Path]:
    """The files that a command adds to a directory, as the plainest of shells runs it."""
    for program in re.findall(r"(?:^|\| )(\w+)", command):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    before = set(directory.iterdir())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run(["sh", "-c", command], env=environment, cwd=directory)
    assert done.returncode == 0 or "iconv -c" in command  # Some fail where they drop bytes.
    return sorted(set(directory.iterdir()) - before)


def zip_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def tar_of() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return file.getvalue()


def arrow_of() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": ["one"]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def npy_of() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(9))
    return file.getvalue()


BINARY = {
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\n" + NOISE,
    "a Word document": zip_of(_rels__rels=b"<r/>", word__document=b"<w>text</w>"),
    "an Excel workbook": zip_of(_rels__rels=b"<r/>", xl__workbook=b"<w>text</w>"),
    "an EPUB book": b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/epub+zip",
    "an OpenDocument": b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument",
    "a ZIP archive": zip_of(a=b"one"),
    "an old Office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99),
    "an RTF document": b"{\\rtf1\\ansi one two}",
    "a PNG image": b"\x89PNG\r\n\x1a\n" + NOISE,
    "a JPEG image": b"\xff\xd8\xff\xe0\x00\x10JFIF" + NOISE,
    "a WebP image": b"RIFF\x24\x00\x00\x00WEBPVP8 " + NOISE,
    "audio, a video": b"\0\0\0\x20ftypisom" + NOISE,
    "a program": b"\x7fELF\x02\x01\x01" + bytes(99),
    "an SQLite database": b"SQLite format 3\0" + bytes(99),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c" + NOISE,
    "xz data": b"\xfd7zXZ\0" + NOISE,
    "a tar archive": tar_of(),
    "gzip data": gzip.compress(b"one"),
    "bzip2 data": bz2.compress(b"one"),
    "pickled or NumPy data": pickle.dumps(["one"]),
    "pickled or NumPy": npy_of(),
    "a table in Arrow's": arrow_of(),
    "a Parquet file": b"PAR1\x15\x04",
    "binary data": zlib.compress(NOISE),
    "binary": b"".join(bytes([byte, 0, 0]) for byte in NOISE),
}


@pytest.mark.parametrize("what", BINARY)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_binary_files_are_refused_by_their_content(tmp_path: Path, what: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BINARY[what])
    assert f"{path} must be UTF-8 text, got {what}" in refused(path)
    assert f"got {what}" in refused(path, format="lines")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<p>one", "an HTML page"),
        (b"<html lang='en'>one", "an HTML page"),
        (b"<!-- saved\nfrom -->\n <!---->\n<!DOCTYPE html>\n<p>one", "an HTML page"),
        (b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC 'x'>\n<p>one", "an HTML page"),
        (b"<title>A</title>\n<p>one <b>two</b>\n<p>three</p>\n", "an HTML page"),
        (b"<div class='a'><p>one</p>\n<p>two</p>\n</div>\n", "an HTML page"),
        (b"<mediawiki xmlns='x'>\n<page>one", "a MediaWiki dump"),
        (b"<?xml version='1.0'?>\n<a>one</a>", "an XML file"),
        (b'id,text,label\n1,"one, two",x\n2,three four,y\n', "what looks like CSV: give --set exa"),
        (b'"1","one, two","x"\n"2","three four","y"\n"3","4","5"\n', "what looks like CSV"),
        (b"id;text;n\n1;one two;0,5\n2;three, four;1\n", "what looks like CSV"),
        (b'id\ttext\tn\n1\tone\t2\n2\t"three\t4\n', "what looks like TSV"),
        (b"WARC/1.0\r\nWARC-Type: response\r\n", "a WARC file"),
        (b'{"text": "one"}\n{"text": "two"}\n', "JSON: give --set example_gen.format=jsonl"),
        (b'{\n "text": "one"\n}\n', "JSON: give --set example_gen.format=jsonl"),
    ],
)
def test_mark_up_is_refused_unless_the_format_is_set(
    tmp_path: Path, content: bytes, what: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert f"got {what}" in refused(path)
    documents, _ = read_all(listing_of(path, format="lines"))
    assert b" ".join(documents).split() == content.removeprefix(b"\xef\xbb\xbf").split()


@pytest.mark.parametrize(
    "text",
    [
        "Names of files such as <html> or %PDF-1.4 in a line.\n",
        "\x1b[32mgreen\x1b[0m\tand\x0ca page\n",
        '<doc id="12" url="x" title="A">\nA\n</doc>\n',
        "{curly} [and] square\n",
        "<user> hello </p> <a> hi\n",
        "<p> one, and no other tag: a < b\n",
        "<a> hello, how are you?\n",
        "<!-- a note --> text\n",
        "<!-- many --> <!-- notes --> " * 20 + "\n",
        "PK, BM, ORC, MZ, GIF and ID3 are words, RIFF too\n",
        "BMW\n",
        "one, two, three\nfour, five, six\nseven, eight, nine\n",
        "red,green,blue\nsix,seven,eight\n",
        "veni; vidi; vici\nhe came; he saw; he won\n",
        '"Yes," he said, "I am," and left, so\n',
        "A cat sat on the mat\tEine Katze\nA dog ran\tEin Hund\n",
        "\t\tindented verse\n\t\tby two tabs\n",
        "It was the best of times,\nit was the worst of times, it was, in short, an age\n",
        "日本語の文章。\n",
    ],
)
def test_text_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode() * 50)
    documents, reasons = read_all(listing_of(path))
    assert documents == text.encode().removesuffix(b"\n").split(b"\n") * 50
    assert reasons == {}


def test_pages_are_refused_by_name_unless_the_format_is_set() -> None:
    for name in ("a.html", "a.HTM", "a.xhtml.gz"):
        with pytest.raises(SkipstreamError, match=r"is a web page, .* set example_gen\.format"):
            units.detect(name, "auto")
        assert units.detect(name, "files")[0] == "files"


@pytest.mark.parametrize(
    ("lines", "python", "iconv"),
    [
        (GERMAN, "utf-16", "UTF-16"),
        (GERMAN, "utf-32", "UTF-32"),
        (GERMAN, "utf-16-le", "UTF-16LE"),
        (RUSSIAN, "utf-16-be", "UTF-16BE"),
        (CHINESE, "utf-16-be", "UTF-16BE"),
        (CHINESE, "utf-32-le", "UTF-32LE"),
        (GERMAN, "latin-1", "CP1252"),
        (RUSSIAN, "cp1251", "CP1251"),
        (RUSSIAN, "koi8-r", "KOI8-R"),
        (JAPANESE, "shift_jis", "CP932"),
        (JAPANESE, "euc-jp", "EUC-JP"),
        (JAPANESE, "iso2022_jp", "ISO-2022-JP"),
        (CHINESE, "gb18030", "GB18030"),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_text_in_another_encoding_comes_with_the_command_that_converts_it(
    tmp_path: Path, lines: list[str], python: str, iconv: str, end: str
) -> None:
    path = tmp_path / "it's a file.txt"
    path.write_bytes((end.join(lines * 40) + end).encode(python))
    (command,) = commands_in(refused(path))
    assert command.startswith(f"iconv -f {iconv} -t UTF-8 '")
    (converted,) = run_in_c(command, tmp_path)
    assert converted.name == "it's a file.utf8.txt"
    documents, reasons = read_all(listing_of(converted))
    assert [document.decode() for document in documents] == lines * 40
    assert reasons == {}


def test_a_compressed_file_in_another_encoding_is_unpacked_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    text = "id;text\r\n" + "".join(f"{n};{line}\r\n" for n, line in enumerate(GERMAN * 40))
    path.write_bytes(gzip.compress(text.encode("latin-1")))
    (command,) = commands_in(refused(path))
    (converted,) = run_in_c(command, tmp_path)
    documents, _ = read_all(listing_of(converted))
    assert [document.decode() for document in documents] == GERMAN * 40


def test_the_share_of_invalid_utf8_decides(tmp_path: Path) -> None:
    good, bad = (GERMAN[0] + "\n").encode(), (GERMAN[1] + "\n").encode("latin-1")
    few, many, all_ = (tmp_path / name for name in ("few.txt", "many.txt", "all.txt"))
    few.write_bytes(good * 99 + bad)
    many.write_bytes(good * 80 + bad * 20)
    all_.write_bytes(bad * 100)
    assert read_all(listing_of(few))[1] == {"invalid_utf8": 1}
    message = refused(many)
    assert "at most 10.0% of the documents may hold invalid UTF-8 (example_gen.max_i" in message
    assert f"got 20.0%; {many} mixes UTF-8 and what looks like CP1252" in message
    assert "all.txt must be UTF-8 text, and of its first 100 lines 100 are not" in refused(all_)
    for path, count in [(many, 20), (all_, 100)]:
        assert read_all(listing_of(path, most_invalid=1))[1] == {"invalid_utf8": count}


def test_damaged_utf8_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    line = "Müller läuft über die Brücke".encode()
    path.write_bytes((line + b" \xff\n" + line + b"\n") * 50)
    message = refused(path)
    assert "is UTF-8 with damaged bytes" in message
    (repaired,) = run_in_c(*commands_in(message), tmp_path)
    assert read_all(listing_of(repaired)) == ([line + b" ", line] * 50, {})


def test_the_first_file_with_too_much_invalid_utf8_is_named(tmp_path: Path) -> None:
    """Each is too small to be refused by itself."""
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    paths[0].write_bytes(b"one\n" * 30 + b"\xe4\n")
    paths[1].write_text("two\n" * 30)
    paths[2].write_bytes("Häuser über Flüsse\n".encode("latin-1") * 20)
    with pytest.raises(SkipstreamError, match=r"; .*2\.txt looks like CP1252"):
        read_all(listing_of(*paths))


def test_nul_bytes_are_repaired_where_they_are_few(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one two\n" * 999 + b"thr\0ee\n")
    documents, reasons = read_all(listing_of(path))
    assert (len(documents), reasons) == (1000, {"nul": 1})
    path.write_bytes(b"one two three\0" * 99)
    (command,) = commands_in(refused(path))
    (clean,) = run_in_c(command, tmp_path)
    assert read_all(listing_of(clean))[0] == [b"one two three"] * 99
    clean.unlink()
    path.write_bytes(b"one\0two three\n" * 99)
    (command,) = commands_in(refused(path))
    (clean,) = run_in_c(command, tmp_path)
    assert read_all(listing_of(clean))[0] == [b"one two three"] * 99


@pytest.mark.parametrize("name", ["a b.json", "a.jsonl", "a.json.gz"])
@pytest.mark.parametrize("kind", ["array", "array in one line", "objects", "object"])
def test_json_that_is_not_a_record_a_line_comes_with_the_commands(
    tmp_path: Path, name: str, kind: str
) -> None:
    records = [{"id": number, "text": text, "more": {}} for number, text in enumerate(RUSSIAN)]
    text = {
        "array": json.dumps(records, indent=2, ensure_ascii=False),
        "array in one line": json.dumps(records),
        "objects": "\n".join(json.dumps(record, indent=4) for record in records),
        "object": json.dumps(records[0], indent=2),
    }[kind]
    expected = RUSSIAN[:1] if kind == "object" else RUSSIAN
    path = tmp_path / name
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    commands = commands_in(refused(path))
    assert len(commands) == 2  # with jq, and without
    for command in reversed(commands):
        (made,) = run_in_c(command, tmp_path)
        documents, reasons = read_all(listing_of(made))
        assert [document.decode() for document in documents] == expected
        assert reasons == {}
        made.unlink()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"id": "7", "body": "one two"}, "no field 'text', only 'id', 'body': --set example_gen.f"),
        ({"text": 7}, r"field 'text' holds a number \('7'\), expected a string"),
        ({"text": {"en": "one"}}, r"field 'text' holds an object \(of 'en'\), expected a string"),
        (["one"], "a line that holds a list, expected an object with a field 'text'"),
    ],
)
def test_records_without_text_say_what_they_hold(tmp_path: Path, record: object, said: str) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps(record) + "\n"
    path.write_text('{"text": "first"}\n' + line)
    message = refused(path)
    assert re.search(rf"got 50.0% \(1 \w+\): in .*a\.jsonl, for example, {said}", message)
    if isinstance(record, dict):  # At once, where there is no other.
        path.write_text(line * 100)
        assert re.search(rf"none of its first 100 does: {said}", refused(path))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["a.json", "it's.jsonl"])
@pytest.mark.parametrize(
    "content",
    [
        {"data": [{"text": "one"}, {"text": "two\nlines"}]},
        {"version": 1, "my data's": [{"text": "one"}, {"text": "two\nlines"}]},
        ["one", "two\nlines"],
        {"doc": {"text": "one\ntwo\nlines"}},
        {"id": "a", "doc": {"text": "one\ntwo\nlines", "id": "one two three four five six"}},
    ],
)
def test_json_that_holds_its_texts_further_in_comes_with_the_commands(
    tmp_path: Path, content: object, name: str, indent: int | None
) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(content, indent=indent))
    for number in range(2):  # with jq, and without
        made = path
        for _ in range(2):  # Lines that span several, and then what is nested.
            (made,) = run_in_c(commands_in(refused(made))[number], tmp_path)
            if "doc" not in str(content) or indent is None or ".lines.lines" in made.name:
                break
            made = made.rename(tmp_path / "b.lines.jsonl")
        documents, reasons = read_all(listing_of(made))
        assert (b"\n".join(documents), reasons) == (b"one\ntwo\nlines", {})
        made.unlink()
        for file in set(tmp_path.iterdir()) - {path}:
            file.unlink()


def test_a_long_list_of_records_is_known_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"n": 1, "data": [{"text": f"text {n}"} for n in range(9999)]}))
    assert "whose field 'data' holds the records" in refused(path)
    record = {"tags": [{"id": n} for n in range(9999)], "text": "one"}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert read_all(listing_of(path))[0] == [b"one"]


def test_what_was_repaired_or_left_out_is_told_above_a_share() -> None:
    statistics = {
        "documents": 10_000,
        "documents_dropped": {"empty": 30_000, "invalid_csv": 40, "no_token": 6000},
        "documents_repaired": {"invalid_utf8": 10, "nul": 0, "cut": 0},
        "files_skipped": {"directory": 1},
        "splits": {"eval": {"documents": 100}},
    }
    assert notices(statistics) == [
        "74.9 % of the documents (30,000 of 40,040) are empty: if that is no intention, check "
        "example_gen.format and example_gen.field",
        "60.0 % of the documents (6,000 of 10,000) hold no word: check that they are text, and "
        "transform.tokenizer",
    ]
    statistics |= {
        "documents_dropped": {"invalid_csv": 60},
        "documents_repaired": {"invalid_utf8": 11, "nul": 1, "cut": 11},
        "files_skipped": {"damaged_parts": 2},
        "splits": {"eval": {"documents": 0}},
    }
    assert notices(statistics) == [
        "0.60 % of the documents (60 of 10,060) are rows that are no CSV of the header's width: "
        "quote what holds the delimiter; left out",
        "0.11 % of the documents (11 of 10,000) hold invalid UTF-8, which is read as separators: "
        "convert what is in another encoding with iconv",
        "0.11 % of the documents (11 of 10,000) are beyond 64 MiB, and were cut: set "
        "example_gen.format to what separates documents",
        "0.01 % of the documents (1 of 10,000) hold NUL bytes, which are read as spaces",
        "2 files, or parts of large ones, could not be read and were left out: the warnings of the "
        "run that read them name them",
        "no document is held out, so nothing tells what is learned from what is learned by heart: "
        "give more documents, or raise example_gen.eval_share",
    ]


def test_the_notice_on_invalid_utf8_has_the_command_that_converts_the_file(tmp_path: Path) -> None:
    paths = tmp_path / "good.txt", tmp_path / "bad.txt"
    paths[0].write_text("\n".join(GERMAN * 500))
    paths[1].write_bytes(f"{GERMAN[0]}\n".encode("latin-1") * 20)
    listing = listing_of(*paths)
    documents, counts = read_all(listing)
    statistics = {
        "documents": len(documents),
        "documents_dropped": {},
        "documents_repaired": {"invalid_utf8": counts["invalid_utf8"]},
        "files_skipped": {},
        "splits": {"eval": {"documents": 9}},
        "advice": limits.advice(counts | {"documents": len(documents)}, listing),
    }
    (notice,) = notices(statistics)
    assert notice.startswith(
        "2.0 % of the documents (20 of 1,020) hold invalid UTF-8, which is read as separators: "
        f"{paths[1]} looks like CP1252"
    )
    (converted,) = run_in_c(*commands_in(notice), tmp_path)
    assert read_all(listing_of(converted))[0] == [GERMAN[0].encode()] * 20
    assert limits.advice({"documents": 1000, "invalid_utf8": 1}, listing) == {}
