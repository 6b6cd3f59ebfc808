"""Slack: who is told what, how it reads, and what the webhook's answers do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hft_otel._yaml import with_environment
from hft_otel.config import BackendConfig, ConfigError, LogConfig, SlackConfig
from hft_otel.destinations.base import RetryLater
from hft_otel.destinations.slack import SlackBackend
from hft_otel.factory import LoggerFactory
from hft_otel.record import CapturedException, LogLevel, LogRecord, LogType

SECRET = "T000/B000/XXXXXXXX"


def text(message="feed is down", level=LogLevel.CRITICAL, log_type=LogType.TEXT, **fields):
    fields.setdefault("context", {"exchange": "mexc"})
    return LogRecord(1_700_000_000.5, level, log_type, "parser.mexc", message, **fields)


class Slack(ThreadingHTTPServer):
    """Answers as Slack's incoming webhooks do."""

    daemon_threads = True

    def __init__(self):
        self.posts = []
        self.answers = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.server.posts.append((self.path, self.headers["Content-Type"], json.loads(body)))
                status, headers, content = (
                    self.server.answers.pop(0) if self.server.answers else (200, {}, b"ok")
                )
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *given):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/services/{SECRET}"


@pytest.fixture
def slack():
    server = Slack()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def backend(slack):
    made = SlackBackend(SlackConfig(webhook_url=slack.url))
    yield made
    made.close(1.0)


def said(slack):
    return [post["text"] for _, _, post in slack.posts]


def test_record_arrives_as_a_message(slack, backend):
    assert not backend.deliver([text()])
    [(path, kind, post)] = slack.posts
    assert (path, kind) == (f"/services/{SECRET}", "application/json")
    assert post == {"text": "*CRITICAL* parser.mexc: feed is down | {'exchange': 'mexc'}"}


def test_message_without_context_and_audit_with_its_id(slack, backend):
    audit = text("kill_switch", LogLevel.INFO, LogType.AUDIT, audit_id="id-1", context={})
    backend.deliver([text(context={}), audit])
    assert said(slack) == [
        "*CRITICAL* parser.mexc: feed is down",
        "*INFO* parser.mexc: kill_switch | {'audit.id': 'id-1'}",
    ]


def test_message_mentions_nobody(slack, backend):
    backend.deliver([text("<!channel> a & b <http://x|y>", context={"k": "<@U1>"})])
    assert said(slack) == [
        "*CRITICAL* parser.mexc: &lt;!channel&gt; a &amp; b &lt;http://x|y&gt; | {'k': '&lt;@U1&gt;'}"
    ]


def test_long_message_is_cut_and_the_end_of_a_stack_trace_kept(slack, backend):
    trace = "x" * 10_000 + "\nValueError: the cause\n"
    backend.deliver([text("m" * 10_000, exception=CapturedException("ValueError", "the cause", trace))])
    [message] = said(slack)
    assert len(message) < 4000
    assert "... (cut)" in message
    assert message.endswith("ValueError: the cause```")


def test_record_that_cannot_be_formatted_still_arrives(slack, backend):
    class Unshowable:
        def __repr__(self):
            raise RuntimeError("no")

    assert not backend.deliver([text("\ud800", context={"bad": Unshowable()})])
    assert "Unshowable" in said(slack)[0]


@pytest.mark.parametrize(
    ("options", "lowest"),
    [
        ({}, LogLevel.CRITICAL),
        ({"min_level": "DEBUG"}, LogLevel.DEBUG),
        ({"min_level": "INFO"}, LogLevel.INFO),
        ({"min_level": "ERROR"}, LogLevel.ERROR),
        ({"min_level": "NOTSET"}, LogLevel.DEBUG),
    ],
)
def test_default_level_is_critical_and_any_other_counts(options, lowest):
    backend = SlackBackend({"webhook_url": "https://hooks/x", **options})
    assert [level for level in LogLevel if backend.should_handle(text(level=level))] == [
        level for level in LogLevel if level >= lowest
    ]


@pytest.mark.parametrize(
    ("slack", "lowest"),
    [
        (SlackConfig(webhook_url="https://hooks/x"), LogLevel.CRITICAL),
        (BackendConfig(config={"webhook_url": "https://hooks/x"}), LogLevel.CRITICAL),
        (BackendConfig(min_level="ERROR", config={"webhook_url": "https://hooks/x"}), LogLevel.ERROR),
    ],
)
def test_route_table_knows_the_default_level(slack, lowest):
    rules = [{"log_types": ["TEXT"], "backends": ["slack"]}]
    config = with_environment(LogConfig(backends={"slack": slack}, routing_rules=rules), {})
    router = LoggerFactory._create_router(config, LoggerFactory._create_backends(config))
    assert not router.get_backends(text(level=LogLevel(lowest - 10)))
    assert len(router.get_backends(text(level=lowest))) == 1


def test_takes_audits_and_no_measurements():
    backend = SlackBackend({"webhook_url": "https://hooks/x"})
    assert backend.should_handle(text(level=LogLevel.INFO, log_type=LogType.AUDIT))
    assert not backend.should_handle(text(log_type=LogType.METRIC))


def test_too_many_requests_waits_as_long_as_slack_asks(slack, backend):
    slack.answers = [(200, {}, b"ok"), (429, {"Retry-After": "30"}, b"rate_limited")]
    records = [text("one"), text("two"), text("three")]
    with pytest.raises(RetryLater) as later:
        backend.deliver(records)
    assert (later.value.reason, later.value.after, later.value.delivered) == ("http_429", 30.0, 1)
    assert not backend.deliver(records[1:])
    assert [message.count("three") for message in said(slack)] == [0, 0, 0, 1]


def test_webhook_that_is_gone_rejects(slack, backend):
    slack.answers = [(404, {}, b"no_service")]
    assert [item.reason for item in backend.deliver([text()])] == ["http_4xx"]
    assert SECRET not in backend.last_error


def test_records_over_the_limit_are_rejected_and_counted(slack):
    backend = SlackBackend({"webhook_url": slack.url, "rate_limit_per_minute": 3})
    rejected = backend.deliver([text(str(number)) for number in range(5)])
    assert [(item.record.message, item.reason) for item in rejected] == [
        ("3", "rate_limited"),
        ("4", "rate_limited"),
    ]
    assert len(slack.posts) == 3
    backend.close(1.0)


def test_each_delivery_is_one_message_so_that_its_fate_is_known():
    assert SlackBackend.max_batch == 1


@pytest.mark.parametrize("options", [None, {"webhook_url": ""}, {"webhook_url": f"hooks.slack.com/{SECRET}"}])
def test_without_a_proper_url_it_is_refused(options):
    with pytest.raises(ConfigError, match="webhook_url") as error:
        SlackBackend(options)
    assert SECRET not in str(error.value)
