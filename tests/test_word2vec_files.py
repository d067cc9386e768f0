"""Vectors written by gensim are read back, and GloVe's; what is no such file is refused."""

import bz2
import gzip
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors, Word2Vec

from components import word2vec_files
from components.errors import SkipstreamError

WORDS = ["naïve", "東京", "don't", "x"]
VECTORS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def keyed() -> KeyedVectors:
    vectors = KeyedVectors(5)
    vectors.add_vectors(WORDS, VECTORS)
    return vectors


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress])
def test_gensims_files_are_read(
    tmp_path: Path, binary: bool, pack: Callable[[bytes], bytes] | None
) -> None:
    file = tmp_path / "vectors"
    keyed().save_word2vec_format(file, binary=binary)
    if pack:
        file.write_bytes(pack(file.read_bytes()))
    [(ids, vectors)] = word2vec_files.read(file, {"x": 3, "東京": 8, "absent": 1}, 5)
    assert ids == [8, 3]
    np.testing.assert_allclose(vectors, VECTORS[[1, 3]], rtol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        b"the 1 2\nnew york 3 4\n7 5 6\n",
        b"\xef\xbb\xbf3 2\r\nthe 1 2\r\nnew york 3 4\r\n7 5 6\r\n",
        b"the\t1\t2\nnew york\t3e0\t4.\n7\t5\t+6",
        b"3 2\nthe 1 2 \nnew york 3 4 \n7 5 6 \n",  # fastText ends lines with a space.
        b"the 1 2\nnew york 3 4\nthe 9 9\n7 5 6\n\n",  # The first of two counts.
        b"\xef\xbb\xbfthe 1 2\nx 0 y\nnew york 3 4\n7 5 6\n",  # Nobody wants x.
    ],
)
def test_text_is_read_with_a_first_line_of_sizes_or_without(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "vectors.txt"
    file.write_bytes(content)
    [(ids, vectors)] = word2vec_files.read(file, {"the": 0, "new york": 1, "7": 2}, 2)
    assert (ids, vectors.tolist()) == ([0, 1, 2], [[1, 2], [3, 4], [5, 6]])
    word2vec_files.check(file, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path} is empty"),
        (
            b"some text\n",
            "{path} must begin with the number of words and of dimensions, as word2vec's files do, "
            "or with a word and its numbers, as GloVe's, got 'some text'",
        ),
        (
            b"1 3\na 1 2 3\n",
            "the vectors of {path} must have trainer.dimensions = 2, got 3: give others, or --set "
            "trainer.dimensions=3",
        ),
        (b"a 1 2 3\n", "the vectors of {path} must have trainer.dimensions = 2, got 3: "),
        (
            b"2 2\na 1 2\n",
            "{path} must hold 2 words of 2 numbers each, as its first line says, got 1 that are "
            "whole: fetch or write it again",
        ),
        (b"2 2\na 1 2\nb 1\n", "{path}:3 must be a word and 2 numbers, got 'b 1'"),
        (b"a 1 2\n\nb 1\n", "{path}:3 must be a word and 2 numbers, got 'b 1'"),
        (b"2 2\na 1 2\nb 1 x\n", "{path}:3 must have numbers alone, got '1 x'"),
        (b"1 2\na 1 nan\n", "{path}:2 must have finite numbers, got nan"),
        (b"1 2\na 1 1e39\n", "{path}:2 must have finite numbers, got inf"),
        (b"%d 2\n" % 10**12, "{path} must hold 1000000000000 words of 2 numbers each, as its "),
        (b"9" * 19 + b" 2\n", "the vectors of {path} must have trainer.dimensions = 2, got 1: "),
        (b"2 " + b"9" * 5000, "the vectors of {path} must have trainer.dimensions = 2, got 1: "),
        (b"1 2\na \x00\x01\x02\xff\x00\x01\x02", "{path} must hold 1 words of 2 numbers each, as "),
        (b"1 2\na \0\0\x80\x7f\0\0\0\0", "word 1 of {path} must have finite numbers, got inf"),
        (b"\x93NUMPY\1\0v\0", "{path} is of numpy, and no format of words and vectors: "),
        (b"PK\3\4", "{path} is packed in a way that is not read here: unzip '{path}'"),
        (b"\x28\xb5\x2f\xfd", "{path} is packed in a way that is not read here: unzstd '{path}'"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "my vectors.txt"
    file.write_bytes(content)
    with pytest.raises(SkipstreamError, match=f"^{re.escape(message.format(path=file))}"):
        list(word2vec_files.read(file, {"a": 0, "b": 1}, 2))


def test_a_binary_vector_may_begin_with_a_line_end(tmp_path: Path) -> None:
    file = tmp_path / "vectors.bin"
    vector = np.frombuffer(b"\n\0\0?\0\0\0?", "<f4")
    file.write_bytes(b"1 2\nin " + vector.tobytes())
    [(_, vectors)] = word2vec_files.read(file, {"in": 0}, 2)
    assert vectors.tolist() == [vector.tolist()]


@pytest.mark.parametrize("what", ["vectors", "model"])
def test_what_gensim_pickled_is_written_anew_as_told(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a b's"
    model = Word2Vec([WORDS * 9], vector_size=5, min_count=1, workers=1)
    (model if what == "model" else model.wv).save(str(path))
    with pytest.raises(SkipstreamError, match="is a pickle; if gensim saved it: ") as caught:
        word2vec_files.check(path, 5)
    # In this process, which has gensim: loading it takes seconds.
    python, option, program, *arguments = shlex.split(str(caught.value).partition("saved it: ")[2])
    assert (python, option) == ("python", "-c")
    monkeypatch.setattr(sys, "argv", [option, *arguments])
    exec(program, {})
    [(_, found)] = word2vec_files.read(tmp_path / "a b's.word2vec", {"東京": 0}, 5)
    np.testing.assert_array_equal(found, model.wv.vectors[[model.wv.key_to_index["東京"]]])


def test_a_packed_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vectors.gz"
    file.write_bytes(gzip.compress(b"1 2\na 1 2\n")[:-9])
    with pytest.raises(SkipstreamError, match="vectors.gz cannot be read: Compressed file ended"):
        list(word2vec_files.read(file, {"a": 0}, 2))


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match="absent.txt cannot be read: No such file"):
        list(word2vec_files.read(tmp_path / "absent.txt", {}, 2))
    with pytest.raises(SkipstreamError, match=r"takes files, .*: .* --set trainer.warm_start=/"):
        word2vec_files.check(tmp_path, 2)
