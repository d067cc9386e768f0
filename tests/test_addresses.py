"""What stands for a model: a SavedModel, what serves it, an output; on a disk or in a bucket."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from stages import run, step
from test_models import Model
from test_pusher import push

from components.artifacts import VOCABULARY, Corpus
from components.artifacts import Model as Tables
from components.exporter import embeddings, served
from components.places.place import open_place
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.settings import TrainerSettings
from components.vocabulary import Vocabulary
from pipeline import cli
from pipeline.store import SERVING, Store


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "Embeddings", Model)


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return Store.open(tmp_path / "out")
    return Store.open(f"{request.getfixturevalue('s3').url}/out")


def asked(capsys: pytest.CaptureFixture[str], model: str) -> str:
    """What the graph of the SavedModel that is asked holds: its name."""
    capsys.readouterr()
    assert cli.run(["neighbors", model, "where"]) == 0
    place = capsys.readouterr().out.split("\t")[1]
    return (served.resolve(Path(place)) / "saved_model.pb").read_text()


@pytest.mark.usefixtures("model")
def test_a_model_is_a_saved_model_what_serves_it_or_an_output(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = open_destination(store.at(SERVING))
    for name in "ab":
        push(tmp_path / "run", destination, name)
    assert asked(capsys, f"{destination.address}/1") == "a"
    assert asked(capsys, destination.address) == "b"
    run(store, step(Corpus, Corpus.finish))
    assert asked(capsys, store.address) == "b"
    push(tmp_path / "run", destination, "c")
    assert asked(capsys, store.address) == asked(capsys, destination.address) == "c"
    pusher.rollback(destination, to=1)
    assert asked(capsys, store.address) == "a"


@pytest.mark.usefixtures("model")
def test_a_bucket_may_hold_nothing_but_a_saved_model(
    s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    open_place(s3.url).write("saved_model.pb", b"a")
    open_place(s3.url).write("variables/variables.index", b"b")
    assert asked(capsys, s3.url) == "a"


@pytest.mark.usefixtures("model")
def test_an_output_stands_for_what_it_last_pushed_wherever_that_is(
    store: Store, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [str(tmp_path / "elsewhere"), f"{s3.url}/models"]
    for number, place in enumerate(places):
        push(tmp_path / "run", open_destination(place), f"model {number}")
    for place, model in ((places[0], "model 0"), (places[1], "model 1")):
        store.ledger.destinations = [SERVING, place]
        store.save_ledger()
        assert asked(capsys, store.address) == model


def small_files(get: Any) -> Any:
    """`obstore.get` that gives records, but no part of a model."""

    def some(store: Any, path: str) -> Any:
        assert path.endswith(".json"), path
        return get(store, path)

    return some


@pytest.mark.usefixtures("model")
def test_a_version_in_a_bucket_is_fetched_once(
    s3: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    destination = open_destination(f"{s3.url}/models")
    push(tmp_path / "run", destination, "a")
    assert asked(capsys, destination.address) == "a"
    with monkeypatch.context() as patch:
        patch.setattr(obstore, "get", small_files(obstore.get))
        assert asked(capsys, destination.address) == "a"
    destination.place.write("1/saved_model.pb", b"other")
    assert cli.run(["neighbors", destination.address, "where"]) == 1  # Not what was pushed.
    assert "must have the digest" in capsys.readouterr().err


def test_tables_of_a_run_are_compared_wherever_they_lie(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(out: Tables, shift: float) -> Tables:
        words = tuple(f"word{number}" for number in range(20))
        Vocabulary(words, np.arange(40, 20, -1)).save(out.path / VOCABULARY)
        vectors = np.random.default_rng(1).normal(size=(20, 4)) + shift
        np.save(out.path / "vectors.npy", vectors.astype(np.float32))
        return out.finish(TrainerSettings())

    old, new = (
        run(store, step(Tables, lambda out, shift=shift: train(out, shift), content=shift)).address
        for shift in (0.0, 0.5)
    )
    assert cli.run(["drift", old, new, "--json"]) == 0
    moved = json.loads(capsys.readouterr().out)
    assert cli.run(["drift", old, old, "--json"]) == 0
    same = json.loads(capsys.readouterr().out)
    assert moved["procrustes"]["residual"] > 0.01 > abs(same["procrustes"]["residual"])


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("command", ["neighbors", "embed", "analogy"])
def test_a_place_in_a_bucket_without_a_model_is_one_line(
    command: str, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"neighbors": ["x"], "analogy": ["a", "b", "c"]}.get(command, [])
    assert cli.run([command, f"{s3.url}/none", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("skipstream: error: MODEL must be a SavedModel (with saved_model.pb)")
    assert error.endswith(f"got {s3.url}/none, which has no version\n")
