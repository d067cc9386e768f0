"""A training that is interrupted ends with the same bits, wherever it goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_dataset import random_documents, write_examples
from trainings import (
    SETTINGS,
    TABLES_WITH_NGRAMS,
    WITH_NGRAMS,
    Elsewhere,
    digests,
    losses,
    newest_checkpoint,
    process,
    small_examples,
    train,
    vectors,
)

from components import trainer
from components.artifacts import Model, link
from components.trainer import SkipGrams
from components.trainer.callbacks import Progress


def test_any_number_of_threads_and_any_interruption_give_the_same_bits(tmp_path: Path) -> None:
    # Six rounds of three shards, and so many words that merges have parts.
    documents = random_documents(0, 1800, types=2000)
    examples = write_examples(tmp_path / "examples", documents, types=2000)
    changes = {"shards": 3, "round_tokens": 1, "checkpoint_minutes": 1e-9}
    settings = SETTINGS.model_copy(update=changes)
    several = tmp_path / "several"
    process(examples, several, settings, 4, killed=("unkept", 1, 2))
    assert newest_checkpoint(several) == (1, 1)
    assert not (several / "manifest.json").exists()
    process(examples, several, settings, 1, killed=("writing", 2, 2))
    assert newest_checkpoint(several) == (2, 1)
    process(examples, several, settings, threads=2)
    here = train(examples, tmp_path / "here", settings).path  # With other parts.
    assert digests(here) == digests(several)
    assert losses(here) == losses(several)


def test_with_ngrams_any_number_of_threads_and_any_interruption_give_the_same_bits(
    tmp_path: Path,
) -> None:
    # So many words that what they share has parts, too.
    documents = random_documents(0, 1500, types=600)
    examples = write_examples(tmp_path / "examples", documents, types=600)
    changes = {"epochs": 2, "shards": 3, "round_tokens": 1, "checkpoint_minutes": 1e-9}
    settings = WITH_NGRAMS.model_copy(update=changes)
    several = tmp_path / "several"
    here = train(examples, tmp_path / "here", settings).path
    process(examples, several, settings, 2, killed=("unkept", 1, 2))
    assert newest_checkpoint(several) == (1, 1)
    process(examples, several, settings, threads=1)
    assert digests(here).keys() == TABLES_WITH_NGRAMS
    assert digests(here) == digests(several)
    assert losses(here) == losses(several)


def test_a_run_that_is_interrupted_after_the_last_round_of_an_epoch_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = small_examples(tmp_path / "examples")
    trained, out = train(examples, tmp_path / "trained"), tmp_path / "out"
    settings = SETTINGS.model_copy(update={"checkpoint_minutes": 1e-9})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Progress, "finish_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(examples, out, settings)
    epoch, rounds = newest_checkpoint(out)
    whole = len(SkipGrams(examples, settings).plan(0))
    assert (epoch, rounds) == (0, whole)  # All of the epoch are done, and it is not.
    resumed = train(examples, out, settings)
    assert digests(resumed.path) == digests(trained.path)
    assert losses(resumed.path) == losses(trained.path)
    seconds = [epoch["seconds"] for epoch in resumed.summary["history"]]
    assert min(seconds) > 0
    assert sum(seconds) <= resumed.summary["training_seconds"] + 0.01


def test_a_run_killed_before_its_manifest_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = small_examples(tmp_path / "examples")
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


def test_what_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("table")
    target.write_text("an older one")
    link(source, target)
    assert target.read_text() == "table"


@pytest.mark.parametrize("when", ["within an epoch", "after all epochs", "after the best epoch"])
def test_a_checkpoint_alone_is_enough_for_another_machine(tmp_path: Path, when: str) -> None:
    # Too few documents for so many epochs: the held-out loss falls, then rises.
    examples = write_examples(tmp_path / "examples", random_documents(2, 50) * 4, types=50)
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
