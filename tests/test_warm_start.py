"""Warm starts: words go on from where they were in another vocabulary; repeated runs train once."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stages import unlisted
from test_dataset import random_documents, write_examples
from trainings import SETTINGS, digests, leaving, small_examples, train

from components import trainer
from components.artifacts import Examples, Model
from components.errors import SkipstreamError
from components.trainer import warm_start
from components.vocabulary import Vocabulary
from pipeline import baseline
from pipeline.store import Store, Use

# Rates so low that nothing moves: what a word starts from is what it ends with.
STILL = SETTINGS.model_copy(update={"learning_rate": 1e-9, "epochs": 1})


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return small_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def yesterday(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return train(examples, tmp_path_factory.mktemp("yesterday") / "model")


def with_tokens(
    path: Path, tokens: list[str], documents: list[list[int]] | None = None
) -> Examples:
    """Examples whose ids mean `tokens`."""
    documents = documents or random_documents(1, 300, len(tokens))
    examples = write_examples(path, documents, types=len(tokens))
    counts = Vocabulary.load_counts(path / "vocabulary.tsv")
    Vocabulary(tuple(tokens), counts).save(unlisted(path) / "vocabulary.tsv")
    return examples


def tables(model: Model) -> list[np.ndarray]:
    return [np.load(model.path / f"{name}.npy") for name in ("vectors", "contexts")]


def test_words_keep_their_vectors_when_the_vocabulary_is_another_and_new_ones_may_be_given(
    yesterday: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "BLOCK_ROWS", 7)
    # Ten words are gone, the others in another order, ten are new.
    tokens = [f"w{id_}" for id_ in np.random.default_rng(0).permutation(50)[:40]]
    file = tmp_path / "start.txt"
    line = " ".join(["0.5"] * 16)
    file.write_text(f"2 16\n{tokens[0]} {line}\nneu {line}\n")
    settings = STILL.model_copy(update={"start_vectors": (str(file),)})
    tokens = ["neu", *tokens, *(f"new{number}" for number in range(9))]
    today = train(with_tokens(tmp_path / "examples", tokens), tmp_path / "t", settings, yesterday)
    known = [int(token[1:]) for token in tokens if token[0] == "w"]
    for now, before in zip(tables(today), tables(yesterday), strict=True):
        np.testing.assert_allclose(now[1:41], before[known], atol=1e-5)
    vectors, contexts = (np.delete(table, np.s_[1:41], axis=0) for table in tables(today))
    np.testing.assert_allclose(vectors[0], 0.5, atol=1e-5)
    assert 0 < np.abs(vectors[1:]).max() < 0.5 / 16 + 1e-5
    assert np.abs(contexts).max() < 1e-5
    assert today.summary["warm_start"] == yesterday.fingerprint
    assert (today.summary["words_carried_over"], today.summary["new_words"]) == (40, 10)


def test_a_warm_start_needs_fewer_epochs_and_ends_with_the_same_bits_if_it_is_resumed(
    examples: Examples, yesterday: Model, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 2})
    with leaving(tmp_path / "killed"):
        warm = train(examples, tmp_path / "warm", settings, yesterday)
    cold, first = (model.summary["history"][0]["held_out_loss"] for model in (yesterday, warm))
    assert first < cold
    assert "warm_start" not in yesterday.summary
    resumed = train(examples, tmp_path / "killed", settings, yesterday)
    assert digests(resumed.path) == digests(warm.path)
    assert resumed.summary["words_carried_over"] == 50


def test_a_model_that_is_of_no_use_is_an_error(
    examples: Examples, yesterday: Model, tmp_path: Path
) -> None:
    longer = SETTINGS.model_copy(update={"dimensions": 17})
    with pytest.raises(SkipstreamError, match=r"trainer.dimensions = 17, got 16 in .*yesterday"):
        train(examples, tmp_path / "1", longer, yesterday)
    strangers = with_tokens(tmp_path / "examples", ["none", "of", "them"])
    with pytest.raises(SkipstreamError, match="must know a word of the vocabulary"):
        train(strangers, tmp_path / "2", SETTINGS, yesterday)
    with pytest.raises(SkipstreamError, match=r"with its vocabulary.tsv, got .* train it again"):
        train(examples, tmp_path / "3", SETTINGS, Model(tmp_path, "bare"))
    # One in a bucket has the name that the user knows.
    remote: Any = SimpleNamespace(address="s3://b/trainer/f", fetch=lambda name: None)
    fetched = replace(yesterday, remote=remote)
    for examples_now, settings in ((examples, longer), (strangers, SETTINGS)):
        with pytest.raises(SkipstreamError, match=r"(in|got) s3://b/trainer/f"):
            train(examples_now, tmp_path / "4", settings, fetched)


def test_losses_are_equal_where_models_differ_in_words_alone(
    examples: Examples, yesterday: Model, tmp_path: Path
) -> None:
    # The same vectors under another order, with words that the other lacks: nothing is to choose.
    draw = np.random.default_rng(0)
    kept = draw.permutation(50)[:40]
    tokens = [*(f"w{id_}" for id_ in kept), "new"]
    other = Model(tmp_path, "other")
    Vocabulary(tuple(tokens), np.ones(41, np.int64)).save(tmp_path / "vocabulary.tsv")
    for name in ("vectors", "contexts"):
        rows = np.load(yesterday.path / f"{name}.npy")[kept]
        strange = draw.normal(size=(1, 16)).astype(np.float32)
        np.save(tmp_path / f"{name}.npy", np.concatenate([rows, strange]))
    one, two = trainer.comparable_losses([yesterday, other], examples, SETTINGS)
    assert one == two
    whole = trainer.held_out_loss(yesterday, examples, SETTINGS)
    (alone,) = trainer.comparable_losses([yesterday], examples, SETTINGS)
    assert alone == pytest.approx(whole, rel=1e-6)
    assert one is not None and whole is not None and one > whole  # Ten words count as unknown.


def test_losses_compare_models_of_other_dimensions(
    examples: Examples, yesterday: Model, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    Vocabulary.load(examples.path / "vocabulary.tsv").save(small / "vocabulary.tsv")
    for name in ("vectors", "contexts"):
        np.save(small / f"{name}.npy", np.zeros([50, 4], np.float32))
    losses = trainer.comparable_losses([yesterday, Model(small, "s")], examples, SETTINGS)
    untrained = 6 * np.log(2)
    assert losses == pytest.approx([yesterday.summary["held_out_loss"], untrained], rel=1e-4)


def test_a_repeated_run_starts_from_what_it_started_from() -> None:
    def trained(corpus: int, start: str | None) -> str:
        """What each of the nights was trained from: the one before."""
        known = {(0, None): "0", (1, "0"): "1", (2, "1"): "2"}
        return known.get((corpus, start), "another")

    for night in range(3):
        served = [str(n) for n in range(night, -1, -1)]
        again = baseline.start_of(served, lambda start, night=night: trained(night, start))
        assert again == (str(night - 1) if night else None)
        next_night = baseline.start_of(served, lambda start, night=night: trained(night + 1, start))
        assert next_night == str(night)
    assert baseline.start_of([], lambda start: "any") is None


def test_a_start_is_a_trainer_artifact_or_another_output(
    examples: Examples, yesterday: Model, tmp_path: Path
) -> None:
    store = Store.open(tmp_path / "out")
    assert baseline.given_start("latest", store) is baseline.given_start(None, store) is None
    assert baseline.given_start(str(yesterday.path), store) == yesterday
    output = tmp_path / "other"
    model = Model(output / "trainer" / "0123", "0123")
    shutil.copytree(yesterday.path, model.path)
    model.finish(SETTINGS)
    assert baseline.given_start(str(model.path), store) == model
    there_is_none = "must be 'latest', a trainer artifact, or an output whose last run finished"
    for place in (output, tmp_path / "nothing", examples.path):
        with pytest.raises(SkipstreamError, match=f"{there_is_none} training, got {place}"):
            baseline.given_start(str(place), store)
    other = Store.open(output)
    other.ledger.uses["trainer"] = Use(fingerprint="0123", run="1", seconds=1.0, reused=False)
    other.save_ledger()
    assert baseline.given_start(str(output), store) == model
    with pytest.raises(SkipstreamError, match="must be another output than --output"):
        baseline.given_start(str(tmp_path / "out"), store)
