"""What gcs_emulator deals in: requests, answers, and objects with what the APIs say of them."""

import base64
import dataclasses
import functools
import hashlib
import time
import urllib.parse
from collections.abc import Mapping
from email.message import Message
from email.utils import formatdate
from typing import Any

import google_crc32c


class Refusal(Exception):
    """An answer that is not 2xx: status and message."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


@dataclasses.dataclass(frozen=True)
class Answer:
    body: bytes | dict[str, Any] = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    status: int = 200


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str  # Percent-encoded, as sent.
    query: dict[str, str]
    headers: Message
    body: bytes

    @classmethod
    def of(cls, method: str, target: str, headers: Message, body: bytes) -> "Request":
        path, _, query = target.partition("?")
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
        return cls(method, path, dict(pairs), headers, body)


@dataclasses.dataclass(frozen=True)
class Blob:
    data: bytes
    type: str
    metadata: dict[str, str]
    generation: int
    updated: float

    @functools.cached_property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}-{self.generation}"'

    @functools.cached_property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.Checksum(self.data).digest()).decode()

    @functools.cached_property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()

    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": self.type,
            "ETag": self.etag,
            "Last-Modified": formatdate(self.updated, usegmt=True),
            "Accept-Ranges": "bytes",
            "x-goog-generation": str(self.generation),
            "x-goog-metageneration": "1",
            "x-goog-hash": f"crc32c={self.crc32c},md5={self.md5}",
            **{f"x-goog-meta-{name}": value for name, value in self.metadata.items()},
        }

    def resource(self, bucket: str, name: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(self.data)),
            "contentType": self.type,
            "metadata": self.metadata,
            "generation": str(self.generation),
            "metageneration": "1",
            "timeCreated": timestamp(self.updated),
            "updated": timestamp(self.updated),
            "etag": self.etag,
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
        }


def timestamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def described(headers: Message) -> dict[str, Any]:
    prefix = "x-goog-meta-"
    metadata = {
        name[len(prefix) :]: value
        for name, value in headers.items()
        if name.lower().startswith(prefix)
    }
    return {"contentType": headers.get("Content-Type"), "metadata": metadata}


def xml(text: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
    return Answer(body, {"Content-Type": "application/xml", **(headers or {})})
