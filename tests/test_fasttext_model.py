"""Models written for fastText, read by its own library, by gensim and here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gensim.models.fasttext import load_facebook_model, load_facebook_vectors

from components import fasttext_files
from components.errors import SkipstreamError
from components.exporter import fasttext_model, formats
from components.subwords import Buckets, Subwords

fasttext = pytest.importorskip("fasttext", reason="fasttext-numpy2, of the dev extra, is not there")

TOKENS = ["the", "naïve", "東京", "don't", "👩x", "a", "straßenbahnen", "__label__x", "ﬁ", "x" * 80]
UNKNOWN = ["thé", "東京都", "unheard-of", "👩", "b", "y" * 300]
COUNTS = np.arange(len(TOKENS), 0, -1) * 3


@dataclass(frozen=True)
class Source:
    """A model with vectors of some size, and with a vector for every other bucket."""

    dimensions: int
    subwords: Subwords | None = None
    without_counts: bool = False

    @property
    def words(self) -> list[str]:
        return TOKENS

    @property
    def vectors(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        return rng.normal(size=(len(TOKENS), self.dimensions)).astype(np.float32)

    @property
    def counts(self) -> np.ndarray | None:
        return None if self.without_counts else COUNTS

    def buckets(self) -> Buckets | None:
        if not self.subwords:
            return None
        ids = np.arange(0, self.subwords.buckets, 2, dtype=np.int32)
        rows = np.random.default_rng(1).normal(size=(len(ids), self.dimensions))
        return Buckets(self.subwords, ids, rows.astype(np.float32))


SOURCES = [
    Source(3, Subwords(3, 6, 2_000_000)),
    Source(100, Subwords(3, 6, 500)),
    Source(3, Subwords(1, 2, 7), without_counts=True),
    Source(100),
]


@pytest.fixture(params=SOURCES, ids=str)
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Source:
    if not (request.param.subwords and request.param.subwords.buckets > 1000):
        monkeypatch.setattr(fasttext_model, "_BLOCK_BYTES", 1000)  # Many blocks.
    return request.param


def expected(source: Source) -> np.ndarray:
    """Of known and unknown words."""
    buckets = source.buckets()
    unknown = buckets.compose(UNKNOWN) if buckets else np.zeros((len(UNKNOWN), source.dimensions))
    return np.concatenate([source.vectors, unknown])


def test_fasttext_answers_with_the_same_vectors(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "model.bin"
    assert formats.write(source, format="fasttext", output=output) == [output]
    model = fasttext.load_model(str(output))
    counts = [1] * len(TOKENS) if source.without_counts else COUNTS.tolist()
    words, found = model.get_words(include_freq=True)
    assert (words, found.tolist()) == (TOKENS, counts)
    vectors = np.stack([model.get_word_vector(word) for word in [*TOKENS, *UNKNOWN]])
    np.testing.assert_allclose(vectors, expected(source), rtol=1e-5, atol=1e-5)
    assert not model.get_output_matrix().any()


@pytest.mark.parametrize("load", [load_facebook_vectors, lambda path: load_facebook_model(path).wv])
def test_gensim_answers_with_the_same_vectors(source: Source, load: object, tmp_path: Path) -> None:
    output = tmp_path / "model.bin"
    formats.write(source, format="fasttext", output=output)
    keyed = load(str(output))
    assert keyed.index_to_key == TOKENS
    words = [*TOKENS, *UNKNOWN] if source.subwords else TOKENS
    vectors = expected(source)[: len(words)]
    np.testing.assert_allclose(keyed[words], vectors, rtol=1e-5, atol=1e-5)
    assert keyed.get_vecattr("the", "count") == (1 if source.without_counts else COUNTS[0])


def test_a_training_here_starts_from_what_was_written(source: Source, tmp_path: Path) -> None:
    output = tmp_path / "model.bin"
    formats.write(source, format="fasttext", output=output)
    ids = {token: id_ for id_, token in enumerate(TOKENS)}
    vectors = np.zeros_like(source.vectors)
    fasttext_files.check(output, source.dimensions, source.subwords)
    assert fasttext_files.read(output, ids, vectors).tolist() == list(range(len(TOKENS)))
    np.testing.assert_allclose(vectors, source.vectors, rtol=1e-5, atol=1e-5)
    if given := source.buckets():
        taken = Buckets(given.subwords, given.ids, np.zeros_like(given.rows))
        fasttext_files.read(output, ids, vectors, buckets=taken)
        np.testing.assert_array_equal(taken.rows, given.rows)
        np.testing.assert_allclose(vectors, given.own(TOKENS, source.vectors), rtol=1e-6)


def test_the_end_of_a_line_has_no_ngrams(tmp_path: Path) -> None:
    class Line(Source):
        @property
        def words(self) -> list[str]:
            return ["</s>", *TOKENS[1:]]

    source = Line(3, Subwords(3, 6, 50))
    formats.write(source, format="fasttext", output=tmp_path / "model")
    model = fasttext.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(model.get_word_vector("</s>"), source.vectors[0])


def test_words_with_nul_are_refused(tmp_path: Path) -> None:
    class Nul(Source):
        @property
        def words(self) -> list[str]:
            return [*TOKENS[1:], "a\0b"]

    with pytest.raises(SkipstreamError, match=r"must be without NUL, got 'a\\x00b': choose keyed"):
        formats.write(Nul(3), format="fasttext", output=tmp_path / "model")
    assert not list(tmp_path.iterdir())
