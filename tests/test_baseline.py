"""The version before: which it is, and what of it is left in the store or where it is served."""

from pathlib import Path

import pytest
from obstore.store import MemoryStore
from stages import fill, place, run, step
from test_pusher import model, push

from components.artifacts import VOCABULARY, Examples, ExportedModel, Model, VersionBefore
from components.errors import SettingsError, SkipstreamError
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from pipeline import baseline
from pipeline.store import Store

MODEL = "saved_model.pb"
CANDIDATE = Model(Path("new"), "new")


@pytest.fixture(params=["directory", "bucket"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    if request.param == "directory":
        return Destination(Directory(tmp_path / "serving"))
    return Destination(Bucket(MemoryStore(), "s3://bucket/serving"))


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(place(request.param, tmp_path / "out"))


def before(destination: Destination, store: Store) -> VersionBefore | None:
    return baseline.version_before(pusher.read(destination), store, destination, CANDIDATE)


def trained(out: Model) -> Model:
    (out.path / VOCABULARY).touch()
    return out.finish()


def exported(out: ExportedModel) -> ExportedModel:
    (out.path / "saved_model").mkdir()
    (out.path / "saved_model" / MODEL).write_text("in the store")
    return out.finish()


def test_a_fresh_output_takes_the_model_from_where_it_is_served(
    tmp_path: Path, store: Store, destination: Destination
) -> None:
    assert before(destination, store) is None
    push(tmp_path / "run", destination, "a", trainer="old")
    push(tmp_path / "run", destination, "b", trainer="new")  # The candidate, pushed already.
    found = before(destination, store)
    assert found and found.saved_model
    assert (found.version, found.fingerprint) == (1, "a")
    assert (found.saved_model / MODEL).read_bytes() == model("a")[MODEL]
    assert (found.model, found.examples) == (None, None)
    assert found.missing == ("trainer/old", "transform/unknown")
    again = before(destination, store)
    assert again and again.saved_model == found.saved_model


def test_what_is_in_the_store_is_found(
    tmp_path: Path, store: Store, destination: Destination
) -> None:
    tables, text = run(store, step(Model, trained)), run(store, step(Examples, fill))
    saved = run(store, step(ExportedModel, exported))
    push(tmp_path / "run", destination, saved.fingerprint, trainer=tables.fingerprint)
    record = pusher.read(destination).records[1]
    made_of = record.artifacts | {"transform": text.fingerprint}
    record = record.model_copy(update={"artifacts": made_of})
    destination.place.write(".versions/1.json", record.model_dump_json().encode())
    found = before(destination, Store(store.place))
    assert found == VersionBefore(
        1, saved.fingerprint, found and found.find_saved_model, tables, text
    )
    assert found and found.saved_model
    assert (found.saved_model / MODEL).read_text() == "in the store"

    # Whatever goes is named; the SavedModel is served, too.
    store.remove(f"exporter/{saved.fingerprint}")
    found = before(destination, Store(store.place))
    assert found and found.saved_model and not found.missing
    assert (found.saved_model / MODEL).read_bytes() == saved.fingerprint.encode()
    destination.place.remove("1", first=MODEL)
    store.remove(f"trainer/{tables.fingerprint}")
    found = before(destination, Store(store.place))
    assert found and (found.saved_model, found.model, found.examples) == (None, None, text)
    assert found.missing == ("SavedModel", f"trainer/{tables.fingerprint}")
    store.remove(f"transform/{text.fingerprint}")
    found = before(destination, Store(store.place))
    assert found and found.missing[-1] == f"transform/{text.fingerprint}"


def test_tables_without_their_vocabulary_are_none(store: Store) -> None:
    half = run(store, step(Model, fill))
    assert baseline.whole_model(store, half.fingerprint) is None
    whole = run(store, step(Model, trained, content="whole"))
    assert baseline.whole_model(store, whole.fingerprint) == whole


def test_a_version_without_a_record_is_one_all_the_same(tmp_path: Path, store: Store) -> None:
    destination = open_destination(tmp_path / "serving")
    push(tmp_path / "run", destination, "a", trainer="old")
    (tmp_path / "serving" / ".versions" / "1.json").unlink()
    found = before(destination, store)
    assert found and (found.version, found.saved_model, found.missing) == (1, None, ("record",))


def test_a_version_that_was_rolled_back_from_is_not_the_one_before(
    tmp_path: Path, store: Store, destination: Destination
) -> None:
    for name in "abc":
        push(tmp_path / "run", destination, name, trainer=name)
    pusher.rollback(destination, to=1)
    found = before(destination, store)
    assert found and (found.version, found.fingerprint) == (4, "a")
    assert baseline.trained_before(pusher.read(destination)) == ["a"]


def test_examples_are_named_by_an_output_or_as_an_artifact(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "out")
    text = run(store, step(Examples, fill))
    assert baseline.examples(store.address) == text
    assert baseline.examples(text.address) == text


def test_there_must_be_examples(tmp_path: Path) -> None:
    run(Store.open(tmp_path / "out"), step(Model, trained))
    for address in (tmp_path / "none", tmp_path / "out", tmp_path / "out" / "transform" / "x"):
        with pytest.raises(SkipstreamError) as caught:
            baseline.examples(str(address))
        assert str(caught.value).startswith(f"{address} must be an output whose last run finished")


def test_a_training_starts_from_another_output(tmp_path: Path) -> None:
    mine, other = Store.open(tmp_path / "mine"), Store.open(tmp_path / "other")
    start = run(other, step(Model, trained))
    assert baseline.given_start("latest", mine) is baseline.given_start(None, mine) is None
    assert baseline.given_start(str(start.path), mine) == start
    assert baseline.given_start(other.address, mine) == start
    with pytest.raises(SettingsError, match="must be another output than --output"):
        baseline.given_start(f"{tmp_path}/other/../mine", mine)
    with pytest.raises(SkipstreamError, match="trainer.warm_start must be 'latest', a trainer"):
        baseline.given_start(str(tmp_path / "nothing"), mine)
