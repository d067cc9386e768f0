"""Pushes to S3 and Google Cloud Storage as their APIs are, answered by local servers."""

import multiprocessing
import time
import urllib.request
from pathlib import Path

import pytest
import stores
from apache_beam.io.filesystems import FileSystems
from test_pusher import content, model, push, push_in_process

from components.contents import Contents
from components.errors import SkipstreamError
from components.example_gen.files import list_files
from components.places.bucket import Bucket
from components.places.directory import Directory
from components.places.lease import Lease
from components.pusher import pusher
from components.pusher.destination import open_destination


@pytest.fixture(params=["s3", "gs"])
def server(request: pytest.FixtureRequest) -> stores.Server:
    found: stores.Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def bucket(server: stores.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a bucket of its own for each test."""
    made = server.bucket()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made.url


def test_versions_are_pushed_rolled_back_and_pruned(bucket: str, tmp_path: Path) -> None:
    destination = open_destination(f"{bucket}/models/words/")
    assert pusher.read(destination).versions == []
    assert push(tmp_path / "run", destination, "a").version == 1
    assert push(tmp_path / "run", destination, "b").version == 2
    assert pusher.rollback(destination).restores == 1
    assert content(destination, 3) == model("a")
    assert pusher.prune(destination, 2) == [1]
    history = pusher.read(destination)
    assert (history.versions, list(history.withdrawn)) == ([2, 3], ["b"])
    assert destination.path_of(3) == f"{bucket}/models/words/3"
    fetched = pusher.fetch(destination, 3, tmp_path / "fetched")
    assert (fetched / "saved_model.pb").read_bytes() == b"a"
    assert (fetched / "variables/variables.data-00000-of-00001").stat().st_size == 300_000


def test_pushes_of_two_processes_get_versions_of_their_own(bucket: str, tmp_path: Path) -> None:
    arguments = [(tmp_path / f"run{number}", bucket, str(number)) for number in range(8)]
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        versions = processes.map(push_in_process, arguments, chunksize=1)
    assert sorted(versions) == list(range(1, 9))
    destination = open_destination(bucket)
    for number, version in enumerate(versions):
        assert content(destination, version) == model(str(number))


@pytest.mark.parametrize("server", ["s3"], indirect=True)
def test_a_corpus_is_listed_before_there_is_a_pipeline(
    bucket: str, server: stores.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    url = f"{server.endpoint}/{bucket.removeprefix('s3://')}/texts/a.txt"
    text = {"Content-Type": "text/plain"}
    request = urllib.request.Request(url, b"some text", text, method="PUT")
    urllib.request.urlopen(request, timeout=5).close()
    (file,), skipped = list_files([f"{bucket}/texts/*.txt"])
    assert (file.path, file.size, skipped) == (f"{bucket}/texts/a.txt", 9, {})
    assert file.modified > 0
    # The ETag, which is the content's MD5 in quotes.
    digests = Contents(Directory(tmp_path), "x.json").digests([file])
    assert digests == ['s3:"552e21cd4cd9918678e3c1a0df491bc3"']


def test_a_bucket_that_is_not_there_is_one_line(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket[:5]}no-such-bucket/x"
    destination = open_destination(url)
    with pytest.raises(SkipstreamError, match=f"^{url} cannot be reached: its bucket is not"):
        push(tmp_path / "run", destination)
    place = destination.place
    assert isinstance(place, Bucket)
    said = f"^{url}/(b/)?a cannot be reached: its bucket is not there; create it"
    (tmp_path / "a").touch()
    for write in (
        lambda: place.write("a", b""),
        lambda: place.create("a", b""),
        lambda: place.replace("a", b"", None),
        lambda: place.upload(tmp_path, "b", ["a"]),
        lambda: place.names("a"),
        lambda: place.files("a"),
    ):
        with pytest.raises(SkipstreamError, match=said) as caught:
            write()
        assert "\n" not in str(caught.value)
    with pytest.raises(SkipstreamError, match=f"^{url}/.lease cannot be reached"):
        place.hold("run").__enter__()


def test_a_lease_is_held_by_one_run(bucket: str) -> None:
    place = Bucket.open(f"{bucket}/out", "--output")
    with Lease(place, "one", 2.0) as held:
        time.sleep(1.2)  # It is renewed twice.
        with pytest.raises(SkipstreamError, match="is in use by run one on "):
            Lease(Bucket.open(f"{bucket}/out", "--output"), "two", 2.0).__enter__()
        held.check()
        assert place.replace(".lease", b"stolen", None) is None
    assert place.names() == []


def test_a_file_in_parts_has_the_digest_it_was_uploaded_with(bucket: str, tmp_path: Path) -> None:
    place = Bucket.open(f"{bucket}/out", "--output")
    (tmp_path / "large").write_bytes(bytes(range(256)) * (20 * 2**12))  # 20 MiB: three parts.
    (size, digest) = place.upload(tmp_path, "a", ["large"])["large"]
    place.download("a", tmp_path / "copy", {"large": digest})
    assert (tmp_path / "copy" / "large").stat().st_size == size == 20 * 2**20
