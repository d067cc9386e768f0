"""Small trainings, what they leave, and what interrupts them."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
from test_dataset import random_documents, write_examples

from components import threads, trainer
from components.artifacts import STATE, Examples, Model
from components.settings import TrainerSettings
from components.trainer import callbacks, sharing, training
from components.trainer.rounds import BLOCK

# A round is two blocks. XLA compiles for each shape, which takes a second: with these, and a whole
# number of blocks of all words out of 50, a training in the process before has done it.
SETTINGS = TrainerSettings(
    dimensions=16, sample=0, epochs=3, window=3, shards=2, round_tokens=BLOCK
)
WITH_NGRAMS = SETTINGS.model_copy(update={"min_ngram": 3, "max_ngram": 6, "buckets": 50_000})
TABLES_WITH_NGRAMS = {"vectors.npy", "contexts.npy", "buckets.npy", "bucket_ids.npy"}


def small_examples(path: Path) -> Examples:
    """What most trainings of tests are on."""
    return write_examples(path, random_documents(0, 1000), types=50)


def too_few_examples(path: Path) -> Examples:
    """Of which the held-out loss falls, then rises, at a learning rate of 1."""
    return write_examples(path, random_documents(2, 50) * 10, types=50)


def train(
    examples: Examples,
    path: Path,
    settings: TrainerSettings = SETTINGS,
    start: Model | None = None,
) -> Model:
    path.mkdir(exist_ok=True)
    return trainer.build(examples, settings=settings, out=Model(path, "model"), start=start)


def vectors(model: Model) -> np.ndarray:
    return np.load(model.path / "vectors.npy")


def digests(model: Path) -> dict[str, str]:
    """Of all tables: vectors, contexts, and those of n-grams, if there are."""
    files = sorted(model.glob("*.npy"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def newest_checkpoint(model: Path) -> tuple[int, int]:
    """Epochs that it has behind it, and rounds of the one under way."""
    states = [json.loads(file.read_text()) for file in model.glob("checkpoints/*/state.json")]
    return max((state["epoch"], state["round"]) for state in states)


def losses(model: Path) -> list[dict[str, Any]]:
    """Of all epochs, with all that is no matter of time."""
    history = json.loads((model / "history.json").read_text())
    return [epoch | {"seconds": None} for epoch in history]


# When a training is killed: "unkept", so many rounds of an epoch are done, and one less is kept;
# "writing", while that is written down.
Kill = tuple[str, int, int]
NEVER: Kill = ("never", 0, 0)


def process(
    examples: Examples, threads: int, *trainings: tuple[Path, TrainerSettings, Kill]
) -> None:
    """Trainings one after the other in a process of their own, with its threads.

    Args:
        examples: What they are on.
        threads: How many.
        trainings: For each, where its model is, its settings, and when it is killed.
    """
    log = trainings[0][0].with_suffix(".log")
    child = forks.start(log, _train_until_killed, examples.path, threads, trainings)
    child.join(300)
    expected = 0 if trainings[-1][2] == NEVER else -signal.SIGKILL
    assert child.exitcode == expected, log.read_text()


def _train_until_killed(
    examples: Path, count: int, trainings: list[tuple[Path, TrainerSettings, Kill]]
) -> None:
    threads.limit(count)
    threads.make_devices()
    assert len(threads.devices("CPU")) == count
    training._PART = sharing._PART = 200  # type: ignore[attr-defined]
    for out, settings, killed in trainings:
        with _killed(*killed):
            train(Examples(examples, "x"), out, settings)


@contextmanager
def _killed(moment: str, *position: int) -> Iterator[None]:
    save, write_json = callbacks.Progress.on_train_batch_end, callbacks.write_json

    def save_or_kill(self: callbacks.Progress, batch: int, logs: Any = None) -> None:
        if moment == "unkept" and (self.epoch, self.round + 1) == position:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, batch, logs)

    def write_or_kill(path: Path, content: Any) -> None:
        state = moment == "writing" and isinstance(content, dict)
        if state and (content["epoch"], content["round"]) == position:
            os.kill(os.getpid(), signal.SIGKILL)
        write_json(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_train_batch_end", save_or_kill)
        patch.setattr(callbacks, "write_json", write_or_kill)
        yield


@contextmanager
def leaving(path: Path) -> Iterator[None]:
    """`path` receives what a training in the block leaves if it is killed before its manifest."""
    finish = Model.finish

    def leave_and_finish(model: Model, *given: Any, **facts: Any) -> Model:
        shutil.copytree(model.path, path)
        return finish(model, *given, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "finish", leave_and_finish)
        yield


@dataclass
class Elsewhere:
    """What other machines are left with, of a model in the making: a checkpoint each.

    Attributes:
        directory: Has the model in `whole`, and receives the one of each moment, in a directory
            of its name.
        moments: For each, whether it has come with a checkpoint of such a state; the last one that
            it has come with counts.
        names: Of all checkpoints.
    """

    directory: Path
    moments: Mapping[str, Callable[[dict[str, Any]], Any]]
    names: list[str] = field(default_factory=list)
    address: str = "s3://bucket/out/trainer/model"

    def has(self, name: str) -> bool:
        return False

    def fetch(self, name: str) -> None:
        raise AssertionError("it is made here")

    def keep(self, name: str) -> None:
        self.names.append(name)
        checkpoint = self.directory / "whole" / name
        state = json.loads((checkpoint / STATE).read_text())
        for moment, has_come in self.moments.items():
            if has_come(state):
                shutil.rmtree(self.directory / moment, ignore_errors=True)
                shutil.copytree(checkpoint, self.directory / moment / name)


def in_midst_of_work(directory: Path) -> int:
    """A process that has claimed what is not written yet, after some rounds; 0: none."""
    for claim in directory.glob("rounds/*/claim-rounds-*"):
        round_, task = claim.name.split("-", 3)[2:]
        try:
            if int(round_) > 1 and not (claim.parent / task).exists():
                return int(json.loads(claim.read_bytes())["pid"])
        except (OSError, ValueError):
            continue
    return 0
