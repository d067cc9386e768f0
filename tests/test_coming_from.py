"""docs/coming-from-gensim.md: each parameter and method is mapped to what does the same."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gensim
import numpy as np
import plain_job
import pytest
from commands import Command
from fasttext import FastText as fasttext
from pages import TOPICS, table, write_corpus

from components import trainer
from components.artifacts import VOCABULARY, Examples, Model
from components.exporter.embeddings import Embeddings
from components.exporter.served import Served
from components.exporter.storage import Stored
from components.vocabulary import Vocabulary
from pipeline import config


def names(cell: str) -> dict[str, str]:
    """Names in a cell with their defaults, as they are written.

    >>> names("`epochs` (5), older: `iter`")
    {'epochs': '5', 'iter': ''}
    """
    return dict(re.findall(r"`([\w.]+)`(?: \(([^)]*)\))?", cell))


def default_of(setting: str) -> Any:
    stage, _, name = setting.partition(".")
    return getattr(getattr(config.load(None), stage), name)


_GENSIMS = {
    name: parameter
    for model in (gensim.models.Word2Vec, gensim.models.FastText)
    for name, parameter in inspect.signature(model.__init__).parameters.items()
}


def gensims(name: str) -> Any:
    return _GENSIMS[name].default if name in _GENSIMS else None


MAPPED = {next(iter(names(row[2]))): row for row in table("Parameters")}


@pytest.mark.parametrize("setting", MAPPED)
def test_a_parameter_is_mapped_to_what_takes_its_value(setting: str) -> None:
    gensim_cell, fasttext_cell, ours, _ = MAPPED[setting]
    written = names(ours)[setting]
    default = default_of(setting)
    assert written == {None: "unset", (): "none"}.get(default, json.dumps(default))
    for name, value in names(gensim_cell).items():
        assert config.meant(name) == setting
        if value:
            assert value == str(gensims(name))
            assert config.override(setting, value)
    for name, value in names(fasttext_cell).items():
        assert config.meant(name) == setting
        if value:
            assert value.strip('"') == str(fasttext.unsupervised_default[name])
        if value.strip('"'):
            assert config.override(setting, value)


def test_parameters_that_are_said_to_be_missing_are() -> None:
    for row in table("Parameters that do not exist here"):
        for name in {**names(row[0]), **names(row[1])}:
            assert config.absent(name), name
        for name in names(row[0]):
            assert name in _GENSIMS, name
        for name in names(row[1]):
            assert name in fasttext.unsupervised_default, name


def nearest(find: Callable[[str], list[str]]) -> list[str]:
    """The topics of the three nearest words to "king" and "ship" each."""
    topics = {word: topic for topic, words in TOPICS.items() for word in words}
    return [topics.get(near, "") for word in ("king", "ship") for near in find(word)[:3]]


def test_mapped_parameters_train_alike(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gensim's FastText and fastText's own beside ours: the same words, shapes and neighbours."""
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    plain_job.use(monkeypatch)
    values = {
        "trainer.dimensions": 16,
        "trainer.window": 4,
        "transform.min_count": 3,
        "trainer.negatives": 4,
        "trainer.noise_exponent": 0.5,
        "trainer.sample": 0.01,
        "trainer.epochs": 8,
        "trainer.learning_rate": 0.08,
        # fastText fills a tenth of its table a thread; the rest is what the memory held, or NaN.
        "trainer.threads": 10,
        "trainer.seed": 7,
        "trainer.min_ngram": 3,
        "trainer.max_ngram": 4,
        "trainer.buckets": 2000,
    }
    theirs: dict[int, dict[str, Any]] = {0: {}, 1: {}}
    for setting, value in values.items():
        for column, found in theirs.items():
            for name in list(names(MAPPED[setting][column]))[:1]:
                found[name] = value
    text = "texts/a.txt"
    of_gensim = gensim.models.FastText(corpus_file=text, sg=1, **theirs[0])
    of_fasttext = fasttext.train_unsupervised(text, **theirs[1])

    given = [f"{setting}={value}" for setting, value in values.items() if "threads" not in setting]
    common = ["--input", "texts/*.txt", "--output", "MAPPED", "--set", *given]
    done = command("transform", *common)
    assert done.returncode == 0, done.stderr
    examples = Examples.load(Path(done.stdout.splitlines()[-1]))
    assert examples
    Path("model").mkdir()
    settings = config.load(None, given).trainer
    model = trainer.build(examples, settings=settings, out=Model(Path("model"), "mapped"))
    ours = gensim.models.KeyedVectors(16)
    tokens = Vocabulary.load(examples / VOCABULARY).tokens
    ours.add_vectors(list(tokens), np.load(model / "vectors.npy"))

    words = set(ours.index_to_key)
    assert words == set(of_gensim.wv.index_to_key) == set(of_fasttext.get_words()) - {"</s>"}
    assert ours.vectors.shape == of_gensim.wv.vectors.shape == (len(words), 16)
    assert of_fasttext.get_word_vector("king").shape == (16,)
    expected = ["court"] * 3 + ["sea"] * 3
    assert nearest(lambda word: [near for near, _ in ours.most_similar(word)]) == expected
    assert nearest(lambda word: [near for near, _ in of_gensim.wv.most_similar(word)]) == expected
    found = nearest(lambda word: [near for _, near in of_fasttext.get_nearest_neighbors(word)])
    assert found == expected
    trained = model.manifest["made_of"]["settings"]
    for setting, value in values.items():
        assert trained.get(setting.partition(".")[2], value) == value


METHODS = table("Methods")
# What the table leaves out of its look-ups.
LEFT_OUT = {"positive=…, negative=…": 'positive=["king", "woman"], negative=["man"]'}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "similarity": ("king", "queen"),
    "doesnt_match": (["king", "queen", "prince", "ship"],),
    "get_mean_vector": (["king", "ship"], None, False),  # As they are: see the note of the row.
}


def test_methods_of_the_guide_are_there_in_all_three() -> None:
    of_gensim = {
        *dir(gensim.models.Word2Vec),
        *dir(gensim.models),
        *dir(gensim.models.KeyedVectors(1)),
    }
    for theirs, of_fasttext, ours, *_ in METHODS:
        assert {*re.findall(r"(?:wv\.|`)(\w+)(?=[`(])", theirs)} <= of_gensim
        assert {*re.findall(r"`(\w+)`", of_fasttext)} <= {*vars(fasttext._FastText)}
        assert {*re.findall(r"model\.(\w+)", ours)} <= {*dir(Embeddings)}
        for name, value in re.findall(r"--set ([\w.]+)=(\w+)", ours):
            assert config.override(name, value)


@pytest.fixture(scope="module")
def model() -> Embeddings:
    """A model with random vectors of various lengths."""
    words = [word for topic in TOPICS.values() for word in topic]
    vectors = np.random.default_rng(0).normal(size=(len(words), 6)).astype(np.float32)
    inverse_norms = 1 / np.linalg.norm(vectors, axis=1)
    stored = Stored(vectors, None)
    return Embeddings(Served(Path(), words, stored, inverse_norms, None, "words", True))


def look_up(cell: str, model: Any) -> Any:
    """What the first expression in a cell of the table answers."""
    (expression, *_) = re.findall(r"`([^`]+)`", cell)
    for left_out, given in LEFT_OUT.items():
        expression = expression.replace(left_out, given)
    wv = getattr(model, "wv", None)
    found = eval(expression.replace("any text", "king ship"), {"model": model, "wv": wv})
    return found(*ARGUMENTS[expression.partition(".")[2]]) if callable(found) else found


LOOK_UPS = {row[0]: row[2] for row in METHODS if "model" in row[2]}


def test_all_look_ups_of_the_guide_are_tried() -> None:
    assert len(LOOK_UPS) == 9


@pytest.mark.parametrize("theirs", LOOK_UPS)
def test_a_look_up_answers_what_gensims_does(theirs: str, model: Embeddings) -> None:
    expected = look_up(theirs, SimpleNamespace(wv=model.to_gensim()))
    found = look_up(LOOK_UPS[theirs], model)
    if theirs.startswith("`wv.most_similar"):
        assert [word for word, _ in found] == [word for word, _ in expected]
        assert [cosine for _, cosine in found] == pytest.approx([cosine for _, cosine in expected])
    elif isinstance(expected, str | bool | list):
        assert found == expected
    else:
        np.testing.assert_allclose(np.squeeze(found), expected, rtol=1e-5, atol=1e-6)
