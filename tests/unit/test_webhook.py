"""The webhook, and what it shares with Slack: what the other side sees, and what its answers do."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hft_otel.config import ConfigError, WebhookConfig
from hft_otel.destinations._http import RateLimit, retry_after
from hft_otel.destinations.base import RetryLater
from hft_otel.destinations.webhook import WebhookBackend
from hft_otel.record import InstrumentKind, LogLevel, LogRecord, LogType

SECRET = "s3cr3t"


def text(message="m", log_type=LogType.TEXT, **context):
    return LogRecord(1_700_000_000.5, LogLevel.ERROR, log_type, "app", message, context)


class Server:
    """Answers as it is told, and keeps what it was sent."""

    def __init__(self):
        self.requests = []
        self.connections = set()
        self.answers = []
        self.default = (204, {}, b"")
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), body))
                outer.connections.add(self.client_address)
                answer = outer.answers.pop(0) if outer.answers else outer.default
                if answer == "hang":
                    outer.release.wait(20)
                    self.close_connection = True
                    return
                if answer == "hang up":
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204 and "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(content)

            def log_message(self, *given):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/in?token={SECRET}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(10)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.stop()


@contextmanager
def webhook(server, **options):
    backend = WebhookBackend({"url": server.url, "timeout": 5, **options})
    backend.open()
    try:
        yield backend
    finally:
        backend.close(1.0)


def test_records_arrive_as_one_json_array(server):
    metric = LogRecord(2.0, LogLevel.INFO, LogType.METRIC, "app", metric_name="depth", metric_value=1.5)
    metric.metric_tags, metric.instrument = {"symbol": "BTC"}, InstrumentKind.GAUGE
    with webhook(server, headers={"X-Api-Key": SECRET}) as backend:
        assert not backend.deliver([text("é\n", n=1), text("order", LogType.AUDIT), metric])
    [(path, headers, body)] = server.requests
    first, second, third = json.loads(body)
    assert (path, headers["Content-Type"], headers["X-Api-Key"]) == (
        f"/in?token={SECRET}",
        "application/json",
        SECRET,
    )
    assert (first["body"], first["attributes"], first["severity_text"]) == ("é\n", {"n": 1}, "ERROR")
    assert second["event_name"] == "audit.order"
    assert (third["metric_name"], third["metric_value"], third["attributes"]) == (
        "depth",
        1.5,
        {"symbol": "BTC"},
    )


def test_connection_is_kept_and_batches_keep_their_size(server):
    server.default = (200, {}, b"x" * 1000)
    with webhook(server, batch_size=2) as backend:
        assert backend.max_batch == 2
        assert not backend.deliver([text(str(number)) for number in range(5)])
    sizes = [len(json.loads(body)) for _, _, body in server.requests]
    assert sizes == [2, 2, 1]
    assert len(server.connections) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(server, status):
    server.default = (status, {}, b"")
    with webhook(server) as backend:
        assert not backend.deliver([text()])


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "http_4xx"), (401, "http_4xx"), (404, "http_4xx"), (413, "http_4xx"), (304, "http_redirect")],
)
def test_refusal_rejects_every_record_of_the_request(server, status, reason):
    server.default = (status, {}, b"no")
    records = [text("a"), text("b")]
    with webhook(server) as backend:
        rejected = backend.deliver(records)
        assert [(item.record, item.reason) for item in rejected] == [(record, reason) for record in records]
        assert backend.last_error == f"127.0.0.1: HTTP {status}"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(408, "http_408"), (429, "http_429"), (500, "http_5xx"), (502, "http_5xx"), (503, "http_5xx")],
)
def test_answer_that_may_pass_is_retried(server, status, reason):
    server.answers = [(status, {"Retry-After": "7"}, b"later")]
    with webhook(server) as backend:
        with pytest.raises(RetryLater) as later:
            backend.deliver([text()])
        assert (later.value.reason, later.value.after, later.value.delivered) == (reason, 7.0, 0)
        assert not backend.deliver([text()])
    assert len(server.requests) == 2


def test_later_request_that_fails_leaves_the_earlier_delivered(server):
    server.answers = [(200, {}, b""), (500, {}, b"")]
    with webhook(server, batch_size=2) as backend, pytest.raises(RetryLater) as later:
        backend.deliver([text(str(number)) for number in range(5)])
    assert later.value.delivered == 2


def test_retry_after_a_refusal_gives_back_all_from_the_refused_on(server):
    server.answers = [(200, {}, b""), (400, {}, b""), (500, {}, b"")]
    with webhook(server, batch_size=1) as backend, pytest.raises(RetryLater) as later:
        backend.deliver([text(str(number)) for number in range(3)])
    assert later.value.delivered == 1


def test_silence_is_a_timeout(server):
    server.answers = ["hang"]
    with webhook(server, timeout=0.1) as backend:
        with pytest.raises(RetryLater) as later:
            backend.deliver([text()])
        assert later.value.reason == "timeout"
        assert not backend.deliver([text()])


def test_connection_that_breaks_is_retried(server):
    server.answers = ["hang up"]
    with webhook(server) as backend:
        with pytest.raises(RetryLater) as later:
            backend.deliver([text()])
        assert later.value.reason == "unreachable"
        assert str(later.value) == "127.0.0.1: unreachable (RemoteDisconnected)"
        assert not backend.deliver([text()])


def test_body_that_never_ends_does_not_change_the_answer(server):
    server.answers = [(200, {"Content-Length": "1000000"}, b"begin")]
    with webhook(server, timeout=0.2) as backend:
        assert not backend.deliver([text()])
        assert not backend.deliver([text()])


def test_answer_that_makes_no_sense_is_retried(server):
    server.answers = [(200, {"Content-Length": "1", "content-length": "2"}, b"12")]
    with webhook(server) as backend:
        with pytest.raises(RetryLater) as later:
            backend.deliver([text()])
        assert later.value.reason == "request_failed"
        assert str(later.value).startswith("127.0.0.1: request_failed (")


def everything_in(error):
    """All that a log of the exception could show."""
    seen, texts = set(), []
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        texts += [str(error), repr(error), str(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("what", ["refused", "unknown host", "hang", "503"])
def test_errors_name_the_host_and_no_secret(server, what):
    url = server.url
    if what == "refused":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://user:{SECRET}@127.0.0.1:{free.getsockname()[1]}/{SECRET}"
    elif what == "unknown host":
        url = f"http://no-such-host.invalid/{SECRET}"
    else:
        server.default = "hang" if what == "hang" else (503, {}, SECRET.encode())
    backend = WebhookBackend({"url": url, "timeout": 0.2, "headers": {"Authorization": SECRET}})
    with pytest.raises(RetryLater) as later:
        backend.deliver([text()])
    assert backend.last_error == str(later.value)
    assert "127.0.0.1" in str(later.value) or "no-such-host.invalid" in str(later.value)
    assert SECRET not in everything_in(later.value) + repr(backend)
    backend.close(1.0)


def test_redirect_is_not_followed(server):
    elsewhere = Server()
    try:
        server.default = (307, {"Location": elsewhere.url}, b"")
        with webhook(server, headers={"Authorization": SECRET}) as backend:
            assert [item.reason for item in backend.deliver([text()])] == ["http_redirect"]
        assert elsewhere.requests == []
        assert len(server.requests) == 1
    finally:
        elsewhere.stop()


def test_own_authorization_is_sent_whatever_stands_in_netrc(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with webhook(server, headers={"Authorization": "Bearer mine"}) as backend:
        backend.deliver([text()])
    assert server.requests[0][1]["Authorization"] == "Bearer mine"


def test_user_and_password_of_the_url_are_sent(server):
    url = server.url.replace("http://", "http://me:pw@")
    backend = WebhookBackend({"url": url})
    backend.deliver([text()])
    backend.close(1.0)
    assert server.requests[0][1]["Authorization"] == "Basic bWU6cHc="


def test_over_the_limit_is_rejected_but_audits_wait(server):
    with webhook(server, rate_limit_per_minute=2, batch_size=1) as backend:
        rejected = backend.deliver([text("1"), text("2"), text("3"), text("4")])
        assert [(item.record.message, item.reason) for item in rejected] == [
            ("3", "rate_limited"),
            ("4", "rate_limited"),
        ]
        with pytest.raises(RetryLater) as later:
            backend.deliver([text("order", LogType.AUDIT)])
    assert later.value.reason == "rate_limited"
    assert 50 < later.value.after <= 60
    assert len(server.requests) == 2


def test_rate_limit_holds_in_any_minute():
    now = 1000.0
    limit = RateLimit(3, clock=lambda: now)
    taken = []
    for _ in range(1800):
        if not limit.take():
            taken.append(now)
        now += 0.1
    assert len(taken) == 9
    assert all(later - earlier >= 60 for earlier, later in zip(taken, taken[3:], strict=False))


def test_linger_keeps_a_steady_stream_under_the_limit():
    assert WebhookBackend({"url": "http://x/"}).linger == pytest.approx(0.1)
    assert WebhookBackend({"url": "http://x/", "rate_limit_per_minute": 1}).linger == 5.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("12", 12.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e9", 3600.0),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_as_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < retry_after(soon) <= 90
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_building_connects_nowhere_and_close_needs_no_open():
    backend = WebhookBackend(WebhookConfig(url="https://192.0.2.1/x"))
    backend.close(1.0)
    assert backend.force_flush(1.0)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({}, "webhook.url"),
        ({"url": f"ftp://host/{SECRET}"}, "https://"),
        ({"url": f"//{SECRET}"}, "https://"),
        ({"url": f"http://host:port/{SECRET}"}, "https://"),
        ({"url": f"http://[{SECRET}"}, "https://"),
        ({"url": f"http://host/{SECRET} x"}, "https://"),
        ({"url": "http://x/", "batch_size": 0}, "batch_size"),
        ({"url": "http://x/", "rate_limit_per_minute": 0}, "rate_limit_per_minute"),
        ({"url": "http://x/", "timeout": 0}, "timeout"),
        ({"url": "http://x/", "headers": {"Key": f"{SECRET}\r\nOther: x"}}, "Key"),
        ({"url": "http://x/", "headers": {"Key": [SECRET]}}, "headers"),
        ({"url": "http://x/", "min_level": "LOUD"}, "min_level"),
    ],
)
def test_options_that_cannot_be_used_are_refused_without_showing_secrets(options, cause):
    with pytest.raises(ConfigError, match=cause) as error:
        WebhookBackend(options)
    assert SECRET not in everything_in(error.value)


@pytest.mark.parametrize("option", ["timeout", "rate_limit_per_minute", "batch_size"])
def test_dataclass_with_a_value_out_of_range_is_refused(option):
    with pytest.raises(ConfigError, match=option):
        WebhookBackend(WebhookConfig(url="http://x/", **{option: 0}))


def test_should_handle_takes_all_types_from_its_level():
    backend = WebhookBackend({"url": "http://x/", "min_level": "CRITICAL"})
    taken = [
        backend.should_handle(text(log_type=kind)) for kind in (LogType.TEXT, LogType.AUDIT, LogType.METRIC)
    ]
    assert taken == [False, True, True]


def test_time_of_a_request_is_bounded_by_the_timeout(server):
    server.answers = ["hang"]
    started = time.monotonic()
    with webhook(server, timeout=0.1) as backend, pytest.raises(RetryLater):
        backend.deliver([text()])
    assert time.monotonic() - started < 3
