"""Whatever a bucket answers is one line with the address and the reason."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from components.errors import SkipstreamError
from components.places.bucket import Bucket

ADDRESS = "s3://bucket/path"


class Answer(BaseHTTPRequestHandler):
    """Answers every request with the server's `status`, and with a body that is cut short."""

    server: Any

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(getattr(self.server, "delay", 0))
        body = b"<?xml version='1.0'?>\n<Error><Code>NotToday</Code></Error>"
        body = getattr(self.server, "body", body)
        cut = 0 if self.server.status != 200 else 10
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body) + cut))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sat, 28 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)
        self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        # A client may go away: that is no text on the standard error of another test.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def bucket(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-cloud",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("components.places.client._RETRIES", {"max_retries": 0})
    return Bucket.open(ADDRESS, "--output")


def fails(bucket: Bucket, action: Callable[[], object]) -> str:
    with pytest.raises(SkipstreamError) as caught:
        action()
    said = str(caught.value)
    assert said.startswith(bucket.address)
    assert "\n" not in said and "xml" not in said and "secret-of-the-cloud" not in said
    assert len(said) < 600
    return said


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_refusal_is_one_line(
    server: ThreadingHTTPServer, bucket: Bucket, tmp_path: Path, status: int
) -> None:
    server.status = status  # type: ignore[attr-defined]
    (tmp_path / "file").write_bytes(b"content")
    actions = (
        lambda: bucket.read("a/file"),
        lambda: bucket.write("a/file", b""),
        lambda: bucket.create("a/file", b""),
        lambda: bucket.replace("a/file", b"", None),
        lambda: bucket.has("a/file"),
        lambda: bucket.names("a"),
        lambda: bucket.files("a"),
        lambda: bucket.put(tmp_path, "a", last="file"),
        lambda: bucket.download("a", tmp_path / "copy", {"file": ""}),
        lambda: bucket.local("a", tmp_path / "other", last="file"),
        lambda: bucket.remove("a/file"),
        lambda: bucket.hold("run").__enter__(),
    )
    for action in actions:
        said = fails(bucket, action)
        assert str(status) in said
        assert said.endswith("the credentials, and run the same command again")
    assert "NotToday" in fails(bucket, lambda: bucket.names("a"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_list_of_a_bucket_that_is_not_there_is_one_line(
    server: ThreadingHTTPServer,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    """Both stores answer so, and Google's emulators with the message alone."""
    message = "The specified bucket does not exist."
    code = f"<Error><Code>NoSuchBucket</Code><Message>{message}</Message></Error>"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{server.server_port}")
    away = Bucket.open(f"{scheme}://bucket/path", "--output")
    server.status = 404  # type: ignore[attr-defined]
    for body in (f"<?xml version='1.0' encoding='UTF-8'?>{code}", message):
        server.body = body.encode()  # type: ignore[attr-defined]
        for action in (
            lambda: away.names("a"),
            lambda: away.files("a"),
            lambda: away.remove("a"),
            lambda: away.copy("a", "b", last="file"),
            lambda: away.local("a", tmp_path / "copy", last="file"),
        ):
            said = fails(away, action)
            assert said == (
                f"{away.address}/a cannot be reached: its bucket is not there; create it, or "
                "check the name"
            )


def test_a_body_that_is_cut_short_is_no_file(
    server: ThreadingHTTPServer, bucket: Bucket, tmp_path: Path
) -> None:
    server.status = 200  # type: ignore[attr-defined]
    fails(bucket, lambda: bucket.read("a/file"))
    fails(bucket, lambda: bucket.download("a", tmp_path, {"file": ""}))
    fails(bucket, lambda: bucket.names("a"))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_one_line(
    server: ThreadingHTTPServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    away = Bucket.open(ADDRESS, "--output")
    assert "error sending request" in fails(away, lambda: away.read("a"))


def test_a_server_that_does_not_answer_is_one_line(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        timeouts = dict.fromkeys(("connect_timeout", "read_timeout", "timeout"), "200ms")
        monkeypatch.setattr("components.places.client._TIMEOUTS", timeouts)
        monkeypatch.setattr("components.places.client.SECONDS", 0.1)
        away = Bucket.open(ADDRESS, "--output")
        assert not away.silent
        assert "error" in fails(away, lambda: away.read("a"))
        assert away.silent


def test_a_bucket_that_is_silent_is_not_waited_for_again() -> None:
    bucket = Bucket(MemoryStore(), ADDRESS)
    with bucket.hold("run"):
        bucket.silent = True
    assert bucket.silent  # Nothing was asked for.
    assert bucket.has(".lease")
    assert not bucket.silent


def test_a_file_may_be_sent_slowly(
    server: ThreadingHTTPServer, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status, server.delay = 200, 0.5  # type: ignore[attr-defined]
    timeouts = {"connect_timeout": "5s", "read_timeout": "100ms", "timeout": "1h"}
    monkeypatch.setattr("components.places.client._TIMEOUTS", timeouts)
    monkeypatch.setattr("components.places.client._UPLOAD_TIMEOUT", "5s")
    slow = Bucket.open(ADDRESS, "--output")
    (tmp_path / "file").write_bytes(b"content")
    assert slow.upload(tmp_path, "a", ["file"])["file"][0] == 7
    assert "error" in fails(slow, lambda: slow.write("a/file", b"content"))
