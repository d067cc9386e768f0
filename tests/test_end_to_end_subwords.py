"""A run with n-grams, from text to a model that fastText's readers open."""

from pathlib import Path

import numpy as np
import pytest
from commands import SETTINGS, TOPICS, Command, probe_in_this_process, write_corpus
from gensim.models.fasttext import load_facebook_vectors

from components.exporter.embeddings import Embeddings
from pipeline import cli

NGRAMS = ["trainer.min_ngram=3", "trainer.max_ngram=6", "trainer.buckets=100000"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    corpus = write_corpus(folder, 2000)
    output = folder / "out"
    arguments = ["run", "--input", corpus, "--output", output, *SETTINGS, *NGRAMS]
    with pytest.MonkeyPatch.context() as patch:
        probe_in_this_process(patch)
        assert cli.run([*map(str, arguments)]) == 0
    return output


def test_unknown_words_have_the_neighbours_of_those_that_they_are_like(
    output: Path, command: Command
) -> None:
    done = command("neighbors", output, "sailors", "breads", "-k", "5")
    assert done.returncode == 0, done.stderr
    found = [line.split("\t")[:2] for line in done.stdout.splitlines()]
    for word, topic in (("sailors", "sea"), ("breads", "kitchen")):
        near = [other for asked, other in found if asked.startswith(word)]
        assert len(near) == 5
        assert len({*near} & {*TOPICS[topic]}) >= 4
    assert "sailors" in done.stderr  # It is marked as unknown.


def test_what_is_exported_for_fasttext_has_the_same_vectors(
    output: Path, command: Command, tmp_path: Path
) -> None:
    fasttext = pytest.importorskip("fasttext", reason="fasttext-numpy2 is not there")
    path = tmp_path / "model.bin"
    done = command("export", output, "--format", "fasttext", "--output", path)
    assert done.returncode == 0, done.stderr
    embeddings = Embeddings.load(output / "serving")
    words = [
        "the",
        *TOPICS["sea"],
        *TOPICS["kitchen"],
        "sailors",
        "breads",
        "unharboured",
        "ship's",
    ]
    expected, known = embeddings.vectors_of(words)
    assert known.tolist() == [True] * (len(words) - 4) + [False] * 4
    assert expected.any(axis=1).all()
    model = fasttext.load_model(str(path))
    vectors = np.stack([model.get_word_vector(word) for word in words])
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(load_facebook_vectors(str(path))[words], vectors, atol=1e-5)
    assert model.get_input_matrix().shape[0] == len(model.get_words()) + 100_000
