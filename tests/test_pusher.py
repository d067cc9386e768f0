"""Versions where they are served: only blessed ones, only whole ones, only the newest."""

import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
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
from components.pusher import objects, pusher
from components.pusher.destination import Destination, open_destination
from components.pusher.history import History, Record, now
from components.pusher.local import LocalDestination
from components.pusher.objects import ObjectDestination
from components.settings import PusherSettings

FILES = {
    "saved_model.pb": b"graph",
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


@pytest.fixture(params=["directory", "objects"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    if request.param == "directory":
        return open_destination(tmp_path / "deep" / "serving")
    return ObjectDestination(MemoryStore(), "s3://bucket/serving")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def content(destination: Destination, version: int) -> dict[str, bytes]:
    if isinstance(destination, ObjectDestination):
        store = destination._store
        found = [item["path"] for batch in obstore.list(store, str(version)) for item in batch]
        return {
            path.removeprefix(f"{version}/"): obstore.get(store, path).bytes().to_bytes()
            for path in found
        }
    directory = Path(destination.path_of(version))
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def model(name: str) -> dict[str, bytes]:
    return FILES | {"saved_model.pb": name.encode()}


def names(serving: Path) -> list[str]:
    return sorted(path.name for path in serving.iterdir())


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
    destination.remove(1)
    assert push(tmp_path / "run", destination, "b").version == 2


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (REFUSED, "loss 9.1 > 4.2; no words"),
        ({"blessed": "yes"}, "its report gives no reason"),
        ({}, "its report gives no reason"),
    ],
)
def test_what_is_not_blessed_is_not_pushed(tmp_path: Path, report: Any, said: str) -> None:
    destination = open_destination(tmp_path / "serving")
    with pytest.raises(NotBlessedError) as caught:
        push(tmp_path / "run", destination, report=report)
    assert said in str(caught.value)
    assert not (tmp_path / "serving").exists()
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
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = ObjectDestination(store, "s3://bucket")
    for name in "ab":
        push(tmp_path / "run", destination, name)
    before = pusher.read(destination)
    with monkeypatch.context() as patch:
        real = ObjectDestination.stage

        def slow(self: ObjectDestination, source: Path | int) -> str:
            staged = real(self, source)
            patch.undo()
            pusher.rollback(destination)
            return staged

        patch.setattr(ObjectDestination, "stage", slow)
        with pytest.raises(SkipstreamError, match="version 3 was pushed while this was made"):
            push(tmp_path / "run", destination, "c", made_by=before)
    assert pusher.read(destination).versions == [1, 2, 3]
    assert destination._names() == [".versions", "1", "2", "3"]


def test_the_files_of_a_version_are_fetched_once_and_whole(
    tmp_path: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(tmp_path / "run", destination)
    copy = tmp_path / "deep" / "copy"
    if isinstance(destination, ObjectDestination):
        with monkeypatch.context() as patch:
            patch.setattr(obstore, "get", lambda *_: [b"gra", None])  # Cut short.
            with pytest.raises(TypeError):
                destination.fetch(1, copy)
        assert list(copy.parent.iterdir()) == []
        with pytest.raises(SkipstreamError, match="could not be read or written .*7 has no saved"):
            pusher.fetch(destination, 7, copy)
    fetched = pusher.fetch(destination, 1, copy)
    found = {
        str(path.relative_to(fetched)): path.read_bytes()
        for path in fetched.rglob("*")
        if path.is_file()
    }
    assert found == model("a")
    if isinstance(destination, ObjectDestination):
        destination.remove(1)
        assert pusher.fetch(destination, 1, copy) == fetched == copy


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
    assert destination.claim(dead)
    history = pusher.read(destination)
    assert (history.newest, history.withdrawn) == (2, {})
    assert push(tmp_path / "run", destination, "c").version == 4


def test_a_push_that_died_after_its_version_was_seen_is_believed(
    tmp_path: Path, destination: Destination
) -> None:
    push(tmp_path / "run", destination, "a")
    destination.confirm(pusher.read(destination).records[1].model_copy(update={"published": None}))
    assert push(tmp_path / "run", destination, "a").version == 1
    push(tmp_path / "run", destination, "b", keep=1)
    assert pusher.read(destination).records[1].published is not None


def test_a_push_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(tmp_path / "run", destination, "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("stage", "publish"):
        with monkeypatch.context() as patch:
            patch.setattr(type(destination), step, full)
            with pytest.raises(SkipstreamError, match="could not be read or written .*No space"):
                push(tmp_path / "run", destination, "b")
        assert pusher.read(destination).versions == [1]
    assert list(pusher.read(destination).records) == [1]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    destination = open_destination(tmp_path / "serving")
    push(tmp_path / "run", destination)
    record = tmp_path / "serving" / ".versions" / "1.json"
    record.write_text('{"version": 1')
    with pytest.raises(SkipstreamError, match=f"{record} must be the record of a version, got"):
        pusher.read(destination)
    record.unlink()
    assert pusher.read(destination).model(1) == "version 1"


def test_versions_copied_in_by_hand_count(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    for name in ("7", "009", "notes", "1²", "8"):
        (serving / name).mkdir(parents=True)
    for name in ("7", "009"):
        (serving / name / "saved_model.pb").write_text("by hand")
    (serving / "12").touch()
    destination = open_destination(serving)
    assert push(tmp_path / "run", destination, keep=3).version == 13
    record = pusher.rollback(destination)
    assert (record.restores, record.model) == (9, "version 9")
    assert content(destination, 14) == {"saved_model.pb": b"by hand"}
    assert push(tmp_path / "run", destination, "b", keep=2).summary["versions_removed"] == [
        7,
        9,
        13,
    ]
    assert names(serving) == [".lock", ".versions", "12", "14", "15", "1²", "8", "notes"]


def test_leftovers_of_a_push_that_died_are_removed(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    (serving / ".push-dead" / "model" / "variables").mkdir(parents=True)
    (serving / ".other").mkdir()
    push(tmp_path / "run", open_destination(serving))
    assert names(serving) == [".lock", ".other", ".versions", "1"]


def test_a_copy_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = tmp_path / "serving"
    destination = open_destination(serving)
    push(tmp_path / "run", destination)
    real = shutil.copyfile

    def full(source: Path, *rest: Any, **options: Any) -> Any:
        if "variables" in str(source):
            raise OSError(28, "No space left on device")
        return real(source, *rest, **options)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SkipstreamError, match="could not be read or written .*No space left"):
        push(tmp_path / "run", destination, "b")
    assert names(serving) == [".lock", ".versions", "1"]


def test_a_serving_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "serving").touch()
    with pytest.raises(SkipstreamError, match="could not be read or written .*Not a directory"):
        push(tmp_path / "run", open_destination(tmp_path / "serving"))


@pytest.mark.parametrize("setting", ["gcs://bucket/x", "file:///x", "s3://", "gs:///x"])
def test_a_place_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(SkipstreamError, match=rf"must be a directory, gs://.*got '{setting}'"):
        open_destination(setting)


def test_a_version_that_appears_during_the_push_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = tmp_path / "serving"
    real = Path.rename

    def late(source: Path, target: Path) -> Path:
        if target.name == "1":
            target.mkdir()
            (target / "saved_model.pb").write_text("by hand")
        return real(source, target)

    monkeypatch.setattr(Path, "rename", late)
    destination = open_destination(serving)
    assert push(tmp_path / "run", destination).summary["version"] == 2
    assert content(destination, 1) == {"saved_model.pb": b"by hand"}
    assert content(destination, 2) == model("a")
    assert list(pusher.read(destination).records) == [2]


def _push_in_process(arguments: tuple[Path, Path, str]) -> int:
    root, serving, name = arguments
    return push(root, open_destination(serving), name, keep=100).version


def test_pushes_at_the_same_time_get_versions_of_their_own(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    arguments = [(tmp_path / f"run{i}", serving, str(i)) for i in range(16)]
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(_push_in_process, arguments[:8]))
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        versions += processes.map(_push_in_process, arguments[8:], chunksize=4)
    assert sorted(versions) == list(range(1, 17))
    destination = LocalDestination(serving)
    for number, version in enumerate(versions):
        assert content(destination, version) == model(str(number))
    assert names(serving)[:2] == [".lock", ".versions"]
    assert len(names(serving)) == 18


def test_whoever_looks_sees_only_whole_versions(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    destination = LocalDestination(serving)
    for name in "ab":
        push(tmp_path / "run", destination, name)

    def publish(number: int) -> None:
        if number % 3:
            push(tmp_path / f"run{number}", destination, str(number), keep=100)
        else:
            pusher.rollback(destination, to=1 + number // 3 % 2)

    looks = 0
    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(publish, number) for number in range(15)]
        while not all(one.done() for one in done):
            for version in destination._numbered():
                found = content(destination, version)
                assert found == model(found["saved_model.pb"].decode())
                looks += 1
    assert [one.exception() for one in done] == [None] * 15
    assert looks > 15


def test_pushes_at_the_same_time_to_an_object_store(tmp_path: Path, store: MemoryStore) -> None:
    def one(number: int) -> int:
        destination = ObjectDestination(store, "s3://bucket")
        return push(tmp_path / f"run{number}", destination, str(number), keep=100).version

    with ThreadPoolExecutor(8) as threads:
        versions = list(threads.map(one, range(24)))
    assert sorted(versions) == list(range(1, 25))
    destination = ObjectDestination(store, "s3://bucket")
    for number, version in enumerate(versions):
        assert content(destination, version) == model(str(number))
    assert destination._names() == [".versions", *sorted(map(str, versions))]


def spy(monkeypatch: pytest.MonkeyPatch, name: str, seen: list[str]) -> Callable[..., Any]:
    """Note the target of every call of a function of obstore."""
    real = getattr(obstore, name)

    def call(store: Any, *paths: Any, **options: Any) -> Any:
        seen.append(paths[-1] if name == "copy" else paths[0])
        return real(store, *paths, **options)

    monkeypatch.setattr(obstore, name, call)
    return call


def test_an_object_store_gets_the_graph_last_and_loses_it_first(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = ObjectDestination(store, "s3://bucket")
    put, copied, deleted = [], [], []
    spy(monkeypatch, "put", put)
    spy(monkeypatch, "copy", copied)
    spy(monkeypatch, "delete", deleted)
    push(tmp_path / "run", destination)
    others = sorted(f"1/{name}" for name in FILES if name != "saved_model.pb")
    assert copied == [*others, "1/saved_model.pb"]
    assert not [path for path in put if path.startswith("1/")]
    deleted.clear()
    push(tmp_path / "run", destination, "b", keep=1)
    old = [path for path in deleted if path.startswith("1/")]
    assert old == ["1/saved_model.pb", *others]


def test_what_a_push_to_an_object_store_left_is_never_whole_and_goes_after_a_day(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = ObjectDestination(store, "s3://bucket")
    push(tmp_path / "run", destination, "a")
    with monkeypatch.context() as patch:
        real = obstore.copy

        def die(store: Any, source: str, target: str) -> None:
            if target == "2/saved_model.pb":
                raise KeyboardInterrupt
            real(store, source, target)

        patch.setattr(obstore, "copy", die)
        patch.setattr(ObjectDestination, "discard", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            push(tmp_path / "run", destination, "b")
    assert len(content(destination, 2)) == len(FILES) - 1
    assert pusher.read(destination).versions == [1]
    assert push(tmp_path / "run", destination, "c").version == 3
    assert content(destination, 2)  # It could be slow, not dead.
    monkeypatch.setattr(objects, "_DEAD_AFTER", timedelta(0))
    destination.sweep()
    assert destination._names() == [".versions", "1", "3"]


def test_a_store_without_conditional_writes_is_refused(
    tmp_path: Path, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = obstore.put

    def careless(store: Any, path: str, file: Any, **_: object) -> Any:
        return real(store, path, file)

    monkeypatch.setattr(obstore, "put", careless)
    destination = ObjectDestination(store, "s3://bucket")
    with pytest.raises(SkipstreamError, match="a store with conditional writes"):
        push(tmp_path / "run", destination)
    assert pusher.read(destination).versions == []
