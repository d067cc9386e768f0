"""A training that is interrupted ends with the same bits, wherever it goes on."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import pytest
from test_cluster import in_midst_of_work
from test_dataset import random_documents, write_examples
from trainings import (
    NEVER,
    SETTINGS,
    TABLES_WITH_NGRAMS,
    WITH_NGRAMS,
    Elsewhere,
    digests,
    leaving,
    losses,
    newest_checkpoint,
    process,
    too_few_examples,
    train,
)

from components import trainer
from components.artifacts import Examples, Model, link
from components.trainer import SkipGrams
from components.trainer.cluster import hand
from components.trainer.cluster.job import Job


@pytest.fixture(scope="module")
def many_words(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Of six rounds of three shards, and so many words that merges and n-grams have parts."""
    path = tmp_path_factory.mktemp("many_words") / "examples"
    return write_examples(path, random_documents(0, 1800, types=2000), types=2000)


ROUNDS = {"epochs": 2, "shards": 3, "round_tokens": 1, "checkpoint_minutes": 1e-9}
WORDS = SETTINGS.model_copy(update=ROUNDS)
NGRAMS = WITH_NGRAMS.model_copy(update=ROUNDS)


@pytest.fixture(scope="module")
def words(many_words: Examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a thread of this process makes of them, at once."""
    return train(many_words, tmp_path_factory.mktemp("words"), WORDS).path


def test_any_number_of_threads_and_any_interruption_give_the_same_bits(
    many_words: Examples, words: Path, tmp_path: Path
) -> None:
    several, with_ngrams = tmp_path / "several", tmp_path / "with_ngrams"
    # Processes have other parts than this one, and each goes on with what another one began.
    process(many_words, 1, (with_ngrams, NGRAMS, ("writing", 0, 2)))
    assert newest_checkpoint(with_ngrams) == (0, 1)
    process(many_words, 2, (with_ngrams, NGRAMS, NEVER), (several, WORDS, ("unkept", 1, 2)))
    assert newest_checkpoint(several) == (1, 1)
    assert not (several / "manifest.json").exists()
    train(many_words, several, WORDS)
    assert digests(several) == digests(words)
    assert losses(several) == losses(words)
    here = train(many_words, tmp_path / "here", NGRAMS).path
    assert digests(here).keys() == TABLES_WITH_NGRAMS
    assert digests(here) == digests(with_ngrams)
    assert losses(here) == losses(with_ngrams)


def wait_for(what: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.002)


def test_a_process_killed_in_mid_round_costs_no_bit(
    many_words: Examples, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster of two, the other of which is this process."""
    codes: list[int | None] = []

    def start(self: Job, hands: int, patience: float) -> Callable[[], None]:
        directory = Path(self._address)
        victim = forks.start(tmp_path / "log", hand.work_at, self._address, 0, 1.0)

        def wait() -> None:
            wait_for(lambda: list(directory.glob("rounds/*/claim-rounds-*")))
            other = threading.Thread(target=hand.work_at, args=(self._address, 1, 1.0))
            other.start()
            wait_for(lambda: in_midst_of_work(directory) == victim.pid)
            victim.kill()
            victim.join(120)
            other.join(120)
            codes.append(victim.exitcode)

        return wait

    monkeypatch.setattr(Job, "start", start)
    distributed = WORDS.model_copy(update={"distributed": True})
    model = train(many_words, tmp_path / "out", distributed).path
    assert codes == [-signal.SIGKILL]
    assert digests(model) == digests(words)
    assert losses(model) == losses(words)


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
