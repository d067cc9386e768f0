"""Training with n-grams: repeats its bits, resumes, and starts from files and other models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dataset import random_documents
from test_warm_start import with_tokens
from trainings import (
    SETTINGS,
    TABLES_WITH_NGRAMS,
    WITH_NGRAMS,
    Elsewhere,
    digests,
    leaving,
    too_few_examples,
    train,
    vectors,
)

from components import trainer
from components.artifacts import Examples, Model
from components.errors import SkipstreamError
from components.settings import TrainerSettings
from components.subwords import Subwords
from components.trainer.callbacks import Progress
from components.trainer.kinds import kinds

SUBWORDS = Subwords(3, 6, 50_000)
# Rates so low that nothing moves: what a training starts from is what it ends with.
STILL = WITH_NGRAMS.model_copy(update={"learning_rate": 1e-9, "epochs": 1})
UNKNOWN = ["w1", "w277", "w3456", "unheard"]


# Tables of 50 x 16, as in most tests of the trainer: XLA compiles for each shape.
@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    documents = random_documents(0, 1000)
    tokens = [f"w{id_ + 10}" for id_ in range(50)]
    return with_tokens(tmp_path_factory.mktemp("examples") / "examples", tokens, documents)


@pytest.fixture(scope="module")
def trained(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return train(examples, tmp_path_factory.mktemp("trained"), WITH_NGRAMS)


@pytest.fixture(scope="module")
def without(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Trained without n-grams."""
    settings = SETTINGS.model_copy(update={"epochs": 1})
    return train(examples, tmp_path_factory.mktemp("without"), settings)


def contexts(model: Model) -> np.ndarray:
    return np.load(model.path / "contexts.npy")


def composed(model: Model, words: list[str]) -> np.ndarray:
    assert model.buckets
    return model.buckets.compose(words)


def test_a_model_has_vectors_of_unknown_words(trained: Model, examples: Examples) -> None:
    history = trained.summary["history"]
    assert history[0]["held_out_loss"] > history[-1]["held_out_loss"]
    assert {file.name for file in trained.path.glob("*.npy")} == TABLES_WITH_NGRAMS
    assert np.abs(composed(trained, UNKNOWN[:3])).max(axis=1).min() > 0.01
    loss = trainer.held_out_loss(trained, examples, WITH_NGRAMS)
    assert loss == pytest.approx(trained.summary["held_out_loss"], rel=1e-6)


def test_ngrams_that_no_word_has_change_nothing(
    examples: Examples, without: Model, tmp_path: Path
) -> None:
    assert digests(without.path).keys() == {"vectors.npy", "contexts.npy"}
    longer = SETTINGS.model_copy(update={"epochs": 1, "min_ngram": 15, "max_ngram": 20})
    other = train(examples, tmp_path / "with", longer)
    # The same moves are added up in another order.
    np.testing.assert_allclose(vectors(other), vectors(without), atol=1e-3)
    np.testing.assert_allclose(contexts(other), contexts(without), atol=1e-3)
    assert np.load(other.path / "buckets.npy").shape == (0, 16)


def test_one_shard_learns_the_same(examples: Examples, trained: Model, tmp_path: Path) -> None:
    model = train(examples, tmp_path, WITH_NGRAMS.model_copy(update={"shards": 1}))
    loss = model.summary["held_out_loss"]
    assert loss == pytest.approx(trained.summary["held_out_loss"], abs=0.05)


def test_ngrams_that_all_words_have_are_stable(
    examples: Examples, trained: Model, tmp_path: Path
) -> None:
    changes = {"min_ngram": 2, "max_ngram": 4, "buckets": 10}
    model = train(examples, tmp_path, WITH_NGRAMS.model_copy(update=changes))
    loss = model.summary["held_out_loss"]
    assert loss == pytest.approx(trained.summary["held_out_loss"], abs=0.05)


def test_the_best_epoch_has_the_ngrams_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = too_few_examples(tmp_path / "examples")
    changes = {"epochs": 40, "learning_rate": 1.0, "patience": 2}
    settings = WITH_NGRAMS.model_copy(update=changes)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    finish = Progress.finish_epoch

    def spy(self: Progress, history: list[dict[str, Any]]) -> None:
        sharing = self._skip_gram.training.sharing
        assert sharing
        seen.append((self._skip_gram.whole()["vectors"].rows.copy(), sharing.own.rows.copy()))
        finish(self, history)

    monkeypatch.setattr(Progress, "finish_epoch", spy)
    model = train(examples, tmp_path / "model", settings)
    best = int(np.argmin([epoch["held_out_loss"] for epoch in model.summary["history"]]))
    assert 0 < best < len(seen) - 1 < 39
    np.testing.assert_array_equal(vectors(model), seen[best][0])
    of = kinds([f"w{id_}" for id_ in range(50)], SUBWORDS)
    alone = of.rows < 50
    assert model.buckets
    np.testing.assert_array_equal(model.buckets.rows[alone], seen[best][1][of.rows[alone]])


# From here on: what a training starts from.


@pytest.fixture(scope="module")
def fasttext_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of most words of `examples`, and of others."""
    fasttext = pytest.importorskip("fasttext", reason="fasttext-numpy2 is not there")
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("fasttext") / "model.bin"
    text = path.with_suffix(".txt")
    words = [f"w{number}" for number in range(20, 70)]
    lines = [" ".join(draw.choice(words, 10)) + "\n" for _ in range(300)]
    text.write_text("".join(lines))
    shape = {"minn": SUBWORDS.shortest, "maxn": SUBWORDS.longest, "bucket": SUBWORDS.buckets}
    # Each thread fills a tenth of the matrix at the start; with fewer, the rest is not set.
    common = {"dim": 16, "minCount": 1, "epoch": 2, "verbose": 0, "thread": 10}
    model = fasttext.train_unsupervised(str(text), **shape, **common)
    model.save_model(str(path))
    return path


@pytest.fixture(scope="module")
def fasttexts(fasttext_file: Path) -> Any:
    import fasttext

    return fasttext.load_model(str(fasttext_file))


def words_of(model: Any, words: list[str]) -> np.ndarray:
    return np.stack([model.get_word_vector(word) for word in words])


def test_without_ngrams_words_start_from_whole_vectors(
    examples: Examples, fasttext_file: Path, fasttexts: Any, tmp_path: Path
) -> None:
    none = {"min_ngram": 0, "max_ngram": 0, "start_vectors": (str(fasttext_file),)}
    model = train(examples, tmp_path / "model", STILL.model_copy(update=none))
    tokens = [f"w{id_ + 10}" for id_ in range(50)]
    np.testing.assert_allclose(vectors(model)[10:], words_of(fasttexts, tokens[10:]), atol=1e-5)
    assert np.abs(vectors(model)[:10]).max() < 0.5 / 16 + 1e-5
    assert {file.name for file in model.path.glob("*.npy")} == {"vectors.npy", "contexts.npy"}


def test_files_of_fasttexts_and_of_vectors_start_words_and_ngrams(
    examples: Examples, fasttext_file: Path, fasttexts: Any, tmp_path: Path
) -> None:
    file = tmp_path / "start.txt"
    line = " ".join(["0.5"] * 16)
    file.write_text(f"2 16\nw10 {line}\nw30 {line}\n")  # One that the other has, one that it lacks.
    settings = STILL.model_copy(update={"start_vectors": (str(fasttext_file), str(file))})
    model = train(examples, tmp_path / "model", settings)
    np.testing.assert_allclose(vectors(model)[[0, 20]], 0.5, rtol=1e-5)
    others = [f"w{id_ + 10}" for id_ in range(50) if id_ not in (0, 20)]
    found = np.delete(vectors(model), [0, 20], axis=0)
    np.testing.assert_allclose(found, words_of(fasttexts, others), atol=1e-5)
    np.testing.assert_allclose(composed(model, UNKNOWN), words_of(fasttexts, UNKNOWN), atol=1e-5)
    assert {file.name for file in model.path.glob("*.npy")} == TABLES_WITH_NGRAMS
    # The first ten words are not in fastText's file.
    rows = [fasttexts.get_word_id(f"w{number}") for number in range(20, 60)]
    outputs = fasttexts.get_output_matrix()
    np.testing.assert_allclose(contexts(model)[10:], outputs[rows], atol=1e-5)
    assert np.abs(contexts(model)[:10]).max() < 1e-5
    # Of such a file alone, n-grams get what their words have in common.
    settings = STILL.model_copy(update={"start_vectors": (str(file),)})
    model = train(examples, tmp_path / "alone", settings)
    np.testing.assert_allclose(vectors(model)[[0, 20]], 0.5, rtol=1e-5)
    assert (composed(model, ["w3"]) > 0.1).all()  # Of n-grams of w30.


def test_files_of_other_ngrams_get_one_line(
    examples: Examples, fasttext_file: Path, tmp_path: Path
) -> None:
    changes = {"min_ngram": 2, "start_vectors": (str(fasttext_file),)}
    said = "must have trainer.min_ngram, max_ngram and buckets = 2, 6 and 50000, got 3, 6 and 50000"
    with pytest.raises(SkipstreamError, match=said) as caught:
        train(examples, tmp_path / "model", STILL.model_copy(update=changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("begins", "left"), [("from a file", "another machine"), ("from a model", "killed")]
)
def test_interrupted_trainings_end_with_the_same_bits(
    examples: Examples,
    trained: Model,
    fasttext_file: Path,
    tmp_path: Path,
    begins: str,
    left: str,
) -> None:
    changes: dict[str, Any] = {"epochs": 2, "checkpoint_minutes": 1e-9}
    if begins == "from a file":
        changes["start_vectors"] = (str(fasttext_file),)
    settings = WITH_NGRAMS.model_copy(update=changes)
    start = trained if begins == "from a model" else None
    moments = {"another machine": lambda state: state["epoch"] and state["round"]}
    whole = Model(tmp_path / "whole", "m", {}, Elsewhere(tmp_path, moments))
    whole.path.mkdir()
    with leaving(tmp_path / "killed"):
        trainer.build(examples, settings=settings, out=whole, start=start)
    resumed = train(examples, tmp_path / left, settings, start)
    assert digests(resumed.path) == digests(whole.path)
    assert digests(whole.path).keys() == TABLES_WITH_NGRAMS
    assert {path.name for path in resumed.path.iterdir()} == {
        path.name for path in whole.path.iterdir()
    }


def test_words_that_come_and_go_have_their_ngrams_unless_they_are_given(
    trained: Model, tmp_path: Path
) -> None:
    # `w10` to `w19` have left the vocabulary, four are new; one has n-grams that nobody trained.
    tokens = ["w277", *(f"w{number}" for number in range(20, 60)), "w377", "unheard", "given"]
    file = tmp_path / "start.txt"
    line = " ".join(["0.5"] * 16)
    file.write_text(f"2 16\nw20 {line}\ngiven {line}\n")
    settings = STILL.model_copy(update={"start_vectors": (str(file),)})
    today = train_from(trained, tokens, tmp_path, settings)
    np.testing.assert_allclose(vectors(today)[1:41], vectors(trained)[10:], atol=1e-5)
    np.testing.assert_allclose(vectors(today)[43], 0.5, atol=1e-5)
    new = composed(trained, ["w277", "w377"])
    assert np.abs(new).max() > 0.01
    np.testing.assert_allclose(vectors(today)[[0, 41]], new, atol=1e-5)
    assert 0 < np.abs(vectors(today)[42]).max() < 0.5 / 16 + 1e-5
    for words in ([f"w{number}" for number in range(10, 20)], UNKNOWN):
        np.testing.assert_allclose(composed(today, words), composed(trained, words), atol=1e-5)
    assert trained.buckets and today.buckets
    assert np.isin(trained.buckets.ids, today.buckets.ids).all()
    assert today.summary["words_carried_over"] == 40
    assert today.summary["buckets_carried_over"] == len(trained.buckets.ids)


@pytest.mark.parametrize("now", ["with", "without", "with others"])
def test_models_of_other_ngrams_give_their_words_and_these_give_their_ngrams(
    trained: Model, without: Model, tmp_path: Path, now: str
) -> None:
    none = {"min_ngram": 0, "max_ngram": 0}
    before = without if now == "with" else trained
    shapes = {"without": none, "with others": {"max_ngram": 5}}
    settings = STILL.model_copy(update=shapes.get(now, {}))
    today = train_from(before, ["w277", "w20"], tmp_path, settings)
    np.testing.assert_allclose(vectors(today)[1], vectors(before)[10], atol=1e-5)
    assert "buckets_carried_over" not in today.summary
    assert (today.buckets is None) == (now == "without")
    if now == "without":
        assert np.abs(vectors(today)[0]).max() < 0.5 / 16 + 1e-5
        return
    # The n-grams of a word that goes on say by themselves where it was.
    made, was = composed(today, ["w20"])[0], vectors(today)[1]
    assert made @ was > 0.9 * np.linalg.norm(made) * np.linalg.norm(was)


def train_from(start: Model, tokens: list[str], path: Path, settings: TrainerSettings) -> Model:
    # Behind them so many others that the tables have the shape of the others'.
    tokens = [*tokens, *(chr(0x4E00 + number) for number in range(50 - len(tokens)))]
    examples = with_tokens(path / "examples", tokens)
    return train(examples, path / "today", settings, start)
