"""Our OTLP bytes say what the SDK's objects and the stock encoder say of the same records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource

from hft_otel.otel.convert import Converter
from hft_otel.otel.encode import LogsEncoder, varint
from hft_otel.record import CapturedException, LogLevel, LogRecord, LogType, TraceIds
from tests.unit.otlp_stand_in import log_records

RESOURCE = Resource(
    {"service.name": "test", "list": ("a", "b"), "number": 7, "ratio": 0.5, "on": True},
    schema_url="https://schema",
)

text = st.text(st.characters(codec=None), max_size=200)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | text
    | st.decimals()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text | st.integers(), inner, max_size=4),
    max_leaves=8,
)
records = st.builds(
    LogRecord,
    timestamp=st.just(0.0),
    level=st.sampled_from(LogLevel),
    log_type=st.sampled_from([LogType.TEXT, LogType.AUDIT]),
    logger_name=st.sampled_from(["", "exchange.mexc", "é"]),
    message=text,
    context=st.dictionaries(
        text | st.integers() | st.sampled_from(["audit.id", "exception.type"]), anything, max_size=4
    ),
    time_ns=st.integers(),
    trace=st.none() | st.builds(TraceIds, st.integers(0, 2**128), st.integers(0, 2**64), st.integers(0, 255)),
    exception=st.none() | st.builds(CapturedException, text, text, text),
    stack=st.none() | text,
    audit_id=st.none() | text,
    via_collector=st.sampled_from([(), ("elasticsearch",), ("datadog", "elasticsearch")]),
)


def meaning(request: ExportLogsServiceRequest) -> bytes:
    """The request in one form: without the moment of encoding, attributes by name."""
    for record in log_records(request):
        record.observed_time_unix_nano = 0
        record.attributes.sort(key=lambda attribute: attribute.key)
    return bytes(request.SerializeToString(deterministic=True))


def both(batch: list[LogRecord]) -> tuple[bytes, bytes]:
    ours = ExportLogsServiceRequest.FromString(LogsEncoder(RESOURCE).logs(batch))
    return meaning(ours), meaning(encode_logs(Converter(RESOURCE).logs(batch)))


@given(st.lists(records, min_size=1, max_size=4))
def test_bytes_mean_what_the_stock_encoder_means(batch: list[LogRecord]) -> None:
    ours, stock = both(batch)
    assert ours == stock


@pytest.mark.parametrize("size", [0, 1, 110, 119, 120, 127, 128, 16_383, 16_384, 70_000])
def test_every_length_is_written_right(size: int) -> None:
    record = LogRecord(
        1.0, LogLevel.INFO, LogType.TEXT, "n" * size, "m" * size, {"k": "v" * size, "l" * (size or 1): 1.5}
    )
    ours, stock = both([record])
    assert ours == stock


def test_keys_that_come_to_the_same_text_are_sent_once() -> None:
    record = LogRecord(1.0, LogLevel.INFO, LogType.TEXT, "app", "x", {1: "a", "1": "b"})  # type: ignore[dict-item]  # made by hand
    [sent] = log_records(ExportLogsServiceRequest.FromString(LogsEncoder(RESOURCE).logs([record])))
    assert [(each.key, each.value.string_value) for each in sent.attributes] == [("1", "b")]


def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hft_otel.otel.encode._MAX_CACHED", 8)
    encoder = LogsEncoder(RESOURCE)
    for number in range(100):
        encoder.logs(
            [LogRecord(1.0, LogLevel(10 + number % 3), LogType.TEXT, f"n{number}", "x", {f"k{number}": 1})]
        )
    kept = (encoder._keys, encoder._scopes, encoder._levels)
    assert [len(each) <= 8 for each in kept] == [True, True, True]


@given(st.integers(0, 2**64 - 1))
def test_varint_is_read_back(number: int) -> None:
    value = 0
    for place, byte in enumerate(varint(number)):
        value |= (byte & 127) << 7 * place
    assert value == number
