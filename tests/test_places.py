"""A directory and a bucket do the same; a bucket verifies what it gives and is held by a lease."""

import json
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from components.errors import SettingsError, SkipstreamError
from components.places import lease
from components.places.bucket import Bucket, digest_of
from components.places.directory import Directory
from components.places.lease import Lease
from components.places.place import Place, is_dead, open_place

TREE = {"whole": b"yes", "a/b/c": b"deep", "a/d": b"", "zero": b"\x00" * 100_000}
BUCKET = "s3://bucket/path"
SECONDS = 0.8  # Of a lease.


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


def test_the_last_file_of_a_tree_comes_when_all_others_are_there(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put(tree(tmp_path / "source"), "tree", last="whole")
    bucket.copy("tree", "copied", last="whole")
    for name in ("tree", "copied"):
        modified = {file: found.modified for file, found in bucket.files(name).items()}
        assert max(modified, key=lambda file: modified[file]) == "whole"


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
    assert copies == [tmp_path / "scratch" / "copy"] * 4
    assert content(copies[0]) == TREE
    bucket.remove("tree/whole")  # As a version goes.
    assert bucket.local("tree", copies[0], last="whole") == copies[0]
    with pytest.raises(SkipstreamError, match=f"^{BUCKET}/tree must hold whole, and does not"):
        bucket.local("tree", tmp_path / "scratch" / "other", last="whole")
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["copy"]


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


def test_a_directory_is_held_by_one_run(tmp_path: Path) -> None:
    place = Directory(tmp_path / "out")
    with place.hold("one") as hold:
        hold.check()
        with pytest.raises(SkipstreamError, match="is in use by process .*--output"):
            place.hold("two").__enter__()
    with place.hold("two"):
        pass


def elsewhere(bucket: Bucket, run: str, seconds: float = SECONDS) -> Lease:
    """A lease of another machine: whether its process lives, nobody here can see."""
    held = Lease(bucket, run, seconds)
    held._holder["machine"] = "another"
    return held


def dead(bucket: Bucket) -> Lease:
    """A lease of a run that died: nobody renews it or gives it back."""
    held = elsewhere(bucket, "dead")
    held._take()
    return held


def test_a_lease_is_taken_and_given_back(bucket: Bucket) -> None:
    with bucket.hold("20261128-1") as held:
        held.check()
        said = json.loads(bucket.read(lease.NAME) or b"")
        assert said["run"] == "20261128-1"
    assert bucket.names() == []
    with bucket.hold("20261128-2"):
        pass


def test_a_lease_is_refused_while_its_holder_renews_it(bucket: Bucket) -> None:
    with elsewhere(bucket, "one") as held:
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(SkipstreamError) as caught:
                Lease(bucket, "two", SECONDS).__enter__()
            assert time.monotonic() - begun < SECONDS
        held.check()
    assert str(caught.value).startswith(f"{BUCKET} is in use by run one on ")
    assert str(caught.value).endswith(": wait for it, or choose another with --output")


def test_a_lease_is_taken_over_when_its_holder_is_dead(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    lost, begun = dead(bucket), time.monotonic()
    with Lease(bucket, "two", SECONDS) as held:
        assert SECONDS < time.monotonic() - begun < 10 * SECONDS
        held.check()
        with pytest.raises(SkipstreamError, match="could not be renewed for 0.8 seconds"):
            lost.check()
        assert json.loads(bucket.read(lease.NAME) or b"")["run"] == "two"
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("waiting to see whether run dead on ")
    assert said[1].endswith("is dead: its lease is taken over")


def test_a_lease_of_a_process_that_is_gone_is_taken_over_at_once(bucket: Bucket) -> None:
    if lease._process()["machine"] is None:
        pytest.skip("whether a process lives is seen on Linux only")
    program = (
        "import json; from components.places import lease; print(json.dumps(lease._process()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    bucket.write(
        lease.NAME, json.dumps({"run": "1", "host": "h"} | json.loads(done.stdout)).encode()
    )
    begun = time.monotonic()
    with Lease(bucket, "two"):
        assert time.monotonic() - begun < lease.SECONDS / 4


def test_of_runs_that_wait_for_a_dead_one_one_wins(bucket: Bucket) -> None:
    def one(number: int) -> str:
        try:
            with Lease(bucket, str(number), SECONDS) as held:
                time.sleep(SECONDS)
                held.check()
        except SkipstreamError as error:
            return str(error)
        return "held"

    dead(bucket)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(one, range(4)))
    assert done.count("held") == 1
    assert sum("is in use by run" in said for said in done) == 3
    assert bucket.names() == []


def test_a_lease_that_somebody_else_wrote_is_lost_and_not_given_back(bucket: Bucket) -> None:
    with Lease(bucket, "one", SECONDS) as held:
        bucket.write(lease.NAME, b'{"run": "two"}')
        deadline = time.monotonic() + 10 * SECONDS
        with pytest.raises(SkipstreamError, match="another run may have taken it: run the same"):
            while time.monotonic() < deadline:
                held.check()
                time.sleep(0.01)
    assert bucket.read(lease.NAME) == b'{"run": "two"}'


def test_a_lease_that_is_damaged_is_nobodys(bucket: Bucket) -> None:
    bucket.write(lease.NAME, b"{")
    with bucket.hold("one"):
        pass


def test_a_lease_outlives_a_bucket_that_fails_for_a_moment(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(bucket, "one", SECONDS) as held:
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise SkipstreamError("503")

            patch.setattr(bucket, "replace", fail)
            time.sleep(SECONDS / 2)
            held.check()
        time.sleep(SECONDS)
        held.check()
    assert bucket.names() == []
