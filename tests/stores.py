"""Object stores on this machine: moto's S3 server, and `gcs_emulator`'s Cloud Storage.

In tests, the fixtures `s3` and `gs` (of conftest.py) give a bucket. A script does it so:

    with stores.s3() as server:
        bucket = server.bucket()
        environment = {**os.environ, **bucket.environment}
        subprocess.run([..., "--output", f"{bucket.url}/out"], env=environment, check=True)

Each server is a process of its own and ends with the process that started it, however that ends.
"""

import contextlib
import dataclasses
import io
import json
import os
import secrets
import socketserver
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
HERE = Path(__file__).resolve()


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A bucket, and what a user would set to reach it.

    Attributes:
        url: s3://NAME or gs://NAME.
        environment: Variables that obstore, boto3 and google-cloud-storage read.
    """

    url: str
    environment: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Server:
    """A store that runs.

    Attributes:
        scheme: s3 or gs.
        endpoint: http://HOST:PORT.
        credentials: File for GOOGLE_APPLICATION_CREDENTIALS, for gs.
    """

    scheme: str
    endpoint: str
    credentials: Path | None = None

    def bucket(self, through: str | None = None) -> Bucket:
        """Make an empty bucket.

        Args:
            through: The address that clients are to be told, a proxy's say; the server's if None.
        """
        name = f"bucket-{secrets.token_hex(6)}"
        if self.scheme == "s3":
            request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        else:
            url, body = f"{self.endpoint}/storage/v1/b", json.dumps({"name": name}).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()
        return Bucket(f"{self.scheme}://{name}", self.environment(through or self.endpoint))

    def environment(self, endpoint: str) -> dict[str, str]:
        """What leads clients to the store at an address."""
        if self.scheme == "s3":
            return {
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": "true",
            }
        return {
            # google-cloud-storage's own. Beam looks for credentials all the same, for 25 seconds
            # where there are none.
            "STORAGE_EMULATOR_HOST": endpoint,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.credentials),
            "GOOGLE_CLOUD_PROJECT": "project",
            # obstore's own.
            "GOOGLE_BASE_URL": endpoint,
            "GOOGLE_BEARER_TOKEN": "none",  # So it asks nobody for one.
        }


@contextlib.contextmanager
def s3() -> Iterator[Server]:
    """S3, answered by moto."""
    with _process("s3") as endpoint:
        yield Server("s3", endpoint)


@contextlib.contextmanager
def gs() -> Iterator[Server]:
    """Google Cloud Storage, answered by gcs_emulator."""
    with _process("gs") as endpoint, tempfile.TemporaryDirectory(prefix="gs-") as directory:
        yield Server("gs", endpoint, _credentials(endpoint, Path(directory)))


def _credentials(endpoint: str, directory: Path) -> Path:
    """Credentials for google-auth, which gets its tokens for them from the emulator alone."""
    subject, path = directory / "subject.txt", directory / "credentials.json"
    subject.write_text("tests")
    about = {
        "type": "external_account",
        "audience": "emulator",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{endpoint}/token",
        "credential_source": {"file": str(subject)},
    }
    path.write_text(json.dumps(about))
    return path


@contextlib.contextmanager
def _process(store: str) -> Iterator[str]:
    """Run a store in a process; its address."""
    with subprocess.Popen(
        [sys.executable, str(HERE), store],
        stdin=subprocess.PIPE,  # Closed when this process ends, at which the server ends.
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            endpoint = process.stdout.readline().strip()
            if not endpoint:
                raise RuntimeError(f"the {store} server did not start: run {HERE} {store}")
            yield endpoint
        finally:
            process.kill()


def _one_at_a_time(application: Application) -> Application:
    """An application that sees no two requests at once.

    Moto's own check of a precondition and its write are two steps: of concurrent conditional writes
    two have succeeded.
    """
    lock = threading.Lock()

    def locked(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # Not in the lock, where a slow client would keep all others waiting.
        size = int(environment.get("CONTENT_LENGTH") or 0)
        chunked = environment.get("wsgi.input_terminated", False)
        body = environment["wsgi.input"].read(*[] if chunked else [size])
        if len(body) < size:  # The client went away: nothing is stored.
            start_response("400 Bad Request", [])
            return []
        environment["wsgi.input"] = io.BytesIO(body)
        with lock:
            return application(environment, start_response)

    return locked


def _serve(store: str) -> None:
    """Run a store until standard input ends; says its address first."""
    if store == "gs":
        import gcs_emulator

        server: socketserver.TCPServer = gcs_emulator.Server()
    else:
        from gcs_service import PAGE
        from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = str(PAGE)
        application = _one_at_a_time(create_backend_app("s3"))
        server = make_server(
            "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
