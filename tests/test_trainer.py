"""Training: learns, repeats its bits, resumes, and stops when it diverges."""

import gc
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_dataset import random_documents, write_examples

from components import trainer
from components.artifacts import STATE, Examples, Model, link
from components.errors import NotBlessedError, SkipstreamError
from components.settings import TrainerSettings
from components.trainer import tables
from components.trainer.callbacks import Progress
from components.trainer.model import SkipGram
from components.trainer.optimizer import RowGradients, RowSGD

SETTINGS_DEFAULT = {"sample": 0, "epochs": 3}
SETTINGS = TrainerSettings(dimensions=16, sample=0, epochs=3, window=3)


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


def test_the_defaults_teach_a_small_text_which_words_are_of_a_kind(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    # A sentence holds words of the kinds 0, 1 and 2, or of 3, 4 and 5, each at its place.
    documents = []
    for _ in range(1500):
        first, (a, b, c) = draw.integers(2), draw.integers(0, 8, 3)
        kinds = [8 * (3 * first + kind) + word for kind, word in enumerate((a, b, c))]
        documents.append([48 + first, kinds[0], kinds[1], 48 + first, kinds[2]])
    examples = write_examples(tmp_path / "examples", documents, types=50)
    model = train(examples, tmp_path / "model", TrainerSettings(dimensions=16))
    unit = vectors(model)[:48]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T - 9 * np.eye(48)
    assert (cosines.argmax(1) // 8 == np.arange(48) // 8).mean() > 0.9


def test_the_same_seed_gives_the_same_bits_however_many_steps_a_call_takes(
    examples: Examples, trained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = train(examples, tmp_path / "other", SETTINGS.model_copy(update={"seed": 2}))
    assert (vectors(other) != vectors(trained)).any()
    monkeypatch.setattr("components.trainer.trainer.STEPS_PER_CALL", 1)
    assert (vectors(train(examples, tmp_path / "one")) == vectors(trained)).all()


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


KILLED = """
import sys
from pathlib import Path
from types import SimpleNamespace
from components.artifacts import Examples, Model
from components.settings import TrainerSettings
from components.trainer import trainer
trainer.STEPS_PER_CALL = 4
settings = TrainerSettings.model_validate_json(sys.argv[3])
examples = Examples(Path(sys.argv[1]), "examples")
trainer.build(examples, settings=settings, out=Model(Path(sys.argv[2]), "model"))
"""


def newest_checkpoint(model: Path) -> tuple[int, int]:
    """Its number, and the steps of an epoch under way that it has behind it."""
    states = {int(file.parent.name): file for file in model.glob("checkpoints/*/state.json")}
    if not states:
        return 0, 0
    return max(states), json.loads(states[max(states)].read_text())["step"]


def test_a_run_that_is_killed_and_interrupted_within_epochs_ends_with_the_same_bits(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 5, "checkpoint_minutes": 1e-6})
    killed = tmp_path / "killed"
    killed.mkdir()
    arguments = [str(examples.path), str(killed), settings.model_dump_json()]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while True:
        time.sleep(0.02)
        assert process.poll() is None and time.monotonic() < deadline
        process.send_signal(signal.SIGSTOP)  # What is read is what it leaves.
        number, step = newest_checkpoint(killed)
        if number > 3 and 0 < step < 24:
            break
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    assert not (killed / "manifest.json").exists()

    monkeypatch.setattr("components.trainer.trainer.STEPS_PER_CALL", 4)
    whole = train(examples, tmp_path / "whole", settings)
    save = Progress.on_train_batch_end

    def interrupt(self: Progress, batch: int, logs: Any = None) -> None:
        save(self, batch, logs)
        if (self.epoch, self.step) == (3, 8):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "on_train_batch_end", interrupt)
        train(examples, killed, settings)
    assert newest_checkpoint(killed)[1] == 8

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "finish_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(examples, killed, settings)
    assert newest_checkpoint(killed)[1] > 24  # All steps of the epoch are done, and it is not.
    resumed = train(examples, killed, settings)
    assert (vectors(resumed) == vectors(whole)).all()
    losses = [[epoch["loss"] for epoch in m.summary["history"]] for m in (resumed, whole)]
    assert losses[0] == losses[1]
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
    monkeypatch.setattr("components.trainer.trainer.STEPS_PER_CALL", 4)
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
        begun = len(losses) > 1 and state["step"] > 0
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
    model = SkipGram(types=50, dimensions=dimensions, window=2, negatives=5, seed=1)
    expected = model.vectors.numpy()
    monkeypatch.setattr(tables, "BLOCK_ROWS", 7)
    model.vectors.save(tmp_path / "table.npy")
    assert (np.load(tmp_path / "table.npy") == expected).all()
    model.contexts.load(tmp_path / "table.npy")
    assert (model.contexts.numpy() == expected).all()
    assert model.contexts.largest_norm() == pytest.approx(np.linalg.norm(expected, axis=1).max())
    model.contexts.assign_rows([49, 0], np.ones((2, dimensions), np.float32))
    assert (model.contexts.numpy()[[0, 49]] == 1).all()
    assert (model.contexts.numpy()[1:49] == expected[1:49]).all()


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_divergence_stops_the_run(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    monkeypatch.setattr("components.trainer.trainer.LONGEST_MOVE", 1e9)  # Else nothing diverges.
    settings = SETTINGS.model_copy(update={"learning_rate": rate, "epochs": 20})
    with pytest.raises(NotBlessedError, match=r"training diverged: .* lower trainer.learning_rate"):
        train(examples, tmp_path, settings)


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", [], types=3)
    with pytest.raises(SkipstreamError, match="at least one document"):
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
    with pytest.raises(
        SkipstreamError, match=r"must have \d+ bytes, got \d+: .* run transform again"
    ):
        train(examples, tmp_path / "model")
    remote: Any = SimpleNamespace(address="s3://b/transform/f", fetch=lambda name: None)
    fetched = replace(examples, remote=remote)
    with pytest.raises(SkipstreamError, match=r"^s3://b/transform/f/train/.*delete s3://b/tra"):
        fetched.records("train")


def test_a_corrupt_tfrecord_is_an_error(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", random_documents(0, 3000), types=50)
    record = Path(examples.records("train")[0])
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 0xFF
    record.write_bytes(bytes(content))
    with pytest.raises(SkipstreamError, match=r"is damaged \(inflate.*\): .* run transform again"):
        train(examples, tmp_path / "model")


def row_gradients(ids: list[int], values: list[list[float]], load: float = 0) -> RowGradients:
    loads = tf.constant([load] * len(ids), tf.float32)
    return RowGradients(tf.constant(ids), tf.constant(values, tf.float32), loads)


def test_repeated_rows_add_up_and_others_stay() -> None:
    table = tf.Variable(tf.ones([4, 2]))
    parts = [row_gradients([2, 0], [[1, 2], [3, 4]]), row_gradients([2], [[5, 6]])]
    optimizer = RowSGD(0.5)
    optimizer.apply([parts], [table])
    assert table.numpy().tolist() == [[-0.5, -1], [1, 1], [-2, -3], [1, 1]]
    assert optimizer.iterations.numpy() == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_row_with_a_great_load_moves_as_if_by_the_most(seed: int) -> None:
    draw = np.random.default_rng(seed)
    # Words beyond CELLS share their cells with each other only.
    ids = np.array([*range(9), 16_384, 20_000, 100_000])
    rows, loads = draw.choice(ids, 300), (draw.random(300) * 3).astype(np.float32)
    table = tf.Variable(tf.zeros([100_001, 1]))
    parts = [
        RowGradients(tf.constant(rows[part], tf.int32), tf.ones([150, 1]), tf.constant(loads[part]))
        for part in (slice(150), slice(150, None))
    ]
    RowSGD(0.1, most_load=35).apply([parts], [table])
    rates = np.array([-table.numpy()[row, 0] / (rows == row).sum() for row in ids])
    naive = [0.1 * min(1, 35 / loads[rows == row].sum()) for row in ids]
    np.testing.assert_allclose(rates, naive, rtol=1e-5)
    assert min(naive) < 0.0999 and max(naive) == 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"types": 3},
        {"types": 50, "learning_rate": 1.0},
        {"types": 1000, "dimensions": 600},
        {"types": 1000, "dimensions": 75},
        {"types": 1000, "dimensions": 50, "window": 20},
        {"types": 300, "burst": 5000},
    ],
    ids=str,
)
def test_training_is_stable(changes: dict[str, float], tmp_path: Path) -> None:
    others = {name: value for name, value in changes.items() if name not in ("types", "burst")}
    types = int(changes["types"])
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


def test_losses_are_there_for_tensorboard(trained: Model) -> None:
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
    assert seen["train/loss"][-1][1] < seen["train/loss"][0][1] < 4.1
    assert seen["train/learning_rate"][-1][1] < 0.001


MIRRORED = """
import sys
from pathlib import Path
from types import SimpleNamespace
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from components import trainer
from components.artifacts import Examples, Model
from components.settings import TrainerSettings
settings = TrainerSettings.model_validate_json(sys.argv[3])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
out = Model(Path(sys.argv[2]), "model")
trainer.build(Examples(Path(sys.argv[1]), "x"), settings=settings, out=out, strategy=strategy)
"""


def test_two_devices_train_as_one_does(tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", random_documents(0, 3000, 2000), types=2000)
    (tmp_path / "two").mkdir()
    arguments = [str(examples.path), str(tmp_path / "two"), SETTINGS.model_dump_json()]
    subprocess.run([sys.executable, "-c", MIRRORED, *arguments], check=True, capture_output=True)
    one, two = train(examples, tmp_path / "one"), Model.load(tmp_path / "two")
    assert two is not None
    for key in ("loss", "held_out_loss"):
        assert two.summary[key] == pytest.approx(one.summary[key], rel=0.005)
    # Not the same bits: the sums of a step are added up in another order.
    correlation = np.corrcoef(vectors(two).ravel(), vectors(one).ravel())[0, 1]
    assert correlation > 0.98


def test_the_model_looks_up_its_vectors() -> None:
    model = SkipGram(types=5, dimensions=3, window=2, negatives=5, seed=1)
    assert (model(tf.constant([[4], [0]])).numpy() == model.vectors.numpy()[[[4], [0]]]).all()
    assert np.abs(model.vectors.numpy()).max() <= 0.5 / 3
    assert not model.contexts.numpy().any()
