"""Local copies of what lies in buckets: how many stay."""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from components.errors import SettingsError, SkipstreamError
from pipeline import cache

URL = "s3://bucket/output"


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        copy = tmp_path / "place" / name
        (copy / "deep").mkdir(parents=True)
        (copy / "deep" / "file").write_bytes(b"x" * 100)
        os.utime(copy, (1e9 - age, 1e9 - age))
    cache.shrink(tmp_path, 300)
    assert len(list((tmp_path / "place").iterdir())) == 3
    cache.shrink(tmp_path, 250)
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == ["middle", "newest"]
    cache.shrink(tmp_path, 0)
    assert list((tmp_path / "place").iterdir()) == []


def test_a_copy_counts_as_used_when_it_is_looked_for(cache_directory: Path) -> None:
    path = cache.directory_for(URL, "trainer-0123")
    assert path.parent.parent == cache_directory
    path.mkdir()
    os.utime(path, (1, 1))
    assert cache.directory_for(URL, "trainer-0123") == path
    assert path.stat().st_mtime > 1e9
    assert cache.directory_for(f"{URL}/other", "trainer-0123").parent != path.parent


def test_a_cache_that_is_too_large_shrinks_when_it_is_opened(
    cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = cache_directory / "place" / "trainer-0123"
    copy.mkdir(parents=True)
    (copy / "file").write_bytes(b"x" * 2000)
    monkeypatch.setenv(cache.GIGABYTES, "1e-6")
    cache.directory_for(URL, "x")
    assert not copy.exists()


def test_the_bound_of_the_cache_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.GIGABYTES, "20GB")
    with pytest.raises(SettingsError, match="SKIPSTREAM_CACHE_GB must be a number .*, got '20GB'"):
        cache.directory_for(URL, "x")


def test_nothing_goes_while_another_process_is_at_work(
    cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = cache_directory / "place" / "trainer-0123"
    copy.mkdir(parents=True)
    (copy / "file").write_bytes(b"x" * 2000)
    monkeypatch.setenv(cache.GIGABYTES, "1e-6")
    with (cache_directory / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        cache.directory_for(URL, "x")
    assert copy.exists()


def test_copies_lie_where_a_user_s_caches_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cache.DIRECTORY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory_for(URL, "x").is_relative_to(tmp_path / "xdg" / "skipstream")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory_for(URL, "x").is_relative_to(tmp_path / ".cache" / "skipstream")
    # A container whose user may not write there.
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = cache.directory_for(URL, "x")
    assert found.is_relative_to(tmp_path / f"skipstream-cache-{os.getuid()}")


def test_a_cache_that_cannot_be_written_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To root, who may write anywhere, a directory in its place is what another user's file is.
    (tmp_path / "skipstream" / ".lock").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv(cache.DIRECTORY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.directory_for(URL, "x").is_relative_to(tmp_path / "tmp")
    # One that was chosen is used or refused.
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "skipstream"))
    with pytest.raises(SkipstreamError, match=r"skipstream must be writable.*SKIPSTREAM_CACHE$"):
        cache.directory_for(URL, "x")
