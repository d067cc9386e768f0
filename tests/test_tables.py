"""CSV and TSV as programs write them: a document a row, whatever stands in it."""

import csv
import io
import random
from pathlib import Path

import pytest

from components.errors import SkipstreamError
from components.example_gen import formats, tables
from components.example_gen.units import Listing, detect, plan

MORE = "x" * 70_000  # makes a file longer than the sample that its form is judged by


def read(
    content: str | bytes, *, field: str = "text", tabs: bool = False, longest: int = 2**20
) -> tuple[list[str], dict[str, int]]:
    text = content.encode() if isinstance(content, str) else content
    stream = formats.newlines([text[i : i + 9] for i in range(0, len(text), 9)])
    chunks = formats.carve(stream, by_line=True, longest=longest)
    documents: list[str] = []
    counts: dict[str, int] = {}
    for block in tables.delimited(chunks, path="a.csv", field=field, tabs=tabs, longest=longest):
        documents += [document.decode(errors="replace") for document in block.documents.to_pylist()]
        for name, count in block.counts.items():
            if count:
                counts[name] = counts.get(name, 0) + count
    return documents, counts


@pytest.mark.parametrize(
    ("content", "documents", "counts"),
    [
        ("id,text\n1,one\n2,two\n", ["one", "two"], {}),
        ("id,text\r\n1,one\r\n2,two", ["one", "two"], {}),
        ("id,text\r1,one\r2,two\r", ["one", "two"], {}),
        ('id,text,label\n1,"one, ""two""\nthree",x\n', ['one, "two"\nthree'], {}),
        ("id;text;price\n1;one, two;0,5\n", ["one, two"], {}),
        ("id\ttext\n1\tone, two\n", ["one, two"], {}),
        ("id|text\n1|one, two\n", ["one, two"], {}),
        ("sep=;\r\nid;text\r\n1;one\r\n", ["one"], {}),
        ("text\none, two\n\nthree; four\n", ["one, two", "three; four"], {"empty": 1}),
        ('"id","a;b;c","text"\n1,2,one\n', ["one"], {}),
        ("id, text\n1, one\n2, \"two, three\"\n", ["one", "two, three"], {}),
        ("ID,Text \n1,one\n", ["one"], {}),
        ('id,text\n1,"one \\"two\\", three"\n', ['one "two", three'], {}),
        ("id,text\n1,one\n2\n3,three,more\n", ["one"], {"invalid_csv": 2}),
        ("id,text\n4,four,\n5,\n", ["four"], {"empty": 1}),
        ("\n\nid,text\n1,one\n", ["one"], {}),
        ("id,text\n1,one\0two\n", ["one\0two"], {}),
        ("id,text\n", [], {}),
        ("", [], {}),
        ("\n \n", [], {}),
        ("id,text\n1,é\n".encode() + b"2,\xe9\n", ["é", "\ufffd"], {}),
    ],
)  # fmt: skip
def test_a_row_is_a_document(content: str, documents: list[str], counts: dict[str, int]) -> None:
    assert read(content) == (documents, counts)


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_pythons_writer_writes_is_read(delimiter: str, quoting: int, end: str) -> None:
    draw = random.Random(f"{delimiter}{quoting}")
    pieces = ["one", "zwei", "三", " ", ",", ";", "\t", "|", '"', "\n", "'", "\\n"]
    texts = ["".join(draw.choices(pieces, k=draw.randrange(1, 20))).strip() for _ in range(300)]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(["id", "label", "text"])
    writer.writerows([number, "a", text] for number, text in enumerate(texts))
    documents, counts = read(file.getvalue(), tabs=delimiter == "\t")
    assert documents == [text for text in texts if text]
    assert counts == ({"empty": texts.count("")} if "" in texts else {})


@pytest.mark.parametrize("content", ['"a"b\n', '"a"b', '\n"a"b\ntext\none\n'])
def test_a_header_that_is_no_csv_is_refused(content: str) -> None:
    with pytest.raises(
        SkipstreamError, match="^a.csv must begin with a header, got '\"a\"b', which"
    ):
        read(content)


def test_quotes_between_tabs_are_letters_if_they_make_no_sense_otherwise() -> None:
    rows = ['1\t"Well," he said\n', "2\tno quote\n", '3\t"left open\n']
    text = "id\ttext\n" + "".join(rows)
    assert read(text, tabs=True) == (['"Well," he said', "no quote", '"left open'], {})
    assert read(text + f"4\t{MORE}\n", tabs=True)[0][:2] == ['"Well," he said', "no quote"]
    quoted = 'id\ttext\n1\t"one\ttwo\nthree"\n'
    assert read(quoted, tabs=True) == (["one\ttwo\nthree"], {})


def test_a_value_that_crosses_the_end_of_the_sample_stays_whole() -> None:
    for delimiter in ",\t":
        text = f'id{delimiter}text\n1{delimiter}"{MORE}\n{MORE}"\n2{delimiter}two\n'
        assert read(text) == ([f"{MORE}\n{MORE}", "two"], {})


def test_a_quote_that_is_not_closed_is_an_error_that_names_the_line() -> None:
    text = 'id,text\n1,one\n2,"two\n' + "3,three\n" * 9
    with pytest.raises(SkipstreamError, match=r"a\.csv must close each quote .* behind line 2 is"):
        read(text)
    with pytest.raises(SkipstreamError, match=r"behind line 2 is not closed"):
        read(text + "4,four\n" * 999, longest=1000)


def test_rows_that_a_stray_quote_spoils_are_counted() -> None:
    rows = [f'{number},"text {number}"\n' for number in range(9)]
    rows[3] = '3,"text 3\n'
    documents, counts = read("id,text\n" + "".join(rows))
    assert documents == [f"text {number}" for number in (0, 1, 2, 5, 6, 7, 8)]
    assert counts == {"invalid_csv": 2}


def test_a_missing_column_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(SkipstreamError) as caught:
        read("id,body,Text,TEXT\n1,one two three,two,three\n")
    assert str(caught.value) == (
        "a.csv has no column 'text', only 'id', 'body', 'Text', 'TEXT': give the "
        "one that holds the text, such as --set example_gen.field=body; if its first line is no "
        "header, write one above it, or give --set example_gen.format=lines to read all of it as "
        "text"
    )
    with pytest.raises(SkipstreamError, match="no column 'text', only '1', 'The first of all the"):
        read('1,"The first of all the reviews, which is long indeed"\n2,"second, short"\n')
    with pytest.raises(SkipstreamError, match=r"such as --set 'example_gen\.field=the body'; if"):
        read("id,the body\n1,one two\n2\n")
    with pytest.raises(SkipstreamError, match=r": set example_gen\.field to the one that holds"):
        read("id,body\n")


def test_names_say_that_a_file_is_a_table_and_it_is_read_as_a_whole(tmp_path: Path) -> None:
    assert detect("a.CSV.gz", "auto") == ("csv", "gzip")
    assert detect("a.tsv", "auto") == ("tsv", None)
    listing = Listing((("a.csv", 10**9),), (), "auto", "text", 0.0, "fail", {}, 0.01, 0.1, (None,))
    (unit,) = plan(listing)
    assert [(piece.start, piece.stop, piece.format) for piece in unit.pieces] == [(0, 10**9, "csv")]
