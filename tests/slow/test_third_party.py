"""Code that we did not write, with a lot of logging: with our logger in place of its own, and over the bridge."""

from __future__ import annotations

import http.server
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hft_otel import HFTLogger
from hft_otel.bridge import Bridge
from hft_otel.lanes.intake import Sizes
from tests.unit.core_support import Process, poll

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]

Said = dict[str, list[tuple[int, str]]]
"""Levels and messages, per logger."""


class Capturing(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


VOLATILE = (
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"(Sec-WebSocket-\w+|Date|User-Agent|Server): .*"), r"\1:"),
    (re.compile(r"(127\.0\.0\.1:?[, ]*|port=|Host: \S*:)\d+"), r"\1PORT"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*( \w+)?"), "WHEN"),
    (re.compile(r"PING '?[^']*'? \[.*|PONG '?[^']*'? \[.*"), "PING"),
    (re.compile(r"(in|due in) [\d.]+ seconds"), "SOON"),
)


def said(records: list[Any]) -> Said:
    found: Said = defaultdict(list)
    for name, level, message in records:
        steady = message
        for pattern, instead in VOLATILE:
            steady = pattern.sub(instead, steady)
        found[name].append((level, steady))
    return dict(found)


def of_logging(records: list[logging.LogRecord]) -> Said:
    return said([(record.name, record.levelno, record.getMessage()) for record in records])


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, Sizes(segment=64 * 1024, low=32, high=16, metric=4))
    process.logger("start")
    yield process
    process.close()


@contextmanager
def at_debug(name: str) -> Iterator[Capturing]:
    """Let a tree of loggers speak, and hear it."""
    top, handler = logging.getLogger(name), Capturing()
    before = top.level, top.propagate
    top.addHandler(handler)
    top.setLevel(logging.DEBUG)
    top.propagate = False
    try:
        yield handler
    finally:
        top.removeHandler(handler)
        top.level, top.propagate = before
        logging.root.manager._clear_cache()  # type: ignore[attr-defined]


def on_every_way(
    process: Process, tree: str, exercise: Callable[[Callable[[str], Any]], None]
) -> tuple[Said, Said, Said, list[Any]]:
    """Return what was said with logging, with ours in its place, and over the bridge; and the bridge's records."""
    with at_debug(tree) as heard:
        exercise(logging.getLogger)
        plain = of_logging(heard.records)
    with at_debug(tree):  # loggers that cannot be replaced go on as they were
        made: dict[str, HFTLogger] = {}
        exercise(lambda name: made.setdefault(name, process.logger(name, context={"venue": "mexc"})))
    own = process.records()
    assert all(record.context["venue"] == "mexc" for record in own)
    ours = said([(record.logger_name, int(record.level), record.message) for record in own])
    process.backend.got.clear()
    with at_debug(tree), Bridge(process.logger("stdlib", context={"service": "arb"})) as bridge:
        bridge.install()
        exercise(logging.getLogger)
    bridged = process.records()
    assert all(record.context["service"] == "arb" and record.call_site for record in bridged)
    over = said([(record.logger_name, int(record.level), record.message) for record in bridged])
    assert process.dropped() == {}
    return plain, ours, over, bridged


def test_websockets_say_the_same(process: Process) -> None:
    from websockets.sync.client import connect
    from websockets.sync.server import serve

    def exercise(logger: Callable[[str], Any]) -> None:
        def echo(connection: Any) -> None:
            for message in connection:
                if message == "fail":
                    raise ValueError("no such market")
                connection.send(message)

        server = serve(echo, "127.0.0.1", 0, logger=logger("websockets.server"), compression=None)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        for last in ("bye", "fail"):
            with connect(
                f"ws://127.0.0.1:{port}", logger=logger("websockets.client"), compression=None, proxy=None
            ) as client:
                for message in ("tick", b"\x00\x01", "x" * 200, last):
                    client.send(message)
                    with suppress(Exception):
                        client.recv(timeout=5)
        server.shutdown()
        thread.join(10)

    plain, ours, over, bridged = on_every_way(process, "websockets", exercise)
    assert set(plain) == {"websockets.server", "websockets.client"}
    assert len(plain["websockets.server"]) > 20
    assert {name: sorted(lines) for name, lines in ours.items()} == {n: sorted(s) for n, s in plain.items()}
    assert {name: sorted(lines) for name, lines in over.items()} == {n: sorted(s) for n, s in plain.items()}
    [failed] = [record for record in bridged if record.exception]
    assert failed.exception.message == "no such market"


def test_a_scheduler_says_the_same(process: Process) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler

    def exercise(logger: Callable[[str], Any]) -> None:
        ran = threading.Event()

        def works() -> None:
            pass

        def fails() -> None:
            ran.set()
            raise ValueError("no such market")

        scheduler = BackgroundScheduler(logger=logger("apscheduler.scheduler"), timezone="UTC")
        scheduler.add_job(works, id="works")
        scheduler.start(paused=True)
        scheduler.add_job(fails, id="fails")
        scheduler.resume()
        assert ran.wait(10)
        scheduler.shutdown(wait=True)

    plain, ours, over, bridged = on_every_way(process, "apscheduler", exercise)
    assert ours == {
        "apscheduler.scheduler": plain["apscheduler.scheduler"]
    }  # the executors know no other logger
    assert {name: sorted(lines) for name, lines in over.items()} == {n: sorted(s) for n, s in plain.items()}
    assert len(plain["apscheduler.scheduler"]) >= 5
    [failed] = [record for record in bridged if record.exception]
    assert failed.level == logging.ERROR
    assert failed.exception.stacktrace.endswith("ValueError: no such market")


def test_urllib3_says_the_same(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib3
    import urllib3.connectionpool
    import urllib3.util.retry

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if self.path == "/busy" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]

    def exercise(logger: Callable[[str], Any]) -> None:
        monkeypatch.setattr(urllib3.connectionpool, "log", logger("urllib3.connectionpool"))
        monkeypatch.setattr(urllib3.util.retry, "log", logger("urllib3.util.retry"))
        pool = urllib3.PoolManager()
        pool.request("GET", f"{url}/book?depth=5%25")
        for target in (f"{url}/busy", f"http://127.0.0.1:{closed}/"):
            with pytest.raises(urllib3.exceptions.MaxRetryError):
                pool.request("GET", target, retries=urllib3.Retry(2, status_forcelist=[503]))
        pool.clear()

    try:
        plain, ours, over, _ = on_every_way(process, "urllib3", exercise)
    finally:
        server.shutdown()
        server.server_close()
    assert ours == over == plain
    assert logging.WARNING in {level for level, _ in plain["urllib3.connectionpool"]}


# -- servers that configure logging themselves --

APP = """
import sys
from hft_otel import LogConfig, bridge_stdlib
import logging
CONFIG = {
    "backends": {"file": {"config": {"file_path": "out.log"}}},
    "routing_rules": [{"backends": ["file"]}],
    "journal": {"folder": "journal"},
}
bridge_stdlib(LogConfig.from_dict(CONFIG), level="INFO")

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    logging.getLogger("app").warning("asked for %s", scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

def wsgi(environ, start_response):
    logging.getLogger("app").warning("asked for %s", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
"""


def serve_and_ask(folder: Path, *command: str) -> str:
    """Run a server, ask it once, end it, and return what our file backend has written."""
    (folder / "served.py").write_text(APP)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [argument.replace("PORT", str(port)) for argument in command]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={name: value for name, value in environment.items() if not name.startswith("COV")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/book", timeout=5) as answer:
                        assert answer.status == 200
                    break
                except OSError:
                    assert server.poll() is None, server.stdout and server.stdout.read()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            log = folder / "out.log"
            poll(lambda: log.exists() and "GET /book" in log.read_text(), 10)
        finally:
            server.send_signal(signal.SIGTERM)
            output, _ = server.communicate(timeout=20)
    assert "GET /book" in output  # its own access log goes on as before
    return (folder / "out.log").read_text()


def test_under_uvicorn_its_own_logs_come_too(tmp_path: Path) -> None:
    written = serve_and_ask(tmp_path, "uvicorn", "served:asgi", "--port", "PORT")
    assert re.search(r"INFO uvicorn\.access: 127\.0\.0\.1:\d+ - \"GET /book HTTP/1\.1\" 200", written)
    assert "WARNING app: asked for /book" in written
    assert "INFO uvicorn.error: Application startup complete." in written
    assert written.count("GET /book") == 1


def test_under_gunicorn_its_own_logs_come_too(tmp_path: Path) -> None:
    written = serve_and_ask(
        tmp_path,
        "gunicorn",
        "served:wsgi",
        "-b",
        "127.0.0.1:PORT",
        "--access-logfile",
        "-",
        "--no-control-socket",
    )
    assert re.search(r'INFO gunicorn\.access: 127\.0\.0\.1 - - \[.*\] "GET /book HTTP/1\.1" 200', written)
    assert "WARNING app: asked for /book" in written
    assert written.count("GET /book") == 1
