"""What the stand-ins for Datadog and Elasticsearch have in common: a threaded HTTP server that notes what is wrong.

A stand-in never shows leniency that the real service would not show: what it does not understand is refused, and is
in `violations`, which the tests hold to be empty.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Request(NamedTuple):
    method: str
    path: str
    """Without the query."""
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes
    """Without its compression."""
    query: str = ""


class Answer(NamedTuple):
    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()


class Reset(Exception):
    """Raised by `handle` to cut the connection without an answer."""


class StandIn:
    """A server on a free port of 127.0.0.1, while it is entered; a subclass says how to `handle` a request."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.requests: list[str] = []
        """Method and path of each, in order."""
        self.lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    def handle(self, request: Request) -> Answer:
        raise NotImplementedError

    def violation(self, what: str) -> None:
        with self.lock:
            self.violations.append(what)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Serve; after `close` again on the same port, as a backend that comes back."""
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Be down: connections are refused; what was received is kept."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that keeps its connection must not hold up the end
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is nothing to print."""


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            # A connection of before it was down must not go on being served.
            is_down = stand_in._server is not self.server
            if is_down or len(body) < length:  # the sender was killed in the middle of its request
                self.close_connection = True
                return
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            with stand_in.lock:
                stand_in.requests.append(f"{self.command} {path}")
            try:
                plain = decompress(body, headers.get("content-encoding", ""))
                answer = stand_in.handle(Request(self.command, path, headers, plain, query))
            except Reset:
                self.close_connection = True
                return
            except ValueError as error:
                stand_in.violation(f"{self.command} {path}: {error}")
                answer = Answer(400)
            except Exception as error:
                stand_in.violation(f"{self.command} {path}: the stand-in failed: {error!r}")
                raise
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815  # http.server asks for these names

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def decompress(body: bytes, encoding: str) -> bytes:
    """The body without its Content-Encoding; ValueError where it cannot be read."""
    try:
        match encoding:
            case "" | "identity":
                return body
            case "gzip" | "deflate":
                return zlib.decompress(body, 47)  # tells gzip from zlib by itself
            case "zstd":
                return _zstd(body)
    except zlib.error as error:
        raise ValueError(f"it is said to be {encoding}, and is not: {error}") from None
    raise ValueError(f"Content-Encoding {encoding} is not known")


def _zstd(body: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise ValueError("it is zstd, which only the package zstandard reads here") from None
    with zstandard.ZstdDecompressor().stream_reader(body) as reader:
        return bytes(reader.read())


Field = tuple[int, Any]


def protobuf_fields(message: bytes) -> Iterator[Field]:
    """The fields of a protobuf message: number, and int (varint, fixed) or bytes; ValueError where it is none."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("no protobuf: a field has number 0")
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(message):
            raise ValueError("no protobuf: a field is cut, or of a type that there is not")
        chunk = message[at : at + size]
        at += size
        yield number, chunk if kind == 2 else int.from_bytes(chunk, "little")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("no protobuf: a number is cut")


@contextmanager
def down(stand_in: StandIn) -> Iterator[None]:
    """The stand-in is down within, and comes back on the same port."""
    stand_in.close()
    try:
        yield
    finally:
        stand_in.open()
