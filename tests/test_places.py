"""A directory and a bucket do the same; what a bucket gives is verified."""

import itertools
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore, ObjectStore

from components.errors import SettingsError, SkipstreamError
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.places.place import Place, digest_of, is_dead, open_place

TREE = {"whole": b"yes", "a/b/c": b"deep", "a/d": b"", "zero": b"\x00" * 100_000}
BUCKET = "s3://bucket/path"


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        return Directory(tmp_path / "deep" / "place")
    return Bucket(MemoryStore(), BUCKET)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), BUCKET)


def tree(root: Path, files: dict[str, bytes] = TREE) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def stored(place: Place, name: str) -> dict[str, bytes | None]:
    return {file: place.read(f"{name}/{file}") for file in place.files(name)}


def test_nothing_is_there_at_first(place: Place) -> None:
    assert place.read("a/b") is None
    assert not place.has("a")
    assert (place.names(), place.names("a"), place.files("a")) == ([], [], {})
    place.remove("a")


def test_a_file_is_written_created_and_removed(place: Place) -> None:
    place.write("a/b", b"1")
    place.write("a/b", b"22")
    assert not place.create("a/b", b"3")
    assert place.read("a/b") == b"22"
    assert place.create("a/c", b"4")
    assert (place.has("a/c"), place.has("a"), place.has("a/c/d")) == (True, False, False)
    assert (place.names(), place.names("a")) == (["a"], ["b", "c"])
    found = place.files("a")
    assert {name: file.size for name, file in found.items()} == {"b": 2, "c": 1}
    age = datetime.now(UTC) - found["b"].modified
    assert timedelta(seconds=-5) < age < timedelta(minutes=5)
    place.remove("a/b")
    assert place.names("a") == ["c"]


def test_names_begin_alike_and_are_not_mixed(place: Place) -> None:
    for name in ("1/a", "12/b", "1a"):
        place.write(name, b"")
    assert place.names() == ["1", "12", "1a"]
    assert list(place.files("1")) == ["a"]
    place.remove("1")
    assert place.names() == ["12", "1a"]


def test_of_two_that_create_a_name_one_wins(place: Place) -> None:
    with ThreadPoolExecutor(2) as threads:
        for number in range(50):
            name = f"names/{number}"
            done = list(threads.map(lambda who, name=name: place.create(name, who), (b"a", b"b")))
            assert sorted(done) == [False, True]
            assert place.read(name) == (b"a" if done[0] else b"b")
    assert place.names("names") == sorted(map(str, range(50)))  # No temporary files are left.


def test_many_write_to_a_directory_and_remove_it_at_once(place: Place) -> None:
    def use(number: int) -> None:
        for turn in range(30):
            place.write(f"d/e/{number}", b"content")
            place.create(f"d/e/{number}-{turn}", b"content")
            place.remove("d")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    place.remove("d")
    assert place.names() == []


def test_a_tree_goes_in_and_out(place: Place, tmp_path: Path) -> None:
    place.write("before", b"")
    place.put(tree(tmp_path / "source"), "tree", last="whole")
    assert stored(place, "tree") == TREE
    found = place.local("tree", tmp_path / "scratch" / "copy", last="whole")
    assert content(found) == TREE
    place.copy("tree", "other", last="whole")
    assert place.move("other", "third", last="whole")
    assert stored(place, "third") == TREE
    assert place.names() == ["before", "third", "tree"]
    place.remove("tree", first="whole")
    assert place.names() == ["before", "third"]


def test_a_name_that_is_taken_stays_as_it_is(place: Place, tmp_path: Path) -> None:
    place.put(tree(tmp_path / "source"), "tree", last="whole")
    place.write("taken/file", b"theirs")
    assert not place.move("tree", "taken", last="whole")
    assert stored(place, "taken") == {"file": b"theirs"}
    assert stored(place, "tree") == TREE


def test_a_tree_without_its_last_file_is_not_taken_for_whole(place: Place, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    with pytest.raises(FileNotFoundError):
        place.put(source, "tree", last="missing")
    place.write("partial/file", b"")
    with pytest.raises((SkipstreamError, FileNotFoundError), match="missing"):
        place.copy("partial", "copied", last="missing")


def test_a_tree_that_cannot_be_copied_lacks_its_last_file(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    (source / "a" / "dangling").symlink_to("nowhere")
    place = Directory(tmp_path / "place")
    place.path.mkdir()
    with pytest.raises(OSError, match="No such file"):
        place.put(source, "tree", last="whole")
    assert place.names("tree") == ["a", "zero"]


@pytest.mark.parametrize("request_", ["put", "copy", "delete"])
def test_a_tree_in_a_bucket_has_its_last_file_only_when_it_has_all_others(
    bucket: Bucket, tmp_path: Path, request_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tree(tmp_path / "source")
    bucket.put(source, "tree", last="whole")
    real = getattr(obstore, request_)

    def fail(store: ObjectStore, *arguments: Any, **options: Any) -> Any:
        paths = [arguments[0]] if isinstance(arguments[0], str) else arguments[0]
        if any(path.endswith("a/b/c") for path in paths):
            raise GenericError("503")
        return real(store, *arguments, **options)

    monkeypatch.setattr(obstore, request_, fail)
    with pytest.raises(SkipstreamError, match=r"a/b/c could not be read or written \(503\)"):
        if request_ == "put":
            bucket.put(source, "other", last="whole")
        elif request_ == "copy":
            bucket.copy("tree", "other", last="whole")
        else:
            bucket.remove("tree", first="whole")
    assert bucket.has("tree/whole") == (request_ != "delete")
    assert not bucket.has("other/whole")


def test_a_store_that_overwrites_what_it_is_to_create_is_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = obstore.put

    def careless(store: ObjectStore, name: str, content: bytes, mode: str = "") -> Any:
        return real(store, name, content)

    monkeypatch.setattr(obstore, "put", careless)
    with pytest.raises(
        SkipstreamError, match=f"must have conditional writes .*got {BUCKET}, which"
    ):
        bucket.create("a", b"")


@pytest.fixture
def put_fails(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The numbers, from 1, of the writes that fail."""
    real, numbers = obstore.put, itertools.count(1)
    failing: set[int] = set()

    def put(store: ObjectStore, name: str, content: bytes, **options: Any) -> Any:
        if next(numbers) in failing:
            raise GenericError("503 Service Unavailable")
        return real(store, name, content, **options)

    monkeypatch.setattr(obstore, "put", put)
    return failing


def test_a_store_that_fails_is_not_one_that_overwrites(bucket: Bucket, put_fails: set[int]) -> None:
    put_fails.add(2)  # Whether it keeps its word is asked then.
    assert bucket.create("a", b"1")
    assert bucket.read("a") == b"1"
    assert bucket.create("b", b"")  # And now.
    assert not bucket.create("b", b"")


def test_conditional_writes_are_tried_again(
    bucket: Bucket, put_fails: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_fails |= {1, 3}
    version = bucket.replace("a", b"1", None)
    assert bucket.replace("a", b"2", version)
    assert bucket.read("a") == b"2"
    put_fails.add(5)
    assert bucket.create("b", b"")
    put_fails.add(8)
    monkeypatch.setattr("components.places.client.SECONDS", -1)  # It takes long to fail.
    with pytest.raises(SkipstreamError, match="could not be read or written .503"):
        bucket.create("c", b"")


def test_what_dead_processes_left_is_swept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".scratch-1/a", ".scratch-2/b/c", ".other/d", "e/f"):
        place.write(name, b"")
    if not place.has_locks:
        place.sweep()
        assert place.names() == [".other", ".scratch-1", ".scratch-2", "e"]  # Slow, not dead.
        monkeypatch.setattr("components.places.place._DEAD_AFTER", timedelta(0))
    place.sweep()
    assert place.names() == [".other", "e"]


def test_what_is_dead_was_written_to_a_day_ago_for_the_last_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("a/b", b"")
    time.sleep(0.02)
    place.write("a/c", b"")
    tomorrow = place.files("a")["c"].modified + timedelta(days=1)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return tomorrow + ahead

    monkeypatch.setattr("components.places.place.datetime", Clock)
    for milliseconds, expected in ((-1, False), (1, True)):
        ahead = timedelta(milliseconds=milliseconds)
        assert is_dead(place, "a") is expected
        assert not is_dead(place, "none")


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_place("~/a").address == open_place("./b/../a/").address == str(tmp_path / "a")
    assert open_place("a").at("b/c") == str(tmp_path / "a" / "b" / "c")
    place = Bucket(MemoryStore(), "gs://bucket/path/")
    assert (place.address, place.at("b/c")) == ("gs://bucket/path", "gs://bucket/path/b/c")


@pytest.mark.parametrize("address", ["gcs://bucket/x", "file:///x", "s3://", "gs:///x"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_place(address, "pusher.destination")
    assert str(caught.value) == (
        "pusher.destination must be a directory, gs://bucket/path or s3://bucket/path, "
        f"got '{address}'"
    )


def test_what_is_downloaded_has_the_digest_it_was_uploaded_with(
    bucket: Bucket, tmp_path: Path
) -> None:
    source = tree(tmp_path / "source")
    sent = bucket.upload(source, "trainer/1", ["a/b/c", "zero"])
    assert sent == {
        "a/b/c": (4, digest_of(source / "a/b/c")),
        "zero": (100_000, digest_of(source / "zero")),
    }
    digests = {name: digest for name, (_, digest) in sent.items()}
    bucket.download("trainer/1", tmp_path / "copy", digests)
    assert content(tmp_path / "copy") == {name: TREE[name] for name in sent}
    bucket.write("trainer/1/zero", b"\x00" * 99_999 + b"\x01")
    with pytest.raises(SkipstreamError) as caught:
        bucket.download("trainer/1", tmp_path / "other", digests)
    assert str(caught.value).startswith(f"{BUCKET}/trainer/1/zero must have the digest ")
    assert str(caught.value).endswith(f": delete {BUCKET}/trainer/1 and run again")
    assert "zero" not in content(tmp_path / "other")
    bucket.download("trainer/1", tmp_path / "other", {"zero": ""})  # Any.
    assert (tmp_path / "other" / "zero").read_bytes()[-1] == 1


def test_a_file_that_is_gone_is_one_line(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match=f"^{BUCKET}/a/b is gone: run again$"):
        bucket.download("a", tmp_path, {"b": ""})
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_made_once_and_whole(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(tree(tmp_path / "source"), "tree", last="whole")
    with ThreadPoolExecutor(4) as threads:
        copies = list(
            threads.map(
                lambda _: bucket.local("tree", tmp_path / "scratch" / "copy", last="whole"),
                range(4),
            )
        )
    assert len(set(copies)) == 1
    assert content(copies[0]) == TREE
    bucket.remove("tree/whole")  # As a version goes.
    with pytest.raises(SkipstreamError, match=f"^{BUCKET}/tree must hold whole, and does not"):
        bucket.local("tree", tmp_path / "scratch" / "other", last="whole")
    assert list((tmp_path / "scratch").iterdir()) == [copies[0]]


def test_another_content_has_another_copy(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(tree(tmp_path / "source"), "tree", last="whole")
    first = bucket.local("tree", tmp_path / "copy", last="whole")
    bucket.write("tree/whole", b"other")
    second = bucket.local("tree", tmp_path / "copy", last="whole")
    assert ((first / "whole").read_bytes(), (second / "whole").read_bytes()) == (
        TREE["whole"],
        b"other",
    )
    digests = {"whole": digest_of(first / "whole")}
    with pytest.raises(SkipstreamError, match=f"^{BUCKET}/tree/whole must have the digest"):
        bucket.local("tree", tmp_path / "verified", last="whole", digests=digests)


def test_a_file_is_replaced_only_if_nobody_else_has(bucket: Bucket) -> None:
    first = bucket.replace("a", b"1", None)
    assert bucket.read_version("a") == (b"1", first)
    assert bucket.replace("a", b"2", None) is None
    second = bucket.replace("a", b"2", first)
    assert bucket.replace("a", b"3", first) is None
    assert bucket.read_version("a") == (b"2", second)
    bucket.remove("a")
    assert bucket.replace("a", b"4", second) is None
    assert bucket.read_version("a") == (None, None)


def test_what_a_killed_writer_left_goes_when_the_file_is_written(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from components.places.directory import Directory
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
Directory(sys.argv[1]).write("a.json", b"1")
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "d"], check=False)
    assert len(list((tmp_path / "d").glob(".a.json.*"))) == 1
    (tmp_path / "d" / ".b.json.12345678").touch()  # Of another file.
    place = Directory(tmp_path)
    place.write("d/a.json", b"2")
    assert place.names("d") == [".b.json.12345678", "a.json"]
    assert place.create("d/b.json", b"3")
    assert place.names("d") == ["a.json", "b.json"]


def test_a_directory_is_held_by_one_run(tmp_path: Path) -> None:
    place = Directory(tmp_path / "out")
    with place.hold("one") as hold:
        hold.check()
        with pytest.raises(SkipstreamError, match="is in use by process .*--output"):
            place.hold("two").__enter__()
    with place.hold("two"):
        pass
