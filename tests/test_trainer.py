"""Training: learns, keeps the best, says what it did, and what it cannot train on."""

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import tensorflow as tf
from stages import unlisted
from test_dataset import random_documents, write_examples
from trainings import SETTINGS, small_examples, too_few_examples, train, vectors

from components import trainer
from components.artifacts import Examples, Model
from components.errors import NotBlessedError, SkipstreamError
from components.settings import TrainerSettings
from components.trainer import SkipGrams, tables, tokens
from components.trainer.model import SkipGram
from components.trainer.rounds import BLOCK


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return small_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def tuned() -> Iterator[list[bool]]:
    """Whether a thread tunes it, of each dataset that is read from here on."""
    found: list[bool] = []
    iterate = tf.data.Dataset.__iter__

    def spy(dataset: tf.data.Dataset) -> Any:
        found.append(dataset.options().autotune.enabled)
        return iterate(dataset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.data.Dataset, "__iter__", spy)
        yield found


@pytest.fixture(scope="module")
def trained(
    examples: Examples, tuned: list[bool], tmp_path_factory: pytest.TempPathFactory
) -> Model:
    return train(examples, tmp_path_factory.mktemp("trained"))


def sentences(count: int) -> list[list[int]]:
    """Each holds words of the kinds 0, 1 and 2, or of 3, 4 and 5, each at its place."""
    draw = np.random.default_rng(0)
    documents = []
    for _ in range(count):
        first, (a, b, c) = draw.integers(2), draw.integers(0, 8, 3)
        kinds = [8 * (3 * first + kind) + word for kind, word in enumerate((a, b, c))]
        documents.append([48 + first, kinds[0], kinds[1], 48 + first, kinds[2]])
    return documents


def test_the_defaults_teach_a_small_text_which_words_are_of_a_kind(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", sentences(1500), types=50)
    model = train(examples, tmp_path / "model", TrainerSettings(dimensions=16))
    unit = vectors(model)[:48]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T - 9 * np.eye(48)
    assert (cosines.argmax(1) // 8 == np.arange(48) // 8).mean() > 0.9


def test_shards_that_all_find_the_same_do_not_overshoot_together(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", sentences(6_500), types=50)
    settings = SETTINGS.model_copy(update={"shards": 16, "round_tokens": BLOCK, "epochs": 8})
    model = train(examples, tmp_path / "model", settings)
    history = json.loads((model.path / "history.json").read_text())
    losses = [epoch["held_out_loss"] for epoch in history]
    assert max(losses) < 4.16 and losses[-1] < 2.6  # Untrained, and by frequency alone.


def test_losses_fall_and_are_written(examples: Examples, trained: Model) -> None:
    history = json.loads((trained.path / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert history[0]["loss"] > history[-1]["loss"]
    assert history[0]["held_out_loss"] > history[-1]["held_out_loss"]
    assert history[-1]["learning_rate"] < 0.01 * SETTINGS.learning_rate
    assert trained.summary["held_out_loss"] == history[-1]["held_out_loss"]
    assert trainer.held_out_loss(trained, examples, SETTINGS) == pytest.approx(
        history[-1]["held_out_loss"], rel=1e-6
    )
    assert not (trained.path / "checkpoints").exists()


def test_another_seed_gives_another_model_and_tables_that_are_done_with_are_freed_at_once(
    examples: Examples, trained: Model, tmp_path: Path
) -> None:
    def models() -> int:
        return sum(isinstance(thing, SkipGram) for thing in gc.get_objects())

    gc.collect()
    before = models()
    gc.disable()
    try:
        other = train(examples, tmp_path, SETTINGS.model_copy(update={"seed": 2}))
        assert models() == before
        trainer.held_out_loss(other, examples, SETTINGS)
        trainer.comparable_losses([trained, other], examples, SETTINGS)
        assert models() == before
    finally:
        gc.enable()
    assert (vectors(other) != vectors(trained)).any()


@pytest.mark.parametrize("dimensions", [1, 3, 4])
def test_tables_are_the_same_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimensions: int
) -> None:
    table, other = tables.Table(50, dimensions), tables.Table(50, dimensions)
    table.fill_uniform(0.5, seed=1)
    assert 0.3 < np.abs(table.rows).max() <= 0.5
    monkeypatch.setattr(tables, "BLOCK_ROWS", 7)
    table.save(tmp_path / "table.npy")
    assert (np.load(tmp_path / "table.npy") == table.rows).all()
    other.load(tmp_path / "table.npy")
    assert (other.rows == table.rows).all()
    longest = np.linalg.norm(table.rows, axis=1).max()
    assert other.largest_norm() == pytest.approx(longest)
    other.rows[48] = 1e30
    assert other.largest_norm() == np.inf
    other.rows[49] = np.nan
    assert np.isnan(other.largest_norm())
    with pytest.raises(ValueError, match=r"must have the shape \(49, .*, got \(50, "):
        tables.Table(49, dimensions).load(tmp_path / "table.npy")


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize(
    ("bound", "value", "reason"),
    [
        ("training.LONGEST_MOVE", 1e9, "the loss is"),  # With it, nothing diverges.
        ("callbacks.LARGEST_NORM", 0.1, "a row of the vectors has a norm of"),
    ],
)
def test_divergence_stops_the_run(
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    value: float,
    reason: str,
) -> None:
    monkeypatch.setattr(f"components.trainer.{bound}", value)
    settings = SETTINGS.model_copy(update={"learning_rate": 1.0, "epochs": 20})
    said = f"training diverged: {reason} .* lower trainer.learning_rate"
    with pytest.raises(NotBlessedError, match=said):
        train(examples, tmp_path, settings)


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", [], types=3)
    with pytest.raises(SkipstreamError, match="at least one document"):
        train(examples, tmp_path / "model")


@pytest.mark.parametrize(
    ("documents", "types", "changes"),
    [
        ([[0] * 9], 1, {"dimensions": 1, "shards": None, "round_tokens": None}),
        ([[0, 1], [*range(50)] * 200], 50, {"shards": 64}),
    ],
    ids=["one type, one dimension", "one long document, more shards than blocks"],
)
def test_little_and_odd_texts_are_trained(
    tmp_path: Path, documents: list[list[int]], types: int, changes: dict[str, Any]
) -> None:
    examples = write_examples(tmp_path / "examples", documents, types)
    settings = SETTINGS.model_copy(update={"epochs": 2} | changes)
    model = train(examples, tmp_path / "model", settings)
    assert vectors(model).shape == (types, settings.dimensions)
    assert np.isfinite(vectors(model)).all()
    losses = [epoch["loss"] for epoch in model.summary["history"]]
    assert losses[1] < losses[0]
    assert model.summary["held_out_loss"] is not None


def test_documents_without_a_pair_are_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", [[id_] for id_ in range(50)] * 40, 50)
    with pytest.raises(SkipstreamError, match="got none: transform.min_count leaves 2,000 tok"):
        train(examples, tmp_path / "model")


def test_held_out_documents_without_a_pair_have_no_loss(tmp_path: Path) -> None:
    pairs = [[i % 50, (i + 1) % 50] * 2 for i in range(1000)]
    documents = [pair[:1] if i % 10 == 0 else pair for i, pair in enumerate(pairs)]
    examples = write_examples(tmp_path / "examples", documents, types=50)
    model = train(examples, tmp_path / "model")
    assert model.summary["held_out_loss"] is None
    assert trainer.held_out_loss(model, examples, SETTINGS) is None


def test_a_truncated_tfrecord_is_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", random_documents(0), types=50)
    record = Path(examples.records("train")[0])
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
    unlisted(examples.path)
    with pytest.raises(
        SkipstreamError, match=r"must have \d+ bytes, got \d+: .* run transform again"
    ):
        train(examples, tmp_path / "model")
    remote: Any = SimpleNamespace(address="s3://b/transform/f", fetch=lambda name: None)
    fetched = replace(examples, remote=remote)
    with pytest.raises(SkipstreamError, match=r"^s3://b/transform/f/train/.*delete s3://b/tra"):
        fetched.records("train")


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_corrupt_tfrecord_is_an_error(
    trained: Model, tmp_path: Path, split: Literal["train", "eval"]
) -> None:
    examples = write_examples(tmp_path / "examples", random_documents(0, 1000), types=50)
    record = Path(examples.records(split)[0])
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 0xFF
    record.write_bytes(bytes(content))
    unlisted(examples.path)
    damaged = r"is damaged \(inflate[^\[{\n]*\): .* run transform again"
    with pytest.raises(SkipstreamError, match=damaged):
        train(examples, tmp_path / "model")
    with pytest.raises(SkipstreamError, match=damaged):
        trainer.frequency_loss(examples, SETTINGS, split)
    if split == "eval":
        with pytest.raises(SkipstreamError, match=damaged):
            trainer.held_out_loss(trained, examples, SETTINGS)


def test_patience_keeps_the_best_epoch(tmp_path: Path) -> None:
    examples = too_few_examples(tmp_path / "examples")
    settings = SETTINGS.model_copy(update={"epochs": 200, "learning_rate": 1.0, "patience": 3})
    model = train(examples, tmp_path / "model", settings)
    losses = [epoch["held_out_loss"] for epoch in model.summary["history"]]
    assert 4 < len(losses) < 200
    assert len(losses) - 1 - losses.index(min(losses)) == 3
    assert model.summary["held_out_loss"] == min(losses)
    assert trainer.held_out_loss(model, examples, settings) == pytest.approx(min(losses), rel=1e-6)
    assert not list(model.path.glob("best*"))


def test_patience_without_held_out_documents_is_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", random_documents(0), 50, held_out=False)
    with pytest.raises(SkipstreamError, match="trainer.patience = 2 needs held-out pairs"):
        train(examples, tmp_path / "model", SETTINGS.model_copy(update={"patience": 2}))


def test_training_starts_from_given_vectors(examples: Examples, tmp_path: Path) -> None:
    file = tmp_path / "start.txt"
    line = " ".join(["0.5"] * 16)
    file.write_text(f"2 16\nw7 {line}\nunknown {line}\n")
    changes = {"start_vectors": (str(file),), "learning_rate": 1e-9, "epochs": 1}
    model = train(examples, tmp_path / "model", SETTINGS.model_copy(update=changes))
    np.testing.assert_allclose(vectors(model)[7], 0.5, rtol=1e-5)
    assert np.abs(np.delete(vectors(model), 7, 0)).max() < 0.5 / 16 + 1e-5
    file.write_text(f"1 16\nunknown {line}\n")
    with pytest.raises(SkipstreamError, match="must know a word of the vocabulary"):
        train(examples, tmp_path / "other", SETTINGS.model_copy(update=changes))


def test_losses_are_there_for_tensorboard(examples: Examples, trained: Model) -> None:
    seen: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((trained.path / "logs").rglob("*tfevents*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                seen.setdefault(f"{file.parent.name}/{value.tag}", []).append((event.step, number))
    history = trained.summary["history"]
    assert [loss for _, loss in seen["validation/loss"]] == pytest.approx(
        [epoch["held_out_loss"] for epoch in history]
    )
    assert seen["train/loss"][-1][1] < seen["train/loss"][0][1] < 4.16
    rounds = len(SkipGrams(examples, SETTINGS).plan(0))
    assert len(seen["train/loss"]) == 3 * rounds
    rates = [rate for _, rate in seen["train/learning_rate"]]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(0.05) and rates[-1] < 0.05 / rounds


def test_no_dataset_that_is_read_has_a_thread_that_tunes_it(
    examples: Examples, trained: Model, tuned: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On one CPU the end of a training waited for that thread, as long as the training had taken.
    assert tuned  # Those of rounds.
    single, of_files = tf.data.Dataset.get_single_element, []

    def spy(dataset: tf.data.Dataset) -> Any:
        of_files.append(dataset.options().autotune.enabled)
        return single(dataset)

    monkeypatch.setattr(tf.data.Dataset, "get_single_element", spy)
    # A graph may have been made of it before.
    monkeypatch.setattr(tokens, "_ids", tokens._ids.python_function)
    files = examples.records("train")
    tokens.unpacked(files, 1 << 30)
    assert len(of_files) == len(files)
    assert not any([*tuned, *of_files])


def test_the_model_looks_up_its_vectors(examples: Examples) -> None:
    data = SkipGrams(examples, SETTINGS)
    model = SkipGram(data, data.settings)
    found = model(tf.constant([[4], [0]])).numpy()
    assert (found == model.vectors.rows[[[4], [0]]]).all()
    assert 0 < np.abs(model.vectors.rows).max() <= 0.5 / 16
    assert not model.contexts.rows.any()
