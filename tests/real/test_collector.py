"""A real Collector receives what a logger was told: every record, once, with all that belongs to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.real.conftest import binary
from tests.real.processes import otlp, run_script, write_config
from tests.real.running import Collector

TEXTS, AUDITS, MEASUREMENTS = 1_500, 300, 1_200

PROGRAM = f"""
import json, sys
from opentelemetry.sdk.trace import TracerProvider
from hft_otel import LogConfig, LoggerFactory

config = LogConfig.from_yaml("logging.yaml")
engine = LoggerFactory.create_logger("engine", config)
parser = LoggerFactory.create_logger("parser.mexc", config)
parser.set_context(exchange="mexc", component="message_parser")
tracer = TracerProvider(shutdown_on_exit=False).get_tracer("trader")
engine.force_flush(30)  # the exporters are loaded; what comes before that is the subject of test_load.py

levels = ("debug", "info", "warning", "error", "critical")
for number in range({TEXTS}):
    getattr(engine, levels[number % 5])("order %d of %s", number, "mexc", number=number)
for number in range({AUDITS}):
    engine.audit("order_sent", number=number, symbol="BTCUSDT", price=64000.5)
for number in range({MEASUREMENTS}):
    parser.counter("messages", 2, tags={{"type": "orderbook"}})
    parser.latency("parse_message", 0.5 if number % 2 else 20.0, message_type="ORDERBOOK")
    parser.metric("depth", number)

parser.info("values", kind="values", text="caf\\u00e9 \\u2192", count=2**40, ratio=0.5, yes=True, none=None,
            raw=b"\\x00\\xff", several=[1, "two", 3.0], nested={{"a": {{"b": 1}}}})
try:
    try:
        {{}}["px"]
    except KeyError as cause:
        raise ValueError("no price") from cause
except ValueError:
    parser.exception("parse failed", kind="exception")
with tracer.start_as_current_span("task") as span:
    ids = span.get_span_context()
    parser.warning("traced", kind="traced")
    parser.audit("traced_event", kind="traced")

report = engine.force_flush(30)
print(json.dumps({{
    "flushed": bool(report), "report": str(report), "trace_id": f"{{ids.trace_id:032x}}", "span_id": f"{{ids.span_id:016x}}",
    "lanes": {{f"{{s.lane}}": s.emitted for s in report.lanes}},
    "destinations": {{f"{{s.destination}} {{s.type}}": s.delivered for s in report.destinations}},
}}))
"""


class Arrived(NamedTuple):
    """What the program said of itself, and what the Collector has."""

    told: dict[str, Any]
    logs: list[dict[str, Any]]
    spans: list[dict[str, Any]]
    metrics: list[dict[str, Any]]

    def one(self, kind: str) -> dict[str, Any]:
        """The one text record of a kind."""
        (found,) = (r for r in self.logs if r["attributes"].get("kind") == kind and not r["event_name"])
        return found

    def audits(self) -> list[dict[str, Any]]:
        """The audit events among the log records."""
        return [record for record in self.logs if record["event_name"]]

    def points(self, name: str) -> list[dict[str, Any]]:
        """The newest data point of each series of a metric."""
        newest = {str(p["attributes"]): p for p in self.metrics if p["name"] == name}
        return list(newest.values())


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def arrived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arrived]:
    """Run the program once per protocol, against a Collector of its own."""
    folder = tmp_path_factory.mktemp("arrived")
    collector = Collector(binary("otelcol-hft-test"), folder / "collector")
    collector.start()
    try:
        endpoint = collector.grpc_endpoint if request.param == "grpc" else collector.endpoint
        service = {"service": "hft-arbitrage", "version": "1.0.0", "desk": "eu"}
        backends = {"otlp": otlp(endpoint, protocol=request.param)}
        write_config(folder, backends, environment="prod", global_context=service)
        ended = run_script(PROGRAM, cwd=folder)
    finally:
        collector.stop()
    assert ended.stderr == ""
    yield Arrived(ended.told, collector.logs(), collector.spans(), collector.metrics())


def test_every_text_record_arrives_once(arrived: Arrived) -> None:
    numbers = Counter(r["attributes"]["number"] for r in arrived.logs if r["body"].startswith("order "))
    assert numbers == Counter(range(TEXTS))


def test_every_audit_event_arrives_once_as_event_and_once_as_span(arrived: Arrived) -> None:
    sent = [record for record in arrived.audits() if record["event_name"] == "audit.order_sent"]
    spans = [span for span in arrived.spans if span["name"] == "audit.order_sent"]
    assert Counter(record["attributes"]["number"] for record in sent) == Counter(range(AUDITS))
    assert Counter(s["events"][0]["attributes"]["number"] for s in spans) == Counter(range(AUDITS))
    ids = {record["attributes"]["number"]: record["attributes"]["audit.id"] for record in sent}
    assert len(set(ids.values())) == AUDITS
    assert {s["events"][0]["attributes"]["number"]: s["attributes"]["audit.id"] for s in spans} == ids


def test_counts_are_equal_at_both_ends(arrived: Arrived) -> None:
    told = arrived.told
    assert told["flushed"], told["report"]
    assert told["lanes"]["low"] + told["lanes"]["high"] == TEXTS + 3
    assert told["lanes"]["metric"] == 3 * MEASUREMENTS
    delivered = told["destinations"]
    assert delivered["otlp.logs TEXT"] == len(arrived.logs) - len(arrived.audits()) == TEXTS + 3
    assert delivered["otlp.logs AUDIT"] == len(arrived.audits()) == AUDITS + 1
    assert delivered["otlp.traces AUDIT"] == len(arrived.spans) == AUDITS + 1
    assert delivered["otlp.metrics METRIC"] == 3 * MEASUREMENTS


def test_severity_body_and_scope_are_those_of_the_call(arrived: Arrived) -> None:
    severities = {0: (5, "DEBUG"), 1: (9, "INFO"), 2: (13, "WARNING"), 3: (17, "ERROR"), 4: (21, "CRITICAL")}
    for record in arrived.logs:
        if record["body"].startswith("order "):
            number = record["attributes"]["number"]
            assert record["body"] == f"order {number} of mexc"
            assert (record["severity_number"], record["severity_text"]) == severities[number % 5]
            assert (record["scope"], record["event_name"]) == ("engine", "")
            assert 0 < record["time_ns"] <= record["observed_ns"]


def test_context_keeps_its_types(arrived: Arrived) -> None:
    record = arrived.one("values")
    assert record["scope"] == "parser.mexc"
    expected = {
        "exchange": "mexc",
        "component": "message_parser",
        "text": "café →",
        "count": 2**40,
        "ratio": 0.5,
        "yes": True,
        "raw": b"\x00\xff",
        "several": [1, "two", 3.0],
        "nested": {"a": {"b": 1}},
    }
    assert {key: record["attributes"].get(key) for key in expected} == expected
    assert record["attributes"]["yes"] is True
    assert "none" not in record["attributes"]


def test_exception_has_type_message_and_stacktrace(arrived: Arrived) -> None:
    record = arrived.one("exception")
    attributes = record["attributes"]
    assert (record["body"], record["severity_text"]) == ("parse failed", "ERROR")
    assert (attributes["exception.type"], attributes["exception.message"]) == ("ValueError", "no price")
    trace = attributes["exception.stacktrace"]
    assert trace.startswith("Traceback (most recent call last):")
    assert "KeyError: 'px'" in trace
    assert "The above exception was the direct cause of the following exception:" in trace
    assert trace.rstrip().endswith("ValueError: no price")


def test_trace_ids_are_those_of_the_callers_span(arrived: Arrived) -> None:
    own = (arrived.told["trace_id"], arrived.told["span_id"])
    record = arrived.one("traced")
    assert (record["trace_id"], record["span_id"], record["flags"] & 1) == (*own, 1)
    (event,) = (record for record in arrived.audits() if record["body"] == "traced_event")
    assert (event["trace_id"], event["span_id"]) == own
    (span,) = (span for span in arrived.spans if span["name"] == "audit.traced_event")
    assert (span["trace_id"], span["parent_span_id"]) == own
    assert arrived.one("values")["trace_id"] == ""


def test_audit_event_says_the_same_as_log_and_as_span(arrived: Arrived) -> None:
    records = {record["attributes"]["audit.id"]: record for record in arrived.audits()}
    for span in arrived.spans:
        (event,) = span["events"]
        record = records.pop(span["attributes"]["audit.id"])
        assert event["name"] == span["name"] == record["event_name"]
        assert event["attributes"] == record["attributes"]
        assert event["time_ns"] == span["start_ns"] == span["end_ns"] == record["time_ns"]
        assert span["scope"] == record["scope"]
    assert not records


def test_resource_names_the_service(arrived: Arrived) -> None:
    expected = {
        "service.name": "hft-arbitrage",
        "service.version": "1.0.0",
        "deployment.environment.name": "prod",
        "desk": "eu",
        "telemetry.distro.name": "hft-otel",
    }
    for item in (*arrived.logs, *arrived.spans, *arrived.metrics):
        assert {key: item["resource"].get(key) for key in expected} == expected


def test_sum_of_a_counter_is_the_sum_of_the_calls(arrived: Arrived) -> None:
    (point,) = arrived.points("hft.messages")
    assert (point["type"], point["monotonic"], point["temporality"]) == ("sum", True, "cumulative")
    assert point["value"] == 2 * MEASUREMENTS
    assert point["attributes"] == {"type": "orderbook", "exchange": "mexc", "component": "message_parser"}


def test_count_and_sum_of_the_latency_histogram_are_those_of_the_calls(arrived: Arrived) -> None:
    (point,) = arrived.points("hft.latency")
    assert (point["type"], point["unit"], point["temporality"]) == ("histogram", "s", "cumulative")
    assert point["count"] == sum(point["buckets"]) == MEASUREMENTS
    assert point["sum"] == pytest.approx(MEASUREMENTS / 2 * (0.0005 + 0.02))
    assert (point["min"], point["max"]) == (0.0005, 0.02)
    filled = {point["bounds"][place]: count for place, count in enumerate(point["buckets"]) if count}
    assert filled == {0.0005: MEASUREMENTS / 2, 0.025: MEASUREMENTS / 2}
    where = {"exchange": "mexc", "component": "message_parser"}
    assert point["attributes"] == {"operation": "parse_message", "message_type": "ORDERBOOK", **where}


def test_gauge_has_the_last_value(arrived: Arrived) -> None:
    (point,) = arrived.points("hft.depth")
    assert (point["type"], point["value"]) == ("gauge", MEASUREMENTS - 1)


def test_loggers_own_counters_are_exported_beside(arrived: Arrived) -> None:
    emitted = {p["attributes"]["lane"]: p["value"] for p in arrived.points("hft.telemetry.emitted")}
    assert emitted["audit"] == AUDITS + 1
    assert emitted["metric"] == 3 * MEASUREMENTS
