"""Versions where they are served: only blessed ones, only whole ones, only the newest."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from components.artifacts import (
    Evaluation,
    ExportedModel,
    InfraBlessing,
    PushedModel,
    write_json,
)
from components.errors import NotBlessedError, SkipstreamError
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from components.pusher.history import History, Record, now
from components.settings import PusherSettings

MODEL = "saved_model.pb"
FILES = {
    MODEL: b"graph",
    "variables/variables.data-00000-of-00001": b"\x00" * 300_000,
    "assets/vocabulary.txt": b"the\n",
    "assets.extra/tf_serving_warmup_requests": b"warm",
}
KINDS = ("directory", "bucket")
BLESSED = {"blessed": True, "reasons": [], "held_out_loss": 2.5}
REFUSED = {"blessed": False, "reasons": ["loss 9.1 > 4.2", "no words"]}


def push(
    root: Path,
    destination: Destination,
    model: str = "a",
    *,
    keep: int = 5,
    report: Any = BLESSED,
    trainer: str | None = None,
    made_by: History | None = None,
    force: bool = False,
) -> PushedModel:
    """Push a small candidate, whose graph is its name, with the artifacts of its run in `root`."""
    for name in ("exported", "evaluation", "validation", "pushed"):
        (root / name).mkdir(parents=True, exist_ok=True)
    exported = ExportedModel(root / "exported", model)
    for name, content in FILES.items():
        file = exported.saved_model / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(model.encode() if name == "saved_model.pb" else content)
    write_json(root / "evaluation" / "evaluation.json", report)
    return pusher.build(
        exported,
        Evaluation(root / "evaluation", "2"),
        InfraBlessing(root / "validation", "3"),
        settings=PusherSettings(keep=keep),
        destination=destination,
        out=PushedModel(root / "pushed", "4"),
        run_id="nightly",
        artifacts={"exporter": model} | ({"trainer": trainer} if trainer else {}),
        made_by=made_by,
        force=force,
    )


def push_in_process(arguments: tuple[Path, Path | str, str]) -> int:
    """Push a candidate, of a root, an address and a name; the version that it gets.

    In a process of its own it needs what this module imports: no TensorFlow and no Beam.
    """
    root, address, name = arguments
    return push(root, open_destination(address), name, keep=100).version


def destination_of(kind: str, root: Path) -> Destination:
    """An empty one, in a directory below `root` or in a bucket."""
    if kind == "directory":
        return Destination(Directory(root / "deep" / "serving"))
    return Destination(Bucket(MemoryStore(), "s3://bucket/serving"))


@pytest.fixture(params=KINDS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    return destination_of(request.param, tmp_path)


def content(destination: Destination, version: int) -> dict[str, bytes | None]:
    place = destination.place
    return {name: place.read(f"{version}/{name}") for name in place.files(str(version))}


def visible(destination: Destination) -> list[str]:
    """Names at the destination, but for the lock that a directory has."""
    return [name for name in destination.place.names() if name != ".lock"]


def model(name: str) -> dict[str, bytes]:
    return FILES | {"saved_model.pb": name.encode()}


def test_the_first_push_is_version_1_and_whole(tmp_path: Path, destination: Destination) -> None:
    pushed = push(tmp_path / "run", destination)
    assert content(destination, 1) == model("a")
    assert pushed.version == 1
    assert pushed.summary == {
        "version": 1,
        "previous": None,
        "forced": False,
        "versions_removed": [],
    }


def test_the_record_says_where_a_version_comes_from(
    tmp_path: Path, destination: Destination
) -> None:
    push(tmp_path / "run", destination)
    push(tmp_path / "run", destination, "b")
    record = pusher.read(destination).records[2]
    assert record.published is not None
    assert timedelta(0) <= now() - record.claimed < timedelta(minutes=5)
    expected = Record(
        version=2,
        action="push",
        claimed=record.claimed,
        published=record.published,
        run_id="nightly",
        model="b",
        held_out_loss=2.5,
        previous=1,
        artifacts={"exporter": "b"},
        files=record.files,
    )
    assert record == expected
    assert record.files.keys() == model("b").keys()
    assert content(destination, 2) == model("b")  # The record lies beside the version, not in it.


def test_what_is_served_is_not_pushed_again(tmp_path: Path, destination: Destination) -> None:
    push(tmp_path / "run", destination)
    push(tmp_path / "run", destination, "b")
    assert push(tmp_path / "other", destination, "b").version == 2
    assert pusher.read(destination).versions == [1, 2]
    assert push(tmp_path / "run", destination, "a").version == 3


def test_only_the_newest_versions_stay(tmp_path: Path, destination: Destination) -> None:
    removed = [
        push(tmp_path / "run", destination, name, keep=2).summary["versions_removed"]
        for name in "abcd"
    ]
    assert removed == [[], [], [1], [2]]
    history = pusher.read(destination)
    assert history.versions == [3, 4]
    assert content(destination, 1) == content(destination, 2) == {}
    assert list(history.records) == [1, 2, 3, 4]
    assert pusher.prune(destination, 1) == [3]


def test_numbers_are_never_given_twice(tmp_path: Path, destination: Destination) -> None:
    push(tmp_path / "run", destination)
    destination.place.remove("1")
    assert push(tmp_path / "run", destination, "b").version == 2


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (REFUSED, "loss 9.1 > 4.2; no words"),
        ({"blessed": "yes"}, "its report gives no reason"),
        ({}, "its report gives no reason"),
    ],
)
def test_what_is_not_blessed_is_not_pushed(
    tmp_path: Path, destination: Destination, report: Any, said: str
) -> None:
    with pytest.raises(NotBlessedError) as caught:
        push(tmp_path / "run", destination, report=report)
    assert said in str(caught.value)
    assert destination.place.names() == []
    assert PushedModel.load(tmp_path / "run" / "pushed") is None


def test_a_forced_push_is_recorded(tmp_path: Path, destination: Destination) -> None:
    forced = push(tmp_path / "run", destination, report=REFUSED, force=True)
    assert forced.summary["forced"] is True
    push(tmp_path / "run", destination, "b", force=True)
    records = pusher.read(destination).records
    assert records[1].forced
    assert "loss 9.1 > 4.2; no words" in records[1].reasons[0]
    assert not records[2].forced  # There was nothing to override.


def test_a_candidate_is_not_pushed_over_one_that_it_was_not_held_against(
    tmp_path: Path, destination: Destination
) -> None:
    before = pusher.read(destination)
    push(tmp_path / "run", destination, "a", made_by=before)
    with pytest.raises(SkipstreamError, match="^version 1 was pushed while this was made"):
        push(tmp_path / "run", destination, "b", made_by=before)
    assert push(tmp_path / "run", destination, "b", made_by=pusher.read(destination)).version == 2


def test_the_files_of_a_version_are_fetched_once_and_whole(
    tmp_path: Path, destination: Destination
) -> None:
    push(tmp_path / "run", destination)
    copy = tmp_path / "scratch" / "copy"
    fetched = pusher.fetch(destination, 1, copy)
    found = {
        path.relative_to(fetched).as_posix(): path.read_bytes()
        for path in fetched.rglob("*")
        if path.is_file()
    }
    assert found == model("a")
    assert pusher.fetch(destination, 1, copy) == fetched
    destination.place.remove("1", first="saved_model.pb")
    if isinstance(destination.place, Bucket):
        with pytest.raises(SkipstreamError, match="s3://bucket/serving/1 must hold saved_model.pb"):
            pusher.fetch(destination, 1, tmp_path / "scratch" / "other")
        assert list(copy.parent.iterdir()) == [fetched]


def test_a_damaged_record_is_named(tmp_path: Path, destination: Destination) -> None:
    push(tmp_path / "run", destination)
    destination.place.write(".versions/1.json", b'{"version": 1')
    said = f"{destination.address}/.versions/1.json must be the record of a version, got"
    with pytest.raises(SkipstreamError, match=f"^{said}"):
        pusher.read(destination)
    destination.place.remove(".versions/1.json")
    assert pusher.read(destination).model(1) == "version 1"


def test_a_damaged_version_is_named_and_not_restored(tmp_path: Path) -> None:
    destination = destination_of("directory", tmp_path)
    for name in ("1", "2"):
        push(tmp_path / name, destination, model=name)
    file = Path(destination.path_of(1), "variables", "variables.data-00000-of-00001")
    file.write_bytes(file.read_bytes()[:-1])
    said = f"^{file} is damaged: its content is not what was published"
    with pytest.raises(SkipstreamError, match=said):
        pusher.rollback(destination)
    with pytest.raises(SkipstreamError, match=said):
        pusher.fetch(destination, 1, tmp_path / "scratch")
    assert visible(destination) == [".versions", "1", "2"]


def test_versions_copied_in_by_hand_count(tmp_path: Path, destination: Destination) -> None:
    place = destination.place
    nine = "009" if isinstance(place, Directory) else "9"
    for name in (f"7/{MODEL}", f"{nine}/{MODEL}", "8/assets/file", f"notes/{MODEL}", f"1²/{MODEL}"):
        place.write(name, b"by hand")
    place.write("12", b"")  # Not a version, but TF Serving has to see a higher number.
    assert push(tmp_path / "run", destination, keep=3).version == 13
    assert pusher.read(destination).versions == [7, 9, 13]
    fetched = pusher.fetch(destination, 9, tmp_path / "copy")
    assert (fetched / MODEL).read_bytes() == b"by hand"
    record = pusher.rollback(destination)
    assert (record.restores, record.model) == (9, "version 9")
    assert content(destination, 14) == {MODEL: b"by hand"}
    pushed = push(tmp_path / "run", destination, "b", keep=2)
    assert pushed.summary["versions_removed"] == [7, 9, 13]
    assert visible(destination) == [".versions", "12", "14", "15", "1²", "8", "notes"]


def test_a_bucket_has_no_numbers_that_begin_with_zeros(tmp_path: Path) -> None:
    destination = Destination(Bucket(MemoryStore(), "s3://bucket"))
    destination.place.write(f"007/{MODEL}", b"by hand")
    assert push(tmp_path / "run", destination).version == 1
    assert pusher.read(destination).versions == [1]


def test_a_serving_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "serving").touch()
    with pytest.raises(SkipstreamError, match="could not be read or written .*File exists"):
        push(tmp_path / "run", open_destination(tmp_path / "serving"))


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(SkipstreamError, match=r"^pusher.destination must be a .*got 'ftp://x/y'$"):
        open_destination("ftp://x/y")
