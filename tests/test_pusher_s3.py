"""Pushes to S3 as its API is, answered by a local server (moto): conditional writes included."""

import multiprocessing
import urllib.request
from pathlib import Path

import pytest
import stores
from apache_beam.io.filesystems import FileSystems
from test_pusher import content, model, push

from components.contents import Contents
from components.errors import SkipstreamError
from components.example_gen.files import list_files
from components.pusher import pusher
from components.pusher.destination import open_destination


@pytest.fixture
def server(s3_server: stores.Server) -> str:
    return s3_server.endpoint


@pytest.fixture
def bucket(s3: stores.Bucket) -> str:
    return s3.url


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


def _push(arguments: tuple[Path, str, str]) -> int:
    root, url, name = arguments
    return push(root, open_destination(url), name, keep=100).version


def test_pushes_of_two_processes_get_versions_of_their_own(bucket: str, tmp_path: Path) -> None:
    arguments = [(tmp_path / f"run{number}", bucket, str(number)) for number in range(8)]
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        versions = processes.map(_push, arguments, chunksize=1)
    assert sorted(versions) == list(range(1, 9))
    destination = open_destination(bucket)
    for number, version in enumerate(versions):
        assert content(destination, version) == model(str(number))


def test_a_corpus_is_listed_before_there_is_a_pipeline(
    bucket: str, server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    url = f"{server}/{bucket.removeprefix('s3://')}/texts/a.txt"
    text = {"Content-Type": "text/plain"}
    request = urllib.request.Request(url, b"some text", text, method="PUT")
    urllib.request.urlopen(request, timeout=5).close()
    (file,), skipped = list_files([f"{bucket}/texts/*.txt"])
    assert (file.path, file.size, skipped) == (f"{bucket}/texts/a.txt", 9, {})
    assert file.modified > 0
    # The ETag, which is the content's MD5 in quotes.
    digests = Contents(tmp_path / "x.json").digests([file])
    assert digests == ['s3:"552e21cd4cd9918678e3c1a0df491bc3"']


def test_a_bucket_that_is_not_there_is_one_line(server: str, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match="^s3://none/x, where .* not be read") as caught:
        push(tmp_path / "run", open_destination("s3://none/x"))
    assert "\n" not in str(caught.value)
