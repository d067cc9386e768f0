"""Vectors written by gensim are read back; what is no such file is refused."""

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from components import word2vec_files
from components.errors import SkipstreamError

WORDS = ["naïve", "東京", "don't", "x"]
VECTORS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_gensims_files_are_read(tmp_path: Path, binary: bool, packed: bool) -> None:
    file = tmp_path / "vectors"
    keyed = KeyedVectors(5)
    keyed.add_vectors(WORDS, VECTORS)
    keyed.save_word2vec_format(file, binary=binary)
    if packed:
        with file.open("rb") as plain, gzip.open(tmp_path / "vectors.gz", "wb") as gz:
            shutil.copyfileobj(plain, gz)
        file = tmp_path / "vectors.gz"
    [(ids, vectors)] = word2vec_files.read(file, {"x": 3, "東京": 8, "absent": 1}, 5)
    assert ids == [8, 3]
    np.testing.assert_allclose(vectors, VECTORS[[1, 3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with a line of its number of words and of dimensions"),
        (b"the 0.1 0.2\n", "must begin with a line"),
        (b"1 3\na 1 2 3\n", "must have trainer.dimensions = 2, got 3"),
        (b"2 2\na 1 2\n", "must hold 2 words of 2 numbers each, got 1 that are whole"),
        (b"2 2\na 1 2\nb 1\n", "got 1 that are whole"),
        (b"2 2\na 1 2\nb 1 x\n", "got 1 that are whole"),
        (b"1 2\na \x00\x01\x02\xff\x00\x01\x02", "got 0 that are whole"),
        (b"1 2\na 1 nan\n", "must hold finite numbers, got others for 'a'"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_bytes(content)
    with pytest.raises(SkipstreamError, match=re.escape(message)):
        list(word2vec_files.read(file, {"a": 0, "b": 1}, 2))


def test_a_binary_vector_may_begin_with_a_line_end(tmp_path: Path) -> None:
    file = tmp_path / "vectors.bin"
    vector = np.frombuffer(b"\n\0\0?\0\0\0?", "<f4")
    file.write_bytes(b"1 2\nin " + vector.tobytes())
    [(_, vectors)] = word2vec_files.read(file, {"in": 0}, 2)
    assert vectors.tolist() == [vector.tolist()]


def test_a_word_may_hold_spaces_and_a_line_end_as_on_windows(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_bytes(b"2 2\r\nnew york 1 2\r\nb 3 4\r\n")
    [(ids, vectors)] = word2vec_files.read(file, {"new york": 0, "b": 1}, 2)
    assert (ids, vectors.tolist()) == ([0, 1], [[1, 2], [3, 4]])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match="absent.txt cannot be read: No such file"):
        list(word2vec_files.read(tmp_path / "absent.txt", {}, 2))
