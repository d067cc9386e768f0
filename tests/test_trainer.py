"""Training: learns, repeats its bits, resumes, and stops when it diverges."""

import gc
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import tensorflow as tf
from stages import unlisted
from test_dataset import random_documents, write_examples

from components import trainer
from components.artifacts import STATE, Examples, Model, link
from components.errors import NotBlessedError, SkipstreamError
from components.settings import TrainerSettings
from components.trainer import SkipGrams, dataset, rounds, tables, training
from components.trainer.callbacks import Progress
from components.trainer.model import SkipGram
from components.trainer.optimizer import RowGradients, Table, joined, moved
from components.trainer.rounds import BLOCK

SETTINGS_DEFAULT = {"sample": 0, "epochs": 3}
# Eight blocks of tokens are four rounds.
SETTINGS = TrainerSettings(
    dimensions=16, sample=0, epochs=3, window=3, shards=2, round_tokens=BLOCK
)


# Tables of 50 x 16 in most tests: XLA compiles for each shape, which takes seconds.
@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return write_examples(tmp_path_factory.mktemp("examples"), random_documents(0, 3000), types=50)


def train(examples: Examples, path: Path, settings: TrainerSettings = SETTINGS) -> Model:
    path.mkdir(exist_ok=True)
    return trainer.build(examples, settings=settings, out=Model(path, "model"))


def vectors(model: Model) -> np.ndarray:
    return np.load(model.path / "vectors.npy")


@pytest.fixture(scope="module")
def trained(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Model:
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
    examples = write_examples(tmp_path / "examples", sentences(13_000), types=50)
    settings = SETTINGS.model_copy(update={"shards": 16, "round_tokens": BLOCK, "epochs": 8})
    model = train(examples, tmp_path / "model", settings)
    history = json.loads((model.path / "history.json").read_text())
    losses = [epoch["held_out_loss"] for epoch in history]
    assert max(losses) < 4.16 and losses[-1] < 2.6  # Untrained, and by frequency alone.


def test_another_seed_gives_another_model(
    examples: Examples, trained: Model, tmp_path: Path
) -> None:
    other = train(examples, tmp_path / "other", SETTINGS.model_copy(update={"seed": 2}))
    assert (vectors(other) != vectors(trained)).any()


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


# A training in a process of its own, with its threads. It may end as by SIGKILL: when so many
# rounds of an epoch are done, and one less is kept; or while that is written down.
PROCESS = """
import os
import signal
import sys
from pathlib import Path
from components import threads
threads.limit(int(sys.argv[4]))
from components import trainer
from components.artifacts import Examples, Model
from components.settings import TrainerSettings
from components.trainer import callbacks, sharing, training
threads.make_devices()
training._PART = sharing._PART = 200
moment, position = sys.argv[5], (int(sys.argv[6]), int(sys.argv[7]))
save, write_json = callbacks.Progress.on_train_batch_end, callbacks.write_json
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
def save_or_kill(self, batch, logs=None):
    if moment == "unkept" and (self.epoch, self.round + 1) == position:
        kill()
    save(self, batch, logs)
def write_or_kill(path, content):
    if moment == "writing" and isinstance(content, dict):
        if (content["epoch"], content["round"]) == position:
            kill()
    write_json(path, content)
callbacks.Progress.on_train_batch_end = save_or_kill
callbacks.write_json = write_or_kill
settings = TrainerSettings.model_validate_json(sys.argv[3])
out = Model(Path(sys.argv[2]), "model")
trainer.build(Examples(Path(sys.argv[1]), "x"), settings=settings, out=out)
"""


def process(
    examples: Examples,
    path: Path,
    settings: TrainerSettings,
    threads: int,
    killed: tuple[str, int, int] = ("never", 0, 0),
) -> None:
    path.mkdir(exist_ok=True)
    arguments = [examples.path, path, settings.model_dump_json(), threads, *killed]
    environment = {name: value for name, value in os.environ.items() if name[:6] != "TF_NUM"}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    expected = 0 if killed[0] == "never" else -signal.SIGKILL
    assert done.returncode == expected, done.stderr


def digests(model: Path) -> dict[str, str]:
    """Of all tables: vectors, contexts, and those of n-grams, if there are."""
    files = sorted(model.glob("*.npy"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def newest_checkpoint(model: Path) -> tuple[int, int]:
    """Epochs that it has behind it, and rounds of the one under way."""
    states = [json.loads(file.read_text()) for file in model.glob("checkpoints/*/state.json")]
    return max((state["epoch"], state["round"]) for state in states)


def losses(model: Path) -> list[float]:
    return [epoch["loss"] for epoch in json.loads((model / "history.json").read_text())]


def test_any_number_of_threads_and_any_interruption_give_the_same_bits(tmp_path: Path) -> None:
    # Nine blocks for three shards, and so many words that merges have parts.
    documents = random_documents(0, 3600, types=2000)
    examples = write_examples(tmp_path / "examples", documents, types=2000)
    changes = {"epochs": 4, "shards": 3, "round_tokens": 1, "checkpoint_minutes": 1e-9}
    settings = SETTINGS.model_copy(update=changes)
    one, two, four = (tmp_path / name for name in ("one", "two", "four"))
    process(examples, one, settings, threads=1)
    process(examples, two, settings, threads=2)
    process(examples, four, settings, 4, killed=("unkept", 1, 2))
    assert newest_checkpoint(four) == (1, 1)
    assert not (four / "manifest.json").exists()
    process(examples, four, settings, 2, killed=("writing", 2, 2))
    assert newest_checkpoint(four) == (2, 1)
    process(examples, four, settings, threads=4)
    assert digests(one) == digests(two) == digests(four)
    assert losses(one) == losses(two) == losses(four)
    here = train(examples, tmp_path / "here", settings)  # With other parts, on one device.
    assert digests(here.path) == digests(one)


def test_a_run_that_is_interrupted_after_the_last_round_of_an_epoch_goes_on_from_there(
    examples: Examples, trained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"checkpoint_minutes": 1e-9})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "finish_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(examples, tmp_path, settings)
    epoch, rounds = newest_checkpoint(tmp_path)
    whole = len(SkipGrams(examples, settings).plan(0))
    assert (epoch, rounds) == (0, whole)  # All of the epoch are done, and it is not.
    resumed = train(examples, tmp_path, settings)
    assert digests(resumed.path) == digests(trained.path)
    assert losses(resumed.path) == losses(trained.path)
    seconds = [epoch["seconds"] for epoch in resumed.summary["history"]]
    assert min(seconds) > 0
    assert sum(seconds) <= resumed.summary["training_seconds"] + 0.01


def test_the_tables_of_models_that_are_done_with_are_freed_at_once(
    examples: Examples, tmp_path: Path
) -> None:
    def models() -> int:
        return sum(isinstance(thing, SkipGram) for thing in gc.get_objects())

    gc.collect()
    before = models()
    gc.disable()
    try:
        trained = train(examples, tmp_path)
        assert models() == before
        trainer.held_out_loss(trained, examples, SETTINGS)
        trainer.comparable_losses([trained, trained], examples, SETTINGS)
        assert models() == before
    finally:
        gc.enable()


def test_a_run_killed_before_its_manifest_is_not_lost(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 3, "patience": 1, "learning_rate": 1.0})
    whole = train(examples, tmp_path / "whole", settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Model, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        train(examples, tmp_path / "killed", settings)
    resumed = train(examples, tmp_path / "killed", settings)
    assert (vectors(resumed) == vectors(whole)).all()
    assert {path.name for path in resumed.path.iterdir()} == {
        path.name for path in whole.path.iterdir()
    }


@dataclass
class Elsewhere:
    """What another machine is left with, of a model in the making: copies of its checkpoints."""

    directory: Path
    gone: Callable[[dict[str, Any]], bool]  # After a checkpoint with that state, the machine is.
    names: list[str] = field(default_factory=list)
    address: str = "s3://bucket/out/trainer/model"

    def has(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def fetch(self, name: str) -> None:
        raise AssertionError("it is made here")

    def keep(self, name: str) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self.directory.parent / "gone" / name, self.directory / name)
        self.names.append(name)
        if self.gone(json.loads((self.directory / name / STATE).read_text())):
            raise KeyboardInterrupt


def test_what_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("table")
    target.write_text("an older one")
    link(source, target)
    assert target.read_text() == "table"


@pytest.mark.parametrize("when", ["within an epoch", "after all epochs", "after the best epoch"])
def test_a_checkpoint_alone_is_enough_for_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(rounds, "BLOCK", 512)
    monkeypatch.setattr(dataset, "BLOCK", 512)
    monkeypatch.setattr(training, "BLOCK", 512)
    # Too few documents for so many epochs: the held-out loss falls, then rises.
    examples = write_examples(tmp_path / "examples", random_documents(2, 60) * 4, types=50)
    patient = when == "after the best epoch"
    changes = {"epochs": 40, "patience": 3} if patient else {}
    changes |= {"learning_rate": 1.0, "checkpoint_minutes": 1e-6}
    settings = SETTINGS.model_copy(update=changes)

    def gone(state: dict[str, Any]) -> bool:
        if when == "after all epochs":
            return bool(state["epoch"] == settings.epochs)
        losses = [epoch["held_out_loss"] for epoch in state["epochs"]]
        begun = len(losses) > 1 and state["round"] > 0
        return begun and (not patient or losses[-1] > min(losses))

    whole = train(examples, tmp_path / "whole", settings)
    other = Elsewhere(tmp_path / "other", gone)
    (tmp_path / "gone").mkdir()
    with pytest.raises(KeyboardInterrupt):
        trainer.build(examples, settings=settings, out=Model(tmp_path / "gone", "m", {}, other))
    assert other.names == [f"checkpoints/{n}" for n in range(1, len(other.names) + 1)]
    shutil.rmtree(tmp_path / "gone")
    resumed = train(examples, other.directory, settings)
    for name in ("vectors.npy", "contexts.npy"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    histories = [
        [epoch | {"seconds": None} for epoch in json.loads((m.path / "history.json").read_text())]
        for m in (resumed, whole)
    ]
    assert histories[0] == histories[1]
    assert resumed.summary["held_out_loss"] == whole.summary["held_out_loss"]


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
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_divergence_stops_the_run(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    monkeypatch.setattr("components.trainer.training.LONGEST_MOVE", 1e9)  # Else nothing diverges.
    settings = SETTINGS.model_copy(update={"learning_rate": rate, "epochs": 20})
    with pytest.raises(NotBlessedError, match=r"training diverged: .* lower trainer.learning_rate"):
        train(examples, tmp_path, settings)


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", [], types=3)
    with pytest.raises(SkipstreamError, match="at least one document"):
        train(examples, tmp_path / "model")


@pytest.mark.parametrize(
    ("documents", "types", "changes"),
    [
        ([[0] * 9], 1, {"shards": None, "round_tokens": None}),
        ([[0, 1] * 40], 2, {"dimensions": 1}),
        ([[0, 1, 2] * 10_000], 3, {"dimensions": 2}),
        ([[0, 1, 2] * 10_000], 3, {"dimensions": 3, "shards": 3}),
        ([[0, 1, 2, 3] * 7_000], 50, {"dimensions": 4, "shards": 64, "round_tokens": 10**9}),
    ],
    ids=[
        "one type",
        "two types",
        "one long document",
        "a shard a block",
        "more shards than blocks",
    ],
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


def test_a_text_of_one_token_is_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", [[0]], types=1)
    with pytest.raises(SkipstreamError, match="needs pairs of words, got none"):
        train(examples, tmp_path / "model")


def test_documents_without_a_pair_are_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", [[0], [1], [2]] * 50, types=50)
    with pytest.raises(SkipstreamError, match="got none: transform.min_count leaves 150 tok"):
        train(examples, tmp_path / "model")


def test_held_out_documents_without_a_pair_have_no_loss(tmp_path: Path) -> None:
    documents = [[i % 2] if i % 10 == 0 else [0, 1, 0, 1] for i in range(100)]
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
    examples = write_examples(tmp_path / "examples", random_documents(0, 3000), types=50)
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


def row_gradients(ids: list[int], values: list[list[float]], load: float = 0) -> RowGradients:
    loads = tf.constant([load] * len(ids), tf.float32)
    return RowGradients(tf.constant(ids), tf.constant(values, tf.float32), loads)


def test_repeated_rows_add_up_and_others_stay() -> None:
    table = Table(tf.ones([4, 2]), tf.constant([1.0, 2.0, 3.0, 4.0]))
    parts = [row_gradients([2, 0], [[1, 2], [3, 4]], 8), row_gradients([2], [[5, 6]])]
    rows, paths = moved(table, joined(parts), tf.constant(0.5), tf.constant(100.0))
    assert rows.numpy().tolist() == [[-0.5, -1], [1, 1], [-2, -3], [1, 1]]
    assert paths.numpy().tolist() == [5, 2, 7, 4]


@pytest.mark.parametrize("seed", range(5))
def test_a_row_with_a_great_load_moves_as_if_by_the_most(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, 12, 300)
    loads = (draw.random(300) * 3).astype(np.float32)
    gradients = RowGradients(tf.constant(ids, tf.int32), tf.ones([300, 1]), tf.constant(loads))
    table = Table(tf.zeros([13, 1]), tf.zeros([13]))
    rows, paths = moved(table, gradients, tf.constant(0.1), tf.constant(35.0))
    counts = np.bincount(ids, minlength=13)
    sums = np.bincount(ids, loads, minlength=13)
    naive = 0.1 * np.minimum(1, 35 / np.maximum(sums, 1e-9))
    np.testing.assert_allclose(-rows.numpy()[:, 0], naive * counts, rtol=1e-5)
    np.testing.assert_allclose(paths, 0.1 * np.minimum(sums, 35), rtol=1e-5)
    assert (sums > 35).any() and (sums[:12] < 35).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"types": 3},
        {"types": 50, "learning_rate": 1.0},
        {"types": 1000, "dimensions": 600},
        {"types": 1000, "dimensions": 75},
        {"types": 1000, "dimensions": 50, "window": 20},
        {"types": 300, "burst": 5000},
        {"types": 3, "shards": 4, "round_tokens": 1},
        {"types": 50, "learning_rate": 1.0, "shards": 4, "round_tokens": 1},
        {"types": 1000, "dimensions": 75, "shards": 4, "round_tokens": 1},
        {"types": 300, "burst": 5000, "shards": 4, "round_tokens": 1},
    ],
    ids=str,
)
def test_training_is_stable(
    changes: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {name: value for name, value in changes.items() if name not in ("types", "burst")}
    types = int(changes["types"])
    if "shards" in changes:  # Many rounds of what are few blocks for one shard.
        monkeypatch.setattr(rounds, "BLOCK", 512)
        monkeypatch.setattr(dataset, "BLOCK", 512)
        monkeypatch.setattr(training, "BLOCK", 512)
    documents = random_documents(1, 1000, types) + [[types - 1] * int(changes.get("burst", 0))]
    examples = write_examples(tmp_path / "examples", documents, types=types)
    model = train(
        examples, tmp_path / "model", TrainerSettings.model_validate(SETTINGS_DEFAULT | others)
    )
    assert model.summary["held_out_loss"] < 4.1  # Untrained: 4.16.
    assert np.linalg.norm(vectors(model), axis=1).max() < 50


def test_patience_keeps_the_best_epoch(tmp_path: Path) -> None:
    # Too few documents for so many epochs: the held-out loss falls, then rises.
    documents = random_documents(2, 60, types=400) * 4
    examples = write_examples(tmp_path / "examples", documents, types=400)
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
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On one CPU the end of a training waited for that thread, as long as the training had taken.
    tuned = []
    iterate = tf.data.Dataset.__iter__

    def spy(dataset: tf.data.Dataset) -> Any:
        tuned.append(dataset.options().autotune.enabled)
        return iterate(dataset)

    monkeypatch.setattr(tf.data.Dataset, "__iter__", spy)
    model = train(examples, tmp_path / "model", SETTINGS.model_copy(update={"epochs": 1}))
    trainer.held_out_loss(model, examples, SETTINGS)
    trainer.frequency_loss(examples, SETTINGS, "train")
    # Training, validation, and the two losses; and before that, of each the three files.
    assert len(tuned) >= 4 + 4 * 3
    assert set(tuned) == {False}


def test_the_model_looks_up_its_vectors(examples: Examples) -> None:
    data = SkipGrams(examples, SETTINGS)
    model = SkipGram(data, data.settings)
    found = model(tf.constant([[4], [0]])).numpy()
    assert (found == model.vectors.rows[[[4], [0]]]).all()
    assert 0 < np.abs(model.vectors.rows).max() <= 0.5 / 16
    assert not model.contexts.rows.any()
