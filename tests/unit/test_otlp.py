"""OTLP over HTTP and gRPC to a real receiver: what arrives, and what each answer means for the records."""

from __future__ import annotations

import logging
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from hft_otel.config import ConfigError, OtlpConfig
from hft_otel.destinations.base import RetryLater
from hft_otel.destinations.otlp import otlp_destinations
from hft_otel.otel.transport import Verdict, http_endpoint, http_outcome, retry_after
from hft_otel.record import InstrumentKind, LogType
from tests.unit.otlp_stand_in import (
    RESOURCE,
    Answer,
    Receiver,
    audit,
    latency,
    log_records,
    metric,
    metrics,
    plain,
    spans,
    text,
    until,
)

pytest_plugins = ["tests.unit.otlp_fixtures"]


def texts(count: int) -> list[Any]:
    return [text(f"message {number}") for number in range(count)]


def refusing(words: str, status: int = 400) -> Any:
    """Answer a request that holds a body with these words by a failure."""

    def answer(request: Any) -> Answer:
        return Answer(status if any(words in r.body.string_value for r in log_records(request)) else 200)

    return answer


def test_destinations_follow_the_signals() -> None:
    found = otlp_destinations(OtlpConfig(max_batch=100, retry_for=7.0), RESOURCE)
    assert {d.name: d.accepts for d in found} == {
        "otlp.logs": {LogType.TEXT, LogType.AUDIT},
        "otlp.metrics": {LogType.METRIC},
        "otlp.traces": {LogType.AUDIT},
    }
    assert {(d.max_batch, d.retry_for) for d in found} == {(100, 7.0)}
    [logs] = otlp_destinations(OtlpConfig(signals=["logs"]), RESOURCE, "edge")
    assert logs.name == "edge.logs"


def test_logs_arrive_with_headers_and_resource(receiver: Receiver, opened: Any) -> None:
    logs = opened("logs", receiver.endpoint, headers={"X-Token": "s3cret"}, compression="gzip")
    assert logs.deliver([text("hello", context={"symbol": "BTCUSDT"}), audit("trade", "a-1")]) == []
    [request] = receiver.requests
    assert receiver.paths == ["/v1/logs"]
    assert receiver.headers[0]["x-token"] == "s3cret"
    assert receiver.headers[0]["content-encoding"] == "gzip"
    assert plain(request.resource_logs[0].resource.attributes) == {"service.name": "test"}
    assert [r.body.string_value for r in log_records(request)] == ["hello", "trade"]
    assert [r.event_name for r in log_records(request)] == ["", "audit.trade"]
    assert logs.force_flush(1.0)


def test_audit_spans_arrive(receiver: Receiver, opened: Any) -> None:
    traces = opened("traces", receiver.endpoint)
    assert traces.deliver([audit("trade", "a-1"), audit("trade", "a-2")]) == []
    assert receiver.paths == ["/v1/traces"]
    assert [s.name for s in spans(receiver.requests[0])] == ["audit.trade"] * 2


def test_metrics_are_aggregated_then_exported_on_flush(receiver: Receiver, opened: Any) -> None:
    found = opened("metrics", receiver.endpoint, metric_interval=3600)
    batch = [
        metric("fills", 2, InstrumentKind.COUNTER),
        metric("fills", -1, InstrumentKind.COUNTER),
        latency("x", 5),
    ]
    assert [(r.record, r.reason) for r in found.deliver(batch)] == [(batch[1], "negative_counter")]
    assert receiver.requests == []
    assert found.force_flush(5.0)
    sent = metrics(receiver.requests[0])
    assert sent["hft.fills"].sum.data_points[0].as_double == 2
    assert sent["hft.latency"].histogram.data_points[0].sum == 0.005
    assert (found.exports_succeeded, found.exports_failed, found.export_error) == (1, 0, "")


def test_metrics_are_exported_every_interval(receiver: Receiver, opened: Any) -> None:
    found = opened("metrics", receiver.endpoint, metric_interval=0.02)
    found.deliver([metric("depth", 5)])
    assert until(lambda: found.exports_succeeded >= 2)
    assert metrics(receiver.requests[-1])["hft.depth"].gauge.data_points[0].as_double == 5


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 401, 403, 404, 408, 301, 308])
def test_failure_that_is_not_about_a_record_is_retried_later(
    receiver: Receiver, opened: Any, status: int
) -> None:
    logs = opened("logs", receiver.endpoint)
    receiver.answer = lambda _: Answer(
        status, b"why", (("Retry-After", "7"), ("Location", "http://elsewhere/"))
    )
    started = time.monotonic()
    with pytest.raises(RetryLater) as caught:
        logs.deliver(texts(3))
    assert time.monotonic() - started < 2  # the exporter's own retries would take 10 s
    assert (caught.value.reason, caught.value.delivered, caught.value.after) == (f"http_{status}", 0, 7.0)
    assert ("elsewhere" if status < 400 else "why") in str(caught.value)
    assert len(receiver.requests) == 1
    receiver.answer = lambda _: Answer()
    assert logs.deliver(texts(3)) == []


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize(
    ("signal", "cure"),
    [
        ("logs", "takes no logs: leave them out of `signals`, or of `audits`"),
        ("traces", "takes no traces: leave them out of `signals`, or of `audits`"),
        ("metrics", "takes no metrics: leave them out of `signals`"),
    ],
)
def test_an_endpoint_that_takes_no_such_signal_is_told_from_one_that_is_down(
    signal: str, cure: str, status: int
) -> None:
    outcome = http_outcome(signal, status, {}, b"page not found")
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, f"http_{status}")
    assert outcome.detail == f"HTTP {status}: page not found; if the endpoint is right, it {cure}"
    assert "signals" not in http_outcome(signal, 503, {}, b"").detail


def test_refused_record_is_found_and_the_rest_delivered(receiver: Receiver, opened: Any) -> None:
    logs = opened("logs", receiver.endpoint)
    receiver.answer = refusing("poison")
    batch = [*texts(70), text("poison 1"), *texts(50), text("poison 2"), *texts(7)]
    rejected = logs.deliver(batch)
    assert [(r.record.message, r.reason) for r in rejected] == [
        ("poison 1", "http_400"),
        ("poison 2", "http_400"),
    ]
    assert receiver.accepted_bodies == [r.message for r in batch if not r.message.startswith("poison")]
    assert len(receiver.requests) < 40


@pytest.mark.parametrize("status", [400, 413, 422])
def test_record_refused_alone_is_rejected(receiver: Receiver, opened: Any, status: int) -> None:
    logs = opened("logs", receiver.endpoint)
    receiver.answer = lambda _: Answer(status)
    batch = texts(1)
    assert [(r.record, r.reason) for r in logs.deliver(batch)] == [(batch[0], f"http_{status}")]


def test_batch_of_which_nothing_is_taken_is_given_up_after_a_few_probes(
    receiver: Receiver, opened: Any
) -> None:
    logs = opened("logs", receiver.endpoint)
    receiver.answer = lambda _: Answer(400)
    batch = texts(512)
    assert [r.record for r in logs.deliver(batch)] == batch
    assert len(receiver.requests) < 40


def test_too_large_batch_is_sent_in_parts(receiver: Receiver, opened: Any) -> None:
    logs = opened("logs", receiver.endpoint)
    receiver.answer = lambda request: Answer(413 if len(log_records(request)) > 10 else 200)
    batch = texts(100)
    assert logs.deliver(batch) == []
    assert receiver.accepted_bodies == [r.message for r in batch]


def test_receiver_that_goes_down_in_the_middle_of_a_split_gets_nothing_twice(
    receiver: Receiver, opened: Any
) -> None:
    logs = opened("logs", receiver.endpoint)
    batch = [*texts(3), text("poison"), *[text(f"later {number}") for number in range(12)]]
    taken: list[str] = []

    def answer(request: Any) -> Answer:
        bodies = [r.body.string_value for r in log_records(request)]
        if "poison" in bodies:
            return Answer(400)
        if len(taken) >= 7 and not up.is_set():
            return Answer(503)
        taken.extend(bodies)
        return Answer()

    up = threading.Event()
    receiver.answer = answer
    with pytest.raises(RetryLater) as caught:
        logs.deliver(batch)
    assert caught.value.delivered == 3  # a retry cannot name rejected records, so they wait for its return
    up.set()
    rejected = logs.deliver(batch[3:])
    assert [r.record.message for r in rejected] == ["poison"]
    assert taken == [r.message for r in batch if r.message != "poison"]


def test_partial_success_counts_the_rejected_and_resends_nothing(receiver: Receiver, opened: Any) -> None:
    logs = opened("logs", receiver.endpoint)
    partial = logs_service_pb2.ExportLogsPartialSuccess(rejected_log_records=2, error_message="too old")
    body = logs_service_pb2.ExportLogsServiceResponse(partial_success=partial).SerializeToString()
    receiver.answer = lambda _: Answer(200, body)
    batch = texts(5)
    assert [r.reason for r in logs.deliver(batch)] == ["partial_success"] * 2
    assert len(receiver.requests) == 1


def test_partial_success_of_spans_and_of_metrics_is_seen(receiver: Receiver, opened: Any) -> None:
    spans_partial = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=9)
    points_partial = metrics_service_pb2.ExportMetricsPartialSuccess(
        rejected_data_points=1, error_message="late"
    )
    bodies = {
        "/v1/traces": trace_service_pb2.ExportTraceServiceResponse(partial_success=spans_partial),
        "/v1/metrics": metrics_service_pb2.ExportMetricsServiceResponse(partial_success=points_partial),
    }
    receiver.answer = lambda _: Answer(200, bodies[receiver.paths[-1]].SerializeToString())
    assert len(opened("traces", receiver.endpoint).deliver([audit("x"), audit("y")])) == 2
    found = opened("metrics", receiver.endpoint, metric_interval=3600)
    found.deliver([metric("depth", 1)])
    assert not found.force_flush(5.0)
    assert (found.exports_succeeded, found.exports_failed) == (0, 1)
    assert found.export_error == "1 data points rejected: late"
    receiver.answer = lambda _: Answer()
    assert found.force_flush(5.0)
    assert (found.exports_succeeded, found.export_error) == (1, "")


def test_success_with_a_body_that_is_no_protobuf_is_a_success(receiver: Receiver, opened: Any) -> None:
    receiver.answer = lambda _: Answer(200, b"\xff<html>")
    assert opened("logs", receiver.endpoint).deliver(texts(2)) == []


def test_receiver_that_is_not_there_is_retried_later() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for signal, record in (("logs", text("x")), ("traces", audit("x"))):
            [destination] = otlp_destinations(OtlpConfig(endpoint=endpoint, signals=[signal]), RESOURCE)
            why = rf"^127\.0\.0\.1:{unused.getsockname()[1]}: unreachable \(connection refused\)$"
            with pytest.raises(RetryLater, match=why) as caught:
                destination.deliver([record])  # opens by itself
            assert caught.value.reason == "connection_error"
            destination.close(1.0)


def test_receiver_that_never_answers_costs_no_more_than_the_timeout(opened: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        logs = opened("logs", endpoint, timeout=0.2)
        started = time.monotonic()
        with pytest.raises(RetryLater, match=r"^127\.0\.0\.1:\d+: no answer within 0\.2 s$") as caught:
            logs.deliver(texts(2))
        assert caught.value.reason == "timeout"
        assert time.monotonic() - started < 2


def test_close_keeps_its_time_while_the_receiver_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        [found] = otlp_destinations(OtlpConfig(endpoint=endpoint, signals=["metrics"], timeout=2.0), RESOURCE)
        found.open()
        found.deliver([metric("depth", 1)])
        started = time.monotonic()
        assert not found.force_flush(0.1)
        found.close(0.3)
        assert time.monotonic() - started < 1.5


def test_stale_connection_is_replaced_without_a_retry(opened: Any) -> None:
    """A server that closes an idle connection is no failure: the exporter connects again at once."""
    served: list[bytes] = []

    def serve_one_request_per_connection(server: socket.socket) -> None:
        for _ in range(3):
            connection, _ = server.accept()
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(65536)
                served.append(body)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve_one_request_per_connection, args=(server,), daemon=True)
        thread.start()
        logs = opened("logs", f"http://127.0.0.1:{server.getsockname()[1]}")
        for _ in range(3):
            assert logs.deliver(texts(1)) == []
        thread.join(5)
    assert len(served) == 3


def test_failed_exports_write_nothing_to_stderr_or_logging(
    receiver: Receiver, opened: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver.answer = lambda _: Answer(503)
    with caplog.at_level(logging.INFO):
        with pytest.raises(RetryLater):
            opened("logs", receiver.endpoint).deliver(texts(2))
        found = opened("metrics", receiver.endpoint, metric_interval=3600)
        found.deliver([metric("depth", 1)])
        assert not found.force_flush(5.0)
        assert found.export_error.startswith("http_503")
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def test_open_variables_fill_what_the_configuration_leaves_open(
    receiver: Receiver, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=arb")
    assert opened("logs", None).deliver(texts(1)) == []
    assert receiver.headers[0]["x-team"] == "arb"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_batch_that_cannot_be_encoded_is_refused_without_being_sent(
    receiver: Receiver, opened: Any, protocol: str
) -> None:
    outcome = opened("traces", receiver.endpoint, protocol=protocol)._sender.send(["no span"])
    assert (outcome.verdict, outcome.reason) == (Verdict.REFUSED, "not_encodable")
    assert receiver.requests == []


# --- configuration


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"protocol": "http/json"}, "use one of http/protobuf, grpc"),
        ({"compression": "zstd"}, "use one of none, gzip"),
        ({"signals": ["logs", "metric"]}, "use any of logs, metrics, traces"),
        ({"certificate": "/nowhere/ca.pem"}, "name a readable PEM file"),
        ({"client_key": __file__}, "give both, or neither"),
    ],
)
def test_option_that_can_never_work_is_refused_with_its_cure(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(ConfigError, match=r"edge\.config\." + next(iter(options))) as caught:
        otlp_destinations(OtlpConfig(**options), RESOURCE, "edge")
    assert cure in str(caught.value)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/logs"),
        ("http://c:4318/", "http://c:4318/v1/logs"),
        ("http://c/otlp", "http://c/otlp/v1/logs"),
        ("http://c:4318/v1/traces", "http://c:4318/v1/logs"),
        (None, None),
    ],
)
def test_signal_path_is_appended_once(base: str | None, url: str | None) -> None:
    assert http_endpoint(base, "logs") == url


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("12") == 12.0
    assert retry_after("-1") == 0.0
    assert retry_after("1e9") == 3600.0
    soon = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert soon is not None
    assert 55 < soon <= 60
    for nonsense in (None, "soon", "nan"):
        assert retry_after(nonsense) is None


def test_redirect_without_a_target_is_a_failure_too() -> None:
    assert http_outcome("logs", 304, {}, b"").reason == "http_304"
