"""Whatever dies, fails or comes between: versions are whole, and nobody's is overwritten."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from test_pusher import (
    FILES,
    KINDS,
    MODEL,
    content,
    destination_of,
    model,
    push,
    push_in_process,
    visible,
)

from components.errors import SkipstreamError
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.pusher import pusher
from components.pusher.destination import Destination, open_destination
from components.pusher.history import Record, now


@pytest.fixture(params=KINDS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    return destination_of(request.param, tmp_path)


def write_record(destination: Destination, record: Record) -> None:
    """As a push that died would have left it."""
    name = f".versions/{record.version}.json"
    destination.place.write(name, record.model_dump_json().encode())


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


def test_pushes_of_threads_and_processes_get_versions_of_their_own(tmp_path: Path) -> None:
    serving = tmp_path / "serving"
    arguments = [(tmp_path / f"run{i}", serving, str(i)) for i in range(16)]
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(push_in_process, arguments[:8]))
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        versions += processes.map(push_in_process, arguments[8:], chunksize=4)
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
