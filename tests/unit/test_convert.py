"""Records as OpenTelemetry log records and spans: every field in its place, and nothing that poisons a batch."""

from __future__ import annotations

import datetime as dt
import logging
import math
import os
import subprocess
import sys
from decimal import Decimal
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord as OtelLogRecord
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind

from hft_otel.otel import sdk
from hft_otel.otel.convert import Converter, clean, clean_attributes, clean_text, severity
from hft_otel.otel.sdk import SeverityNumber, make_resource
from hft_otel.record import LogLevel, LogRecord, LogType, TraceIds
from tests.unit.otlp_stand_in import EXCEPTION, TRACE, audit, log_records, plain, spans, text


@pytest.fixture
def converter() -> Converter:
    return Converter(Resource({"service.name": "test"}))


class Side(Enum):
    BUY = "buy"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_text_record_keeps_every_field(converter: Converter) -> None:
    record = text(
        "order placed", context={"symbol": "BTCUSDT", "price": 1.5}, trace=TRACE, exception=EXCEPTION
    )
    record.stack = "Stack (most recent call last)"

    request = encode_logs(converter.logs([record]))

    resource = request.resource_logs[0]
    assert plain(resource.resource.attributes) == {"service.name": "test"}
    assert resource.scope_logs[0].scope.name == "exchange.mexc"
    assert plain(resource.scope_logs[0].scope.attributes) == {}
    sent = resource.scope_logs[0].log_records[0]
    assert sent.body.string_value == "order placed"
    assert (sent.severity_number, sent.severity_text) == (9, "INFO")
    assert sent.time_unix_nano == 1_700_000_000_000_000_000
    assert sent.observed_time_unix_nano > sent.time_unix_nano
    assert sent.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert sent.span_id.hex() == "b7ad6b7169203331"
    assert sent.flags == 1
    assert sent.event_name == ""
    assert plain(sent.attributes) == {
        "symbol": "BTCUSDT",
        "price": 1.5,
        "exception.type": "ValueError",
        "exception.message": "bad price",
        "exception.stacktrace": EXCEPTION.stacktrace,
        "code.stacktrace": "Stack (most recent call last)",
    }


def test_record_without_a_trace_carries_none(converter: Converter) -> None:
    sent = log_records(encode_logs(converter.logs([text("x")])))[0]
    assert (sent.trace_id, sent.span_id, sent.flags) == (b"", b"", 0)


@pytest.mark.parametrize(
    "trace", [TraceIds(0, 1, 0), TraceIds(1 << 128, 1, 0), TraceIds(1, 0, 0), TraceIds(1, 1 << 64, 0)]
)
def test_invalid_trace_ids_are_left_out(converter: Converter, trace: TraceIds) -> None:
    assert log_records(encode_logs(converter.logs([text("x", trace=trace)])))[0].trace_id == b""
    assert spans(encode_spans(converter.spans([audit("x", trace=trace)])))[0].parent_span_id == b""


def test_audit_record_is_a_log_event(converter: Converter) -> None:
    sent = log_records(
        encode_logs(converter.logs([audit("trade_executed", "a-7", context={"order_id": "42"})]))
    )[0]
    assert sent.event_name == "audit.trade_executed"
    assert sent.body.string_value == "trade_executed"
    assert plain(sent.attributes) == {"order_id": "42", "audit.id": "a-7"}


def test_audit_record_is_a_span_with_one_event(converter: Converter) -> None:
    record = audit("trade_executed", "a-7", context={"order_id": "42", "none": None}, trace=TRACE)
    sent = spans(encode_spans(converter.spans([record])))[0]
    assert sent.name == "audit.trade_executed"
    assert sent.start_time_unix_nano == sent.end_time_unix_nano == record.time_ns
    assert sent.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert sent.parent_span_id.hex() == "b7ad6b7169203331"
    assert plain(sent.attributes) == {"audit.id": "a-7"}
    [event] = sent.events
    assert (event.name, event.time_unix_nano) == ("audit.trade_executed", record.time_ns)
    assert plain(event.attributes) == {"order_id": "42", "audit.id": "a-7"}


def test_audit_span_is_internal_and_sampled(converter: Converter) -> None:
    span = converter.spans([audit("x")])[0]
    assert span.kind is SpanKind.INTERNAL
    assert span.context.trace_flags.sampled
    assert span.parent is None


def test_redelivered_audit_repeats_its_span_and_trace_id(converter: Converter) -> None:
    first, again, other = converter.spans([audit("x", "a-1"), audit("x", "a-1"), audit("x", "a-2")])
    assert (first.context.trace_id, first.context.span_id) == (again.context.trace_id, again.context.span_id)
    assert first.context.trace_id != other.context.trace_id
    assert first.context.span_id != other.context.span_id
    assert first.context.is_valid


def test_audit_without_an_id_still_becomes_a_span(converter: Converter) -> None:
    record = audit("x")
    record.audit_id = None
    span = converter.spans([record])[0]
    assert span.context.is_valid
    assert dict(span.attributes) == {}


def test_scope_names_the_backends_behind_the_collector(converter: Converter) -> None:
    record = text("x", via_collector=("datadog", "elasticsearch"))
    [resource] = encode_logs(converter.logs([record, text("y"), record])).resource_logs
    by_scope = {str(plain(scope.scope.attributes)): len(scope.log_records) for scope in resource.scope_logs}
    assert by_scope == {"{'hft.backends': 'datadog,elasticsearch'}": 2, "{}": 1}


def test_scopes_are_kept_but_not_without_end(converter: Converter) -> None:
    first = converter.logs([text("x")])[0].instrumentation_scope
    assert converter.logs([text("x")])[0].instrumentation_scope is first
    names = [LogRecord(1.0, LogLevel.INFO, LogType.TEXT, f"logger.{n}") for n in range(5000)]
    converter.logs(names)
    assert len(converter._scopes) <= 4096


def test_shortcut_builds_what_the_sdk_builds(converter: Converter) -> None:
    record = text("x", context={"a": 1})
    ours = converter.logs([record])[0]
    theirs = ReadableLogRecord(
        OtelLogRecord(
            timestamp=record.time_ns,
            observed_timestamp=ours.log_record.observed_timestamp,
            context=Context(),
            severity_text="INFO",
            severity_number=SeverityNumber.INFO,
            body="x",
            attributes={"a": 1},
        ),
        resource=ours.resource,
        instrumentation_scope=ours.instrumentation_scope,
    )
    assert vars(ours.log_record) == vars(theirs.log_record)
    assert {**vars(ours), "log_record": None} == {**vars(theirs), "log_record": None}
    assert ours.dropped_attributes == 0
    assert ours.to_json() == theirs.to_json()


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0, 1),
        (5, 1),
        (10, 5),
        (15, 8),
        (20, 9),
        (25, 12),
        (30, 13),
        (40, 17),
        (50, 21),
        (51, 22),
        (99, 24),
        (-3, 1),
    ],
)
def test_severity_follows_the_level(level: int, expected: int) -> None:
    assert severity(level).value == expected


def test_severity_text_is_the_name_of_the_level(converter: Converter) -> None:
    record = LogRecord(1.0, LogLevel(25), LogType.TEXT, "x")
    assert converter.logs([record])[0].log_record.severity_text == logging.getLevelName(25)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (True, True),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        ("é", "é"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC), "2024-01-02T03:04:05+00:00"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (Side.BUY, "buy"),
        (IntEnum("Kind", {"A": 7}).A, 7),
        (type("MyInt", (int,), {})(7), 7),
        (type("MyFloat", (float,), {})(0.5), 0.5),
        (type("MyBytes", (bytes,), {})(b"x"), b"x"),
        (Loud("loud"), "loud"),
        (["a", 1, None, 2**64], ["a", 1, None, "18446744073709551616"]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"bid": {"px": Decimal(1)}, 5: None}, {"bid": {"px": "1"}, "5": None}),
        (SimpleNamespace(dtype="f8", ndim=0, item=lambda: 1.5), 1.5),
    ],
)
def test_value_becomes_what_otlp_carries(value: Any, expected: Any) -> None:
    cleaned = clean(value)
    assert cleaned == expected
    assert type(cleaned) is type(expected)


def test_nan_and_infinity_stay() -> None:
    assert math.isnan(clean(math.nan))
    assert clean(math.inf) == math.inf


def test_huge_int_is_kept_as_bounded_text() -> None:
    cleaned = clean(1 << 100_000)
    assert cleaned.startswith("0x1000")
    assert len(cleaned) < 2000


def test_hostile_object_becomes_text() -> None:
    assert "Hostile" in clean(Hostile())
    assert "Hostile" in clean([Hostile()])[0]
    assert len(clean(type("Long", (), {"__str__": lambda _: "x" * 10_000_000})())) < 2000


def test_structure_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.extend([loop] * 50)
    mapping: dict[str, Any] = {}
    mapping.update({str(number): mapping for number in range(50)})
    converter = Converter(Resource({}))
    request = encode_logs(converter.logs([text("x", context={"loop": loop, "mapping": mapping})]))
    assert len(request.SerializeToString()) < 500_000


def test_attributes_leave_none_out_and_make_keys_text() -> None:
    assert clean_attributes({"a": None, 7: "x", "": 1, "k\ud800": 2}) == {"7": "x", "_": 1, "k\ufffd": 2}


def test_text_of_anything_is_text() -> None:
    assert clean_text(7) == "7"
    assert clean_text(None) == "None"


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | st.text(st.characters(codec=None), max_size=8)
    | st.decimals()
    | st.datetimes()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(
    message=st.text(st.characters(codec=None)),
    context=st.dictionaries(st.text(st.characters(codec=None), max_size=5), anything, max_size=5),
    time_ns=st.integers(),
)
def test_no_record_can_poison_a_batch(message: str, context: dict[str, Any], time_ns: int) -> None:
    converter = Converter(Resource({}))
    record = text(message, context=context)
    record.time_ns = time_ns
    event = audit(message, context=context)
    event.time_ns = time_ns
    assert len(log_records(encode_logs(converter.logs([record, event])))) == 2
    sent = log_records(encode_logs(converter.logs([record])))[0]
    assert len(sent.attributes) == len({k for k, v in clean_attributes(context).items()})
    assert len(spans(encode_spans(converter.spans([event])))) == 1


def test_resource_describes_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "team=arb,deployment.environment.name=env,service.version=0"
    )
    attributes = make_resource(
        {"service": "hft", "version": "1.0", "environment": None, "region": "eu"}
    ).attributes
    assert attributes["service.name"] == "hft"
    assert attributes["service.version"] == "1.0"
    assert attributes["deployment.environment.name"] == "env"
    assert attributes["team"] == "arb"
    assert attributes["region"] == "eu"
    assert attributes["process.pid"] == os.getpid()
    assert attributes["telemetry.distro.name"] == "hft-otel"
    assert attributes["service.instance.id"]
    assert attributes["host.name"]


def test_environment_fills_what_the_configuration_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")
    assert make_resource({}).attributes["service.name"] == "from-env"


def test_resource_hashes_and_compares_like_any_other() -> None:
    ours = make_resource({"service": "hft"})
    same = Resource(dict(ours.attributes), ours.schema_url)
    assert hash(ours) == hash(ours) == hash(same)
    assert ours == same
    assert ours == ours  # identity is a shortcut of its own
    assert ours != Resource({})


def test_exporters_own_log_lines_are_dropped_only_inside_our_exports(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http._log_exporter")
    with sdk.exporting():
        logger.error("ours")
    logger.error("somebody else's")
    assert [record.message for record in caplog.records] == ["somebody else's"]


def test_importing_the_destinations_loads_no_sdk_and_no_exporter() -> None:
    code = (
        "import sys, hft_otel.destinations.prometheus, hft_otel.destinations.otlp, hft_otel.destinations.exporters;"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter',"
        " 'prometheus_client', 'requests', 'grpc'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
