"""What is left of the version before: here, at the destination, nowhere."""

import json
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from test_pusher import model, push

from components.artifacts import VOCABULARY, Examples, Model
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from components.pusher.objects import ObjectDestination
from pipeline import lookup

CANDIDATE = Model(Path("new"), "new")


@pytest.fixture(params=["directory", "objects"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    if request.param == "directory":
        return open_destination(tmp_path / "serving")
    return ObjectDestination(MemoryStore(), "s3://bucket/serving")


def before(destination: Destination, output: Path) -> lookup.Served | None:
    return lookup.served_model(pusher.read(destination), output, destination, CANDIDATE)


def test_an_empty_output_directory_takes_the_model_from_where_it_is_served(
    tmp_path: Path, destination: Destination
) -> None:
    assert before(destination, tmp_path / "out") is None
    push(tmp_path / "run", destination, "a", trainer="old")
    push(tmp_path / "run", destination, "b", trainer="new")  # The candidate, pushed already.
    found = before(destination, tmp_path / "out")
    assert found and found.saved_model
    assert (found.version, found.fingerprint) == (1, "a")
    assert (found.saved_model / "saved_model.pb").read_bytes() == model("a")["saved_model.pb"]
    assert (found.model, found.examples) == (None, None)
    assert found.missing == ("trainer/old", "transform/unknown")
    assert before(destination, tmp_path / "out") == found


def test_what_is_there_is_found(tmp_path: Path, destination: Destination) -> None:
    push(tmp_path / "run", destination, "a", trainer="old")
    record = pusher.read(destination).records[1]
    made_of = record.artifacts | {"transform": "text"}
    destination.confirm(record.model_copy(update={"artifacts": made_of}))
    out = tmp_path / "out"
    for kind, path in ((Model, out / "trainer" / "old"), (Examples, out / "transform" / "text")):
        path.mkdir(parents=True)
        (path / VOCABULARY).touch()
        kind(path, path.name).finish()
    found = before(destination, out)
    assert found and found.model and found.examples
    assert found.missing == ()
    destination.remove(1)
    (out / "trainer" / "old" / VOCABULARY).unlink()
    assert before(destination, tmp_path / "elsewhere").missing == (
        "SavedModel",
        "trainer/old",
        "transform/text",
    )
    assert "trainer/old" in before(destination, out).missing


def test_a_version_without_a_record_is_one_all_the_same(tmp_path: Path) -> None:
    destination = open_destination(tmp_path / "serving")
    push(tmp_path / "run", destination, "a", trainer="old")
    (tmp_path / "serving" / ".versions" / "1.json").unlink()
    found = before(destination, tmp_path / "out")
    assert found and (found.version, found.saved_model, found.missing) == (1, None, ("record",))


def test_destinations_are_those_of_a_directory_that_was_moved(tmp_path: Path) -> None:
    assert lookup.destinations(tmp_path) == []
    (tmp_path / "run.json").write_text(json.dumps({"destinations": ["/models", "serving"]}))
    found = [destination.address for destination in lookup.destinations(tmp_path)]
    assert found == ["/models", str(tmp_path / "serving")]
