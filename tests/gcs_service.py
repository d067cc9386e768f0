"""What gcs_emulator answers to a request: the buckets, by the XML API and by the JSON API."""

import hashlib
import itertools
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

from gcs_objects import Answer, Blob, Refusal, Request, described, timestamp, xml

PAGE = 100  # Names in a page of a list; the real service has 1000.


class Service:
    """All buckets. A request sees and changes them under one lock; bodies are read outside it."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Blob]] = {}
        self.uploads: dict[str, dict[Any, Any]] = {}
        self.numbers = itertools.count(time.time_ns() // 1000)
        self.lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """Answer as the service would.

        Raises:
            Refusal: The answer is not 2xx.
        """
        if request.path == "/token":  # OAuth's, for credentials that name it.
            kind = "urn:ietf:params:oauth:token-type:access_token"
            token = {"access_token": "token", "issued_token_type": kind, "token_type": "Bearer"}
            return Answer({**token, "expires_in": 3600})
        for pattern, method in ROUTES:
            if match := re.fullmatch(pattern, request.path):
                names = [urllib.parse.unquote(name) for name in match.groups()]
                with self.lock:
                    return method(self, request, *names)
        raise Refusal(501, f"the emulator has no {request.method} {request.path}")

    # Buckets and lists

    def all_buckets(self, request: Request) -> Answer:
        if request.method != "POST":
            return Answer({"items": [{"name": name} for name in sorted(self.buckets)]})
        name = json.loads(request.body)["name"]
        if name in self.buckets:
            raise Refusal(409, f"the bucket {name} is there already")
        self.buckets[name] = {}
        return self.json_bucket(request, name)

    def json_bucket(self, request: Request, bucket: str) -> Answer:
        self.blobs(bucket)
        return Answer({"kind": "storage#bucket", "name": bucket, "id": bucket})

    def blobs(self, bucket: str) -> dict[str, Blob]:
        if bucket not in self.buckets:
            raise Refusal(404, f"The specified bucket does not exist: {bucket}.")
        return self.buckets[bucket]

    def page(
        self, query: dict[str, str], bucket: str, after: str, size: int
    ) -> tuple[list[str], list[str], str | None]:
        """Names and common prefixes after `after`, at most `size` of both, and where to go on."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names: list[str] = []
        folders: list[str] = []
        for name in sorted(self.blobs(bucket)):
            folder = None
            if delimiter and delimiter in name[len(prefix) :]:
                folder = name[: name.index(delimiter, len(prefix)) + len(delimiter)]
            entry = folder or name
            if not name.startswith(prefix) or entry <= after or folders[-1:] == [folder]:
                continue
            if len(names) + len(folders) == size:
                return names, folders, max(names[-1:] + folders[-1:])
            (names if folder is None else folders).append(entry)
        return names, folders, None

    def json_list(self, request: Request, bucket: str) -> Answer:
        query = request.query
        size = min(int(query.get("maxResults", PAGE)), PAGE)
        names, folders, more = self.page(query, bucket, query.get("pageToken", ""), size)
        items = [self.blobs(bucket)[name].resource(bucket, name) for name in names]
        token = {"nextPageToken": more} if more else {}
        return Answer({"items": items, "prefixes": folders, **token})

    def xml_bucket(self, request: Request, bucket: str) -> Answer:
        query = request.query
        if request.method != "GET":
            raise Refusal(501, "the emulator's XML API lists buckets, no more")
        after = query.get("continuation-token", query.get("start-after", ""))
        size = min(int(query.get("max-keys", PAGE)), PAGE)
        names, folders, more = self.page(query, bucket, after, size)
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key><ETag>{escape(blob.etag)}</ETag>"
            f"<LastModified>{timestamp(blob.updated)}</LastModified>"
            f"<Size>{len(blob.data)}</Size></Contents>"
            for name, blob in ((name, self.blobs(bucket)[name]) for name in names)
        ) + "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in folders
        )
        token = f"<NextContinuationToken>{escape(more)}</NextContinuationToken>" if more else ""
        return xml(
            f"<ListBucketResult><Name>{escape(bucket)}</Name>"
            f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{token}{contents}"
            "</ListBucketResult>"
        )

    # Objects

    def current(self, request: Request, bucket: str, name: str) -> Blob | None:
        """What is there under a name, once the preconditions of the request hold."""
        blob = self.blobs(bucket).get(name)
        generation = blob.generation if blob else 0
        for wanted in (
            request.query.get("ifGenerationMatch"),
            request.headers.get("x-goog-if-generation-match"),
        ):
            if wanted is not None and int(wanted) != generation:
                raise Refusal(412, "At least one of the pre-conditions you specified did not hold.")
        return blob

    def found(self, request: Request, bucket: str, name: str) -> Blob:
        blob = self.current(request, bucket, name)
        if blob is None or request.query.get("generation") not in (None, str(blob.generation)):
            raise Refusal(404, f"No such object: {bucket}/{name}")
        return blob

    def store(
        self, request: Request, bucket: str, name: str, data: bytes, about: dict[str, Any]
    ) -> Blob:
        """Make an object if the preconditions hold and checksums, where sent, agree."""
        self.current(request, bucket, name)
        blob = Blob(
            data,
            about.get("contentType") or "application/octet-stream",
            about.get("metadata") or {},
            next(self.numbers),
            time.time(),
        )
        own = {"crc32c": blob.crc32c, "md5Hash": blob.md5}
        if any(about.get(name, checksum) != checksum for name, checksum in own.items()):
            raise Refusal(400, "The checksum that was sent is not that of the data.")
        self.blobs(bucket)[name] = blob
        return blob

    def content(self, request: Request, bucket: str, name: str) -> Answer:
        blob = self.found(request, bucket, name)
        tags = request.headers.get("If-Match"), request.headers.get("If-None-Match")
        if tags[0] not in (None, blob.etag):
            raise Refusal(412, "If-Match does not hold.")
        if tags[1] == blob.etag:
            raise Refusal(304, "", ETag=blob.etag)
        size = len(blob.data)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if match is None:
            return Answer(blob.data, blob.headers())
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last) + 1, size) if first and last else size
        if start >= size:
            raise Refusal(416, "The range cannot be had.", **{"Content-Range": f"bytes */{size}"})
        range_header = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        return Answer(blob.data[start:end], blob.headers() | range_header, 206)

    def delete(self, request: Request, bucket: str, name: str) -> Answer:
        self.found(request, bucket, name)
        del self.blobs(bucket)[name]
        return Answer(status=204)

    def json_object(self, request: Request, bucket: str, name: str) -> Answer:
        if request.method == "DELETE":
            return self.delete(request, bucket, name)
        if request.method != "GET":
            raise Refusal(501, f"the emulator has no {request.method} of an object's metadata")
        if request.query.get("alt") == "media":
            return self.content(request, bucket, name)
        return Answer(self.found(request, bucket, name).resource(bucket, name))

    def json_copy(
        self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str
    ) -> Answer:
        blob = self.blobs(bucket).get(name)
        if blob is None:
            raise Refusal(404, f"No such object: {bucket}/{name}")
        about = {"contentType": blob.type, "metadata": blob.metadata}
        copy = self.store(request, to_bucket, to_name, blob.data, about)
        size = str(len(blob.data))
        resource = copy.resource(to_bucket, to_name)
        if "/copyTo/" in request.path:
            return Answer(resource)
        return Answer(
            {"done": True, "objectSize": size, "totalBytesRewritten": size, "resource": resource}
        )

    def xml_object(self, request: Request, bucket: str, name: str) -> Answer:
        query, headers = request.query, request.headers
        if request.method == "POST" or "uploadId" in query:
            return self.xml_multipart(request, bucket, name)
        if request.method == "DELETE":
            return self.delete(request, bucket, name)
        if request.method != "PUT":
            return self.content(request, bucket, name)
        if source := headers.get("x-goog-copy-source"):
            from_bucket, _, from_name = urllib.parse.unquote(source).lstrip("/").partition("/")
            self.json_copy(request, from_bucket, from_name, bucket, name)
            return xml("<CopyObjectResult></CopyObjectResult>")
        blob = self.store(request, bucket, name, request.body, described(headers))
        return Answer(headers=blob.headers())

    # Uploads in several requests

    def xml_multipart(self, request: Request, bucket: str, name: str) -> Answer:
        if "uploads" in request.query:
            self.blobs(bucket)
            number = str(next(self.numbers))
            self.uploads[number] = {"about": described(request.headers)}
            return xml(
                "<InitiateMultipartUploadResult>"
                f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(name)}</Key>"
                f"<UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            )
        number = request.query.get("uploadId", "")
        if number not in self.uploads:
            raise Refusal(404, f"No such upload: {number}")
        upload = self.uploads[number]
        if request.method == "DELETE":
            del self.uploads[number]
            return Answer(status=204)
        if request.method == "PUT":
            upload[int(request.query["partNumber"])] = request.body
            return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})
        parts = map(int, re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body))
        data = b"".join(upload[part] for part in parts)
        blob = self.store(request, bucket, name, data, upload["about"])
        del self.uploads[number]
        return xml(
            f"<CompleteMultipartUploadResult><ETag>{escape(blob.etag)}</ETag>"
            "</CompleteMultipartUploadResult>",
            {"x-goog-generation": str(blob.generation)},
        )

    def json_upload(self, request: Request, bucket: str) -> Answer:
        query = request.query
        if request.method == "PUT":
            return self.chunk(request, bucket)
        about: dict[str, Any] = {"name": query.get("name")}
        data = request.body
        if query["uploadType"] == "resumable":
            about |= json.loads(data or b"{}")
            about.setdefault("contentType", request.headers.get("x-upload-content-type"))
            self.current(request, bucket, about["name"])
            number = str(next(self.numbers))
            self.uploads[number] = {"about": about, "data": bytearray(), "start": request}
            path = f"{request.path}?uploadType=resumable&upload_id={number}"
            return Answer(headers={"Location": f"http://{request.headers['Host']}{path}"})
        if query["uploadType"] == "multipart":
            boundary = request.headers.get_param("boundary")
            assert isinstance(boundary, str)
            _, first, second, _ = data.split(b"--" + boundary.encode())
            about |= json.loads(first.split(b"\r\n\r\n", 1)[1])
            data = second.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        else:
            about["contentType"] = request.headers.get("Content-Type")
        blob = self.store(request, bucket, about["name"], data, about)
        return Answer(blob.resource(bucket, about["name"]))

    def chunk(self, request: Request, bucket: str) -> Answer:
        """A chunk of a resumable upload; the last makes the object."""
        number = request.query["upload_id"]
        if number not in self.uploads:
            raise Refusal(404, f"No such upload: {number}")
        upload = self.uploads[number]
        sent = request.headers.get("Content-Range")
        if sent is None:  # All in one request.
            upload["data"][:] = request.body
        else:
            match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", sent)
            if match is None:
                raise Refusal(400, f"not a Content-Range: {sent}")
            start, total = match.groups()
            if start is not None:
                if int(start) > len(upload["data"]):
                    raise Refusal(503, "A chunk before this one is missing.")
                upload["data"][int(start) :] = request.body
            size = len(upload["data"])
            if total == "*" or int(total) > size:
                raise Refusal(308, "", **({"Range": f"bytes=0-{size - 1}"} if size else {}))
        about = upload["about"]
        blob = self.store(upload["start"], bucket, about["name"], bytes(upload["data"]), about)
        del self.uploads[number]
        return Answer(blob.resource(bucket, about["name"]))


ONE = "([^/]+)"
ROUTES: list[tuple[str, Callable[..., Answer]]] = [
    ("/storage/v1/b", Service.all_buckets),
    (f"/storage/v1/b/{ONE}", Service.json_bucket),
    (f"/storage/v1/b/{ONE}/o", Service.json_list),
    (f"/storage/v1/b/{ONE}/o/{ONE}", Service.json_object),
    (f"/storage/v1/b/{ONE}/o/{ONE}/(?:rewriteTo|copyTo)/b/{ONE}/o/{ONE}", Service.json_copy),
    (f"/download/storage/v1/b/{ONE}/o/{ONE}", Service.json_object),
    (f"/upload/storage/v1/b/{ONE}/o", Service.json_upload),
    (f"/{ONE}/?", Service.xml_bucket),
    (f"/{ONE}/(.+)", Service.xml_object),
]
