"""The client of object stores: how it finds credentials, how long it tries, what it says."""

import importlib.util
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from obstore.exceptions import GenericError
from obstore.store import ObjectStore, from_url

from components.places.place import wait_for

T = TypeVar("T")

# A store that does not answer fails the run after about a minute. What limits a whole request would
# cut long ones short.
_RETRIES: Any = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_TIMEOUTS: Any = {"connect_timeout": "10s", "read_timeout": "20s", "timeout": "2h"}
# The wait for an answer begins before the body is sent. A second one makes it two minutes.
_UPLOAD_TIMEOUT = "60s"
_UPLOAD_RETRIES = timedelta(seconds=90)
# Of what the client does not try again itself, such as conditional writes and lists whose
# connection ends. What has taken it longer is given up.
_TRIES = 3
SECONDS = 30.0


def connect(address: str, *, uploads: bool = False) -> ObjectStore:
    """The client for gs://bucket/path or s3://bucket/path. Nothing is read or written yet.

    Args:
        address: The URL.
        uploads: Whether it is for bodies that take a while to be sent.

    Raises:
        ValueError, OSError, BaseError of obstore: There are no credentials, say.
    """
    options = _amazon() if address.startswith("s3:") else _google()
    if uploads:
        options["client_options"] = options["client_options"] | {"read_timeout": _UPLOAD_TIMEOUT}
    retries = _RETRIES | ({"retry_timeout": _UPLOAD_RETRIES} if uploads else {})
    return from_url(address, retry_config=retries, **options)


def _amazon() -> dict[str, Any]:
    """What `from_url` needs beside the address."""
    options: dict[str, Any] = {}
    if importlib.util.find_spec("boto3"):
        # It knows profiles and single sign-on; without it there are the environment, and what a
        # machine in the cloud is told.
        from obstore.auth.boto3 import Boto3CredentialProvider

        try:
            options["credential_provider"] = Boto3CredentialProvider()
        except ValueError as error:
            raise ValueError(
                "no credentials were found: 'aws configure' sets them, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            ) from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return options | {"client_options": _TIMEOUTS | {"allow_http": endpoint.startswith("http:")}}


def _google() -> dict[str, Any]:
    """What `from_url` needs beside the address."""
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):  # As for Google's own clients.
        endpoint = emulator if "://" in emulator else f"http://{emulator}"
        return {
            "config": {"base_url": endpoint, "bearer_token": "none"},
            "client_options": _TIMEOUTS | {"allow_http": endpoint.startswith("http:")},
        }
    options: dict[str, Any] = {"client_options": _TIMEOUTS}
    if importlib.util.find_spec("google.auth"):
        # It knows workload identities, too; without it there are key files, and what a machine in
        # the cloud is told.
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
        from obstore.auth.google import GoogleCredentialProvider

        try:
            found, _ = google.auth.default(scopes=[_SCOPE])
        except DefaultCredentialsError as error:
            raise ValueError(str(error)) from error
        options["credential_provider"] = GoogleCredentialProvider(found)
    return options


def interruptible(request: Callable[[], T]) -> T:
    """The result of a request, made in another thread than the main one, which signals reach."""
    if threading.current_thread() is not threading.main_thread():
        return request()
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(request())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_for(thread)
    if failures:
        raise failures[0]
    return results[0]


def patiently(request: Callable[[], T]) -> T:
    """The result of a request that may be made several times, and is where it fails early."""
    begun = time.monotonic()
    for _ in range(_TRIES - 1):
        try:
            return request()
        except GenericError:
            if time.monotonic() - begun > SECONDS:
                raise
    return request()


def reason(error: BaseException) -> str:
    """What the client says in its first line, and what that does not: a code, or a time-out."""
    text = str(error)
    line = " ".join(text.partition("\n")[0].partition("<?xml")[0].split()).rstrip(":")[:400]
    code = re.search(r"<Code>(\w+)</Code>", text)
    more = code[1] if code else "timed out" if "kind: Timeout" in text else ""
    return f"{line}: {more}" if more else line
