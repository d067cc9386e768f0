"""Google Cloud Storage in memory, as far as the project's clients ask.

It answers the XML API, which obstore speaks, and the JSON API, which google-cloud-storage and so
Beam speak: uploads (whole, multipart, resumable), ranges, lists with prefix, delimiter and pages,
copies, deletes, batches of them, and generation preconditions, which hold for concurrent requests.
Whatever else is asked gets 501. There are no old generations, access rules or signatures. The
emulators that were tried instead (gcp-storage-emulator 2026.7, fake-gcs-server 1.56) have no lists
or multipart uploads by the XML API.
"""

import email.parser
import http
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gcs_objects import Answer, Refusal, Request
from gcs_service import Service


def batch(service: Service, request: Request) -> Answer:
    """The answers to a batch of requests of the JSON API."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n"
    message = email.parser.BytesParser().parsebytes(head.encode() + request.body)
    replies = []
    parts: Any = message.get_payload()
    for part in parts:
        line, _, rest = part.get_payload().lstrip().partition("\n")
        method, target, _ = line.split()
        inner = email.parser.Parser().parsestr(rest)
        body = str(inner.get_payload()).encode()
        target = re.sub(r"^https?://[^/]*", "", target)
        answer = attempt(service, Request.of(method, target, inner, body))
        content = answer.body if isinstance(answer.body, bytes) else b""
        phrase = http.HTTPStatus(answer.status).phrase
        replies.append(
            "--batch\r\nContent-Type: application/http\r\n\r\n"
            f"HTTP/1.1 {answer.status} {phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n{content.decode()}\r\n"
        )
    text = "".join(replies) + "--batch--\r\n"
    return Answer(text.encode(), {"Content-Type": "multipart/mixed; boundary=batch"})


def attempt(service: Service, request: Request) -> Answer:
    """The answer, a refusal included, with a body of bytes."""
    try:
        is_batch = request.path.startswith("/batch/")
        answer = batch(service, request) if is_batch else service.answer(request)
    except Refusal as refusal:
        body: Any = {"error": {"code": refusal.status, "message": refusal.message}}
        if refusal.status in (304, 308):
            body = b""
        answer = Answer(body, refusal.headers, refusal.status)
    if isinstance(answer.body, dict):
        headers = {"Content-Type": "application/json; charset=UTF-8", **answer.headers}
        answer = Answer(json.dumps(answer.body).encode(), headers, answer.status)
    return answer


class Handler(BaseHTTPRequestHandler):
    """Reads a request, has the service answer it, and writes the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    service: Service

    def handle_one(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        if len(body) < size:  # The client went away: nothing is stored.
            self.close_connection = True
            return
        answer = attempt(self.service, Request.of(self.command, self.path, self.headers, body))
        assert isinstance(answer.body, bytes)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = handle_one

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the tests' own messages say more."""


class Server(ThreadingHTTPServer):
    """A server at a free port of this machine, with a service of its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        handler = type("ServiceHandler", (Handler,), {"service": Service()})
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that is killed in the middle is what some tests do."""
