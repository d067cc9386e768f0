"""What reads files of others: none of them runs code, or fills the memory or the disk.

docs/security.md has the table; `test_untrusted_places.py` is about buckets, directories and output.
"""

import bz2
import gzip
import io
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import phrases, word2vec_files
from components.artifacts import Model
from components.errors import SettingsError, SkipstreamError
from components.example_gen import formats, json_lines, reader, tables, unpacking
from components.example_gen.units import Piece, Rules, Unit
from components.exporter import tensor_bundle
from components.exporter.embeddings import Embeddings
from components.phrases import Phrases
from components.transform.segment_ref import SegmentRef
from pipeline import config

SOURCES = Path(__file__).parents[1]


class Bomb:
    """A pickle of it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled() -> None:
    # Each of these runs what its input says.
    runs_code = re.compile(
        r"pickle\.loads?\(|Unpickler|allow_pickle|load_model\(|yaml\.|marshal\.|shelve\.|joblib|"
        r"\beval\(|\bexec\(|shell=True|os\.system\(|extractall\("
    )
    found = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for folder in ("components", "pipeline", "skipstream")
        for path in (SOURCES / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if runs_code.search(
            line.replace("fasttext.load_model", "").replace("load_facebook_model", "")
        )
    ]
    assert not found


def test_a_pickle_in_a_table_of_vectors_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    np.save(tmp_path / "vectors.npy", np.array([Bomb(made)], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        _ = Model(tmp_path, "1").dimensions
    assert not made.exists()


def test_a_segment_travels_without_pickle() -> None:
    seen = np.array([True, False, False, True, False, False, False, False, True])
    sent = SegmentRef(3, 1, "gs://bucket/a b.arrow", reused=True, phrases="p", duplicates=seen)
    got = SegmentRef.from_bytes(sent.to_bytes())
    assert got.duplicates is not None
    np.testing.assert_array_equal(got.duplicates, seen)
    assert (got.unit, got.number, got.path, got.reused, got.phrases) == (3, 1, sent.path, True, "p")
    bare = SegmentRef(0, 0, "x", reused=False)
    assert SegmentRef.from_bytes(bare.to_bytes()) == bare


# --- Files of a corpus.


def read(path: Path, most: float, **how: Any) -> int:
    """Documents of a file whose bytes may unpack to `most` bytes each."""
    piece = Piece(str(path), 0, path.stat().st_size, how["format"], how.get("compression"))
    rules = Rules("text", True, 0.5, False, skip_damaged=False, max_expansion=most)
    return sum(len(block.documents) for block in reader.read(Unit(0, (piece,), rules)))


def compressed(compression: str) -> Callable[[bytes], bytes]:
    if compression == "zstd":
        return lambda content: pa.compress(content, "zstd", asbytes=True)
    return {"gzip": gzip.compress, "bz2": bz2.compress}[compression]


@pytest.mark.parametrize("compression", ["gzip", "bz2", "zstd"])
def test_a_bomb_is_refused_unless_the_setting_allows_it(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FREE", 2**20)
    path = tmp_path / "bomb.txt.gz"
    path.write_bytes(compressed(compression)(b"a\n" * 2**21))
    how = {"format": "lines", "compression": compression}
    with pytest.raises(SkipstreamError, match=r"at most 200 times .*example_gen.max_expansion"):
        read(path, 200, **how)
    assert read(path, 1e9, **how) == 2**21


def test_a_small_monotonous_file_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "same.txt.gz"
    path.write_bytes(gzip.compress(b"the same line\n" * 50_000))
    assert read(path, 1, format="lines", compression="gzip") == 50_000


def test_a_dictionary_of_parquet_is_no_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 20,000 rows that are one value: what Arrow gives for all of them at once may not fit.
    path = tmp_path / "bomb.parquet"
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["ab " * 2**12])
    pq.write_table(pa.table({"text": rows}), path)
    with pytest.raises(SkipstreamError, match=r"example_gen.max_expansion"):
        read(path, 200, format="parquet")

    sizes: list[int] = []
    whole = tables._column
    monkeypatch.setattr(tables, "_BATCH_BYTES", 2**20)
    monkeypatch.setattr(
        tables, "_column", lambda column, *how: sizes.append(column.nbytes) or whole(column, *how)
    )  # type: ignore[func-returns-value]
    assert read(path, 1e9, format="parquet") == 20_000
    assert max(sizes) < 2**21


def test_a_row_of_csv_ends_somewhere() -> None:
    chunks = [formats.Chunk(b'id,text\n1,one\n"' + b'a\n","' * 1000, cut=False)] * 3
    found = tables.delimited(iter(chunks), path="a.csv", field="text", tabs=False, longest=500)
    with pytest.raises(SkipstreamError, match="must close each quote"):
        list(found)


@pytest.mark.parametrize("line", ["[" * 10**6, '{"a":' * 10**6, "9" * 10**6])
def test_json_of_any_depth_is_counted(line: str) -> None:
    chunk = formats.Chunk(f'{{"text": "one"}}\n{line}\n'.encode(), cut=False)
    (block,) = json_lines.records([chunk], path="a.jsonl", field="text")
    assert block.documents.to_pylist() == [b"one"]
    assert block.counts["invalid_json"] == 1


@pytest.mark.parametrize(
    "sample",
    [
        b" " * 2**16, b"<!-- x --> " * 6000, b"<!--" * 16_000, b'{"a": ' * 10_000, b'"' * 2**16,
        b"<?xml " * 10_000, b"<p " * 20_000, b"\\" * 2**16, b'{"a' * 20_000, b"a,b,c\n" * 10_000,
        b'[{"a": [' * 8_000, b"\xff\x80" * 2**15,
    ],
)  # fmt: skip
def test_no_beginning_of_a_file_takes_long_to_judge(sample: bytes, tmp_path: Path) -> None:
    for format in ("lines", "jsonl", "csv"):
        path = tmp_path / f"a.{format}"
        path.write_bytes(sample)
        began = time.process_time()
        try:
            read(path, 200, format=format)
        except SkipstreamError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
        assert time.process_time() - began < 10  # A pattern that tries all ways takes hours.


# --- Files of vectors and models.


def vectors_of(path: Path) -> list[Any]:
    return list(word2vec_files.read(path, {"king": 0}, 2))


@pytest.mark.parametrize(
    "content",
    [
        b"king 1 2\n" + b"a" * 2**22,  # A line without an end.
        b"1 2\n" + b"a" * 2**22,  # A word without an end.
        b"9" * 5000 + b" 2\nking 1 2\n",
        b"9" * 30 + b" 2\nking 1 2\n",
    ],
)
def test_start_vectors_cannot_fill_the_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vectors.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(SkipstreamError) as caught:
        vectors_of(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def entry(shared: int, own: bytes, value: bytes) -> bytes:
    return varint(shared) + varint(len(own)) + varint(len(value)) + own + value


def index_of(*entries: bytes, times: int = 1) -> bytes:
    """A checkpoint's index of a block of entries, which stands in the index `times` times."""

    def block(content: bytes) -> bytes:
        content += struct.pack("<II", 0, 1)
        checksum = google_crc32c.value(content + b"\0")
        masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
        return content + b"\0" + struct.pack("<I", masked)

    data = block(b"".join(entries))
    handle = varint(0) + varint(len(data) - 5)
    index = block(b"".join(entry(0, b"k%d" % number, handle) for number in range(times)))
    footer = varint(0) * 2 + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


HEADER = entry(0, b"", b"\x08\x01")  # One shard.
SHAPE = b"\x12\x1a" + 2 * (b"\x12\x0b\x08" + varint(2**63)[:9] + b"\x01")  # 2^63 x 2^63


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (index_of(HEADER, *(entry(n, b"a", b"") for n in range(2000))), "longer than"),
        (index_of(HEADER, *(entry(0, b"%06d" % n, b"") for n in range(20_000))), "more than"),
        (index_of(HEADER, entry(0, b"a", b""), times=2), "not in order"),
        (index_of(HEADER, entry(0, b"a", b"\x08\x01" + SHAPE)), "cut off"),
        (index_of(HEADER)[:-1], "cut off"),
    ],
)
def test_an_index_of_a_checkpoint_cannot_fill_the_memory(
    content: bytes, why: str, tmp_path: Path
) -> None:
    (tmp_path / "variables.index").write_bytes(content)
    (tmp_path / "variables.data-00000-of-00001").write_bytes(b"\0" * 8)
    with pytest.raises(ValueError, match=why):
        tensor_bundle.read(tmp_path / "variables")


def test_a_link_to_a_device_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "variables.index").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no file"):
        tensor_bundle.read(tmp_path / "variables")
    (tmp_path / "saved_model.pb").symlink_to("/dev/zero")
    with pytest.raises(SkipstreamError):
        Embeddings.load(tmp_path)


@pytest.mark.parametrize("number", ["1000000000000", "0", "-1", "5", "1_0"])
def test_phrases_have_few_passes(number: str) -> None:
    content = phrases.HEADER + f"{number} new york\t5\t1.0\n".encode()
    with pytest.raises(ValueError, match="the pass"):
        Phrases.parse(content)


def test_settings_cannot_be_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(SettingsError, match=r"settings\.toml .*nested"):
        config.load(path)
    with pytest.raises(SettingsError):
        config.load(None, ["trainer.epochs=" + "[" * 100_000])


def test_a_stream_of_empty_gzip_members_ends() -> None:
    empty = gzip.compress(b"")
    limit = unpacking.Limit("a.gz", 10, 1.0)
    file = io.BytesIO(empty * 20_000)
    assert b"".join(unpacking.unpacked(file, "a.gz", "gzip", 2**20, limit)) == b""
