"""Versions where they are served: only blessed ones, only whole ones, only the newest."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture(params=["directory", "bucket"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    if request.param == "directory":
        return Destination(Directory(tmp_path / "deep" / "serving"))
    return Destination(Bucket(MemoryStore(), "s3://bucket/serving"))


def content(destination: Destination, version: int) -> dict[str, bytes | None]:
    place = destination.place
    return {name: place.read(f"{version}/{name}") for name in place.files(str(version))}


def visible(destination: Destination) -> list[str]:
    """Names at the destination, but for the lock that a directory has."""
    return [name for name in destination.place.names() if name != ".lock"]


def write_record(destination: Destination, record: Record) -> None:
    """As a push that died would have left it."""
    name = f".versions/{record.version}.json"
    destination.place.write(name, record.model_dump_json().encode())


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
    )
    assert record == expected
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


def test_a_rollback_serves_the_version_before_under_the_next_number(
    tmp_path: Path, destination: Destination
) -> None:
    push(tmp_path / "run", destination, "a")
    push(tmp_path / "run", destination, "b")
    record = pusher.rollback(destination, reason="cats became dogs")
    assert content(destination, 3) == model("a")
    assert content(destination, 2) == model("b")
    history = pusher.read(destination)
    assert history.newest == 3
    assert history.records[3] == record
    assert (record.action, record.restores, record.previous) == ("rollback", 1, 2)
    assert (record.model, record.run_id, record.artifacts) == ("a", "nightly", {"exporter": "a"})
    assert record.reasons == ("cats became dogs",)


def test_a_model_that_was_rolled_back_from_is_pushed_only_by_force(
    tmp_path: Path, destination: Destination
) -> None:
    for name in "abc":
        push(tmp_path / "run", destination, name)
    pusher.rollback(destination, to=1, reason="cats")
    for name in "cb":  # Whoever goes back to 1 trusts neither.
        with pytest.raises(NotBlessedError, match=r"rolled back from .*version 4 \(cats\)"):
            push(tmp_path / "run", destination, name)
    assert push(tmp_path / "run", destination, "a").version == 4
    assert push(tmp_path / "run", destination, "d", keep=1).version == 5
    with pytest.raises(NotBlessedError, match="rolled back from"):  # Its files are gone.
        push(tmp_path / "run", destination, "c")
    assert push(tmp_path / "run", destination, "c", force=True).version == 6
    assert pusher.read(destination).records[6].forced
    push(tmp_path / "run", destination, "e")
    assert push(tmp_path / "run", destination, "c").version == 8  # It was reinstated.


def test_a_training_that_was_rolled_back_from_is_not_pushed_in_another_storage(
    tmp_path: Path, destination: Destination
) -> None:
    for name, trainer in (("a", "1"), ("b", "2"), ("b-int8", "2")):
        push(tmp_path / "run", destination, name, trainer=trainer)
    pusher.rollback(destination, to=2)
    # Here the storage was at fault, not the training: that is served.
    assert push(tmp_path / "run", destination, "b-half", trainer="2").version == 5
    pusher.rollback(destination, to=1)
    with pytest.raises(NotBlessedError, match=r"rolled back from .* by version 6"):
        push(tmp_path / "run", destination, "b-turned", trainer="2")
    assert push(tmp_path / "run", destination, "a-half", trainer="1").version == 7
    assert push(tmp_path / "run", destination, "b-turned", trainer="2", force=True).version == 8
    assert push(tmp_path / "run", destination, "b-again", trainer="2").version == 9


def test_a_candidate_of_before_a_rollback_is_pushed_only_by_force(
    tmp_path: Path, destination: Destination
) -> None:
    for name in "ab":
        push(tmp_path / "run", destination, name)
    before = pusher.read(destination)
    pusher.rollback(destination)
    said = "version 2 was rolled back from while this was made"
    with pytest.raises(SkipstreamError, match=f"^{said}: run again$") as caught:
        push(tmp_path / "run", destination, "c", made_by=before)
    assert caught.value.exit_code == 1  # Schedulers try again.
    assert pusher.read(destination).versions == [1, 2, 3]
    assert push(tmp_path / "run", destination, "c", made_by=before, force=True).version == 4
    record = pusher.read(destination).records[4]
    assert (record.forced, record.reasons) == (True, (said,))
    assert push(tmp_path / "run", destination, "c", made_by=before).version == 4  # It is served.


def test_a_candidate_is_not_pushed_over_one_that_it_was_not_held_against(
    tmp_path: Path, destination: Destination
) -> None:
    before = pusher.read(destination)
    push(tmp_path / "run", destination, "a", made_by=before)
    with pytest.raises(SkipstreamError, match="^version 1 was pushed while this was made"):
        push(tmp_path / "run", destination, "b", made_by=before)
    assert push(tmp_path / "run", destination, "b", made_by=pusher.read(destination)).version == 2


def test_a_rollback_during_an_upload_is_not_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = Destination(Bucket(MemoryStore(), "s3://bucket"))
    for name in "ab":
        push(tmp_path / "run", destination, name)
    before = pusher.read(destination)
    upload = destination.place.put

    def slow(source: Path, name: str, *, last: str) -> None:
        upload(source, name, last=last)
        pusher.rollback(destination)

    monkeypatch.setattr(destination.place, "put", slow)
    with pytest.raises(SkipstreamError, match="version 3 was pushed while this was made"):
        push(tmp_path / "run", destination, "c", made_by=before)
    assert pusher.read(destination).versions == [1, 2, 3]
    assert visible(destination) == [".versions", "1", "2", "3"]


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
    destination.place.remove("1", first="saved_model.pb")
    if isinstance(destination.place, Bucket):
        assert pusher.fetch(destination, 1, copy) == fetched == copy
        with pytest.raises(SkipstreamError, match="s3://bucket/serving/1 must hold saved_model.pb"):
            pusher.fetch(destination, 1, tmp_path / "scratch" / "other")
        assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_rollbacks_go_further_back_each_time(tmp_path: Path, destination: Destination) -> None:
    for name in "abc":
        push(tmp_path / "run", destination, name)
    assert [pusher.rollback(destination).restores for _ in range(2)] == [2, 1]
    with pytest.raises(SkipstreamError, match=r"got versions 1, 2, 3, 4, 5: name one with --to"):
        pusher.rollback(destination)
    assert pusher.rollback(destination, to=3).version == 6
    assert content(destination, 6) == model("c")
    assert set(pusher.read(destination).withdrawn) == {"a", "b"}


def test_a_rollback_names_what_it_cannot_do(tmp_path: Path, destination: Destination) -> None:
    with pytest.raises(SkipstreamError, match="there is no version in "):
        pusher.rollback(destination)
    push(tmp_path / "run", destination)
    with pytest.raises(SkipstreamError, match="needs an earlier version"):
        pusher.rollback(destination)
    push(tmp_path / "run", destination, "b")
    with pytest.raises(SkipstreamError, match="--to must be one of 1, 2, got 7"):
        pusher.rollback(destination, to=7)
    with pytest.raises(SkipstreamError, match="version 2, which is served, holds the model"):
        pusher.rollback(destination, to=2)
    assert pusher.read(destination).versions == [1, 2]


def test_a_push_that_died_before_its_version_was_seen_never_happened(
    tmp_path: Path, destination: Destination
) -> None:
    push(tmp_path / "run", destination, "a")
    push(tmp_path / "run", destination, "b")
    dead = Record(version=3, action="rollback", claimed=now(), model="a", previous=2, restores=1)
    write_record(destination, dead)
    history = pusher.read(destination)
    assert (history.newest, history.withdrawn) == (2, {})
    assert push(tmp_path / "run", destination, "c").version == 4


def test_a_push_that_died_after_its_version_was_seen_is_believed(
    tmp_path: Path, destination: Destination
) -> None:
    push(tmp_path / "run", destination, "a")
    record = pusher.read(destination).records[1]
    write_record(destination, record.model_copy(update={"published": None}))
    assert push(tmp_path / "run", destination, "a").version == 1
    push(tmp_path / "run", destination, "b", keep=1)
    assert pusher.read(destination).records[1].published is not None


@pytest.mark.parametrize("step", ["put", "move"])
def test_a_push_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, destination: Destination, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(tmp_path / "run", destination, "a")
    real = getattr(destination.place, step)
    local = isinstance(destination.place, Directory)

    def full(source: Any, name: str, *, last: str) -> None:
        if step == "put":
            real(source, name, last=last)
        if local:
            raise OSError(28, "No space left on device")
        raise SkipstreamError("s3://bucket/serving/2/x could not be read or written (503)")

    with monkeypatch.context() as patch:
        patch.setattr(destination.place, step, full)
        with pytest.raises(SkipstreamError) as caught:
            push(tmp_path / "run", destination, "b")
    if local:
        assert str(caught.value) == (
            f"{destination.address}, where versions are served from, could not be read or written "
            "([Errno 28] No space left on device): see to its rights and its room, or name another "
            "with pusher.destination"
        )
    else:  # What the place says is enough.
        assert str(caught.value).startswith("s3://bucket/serving/2/x could not be")
    assert visible(destination) == [".versions", "1"]
    history = pusher.read(destination)
    assert (history.versions, list(history.records)) == ([1], [1])
    # In a bucket, somebody may have seen parts of version 2.
    expected = 3 if step == "move" and not local else 2
    assert push(tmp_path / "run", destination, "b").version == expected


def test_a_model_that_cannot_be_copied_leaves_nothing_behind(tmp_path: Path) -> None:
    destination = open_destination(tmp_path / "serving")
    push(tmp_path / "run", destination)
    broken = tmp_path / "run" / "exported" / "saved_model" / "variables" / "broken"
    broken.symlink_to("nowhere")
    with pytest.raises(
        SkipstreamError, match=r"written \(\[Errno 2\] No such file.*variables/broken"
    ) as caught:
        push(tmp_path / "run", destination, "b")
    assert "\n" not in str(caught.value)
    assert visible(destination) == [".versions", "1"]


def test_a_damaged_record_is_named(tmp_path: Path, destination: Destination) -> None:
    push(tmp_path / "run", destination)
    destination.place.write(".versions/1.json", b'{"version": 1')
    said = f"{destination.address}/.versions/1.json must be the record of a version, got"
    with pytest.raises(SkipstreamError, match=f"^{said}"):
        pusher.read(destination)
    destination.place.remove(".versions/1.json")
    assert pusher.read(destination).model(1) == "version 1"


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


def test_leftovers_of_a_push_that_died_are_removed(tmp_path: Path) -> None:
    destination = open_destination(tmp_path / "serving")
    destination.place.write(".scratch-dead/variables/x", b"")
    destination.place.write(".other/x", b"")
    push(tmp_path / "run", destination)
    assert visible(destination) == [".other", ".versions", "1"]


def test_what_a_push_to_a_bucket_left_is_never_whole_and_goes_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = Destination(Bucket(MemoryStore(), "s3://bucket"))
    push(tmp_path / "run", destination, "a")
    write_record(destination, Record(version=2, action="push", claimed=now(), model="b"))
    for name in FILES:
        destination.place.write(f".scratch-dead/{name}", b"")
        if name != MODEL:
            destination.place.write(f"2/{name}", b"")
    destination.place.write("3/assets/copied_by_hand", b"")
    assert pusher.read(destination).versions == [1]
    assert push(tmp_path / "run", destination, "c").version == 4
    # It could be slow, not dead.
    assert visible(destination) == [".scratch-dead", ".versions", "1", "2", "3", "4"]
    monkeypatch.setattr("components.places.place._DEAD_AFTER", timedelta(0))
    push(tmp_path / "run", destination, "d")
    assert visible(destination) == [".versions", "1", "3", "4", "5"]


def test_a_serving_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "serving").touch()
    with pytest.raises(SkipstreamError, match="could not be read or written .*File exists"):
        push(tmp_path / "run", open_destination(tmp_path / "serving"))


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(SkipstreamError, match=r"^pusher.destination must be a .*got 'ftp://x/y'$"):
        open_destination("ftp://x/y")


def test_a_version_that_appears_during_the_push_is_not_overwritten(
    tmp_path: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = destination.place.put

    def slow(source: Path, name: str, *, last: str) -> None:
        stage(source, name, last=last)
        destination.place.write(f"1/{MODEL}", b"by hand")

    monkeypatch.setattr(destination.place, "put", slow)
    assert push(tmp_path / "run", destination).version == 2
    assert content(destination, 1) == {MODEL: b"by hand"}
    assert content(destination, 2) == model("a")
    assert list(pusher.read(destination).records) == [2]


def _push_in_process(arguments: tuple[Path, Path, str]) -> int:
    root, serving, name = arguments
    return push(root, open_destination(serving), name, keep=100).version


def test_pushes_of_threads_and_processes_get_versions_of_their_own(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    arguments = [(tmp_path / f"run{i}", serving, str(i)) for i in range(16)]
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(_push_in_process, arguments[:8]))
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        versions += processes.map(_push_in_process, arguments[8:], chunksize=4)
    assert sorted(versions) == list(range(1, 17))
    destination = open_destination(serving)
    for number, version in enumerate(versions):
        assert content(destination, version) == model(str(number))
    assert visible(destination) == sorted([".versions", *map(str, versions)])


def test_pushes_at_the_same_time_to_a_bucket(tmp_path: Path) -> None:
    store = MemoryStore()

    def one(number: int) -> int:
        destination = Destination(Bucket(store, "s3://bucket"))
        return push(tmp_path / f"run{number}", destination, str(number), keep=100).version

    with ThreadPoolExecutor(8) as threads:
        versions = list(threads.map(one, range(24)))
    assert sorted(versions) == list(range(1, 25))
    destination = Destination(Bucket(store, "s3://bucket"))
    for number, version in enumerate(versions):
        assert content(destination, version) == model(str(number))
    assert visible(destination) == sorted([".versions", *map(str, versions)])


def test_whoever_looks_sees_only_whole_versions(tmp_path: Path, destination: Destination) -> None:
    for name in "ab":
        push(tmp_path / "run", destination, name)

    def publish(number: int) -> None:
        if number % 3:
            push(tmp_path / f"run{number}", destination, str(number), keep=3)
        else:
            pusher.rollback(destination)

    looks = 0
    with ThreadPoolExecutor(1) as thread:
        done = [thread.submit(publish, number) for number in range(24)]
        while not all(one.done() for one in done):
            for version in destination.versions():
                found = content(destination, version)
                name = destination.place.read(f"{version}/{MODEL}")
                if name:  # Else it was removed meanwhile.
                    assert found == model(name.decode())
                    looks += 1
    assert [one.exception() for one in done] == [None] * 24
    assert looks > 24
