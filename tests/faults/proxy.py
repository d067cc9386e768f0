"""A proxy in front of a local store that fails chosen requests.

    with faults.Proxy(server.endpoint) as proxy:
        bucket = server.bucket(through=proxy.endpoint)
        rule = proxy.fail(503, lambda request: request.path.endswith("manifest.json"), times=1)
        ...  # What is tested, with bucket.environment.
        assert rule.hits == 1
        proxy.rules.clear()  # From here on all goes through.
        kinds = {request.kind for request in proxy.requests}

The proxy changes nothing of what it lets through, so signatures stay valid.
"""

import contextlib
import dataclasses
import http.client
import os
import re
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

BLOCK = 1 << 16  # Bytes.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
CONDITIONS = ("if-match", "if-none-match", "x-goog-if-generation-match", "range")

# What can happen to a request:
# - a number: the answer is that status, and the store never sees the request;
# - timeout: no answer before `Proxy.release`;
# - truncated: the connection ends half way through the body, the request's if it has one (the store
#   never sees it), else that of the answer, whose Content-Length is the whole;
# - reset: the connection is reset before the store sees the request;
# - lost: the store does what is asked, and the connection is reset instead of the answer.
Fault = int | Literal["timeout", "truncated", "reset", "lost"]


@dataclasses.dataclass
class Request:
    """A request that came.

    Attributes:
        path: As sent, percent-encoded slashes apart, which are slashes.
        headers: By lower-case name.
        status: Of the answer; None where the proxy gave none.
        fault: What the proxy did to it.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    status: int | None = None
    fault: Fault | None = None

    @property
    def kind(self) -> str:
        """The request without names and values: requests of one kind ask for one thing.

        >>> Request("PUT", "/b/dir/x", {"partNumber": "2"}, {"if-none-match": "*"}).kind
        'PUT object ?partNumber if-none-match'
        >>> Request("POST", "/storage/v1/b/b/o/x/rewriteTo/b/b/o/y", {}, {}).kind
        'POST json object/rewriteTo'
        """
        match = re.fullmatch(r"/(?:\w+/)?storage/v1/b/[^/]+(/o(/.+)?)?", self.path)
        if self.path.startswith("/batch/"):
            target = "json batch"
        elif match is not None:
            copies = "/rewriteTo" if "/rewriteTo/" in self.path else ""
            upload = "upload to " if self.path.startswith("/upload/") else ""
            target = f"json {upload}" + (f"object{copies}" if match[2] else "bucket")
        else:
            target = "object" if self.path.strip("/").count("/") else "bucket"
        names = [f"?{name}" for name in sorted(self.query)]
        return " ".join(
            [self.method, target, *names, *(c for c in CONDITIONS if c in self.headers)]
        )


@dataclasses.dataclass
class Rule:
    """Which requests fail, and how.

    Attributes:
        skip: How many that match pass first.
        times: How many fail then; None: all.
        matches: How many have matched so far.
        hits: How many have failed so far.
    """

    fault: Fault
    when: Callable[[Request], bool]
    skip: int = 0
    times: int | None = None
    matches: int = 0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        if not self.when(request):
            return False
        self.matches += 1
        if self.matches <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, but for those that a rule takes.

    Attributes:
        endpoint: The proxy's own address.
        requests: All that came, in order.
        rules: The first that takes a request counts.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests: list[Request] = []
        self.rules: list[Rule] = []
        self.lock = threading.Lock()
        self.released = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
        self.shutdown()
        self.server_close()

    def fail(
        self,
        fault: Fault,
        when: Callable[[Request], bool] = lambda request: True,
        *,
        skip: int = 0,
        times: int | None = None,
    ) -> Rule:
        """Add a rule."""
        rule = Rule(fault, when, skip, times)
        self.rules.append(rule)
        return rule

    def release(self) -> None:
        """End the connections that wait in a timeout, and those that will."""
        self.released.set()

    def judge(self, request: Request) -> Fault | None:
        """Record a request; what is to happen to it."""
        with self.lock:
            self.requests.append(request)
            rule = next((rule for rule in list(self.rules) if rule.takes(request)), None)
            request.fault = rule.fault if rule else None
            return request.fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that is killed in the middle is what some tests do."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def handle_one(self) -> None:
        path, _, query = self.path.partition("?")
        request = Request(
            self.command,
            urllib.parse.unquote(path),
            dict(urllib.parse.parse_qsl(query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
        )
        fault = self.server.judge(request)
        size = int(self.headers.get("Content-Length", 0))
        if fault == "reset":
            return self.reset()
        if fault == "truncated" and size:
            self.rfile.read(size // 2)
            self.close_connection = True
            return
        body = self.chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else None
        body = self.rfile.read(size) if body is None else body
        if len(body) < size:
            self.close_connection = True
        elif fault == "timeout":
            self.server.released.wait()
            self.reset()
        elif isinstance(fault, int):
            request.status = fault
            text = f"<Error><Code>Injected</Code><Message>status {fault}</Message></Error>"
            self.reply(fault, {"Content-Type": "application/xml"}, len(text))
            if self.command != "HEAD":
                self.wfile.write(text.encode())
        else:
            self.forward(request, body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = handle_one

    def forward(self, request: Request, body: bytes, fault: Fault | None) -> None:
        connection = http.client.HTTPConnection(self.server.upstream)
        with contextlib.closing(connection):
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP | {"expect"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            if fault == "lost":
                return self.reset()
            request.status = response.status
            size = response.length  # None: chunked. 0: of a HEAD request.
            first = b"" if size is not None else response.read()
            whole = response.headers.get("Content-Length", str(len(first)))
            self.reply(response.status, dict(response.getheaders()), int(whole))
            left = (size or len(first)) // 2 if fault == "truncated" else None
            while block := first or response.read(BLOCK):
                self.wfile.write(block[:left])
                first = b""
                if left is not None and (left := left - len(block)) <= 0:
                    break
            if fault == "truncated":
                self.close_connection = True

    def reply(self, status: int, headers: dict[str, str], size: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def chunks(self) -> bytes:
        """The body of a request that comes in chunks of HTTP."""
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def reset(self) -> None:
        """End the connection with RST, which FIN does not precede."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: `Proxy.requests` has all."""
