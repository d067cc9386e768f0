"""A training that is interrupted ends with the same bits, wherever it goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainings import (
    SETTINGS,
    Elsewhere,
    digests,
    leaving,
    losses,
    newest_checkpoint,
    too_few_examples,
    train,
)

from components import trainer
from components.artifacts import Examples, Model, link
from components.trainer import SkipGrams

PATIENT = SETTINGS.model_copy(
    update={"epochs": 40, "patience": 2, "learning_rate": 1.0, "checkpoint_minutes": 1e-9}
)


def best_is_over(state: dict[str, Any]) -> bool:
    losses = [epoch["held_out_loss"] for epoch in state["epochs"]]
    return state["round"] > 0 and bool(losses) and losses[-1] > min(losses)


# When a machine is gone, by the newest checkpoint.
MOMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "after the last round of an epoch": lambda state: state["epoch"] == 0,
    "within an epoch": lambda state: (state["epoch"], state["round"]) == (1, 1),
    "after the best epoch": best_is_over,
    "after all epochs": lambda state: state["round"] == 0,
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return too_few_examples(tmp_path_factory.mktemp("examples") / "examples")


@pytest.fixture(scope="module")
def whole(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A training; beside it what is left if it ends before, by moments, and "killed"."""
    directory = tmp_path_factory.mktemp("trainings")
    elsewhere = Elsewhere(directory, MOMENTS)
    out = Model(directory / "whole", "m", {}, elsewhere)
    out.path.mkdir()
    with leaving(directory / "killed"):
        trained = trainer.build(examples, settings=PATIENT, out=out)
    assert elsewhere.names == [f"checkpoints/{n}" for n in range(1, len(elsewhere.names) + 1)]
    return Model(trained.path, "m")


@pytest.mark.parametrize("when", MOMENTS)
def test_a_checkpoint_alone_is_enough_for_another_machine(
    examples: Examples, whole: Model, when: str
) -> None:
    directory = whole.path.with_name(when)
    rounds, epochs = len(SkipGrams(examples, PATIENT).plan(0)), len(whole.summary["history"])
    behind = {
        "after the last round of an epoch": (0, rounds),  # All are done, and the epoch is not.
        "within an epoch": (1, 1),
        "after the best epoch": (epochs - 1, rounds),
        "after all epochs": (epochs, 0),
    }
    assert newest_checkpoint(directory) == behind[when]
    resumed = train(examples, directory, PATIENT)
    assert digests(resumed.path) == digests(whole.path)
    assert losses(resumed.path) == losses(whole.path)
    assert resumed.summary["held_out_loss"] == whole.summary["held_out_loss"]
    seconds = [epoch["seconds"] for epoch in resumed.summary["history"]]
    assert min(seconds) > 0
    assert sum(seconds) <= resumed.summary["training_seconds"] + 0.01


def test_a_run_killed_before_its_manifest_is_not_lost(examples: Examples, whole: Model) -> None:
    killed = whole.path.with_name("killed")
    assert not (killed / "manifest.json").exists()
    resumed = train(examples, killed, PATIENT)
    assert digests(resumed.path) == digests(whole.path)
    assert {path.name for path in resumed.path.iterdir()} == {
        path.name for path in whole.path.iterdir()
    }


def test_what_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("table")
    target.write_text("an older one")
    link(source, target)
    assert target.read_text() == "table"
