"""Files that fastText's own library, and gensim, wrote; and such that were damaged."""

import gzip
import random
import re
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gensim.models import FastText
from gensim.models.fasttext import save_facebook_model

from components import fasttext_files
from components.errors import SkipstreamError
from components.subwords import Buckets, Subwords

fasttext = pytest.importorskip("fasttext", reason="fasttext-numpy2, of the dev extra, is not there")

WORDS = ["naïve", "東京", "cat", "dogs", "a", "👩x", "running", *(f"w{i}" for i in range(22))]
UNKNOWN = ["cats", "東京都", "unheard", "👩", "b"]
IDS = {word: 2 * id_ for id_, word in enumerate([*UNKNOWN, *reversed(WORDS)])}
KNOWN = [IDS[word] for word in WORDS]
SUBWORDS = Subwords(2, 5, 170)  # With the words and `</s>` 200 rows.
HEAD = 92


def train(path: Path, **settings: Any) -> Any:
    """A model at `path`, of a text with labels."""
    rng = random.Random(1)
    lines = [" ".join(rng.choices([*WORDS, "__label__x"], k=10)) + "\n" for _ in range(100)]
    text = path.with_suffix(".txt")
    text.write_text("".join(lines), encoding="utf-8")
    shape = {"minn": SUBWORDS.shortest, "maxn": SUBWORDS.longest, "bucket": SUBWORDS.buckets}
    # Each thread fills a tenth of the matrix at the start; with fewer, the rest is not set.
    common = {"dim": 3, "minCount": 1, "epoch": 2, "t": 1, "verbose": 0, "thread": 10, "lr": 0.5}
    model = fasttext.train_unsupervised(str(text), **{**shape, **common, **settings})
    model.save_model(str(path))
    return model


@pytest.fixture(scope="module", params=[3, 100])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("fasttext") / "model.bin"
    return path, train(path, dim=request.param)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fasttext") / "model.bin"
    train(path)
    return path.read_bytes()


@pytest.fixture(params=[1 << 24, 100])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one block, and many of them."""
    monkeypatch.setattr(fasttext_files, "_BLOCK_BYTES", request.param)
    monkeypatch.setattr(fasttext_files, "_BLOCK_NGRAMS", request.param)


@pytest.fixture(params=["plain", "packed"])
def write(request: pytest.FixtureRequest) -> Callable[[Path, bytes], None]:
    def write(path: Path, content: bytes) -> None:
        path.write_bytes(gzip.compress(content, 1) if request.param == "packed" else content)

    return write


def table(dimensions: int) -> np.ndarray:
    return np.full((2 * len(IDS), dimensions), 7, np.float32)


def read(path: Path, buckets: Buckets | None = None) -> None:
    fasttext_files.read(path, IDS, table(3), table(3), buckets)


def words_of(model: Any, words: list[str]) -> np.ndarray:
    return np.stack([model.get_word_vector(word) for word in words])


@pytest.mark.usefixtures("blocks")
def test_without_ngrams_words_start_from_whole_vectors(
    trained: Any, write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    source, model = trained
    write(tmp_path / "model", source.read_bytes())
    vectors = table(model.get_dimension())
    assert len(fasttext_files.read(tmp_path / "model", IDS, vectors)) == len(WORDS)
    np.testing.assert_allclose(vectors[KNOWN], words_of(model, WORDS), atol=1e-6)
    assert (np.delete(vectors, KNOWN, axis=0) == 7).all()


@pytest.mark.usefixtures("blocks")
def test_with_ngrams_words_start_from_their_own_parts(
    trained: Any, write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    source, model = trained
    write(tmp_path / "model", source.read_bytes())
    ids = np.arange(0, SUBWORDS.buckets, 3, dtype=np.int32)
    vectors, contexts = table(model.get_dimension()), table(model.get_dimension())
    buckets = Buckets(SUBWORDS, ids, np.zeros((len(ids), model.get_dimension()), np.float32))
    known = fasttext_files.read(tmp_path / "model", IDS, vectors, contexts, buckets)
    assert len(known) == len(WORDS)
    rows = [model.get_word_id(word) for word in WORDS]
    inputs, outputs = model.get_input_matrix(), model.get_output_matrix()
    np.testing.assert_array_equal(vectors[KNOWN], inputs[rows])
    np.testing.assert_array_equal(contexts[KNOWN], outputs[rows])
    np.testing.assert_array_equal(buckets.rows, inputs[len(model.get_words()) :][ids])
    for other in vectors, contexts:
        assert (np.delete(other, KNOWN, axis=0) == 7).all()


def test_buckets_make_the_vectors_of_fasttext_for_unknown_words(trained: Any) -> None:
    source, model = trained
    ids = np.arange(SUBWORDS.buckets, dtype=np.int32)
    rows = np.zeros((len(ids), model.get_dimension()), np.float32)
    vectors, buckets = table(model.get_dimension()), Buckets(SUBWORDS, ids, rows)
    fasttext_files.read(source, IDS, vectors, buckets=buckets)
    np.testing.assert_allclose(buckets.compose(UNKNOWN), words_of(model, UNKNOWN), atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"model": "cbow"}, {"loss": "hs"}, {"minn": 0, "maxn": 0}, {"minn": 6}]
)
def test_any_model_that_learned_from_text_alone_is_read(tmp_path: Path, settings: Any) -> None:
    model = train(tmp_path / "model", **settings)
    vectors, contexts = table(3), table(3)
    fasttext_files.check(tmp_path / "model", 3, None)
    fasttext_files.read(tmp_path / "model", IDS, vectors, contexts)
    np.testing.assert_allclose(vectors[KNOWN], words_of(model, WORDS), atol=1e-6)
    # Hierarchical softmax has vectors of inner nodes there.
    assert (contexts == 7).all() == ("loss" in settings)


def test_what_gensim_wrote_is_read(tmp_path: Path) -> None:
    model = FastText([WORDS] * 9, vector_size=3, min_count=1, workers=1, bucket=40, epochs=1)
    save_facebook_model(model, str(tmp_path / "model"))
    vectors = table(3)
    assert len(fasttext_files.read(tmp_path / "model", IDS, vectors)) == len(WORDS)
    np.testing.assert_allclose(vectors[KNOWN], model.wv[WORDS], atol=1e-6)


def test_words_that_are_no_utf8_are_read_over(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(content.replace("naïve\0".encode(), b"na\xff\xffve\0"))
    known = fasttext_files.read(path, {**IDS, "na\ufffd\ufffdve": 1}, table(3))
    assert len(known) == len(WORDS) - 1


def test_what_is_no_model_of_fasttext_is_told_from_one(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model"
    assert not fasttext_files.is_one(path)
    for start, found in ((b"", False), (b"3 2\nthe 1 2\n", False), (content, True)):
        for packed in (start, gzip.compress(start)):
            path.write_bytes(packed)
            assert fasttext_files.is_one(path) == found


def borders(content: bytes) -> Iterator[int]:
    """Where the parts of a file end."""
    words, labels = struct.unpack_from("<4x2i", content, HEAD - 28)
    yield 8
    yield 64
    yield (place := HEAD)
    for _ in range(words + labels):
        yield (place := content.index(b"\0", place) + 1)
        yield (place := place + 9)
    for rows in (words + SUBWORDS.buckets, words):
        yield (place := place + 17)
        yield place + 4 * 3 * words
        yield (place := place + 4 * 3 * rows)
    assert place == len(content)


def test_a_file_that_was_cut_gets_one_line(
    content: bytes, write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    lengths = {border + step for border in borders(content) for step in (-1, 0, 1)}
    for length in sorted(lengths - {len(content)}):
        write(path, (content + b"\0")[:length])
        said = rf"{path} must be a whole model of fastText, got .*: fetch or write it again"
        for wanted in IDS, {}:  # Nothing is read, but read over.
            with pytest.raises(SkipstreamError) as caught:
                fasttext_files.read(path, wanted, table(3))
            assert re.fullmatch(said, str(caught.value)), length


def test_a_packed_file_that_was_cut_gets_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model"
    packed = gzip.compress(content, 1)
    for length in (20, len(packed) // 2, len(packed) - 8, len(packed) - 1):
        path.write_bytes(packed[:length])
        with pytest.raises(SkipstreamError, match=f"^{path} cannot be read: Compressed file ended"):
            read(path)


@pytest.mark.parametrize("places", [[8], [40], [64, 68], [64, 72], [68], [40, 64, 68]])
def test_sizes_that_cannot_be_take_no_memory(
    content: bytes, places: list[int], write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    # Dimensions; buckets; entries with words, and with labels; words.
    path, changed = tmp_path / "model", bytearray(content)
    for place in places:
        struct.pack_into("<i", changed, place, 2**31 - 1)
    write(path, bytes(changed))
    tracemalloc.start()
    try:
        with pytest.raises(SkipstreamError):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


def number(place: int, value: float, format: str = "<i") -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        struct.pack_into(format, changed, place % len(content), value)
        return bytes(changed)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (number(4, 13), "{path} must have the version 11 or 12 of fastText's format, got 13: "),
        (number(36, 3), "{path} must be a model of fastText's skipgram or cbow, got one of "),
        (number(84, 0, "<q"), "{path} must hold all numbers as they were trained, got a quantised"),
        (number(-17 - 4 * 3 * 30, 1, "<B"), "{path} must hold all numbers as they were trained, "),
        (number(8, 4), "the vectors of {path} must have trainer.dimensions = 3, got 4: give "),
        (number(40, 0), "{path} must be a whole model of fastText, got n-grams without buckets: "),
        (number(72, -1), "{path} must be a whole model of fastText, got 31 entries, 30 words, -1 "),
        (number(48, 21), "the n-grams of {path} must have at most 20 characters, got 21: give the"),
        (number(-8, np.nan, "<f"), "row 30 of the contexts of {path} must have finite numbers, "),
        (
            number(-4 * 3 * 31 - 17, np.inf, "<f"),
            "row 170 of the buckets of {path} must have finite numbers, got inf: fetch or train it",
        ),
        (
            number(-4 * 3 * 229 - 17, np.nan, "<f"),
            "row 2 of the words of {path} must have finite numbers, got nan: fetch or train it "
            "again",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused(
    content: bytes, change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(change(content))
    with pytest.raises(SkipstreamError, match=f"^{re.escape(message.format(path=path))}"):
        read(path)


def test_version_11_is_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(number(4, 11)(content))
    assert len(fasttext_files.read(path, IDS, table(3))) == len(WORDS)


@pytest.mark.parametrize("quantised", [False, True])
def test_classifiers_are_refused(tmp_path: Path, quantised: bool) -> None:
    path, text = tmp_path / "model", tmp_path / "text"
    text.write_text("".join(f"__label__{i % 2} w{i}\n" for i in range(300)))
    model = fasttext.train_supervised(str(text), dim=10, minCount=1, thread=10, verbose=0)
    if quantised:
        model.quantize()
    model.save_model(str(path))
    with pytest.raises(SkipstreamError, match="got one of supervised"):
        fasttext_files.check(path, 10, None)


@pytest.mark.parametrize(
    ("wanted", "settings", "got"),
    [
        (Subwords(3, 6, 170), {}, "2, 5 and 170"),
        (Subwords(2, 5, 171), {}, "2, 5 and 170"),
        (Subwords(2, 5, 170), {"minn": 0, "maxn": 0}, "a model without"),
    ],
)
def test_other_ngrams_are_refused_with_the_settings_for_them(
    tmp_path: Path, wanted: Subwords, settings: Any, got: str
) -> None:
    path = tmp_path / "model"
    train(path, **settings)
    shape = (0, 0, 170) if settings else SUBWORDS
    with pytest.raises(SkipstreamError) as caught:
        fasttext_files.check(path, 3, wanted)
    assert str(caught.value) == (
        f"the n-grams of {path} must have trainer.min_ngram, max_ngram and buckets = {wanted[0]}, "
        f"{wanted[1]} and {wanted[2]}, got {got}: give another, or --set trainer.min_ngram="
        f"{shape[0]} trainer.max_ngram={shape[1]} trainer.buckets={shape[2]}"
    )
    fasttext_files.check(path, 3, None)
