"""Files of vectors that Hypothesis wrote, and harmed: read as written, or refused in one line."""

import gzip
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import strategies
from hypothesis import event, given
from hypothesis import strategies as st

from components import fasttext_files, word2vec_files
from components.errors import SkipstreamError
from components.subwords import Buckets, Subwords

MEMORY = 48 << 20  # bytes that reading a small file may take; a block has 16 MiB


@dataclass(frozen=True)
class Vectors:
    """A file of vectors that another program wrote.

    Attributes:
        stored: Its bytes on the disk.
        rows: Words with their vectors, in the order of the file.
    """

    stored: bytes
    rows: list[tuple[bytes, list[float]]]


DIMENSIONS = 3


@st.composite
def vector_files(draw: st.DrawFn) -> Vectors:
    """word2vec's text or binary, or GloVe's: words twice, with spaces, or not UTF-8, too."""
    kind = draw(st.sampled_from(["text", "binary", "glove"]))
    letters = strategies.texts("".join(map(chr, [*range(33), 0x7F])), max_size=5).map(str.encode)
    word = st.one_of(letters, st.sampled_from([b"a", b"the", b"12", b"-1.5", b"\xff", b"\xc3"]))
    word = word.filter(lambda some: some and some.strip() == some)
    if kind == "text":
        word = st.one_of(word, st.builds(b"%s %s".__mod__, st.tuples(word, word)))
    number = st.floats(-1e6, 1e6, width=32)
    vector = st.lists(number, min_size=DIMENSIONS, max_size=DIMENSIONS)
    rows = draw(st.lists(st.tuples(word, vector), min_size=1, max_size=6))
    head = b"%d %d\n" % (len(rows), DIMENSIONS)
    if kind == "binary":
        end = draw(st.sampled_from([b"", b"\n"]))
        lines = [w + b" " + struct.pack(f"<{DIMENSIONS}f", *v) + end for w, v in rows]
    else:
        end = draw(st.sampled_from([b"\n", b" \n", b"\r\n"]))
        lines = [w + b" " + b" ".join(b"%r" % n for n in v) + end for w, v in rows]
    stored = (b"" if kind == "glove" else head) + b"".join(lines)
    pack = draw(st.sampled_from(["", "", ".gz", ".bz2"]))
    return Vectors(strategies.PACK[pack](stored), rows)


_HEADS = [
    b"",
    b"x",
    b"1000000000000 3\n",
    b"-1 3\n",
    b"9" * 5000 + b" 3\n",
    b"3 " + b"9" * 5000 + b"\n",
]
_HEADS += [
    b"9" * 30 + b" 3\n",
    b"2 0\n",
    b"0 3\n",
    b"1 3\na nan 1 2\n",
    b"1 3\na 1 1e99 2\n",
    b"1 3\na inf 1 2",
]
_HEADS += [
    b"a 1 2\n",
    b"\xef\xbb\xbf1 3\na 1 2 3",
    b"1 3\na 1_0 2 3\n",
    b"a 1 2 e\n",
    b"a . - +\n",
    b"a 1 2 3\nb\n",
]


@st.composite
def harmed_vectors(draw: st.DrawFn) -> bytes:
    """A file of vectors that was cut or changed, or whose first line promises what is not there."""
    stored = bytearray(draw(vector_files()).stored)
    at = draw(st.integers(0, len(stored)))
    how = draw(st.sampled_from(["cut", "flip", "inside", "head"]))
    if how == "cut":
        stored = stored[:at]
    elif how == "flip":
        stored[at % len(stored)] ^= draw(st.integers(1, 255))
    elif how == "inside":
        stored[at:at] = draw(st.one_of(st.binary(max_size=5), strategies.odd_texts(5)))
    else:
        stored[: draw(st.sampled_from([0, 4]))] = draw(st.sampled_from(_HEADS))
    return bytes(stored)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors") / "vectors"


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def read(path: Path, wanted: dict[str, int]) -> dict[int, list[float]]:
    """Vectors by id."""
    word2vec_files.check(path, DIMENSIONS)
    found = {}
    for ids, vectors in word2vec_files.read(path, wanted, DIMENSIONS):
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        found |= dict(zip(ids, vectors.tolist(), strict=True))
    return found


def refuse(error: SkipstreamError, path: Path) -> None:
    assert len(str(error).splitlines()) == 1
    assert str(path) in str(error)
    event("refused")


@given(file=vector_files())
def test_vectors_are_read_as_they_were_written(path: Path, file: Vectors) -> None:
    path.write_bytes(file.stored)
    expected: dict[str, list[float]] = {}
    for word, vector in file.rows:
        expected.setdefault(word.decode("utf-8", "replace"), np.float32(vector).tolist())
    wanted = {word: id_ for id_, word in enumerate([*expected, "none of them"])}
    found = read(path, wanted)
    assert found == {wanted[word]: vector for word, vector in expected.items()}


@given(content=st.one_of(harmed_vectors(), st.binary(max_size=60)))
def test_harmed_vectors_are_read_or_refused_in_a_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with bounded_memory():
        try:
            read(path, {"a": 0, "the": 1, "12": 2})
        except SkipstreamError as error:
            refuse(error, path)


SUBWORDS = Subwords(2, 3, 7)


@st.composite
def fasttext_models(draw: st.DrawFn) -> bytes:
    """A small model, perhaps with numbers in its head that are not true, cut or changed."""
    words = [b"a", b"the", b"\xff", "東".encode()][: draw(st.integers(0, 4))]
    labels = draw(st.integers(0, 1))
    ngrams = draw(st.sampled_from([(2, 3), (0, 0)]))
    buckets = SUBWORDS.buckets if ngrams[0] else draw(st.integers(0, 2))
    numbers = [DIMENSIONS, 5, 1, 5, 5, 1, 2, 2, buckets, *ngrams, 100]
    head = [
        fasttext_files.MAGIC,
        12,
        *numbers,
        1e-4,
        len(words) + labels,
        len(words),
        labels,
        9,
        -1,
    ]
    huge = st.sampled_from([0, -1, 1, 2**31 - 1, -(2**31), 10**9])
    for place in draw(st.lists(st.integers(1, 18).filter(lambda place: place != 14), max_size=1)):
        head[place] = draw(huge)
    for place in draw(st.lists(st.sampled_from([15, 16]), max_size=1)):
        head[place] = min(head[place], 2**31 - 1)
    content = fasttext_files.HEAD.pack(*head)
    for word in words:
        content += word + b"\0" + fasttext_files.ENTRY.pack(3, 0)
    content += (b"__label__x\0" + fasttext_files.ENTRY.pack(1, 1)) * labels
    for rows in (len(words) + buckets, len(words)):
        content += fasttext_files.MATRIX.pack(False, rows, DIMENSIONS)
        content += np.arange(rows * DIMENSIONS, dtype="<f4").tobytes()
    how = draw(st.sampled_from(["", "cut", "flip", "inside"]))
    at = draw(st.integers(0, len(content)))
    if how == "cut":
        content = content[:at]
    elif how == "flip":
        content = content[: at - 1] + bytes([draw(st.integers(0, 255))]) + content[at:]
    elif how == "inside":
        content = content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]
    return gzip.compress(content, 1) if draw(st.booleans()) else content


@given(content=fasttext_models(), with_buckets=st.booleans())
def test_models_of_fasttext_are_read_or_refused_in_a_line(
    path: Path, content: bytes, with_buckets: bool
) -> None:
    path.write_bytes(content)
    if not fasttext_files.is_one(path):
        return
    wanted = {"a": 0, "東": 2}
    vectors = np.full((3, DIMENSIONS), 7, np.float32)
    contexts = vectors.copy()
    rows = np.zeros((SUBWORDS.buckets, DIMENSIONS), np.float32)
    buckets = Buckets(SUBWORDS, np.arange(SUBWORDS.buckets, dtype=np.int32), rows)
    given = buckets if with_buckets else None
    with bounded_memory():
        try:
            fasttext_files.check(path, DIMENSIONS, SUBWORDS if with_buckets else None)
            ids = fasttext_files.read(path, wanted, vectors, contexts, given)
        except SkipstreamError as error:
            refuse(error, path)
            ids = None
    if ids is None:
        return
    event("read")
    assert set(ids.tolist()) <= {0, 2}
    assert (np.delete(vectors, ids, axis=0) == 7).all()
    assert np.isfinite(vectors).all()
