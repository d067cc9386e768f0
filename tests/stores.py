"""Object stores on this machine: moto's S3 server, and `gcs_emulator`'s Cloud Storage.

In tests, the fixtures `s3` and `gs` (of conftest.py) give a bucket. A script does it so:

    with stores.s3() as server, server.bucket() as bucket:
        subprocess.run([..., "--output", f"{bucket.url}/out"], env=os.environ | bucket.environment)

Each server is a process of its own and ends with the process that started it, however that ends.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import socketserver
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

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
        key: File with the key of a service account, for gs.
    """

    scheme: str
    endpoint: str
    key: Path | None = None

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
        assert self.key is not None
        return {
            # Of google-cloud-storage. Beam looks for credentials all the same, half a minute long
            # where there are none: those of the key get their token from the emulator.
            "STORAGE_EMULATOR_HOST": endpoint,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.key),
            "GOOGLE_CLOUD_PROJECT": "project",
            # Of obstore, which learns from the key that no tokens are needed.
            "GOOGLE_SERVICE_ACCOUNT": str(self.key),
            "GOOGLE_BASE_URL": endpoint,
            "GOOGLE_ALLOW_HTTP": "true",
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
        yield Server("gs", endpoint, _service_account(endpoint, Path(directory)))


def _service_account(endpoint: str, directory: Path) -> Path:
    """The key of a service account that no one has, as the console would make it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    about = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "key",
        "private_key": pem.decode(),
        "client_email": "tests@project.example.com",
        "client_id": "1",
        "token_uri": f"{endpoint}/token",  # Where google-auth gets a token.
        "disable_oauth": True,  # obstore gets none.
    }
    path = directory / "key.json"
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


def _serve(store: str) -> None:
    """Run a store until standard input ends; says its address first."""
    if store == "gs":
        import gcs_emulator

        server: socketserver.BaseServer = gcs_emulator.Server()
    else:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        application = DomainDispatcherApplication(create_backend_app)
        server = make_server(
            "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
