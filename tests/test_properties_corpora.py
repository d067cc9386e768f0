"""Files that Hypothesis wrote, and harmed: what is read is what a naive reader reads."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import strategies
from hypothesis import event, given
from strategies import Stored

from components.errors import SkipstreamError
from components.example_gen import content, reader, tables, units
from components.example_gen.build import find
from components.settings import ExampleGenSettings

BLANK = b" \t\n\r\v\f"


@pytest.fixture(scope="module", autouse=True)
def small_slices() -> Iterator[None]:
    """Small files have several units, chunks and blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT_BYTES", 64)
        patch.setattr(reader, "BLOCK_BYTES", 50)
        for module in (reader, tables):
            patch.setattr(module, "CHUNK", 23)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def read(folder: Path, file: Stored, **settings: str) -> tuple[list[bytes], Counter[str]]:
    """The documents, and how many were dropped or repaired, by reason."""
    path = folder / file.name
    path.write_bytes(file.stored)
    try:
        chosen = {"format": file.format, **settings}
        _, listing = find(ExampleGenSettings(input=(f"{folder}/*",), **chosen))
        blocks = [block for unit in units.plan(listing) for block in reader.read(unit)]
    finally:
        path.unlink()
    documents = [document for block in blocks for document in block.documents.to_pylist()]
    counts = sum((Counter(block.counts) for block in blocks), Counter())
    assert counts.pop("documents", 0) == len(documents)
    assert counts.pop("bytes", 0) == sum(map(len, documents))
    assert all(document.strip(BLANK) for document in documents)
    return documents, counts


def lines_of(text: bytes) -> list[bytes]:
    """Lines, ended as on any system; the last one may lack its end."""
    lines = re.split(rb"\r?\r\n|\n|\r", text)
    return lines if lines[-1] else lines[:-1]


def naive_lines(text: bytes) -> tuple[list[bytes], int]:
    lines = lines_of(text)
    return [line for line in lines if line.strip(BLANK)], 0


def naive_paragraphs(text: bytes) -> tuple[list[bytes], int]:
    paragraphs: list[list[bytes]] = [[]]
    for line in lines_of(text):
        if line.strip(b" \t\v\f"):
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    return [b" ".join(lines).strip(BLANK) for lines in paragraphs if lines], 0


def naive_files(text: bytes) -> tuple[list[bytes], int]:
    return ([text] if text.strip(BLANK) else []), 0


def naive_json_lines(text: bytes) -> tuple[list[bytes], int]:
    documents, unreadable = [], 0
    for line in lines_of(text):
        if not line.decode("utf-8", "replace").strip():
            continue
        try:
            value = json.loads(line.decode("utf-8", "surrogateescape"))["text"]
        except (ValueError, RecursionError, LookupError, TypeError):
            unreadable += 1
            continue
        if isinstance(value, str):
            try:
                documents.append(value.encode())
            except UnicodeEncodeError:
                documents.append(value.encode("utf-8", "surrogatepass"))
        else:
            unreadable += value is not None
    return [document for document in documents if document.strip(BLANK)], unreadable


def naive_parquet(stored: bytes) -> tuple[list[bytes], int]:
    column = pq.read_table(io.BytesIO(stored), columns=["text"])["text"]
    values = column.cast(pa.string()).cast(pa.binary()).to_pylist()
    return [value for value in values if value and value.strip(BLANK)], 0


NAIVE = {
    "lines": naive_lines,
    "paragraphs": naive_paragraphs,
    "files": naive_files,
    "jsonl": naive_json_lines,
}


def refusal(error: SkipstreamError, folder: Path) -> str:
    """What a refusal says: one line that names the file."""
    said = str(error)
    assert "\n" not in said and said.isprintable() | (len(said.splitlines()) == 1)
    assert str(folder / "a.") in said
    return said


@given(file=strategies.whole_files())
def test_whole_files_are_read_as_a_naive_reader_does(folder: Path, file: Stored) -> None:
    event(f"{file.format} {strategies.suffix_of(file.name)}")
    sample = file.content.removeprefix(b"\xef\xbb\xbf")
    try:
        documents, counts = read(folder, file)
    except SkipstreamError as error:
        refusal(error, folder)
        event("refused")
        assert content.kind_of(sample) or file.format == "jsonl"
        return
    unreadable = sum(counts[reason] for reason in reader.UNREADABLE)
    if file.documents is None:
        expected, expected_unreadable = NAIVE[file.format](sample)
        assert documents == expected
        assert unreadable == expected_unreadable
    else:
        found = [document.decode().strip() for document in documents]
        written = [text.strip() for text in file.documents]
        assert [text for text in found if text] == [text for text in written if text]
        assert not unreadable
        assert counts["empty"] + len(found) == len(written)
    if file.format in ("lines", "jsonl"):  # Nothing is lost but what is counted.
        assert len(documents) + counts["empty"] + unreadable == len(lines_of(sample))


@given(file=strategies.harmed_files())
def test_harmed_files_are_refused_or_read_as_they_are(folder: Path, file: Stored) -> None:
    event(f"{file.format} {strategies.suffix_of(file.name)} {file.harmed}")
    try:
        sample = strategies.unpack(file.stored, strategies.suffix_of(file.name))
        whole = True
    except strategies.UNPACK_ERRORS:
        whole = False
    sample = sample.removeprefix(b"\xef\xbb\xbf") if whole else b""
    try:
        documents, counts = read(folder, file)
    except SkipstreamError as error:
        refusal(error, folder)
        event("refused")
        documents, counts = read(folder, file, damaged_files="skip")
        assert counts[reader.DAMAGED] >= 1
        return
    assert whole
    if naive := NAIVE.get(file.format):
        assert (documents, sum(counts[reason] for reason in reader.UNREADABLE)) == naive(sample)


@given(file=strategies.whole_files())
def test_documents_that_are_cut_lose_nothing(folder: Path, file: Stored) -> None:
    if file.format not in ("lines", "paragraphs", "files"):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "LONGEST", 16)
        documents, counts = read(folder, file)
    sample = file.content.removeprefix(b"\xef\xbb\xbf")
    assert b"".join(documents).translate(None, BLANK) == sample.translate(None, BLANK)
    # A chunk may be read before a line, or a paragraph, is found to be too long.
    assert max(map(len, documents), default=0) <= 2 * (16 + 23)
    event(f"cut: {bool(counts['cut'])}")
