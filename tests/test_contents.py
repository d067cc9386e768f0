"""Digests of files, and which of them are trusted later."""

import os
import time
from pathlib import Path

import pytest
from bucket import BucketFileSystem
from obstore.store import MemoryStore

from components import contents
from components.contents import Contents
from components.errors import SkipstreamError
from components.example_gen.files import File, list_files
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.places.place import Place

SETTLED = time.time_ns() - 3600 * 10**9


def listed(*paths: Path) -> list[File]:
    return list_files(map(str, paths))[0]


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the digests are remembered."""
    if request.param == "directory":
        return Directory(tmp_path / "out")
    return Bucket(MemoryStore(), "s3://bucket/out")


def remembering(place: Place, name: str = "digests/x.json") -> Contents:
    """As a new run finds it."""
    return Contents(place, name)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in the order that they were."""
    names: list[str] = []
    of_disk = contents._of_disk

    def watched(file: File, *arguments: object) -> object:
        names.append(os.path.basename(file.path))
        return of_disk(file, *arguments)

    monkeypatch.setattr(contents, "_of_disk", watched)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is too new to be trusted."""
    monkeypatch.setattr(contents, "_TICK", -(10**12))


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_read_once(place: Place, tmp_path: Path, read: list[str]):
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    for path in paths:
        path.write_text(path.name)
    first = remembering(place).digests(listed(*paths))
    # As b2sum -l 128 has them.
    assert first == ["8c54ec7283e9a5145f2a4047f40504e9", "e403331e098a548af96a1a1115283fb7"]
    assert remembering(place).digests(listed(*paths)) == first == remembering(place).remembered
    assert sorted(read) == ["a.txt", "b.txt"]
    # A copy of another file that keeps size and time, as rsync -t and cp -p make it.
    status = paths[0].stat()
    paths[0].write_text("A.txt")
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    second = remembering(place).digests(listed(*paths))
    assert (second[0] != first[0], second[1] == first[1]) == (True, True)
    assert read[2:] == ["a.txt"]
    # What is no longer listed is forgotten.
    remembering(place).digests(listed(paths[1]))
    assert remembering(place).remembered == second[1:]


def test_a_file_written_a_moment_before_is_not_trusted(
    place: Place, tmp_path: Path, read: list[str]
):
    path = tmp_path / "a.txt"
    path.write_text("one")
    for _ in range(2):
        remembering(place).digests(listed(path))
    assert read == ["a.txt", "a.txt"]
    assert len(remembering(place).remembered) == 1


@pytest.mark.usefixtures("settled")
def test_a_file_that_changed_since_it_was_listed_is_not_trusted(
    place: Place, tmp_path: Path, read: list[str]
):
    path = tmp_path / "a.txt"
    path.write_text("one")
    files = listed(path)
    path.write_text("longer")
    remembering(place).digests(files)
    remembering(place).digests(files)
    assert read == ["a.txt", "a.txt"]


def test_a_damaged_memory_is_forgotten(place: Place, tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    files = listed(tmp_path / "a.txt")
    digests = remembering(place, "none.json").digests(files)
    for damaged in ("", "[]", "{", '{"x": 1}', f'{{"{files[0].path}": []}}', "\udcff"):
        place.write("digests/x.json", damaged.encode("utf-8", "surrogateescape"))
        assert remembering(place).remembered == []
        assert remembering(place).digests(files) == digests


def test_a_file_that_is_gone_ends_it_or_counts_as_unreadable(place: Place, tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    files = listed(tmp_path / "*.txt")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(SkipstreamError, match=r"b\.txt was listed and is gone now"):
        remembering(place).digests(files)
    assert len(remembering(place).remembered) == 0
    digests = remembering(place).digests(files, skip_unreadable=True)
    assert digests[1] == contents.UNREADABLE


@pytest.mark.usefixtures("settled")
def test_an_interrupted_run_has_read_something(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    files = listed(tmp_path / "*.txt")
    monkeypatch.setattr(contents, "_GROUP_FILES", 1)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(SkipstreamError):
        remembering(place).digests(files)
    assert len(remembering(place).remembered) == 1


def test_how_many_are_read_at_once_shows_nowhere(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(str(number))
    files = listed(tmp_path / "*.txt")
    whole = remembering(place).digests(files)
    monkeypatch.setattr(contents, "_GROUP_FILES", 3)
    monkeypatch.setattr(contents, "BLOCK_BYTES", 1)
    assert remembering(place, "digests/y.json").digests(files) == whole
    assert place.read("digests/x.json") == place.read("digests/y.json")


def test_a_store_says_what_its_objects_hold(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.txt"
    path.write_text("one")
    url = f"bucket:/{path}"
    os.utime(path, ns=(SETTLED, SETTLED))

    def digest() -> str:
        (found,) = remembering(place).digests(list_files([url])[0])
        return found

    assert digest() == "bucket:f97c5d29941bfb1b2fdab0874906ab82"  # MD5, as that store has it.
    os.utime(path, ns=(SETTLED + 10**9, SETTLED + 10**9))
    assert digest() == "bucket:f97c5d29941bfb1b2fdab0874906ab82"

    def none(self: object, path: str) -> str:
        raise NotImplementedError

    monkeypatch.setattr(BucketFileSystem, "checksum", none)
    assert digest() == "bucket:f97c5d29941bfb1b2fdab0874906ab82"  # It is remembered.
    os.utime(path, ns=(10**18, 10**18))
    assert digest() == f"modified:{10**18}"
    monkeypatch.setattr(BucketFileSystem, "checksum", lambda self, path: "3")  # Its size.
    os.utime(path, ns=(10**18 + 10**9,) * 2)
    assert digest() == f"modified:{10**18 + 10**9}"

    def refused(self: object, path: str) -> str:
        raise OSError("403\nForbidden")

    monkeypatch.setattr(BucketFileSystem, "checksum", refused)
    os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(SkipstreamError, match=rf"^cannot read {url}: 403 Forbidden$"):
        digest()
