"""The stores that tests start keep the promises of the real ones, and the proxy fails as told."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
import stores
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from faults.proxy import Proxy
from gcs_service import PAGE
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import ObjectStore, from_url

ONCE = {"max_retries": 0, "retry_timeout": timedelta(seconds=10)}


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest) -> stores.Bucket:
    found: stores.Bucket = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(bucket: stores.Bucket) -> ObjectStore:
    return from_url(f"{bucket.url}/a dir", retry_config=ONCE)


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([]))


def version(store: ObjectStore, name: str) -> dict[str, str]:
    about = obstore.head(store, name)
    return {key: value for key in ("e_tag", "version") if (value := about[key])}  # type: ignore


def test_obstore_and_beam_see_the_same(bucket: stores.Bucket, store: ObjectStore) -> None:
    large = os.urandom(17 << 20)  # More than a part for either.
    obstore.put(store, "x/ö +%.bin", large)
    with FileSystems.create(f"{bucket.url}/a dir/x/y") as file:
        file.write(large[1:])
    obstore.put(store, "x/empty", b"")  # Beam's S3 writer makes no empty objects.
    (match,) = FileSystems.match([f"{bucket.url}/a dir/x/*"])
    sizes = {found.path: found.size_in_bytes for found in match.metadata_list}
    names = {f"{bucket.url}/a dir/x/{name}" for name in ("ö +%.bin", "y", "empty")}
    assert sizes == dict.fromkeys(names, 0) | {
        f"{bucket.url}/a dir/x/ö +%.bin": len(large),
        f"{bucket.url}/a dir/x/y": len(large) - 1,
    }
    with FileSystems.open(f"{bucket.url}/a dir/x/ö +%.bin") as file:
        assert file.read() == large
        file.seek(5)
        assert file.read(3) == large[5:8]
    assert bytes(obstore.get(store, "x/y").bytes()) == large[1:]
    assert bytes(obstore.get_range(store, "x/y", start=4, end=7)) == large[5:8]
    FileSystems.rename([f"{bucket.url}/a dir/x/y"], [f"{bucket.url}/a dir/z"])
    FileSystems.delete([f"{bucket.url}/a dir/x/empty"])
    listed = obstore.list_with_delimiter(store)
    assert [found["path"] for found in listed["objects"]] == ["z"]
    assert listed["common_prefixes"] == ["x"]
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "x/y")


def test_lists_go_on_over_pages(bucket: stores.Bucket, store: ObjectStore) -> None:
    names = [f"{number % 7}/{number:04}" for number in range(PAGE + 10)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: obstore.put(store, name, b"", use_multipart=False), names))
    listed = [found["path"] for page in obstore.list(store) for found in page]
    assert listed == sorted(names)
    (match,) = FileSystems.match([f"{bucket.url}/a dir/**"])
    assert len(match.metadata_list) == len(names)
    folders = obstore.list_with_delimiter(store)["common_prefixes"]
    assert folders == [str(number) for number in range(7)]


def test_of_concurrent_creates_one_succeeds(store: ObjectStore) -> None:
    def create(writer: int) -> int | None:
        try:
            obstore.put(store, "name", str(writer).encode() * 10_000, mode="create")
        except AlreadyExistsError:
            return None
        return writer

    with ThreadPoolExecutor(16) as threads:
        for _ in range(10):
            (winner,) = (w for w in threads.map(create, range(16)) if w is not None)
            content = bytes(obstore.get(store, "name").bytes())
            assert content == str(winner).encode() * 10_000
            obstore.delete(store, "name")


def test_of_concurrent_updates_one_succeeds(store: ObjectStore) -> None:
    obstore.put(store, "name", b"first")

    def update(text: str) -> bool:
        try:
            obstore.put(store, "name", text.encode(), mode=known)
        except PreconditionError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        for turn in range(10):
            known = version(store, "name")
            texts = [f"{turn} {writer}" for writer in range(16)]
            (winner,) = (t for t, won in zip(texts, threads.map(update, texts), strict=True) if won)
            assert bytes(obstore.get(store, "name").bytes()) == winner.encode()


def test_copies_can_be_for_new_names_alone(s3: stores.Bucket, gs: stores.Bucket) -> None:
    store = from_url(gs.url, retry_config=ONCE)
    obstore.put(store, "a", b"a")
    obstore.copy(store, "a", "b")
    with pytest.raises(AlreadyExistsError):
        obstore.copy(store, "a", "b", overwrite=False)


def test_google_s_own_client_has_preconditions(gs: stores.Bucket) -> None:
    from google.api_core.exceptions import PreconditionFailed
    from google.cloud import storage

    client = storage.Client.create_anonymous_client()
    bucket = client.bucket(gs.url.removeprefix("gs://"))
    blob = bucket.blob("name")
    blob.upload_from_string(b"first", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("name").upload_from_string(b"other", if_generation_match=0)
    bucket.blob("name").upload_from_string(b"second", if_generation_match=blob.generation)
    with pytest.raises(PreconditionFailed):
        bucket.blob("name").upload_from_string(b"third", if_generation_match=blob.generation)
    assert bucket.blob("name").download_as_bytes() == b"second"


def test_a_server_ends_with_the_process_that_started_it() -> None:
    program = "import stores, os; c = stores.gs(); s = c.__enter__(); s.bucket(); print(s.endpoint)"
    here = Path(__file__).parent
    command = [sys.executable, "-c", f"{program}; os.kill(os.getpid(), 9)"]
    killed = subprocess.run(command, cwd=here, capture_output=True, text=True)
    server = stores.Server("gs", killed.stdout.strip())
    deadline = time.monotonic() + 10
    with pytest.raises(OSError):
        while time.monotonic() < deadline:
            server.bucket()
            time.sleep(0.05)


@pytest.fixture
def proxy(request: pytest.FixtureRequest, s3_server: stores.Server) -> Iterator[Proxy]:
    with Proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def failing(proxy: Proxy, s3_server: stores.Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    bucket = s3_server.bucket(through=proxy.endpoint)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    options = {"timeout": "1s", "allow_http": True}  # Options hide AWS_ALLOW_HTTP.
    store = from_url(bucket.url, retry_config=ONCE, client_options=options)
    obstore.put(store, "name", b"x" * 100_000, use_multipart=False)
    proxy.requests.clear()
    return store


def test_a_status_is_answered_as_often_as_told(proxy: Proxy, failing: ObjectStore) -> None:
    rule = proxy.fail(503, lambda request: request.method == "GET", skip=1, times=1)
    assert len(obstore.get(failing, "name").bytes()) == 100_000
    with pytest.raises(obstore.exceptions.GenericError, match="503 Service Unavailable"):
        obstore.get(failing, "name")
    assert len(obstore.get(failing, "name").bytes()) == 100_000
    assert (rule.matches, rule.hits) == (3, 1)
    assert [request.status for request in proxy.requests] == [200, 503, 200]
    assert {request.kind for request in proxy.requests} == {"GET object"}


def test_an_answer_that_never_comes(proxy: Proxy, failing: ObjectStore) -> None:
    proxy.fail("timeout")
    with pytest.raises(obstore.exceptions.GenericError, match="(?i)time"):
        obstore.head(failing, "name")


def test_a_body_is_cut_short(proxy: Proxy, failing: ObjectStore) -> None:
    proxy.fail("truncated")
    with pytest.raises(obstore.exceptions.GenericError):
        obstore.get(failing, "name").bytes()
    with pytest.raises(obstore.exceptions.GenericError):
        obstore.put(failing, "other", b"x" * 1_000_000, mode="create")
    proxy.rules.clear()
    assert [found["path"] for page in obstore.list(failing) for found in page] == ["name"]


def test_a_store_does_what_it_never_confirms(proxy: Proxy, failing: ObjectStore) -> None:
    proxy.fail("reset", times=1)
    with pytest.raises(obstore.exceptions.GenericError):
        obstore.put(failing, "other", b"content", mode="create")
    proxy.fail("lost", times=1)
    with pytest.raises(obstore.exceptions.GenericError):
        obstore.put(failing, "other", b"content", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(failing, "other", b"content", mode="create")
