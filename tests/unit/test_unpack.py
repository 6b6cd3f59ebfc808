"""From bytes to records: every field in its place, and no bytes that hurt the reader."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel.lanes.exceptions import capture_exception
from hft_otel.lanes.frames import (
    AUDIT,
    COUNTER,
    GAUGE,
    LATENCY,
    UNSAID,
    encode,
    readable,
    seal_audit,
    unseal_audit,
)
from hft_otel.record import InstrumentKind, LogLevel, LogType, TraceIds
from hft_otel.redaction import Redactor
from hft_otel.unpack import _HEAD_CACHE, Unpacker

NOW = 1_700_000_000_123_456_789


def packed(*fields: Any, level: int = 20, pipeline: int = 0, context: dict[str, Any] | None = None) -> bytes:
    head = msgspec.Raw(encode((pipeline, level, "logger", context or {})))
    return encode((NOW, head, *fields))


@pytest.fixture
def unpacker() -> Unpacker:
    return Unpacker({0: Redactor(), 7: Redactor(["desk"])}.__getitem__)


def test_a_text_record_has_every_field_in_its_place(unpacker: Unpacker) -> None:
    trace = ((5).to_bytes(16, "big"), 6, 1)
    try:
        raise ValueError("token=hush")
    except ValueError as error:
        exception = capture_exception(error)
    body = packed(
        "%s at %d", {"k": 1}, trace, {"s": 2}, ("filled", 3), exception, "stack\napi_key=hush", level=40
    )
    pipeline, record = unpacker.text(body)
    assert pipeline == 0
    assert (record.time_ns, record.timestamp) == (NOW, NOW / 1e9)
    assert (record.level, record.log_type, record.logger_name) == (LogLevel.ERROR, LogType.TEXT, "logger")
    assert record.message == "filled at 3"
    assert record.context == {"s": 2, "k": 1}
    assert record.trace == TraceIds(5, 6, 1)
    assert record.exception is not None
    assert record.exception.type == "ValueError"
    assert "hush" not in record.exception.message
    assert "ValueError: token=***" in record.exception.stacktrace
    assert record.stack == "stack\napi_key=***"
    assert record.audit_id is None


def test_the_shortest_text_record(unpacker: Unpacker) -> None:
    _, record = unpacker.text(packed("hello %s", {}))
    assert (record.message, record.context, record.trace, record.exception) == ("hello %s", {}, None, None)


def test_reserved_words_become_what_they_mean(unpacker: Unpacker) -> None:
    call = {"extra": {"a": 1, "k": 0}, "k": 2, "stacklevel": 3, "exc_info": None, "stack_info": False}
    assert unpacker.text(packed("x", call))[1].context == {"a": 1, "k": 2}
    assert unpacker.text(packed("x", {"extra": 5}))[1].context == {"extra": 5}
    assert unpacker.text(packed("x", {"extra": None}))[1].context == {}


def test_bound_context_comes_below_scope_below_call(unpacker: Unpacker) -> None:
    bound = {"a": "bound", "b": "bound", "c": "bound"}
    body = packed("x", {"c": "call"}, None, {"b": "scope", "c": "scope"}, context=bound)
    assert unpacker.text(body)[1].context == {"a": "bound", "b": "scope", "c": "call"}
    assert unpacker.metric(packed("m", 1, {}, {"b": "scope"}, level=GAUGE, context=bound))[1].context == {
        "a": "bound",
        "b": "scope",
        "c": "bound",
    }


def test_a_wrong_format_is_told_in_the_context_of_this_record_alone(unpacker: Unpacker) -> None:
    bound = {"a": 1}
    _, record = unpacker.text(packed("%d of %s", {}, None, None, ("x", 2), context=bound))
    assert record.message == "%d of %s x 2"
    assert record.context["hft.format_error"].startswith("TypeError: %d format")
    assert unpacker.text(packed("fine", {}, context=bound))[1].context == bound


def test_a_level_between_the_names_keeps_its_number(unpacker: Unpacker) -> None:
    level = unpacker.text(packed("x", {}, level=25))[1].level
    assert (level, level.name) == (25, "Level 25")


def test_each_pipeline_has_its_own_redactor(unpacker: Unpacker) -> None:
    assert unpacker.text(packed("x", {"desk": "a"}))[1].context == {"desk": "a"}
    pipeline, record = unpacker.text(packed("x", {"desk": "a"}, pipeline=7))
    assert (pipeline, record.context) == (7, {"desk": "***"})


@pytest.mark.parametrize(
    ("kind", "body", "name", "value", "tags", "instrument", "unit"),
    [
        (GAUGE, ("depth", 5, {"side": "bid"}), "depth", 5, {"side": "bid"}, InstrumentKind.GAUGE, ""),
        (GAUGE, ("depth", 5, {"value": 1}), "depth", 5, {"value": 1}, InstrumentKind.GAUGE, ""),
        (COUNTER, ("n", UNSAID, {}), "n", 1, {}, InstrumentKind.COUNTER, ""),
        (COUNTER, ("n", UNSAID, {"value": 3, "k": 1}), "n", 3, {"k": 1}, InstrumentKind.COUNTER, ""),
        (COUNTER, ("n", None, {"value": 3}), "n", None, {"value": 3}, InstrumentKind.COUNTER, ""),
        (COUNTER, ("n", 2, {"value": 3}), "n", 2, {"value": 3}, InstrumentKind.COUNTER, ""),
        (
            LATENCY,
            ("parse", 1.5, {"k": None}),
            "latency",
            1.5,
            {"operation": "parse"},
            InstrumentKind.HISTOGRAM,
            "ms",
        ),
        (
            GAUGE,
            ("m", 1, {"tags": {"a": 1, "b": 2}, "b": 3}),
            "m",
            1,
            {"a": 1, "b": 3},
            InstrumentKind.GAUGE,
            "",
        ),
        (GAUGE, ("m", 1, {"tags": None}), "m", 1, {}, InstrumentKind.GAUGE, ""),
        (GAUGE, ("m", 1, {"tags": 5}), "m", 1, {"tags": 5}, InstrumentKind.GAUGE, ""),
        (
            GAUGE,
            ("m", 1, {"tags": {1: 2, "token": "x"}}),
            "m",
            1,
            {"1": 2, "token": "***"},
            InstrumentKind.GAUGE,
            "",
        ),
        (GAUGE, (5, 1, {}), "5", 1, {}, InstrumentKind.GAUGE, ""),
        (GAUGE, ("m" * 300, 1, {}), "m" * 256 + "...[44 characters cut]", 1, {}, InstrumentKind.GAUGE, ""),
    ],
)
def test_a_measurement_has_every_field_in_its_place(
    unpacker: Unpacker, kind: int, body: Any, name: str, value: Any, tags: Any, instrument: Any, unit: str
) -> None:
    _, record = unpacker.metric(packed(*body, level=kind))
    assert (record.log_type, record.time_ns, record.logger_name) == (LogType.METRIC, NOW, "logger")
    assert (record.metric_name, record.metric_value, record.metric_tags) == (name, value, tags)
    assert (record.instrument, record.unit) == (instrument, unit)


def sealed(*fields: Any) -> bytes:
    """Return what a reader gets of an audit frame: what is in the `bin`."""
    return msgspec.msgpack.decode(seal_audit(packed(*fields, level=AUDIT)))  # type: ignore[no-any-return]


def test_an_audit_event_has_every_field_in_its_place(unpacker: Unpacker) -> None:
    body = sealed("trade", {"order": 1}, ((5).to_bytes(16, "big"), 6, 1), {"s": 2})
    _, record = unpacker.audit(body, "stream-7")
    assert (record.log_type, record.level, record.message) == (LogType.AUDIT, LogLevel.INFO, "trade")
    assert record.context == {"s": 2, "order": 1}
    assert (record.trace, record.audit_id, record.time_ns) == (TraceIds(5, 6, 1), "stream-7", NOW)


def test_no_changed_byte_of_an_audit_event_goes_unnoticed(unpacker: Unpacker) -> None:
    body = sealed("trade", {"order": 1})
    for place in range(len(body)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(body)
            damaged[place] ^= change
            with pytest.raises(ValueError):
                unpacker.audit(bytes(damaged), "x")
    for end in range(len(body)):
        with pytest.raises(ValueError):
            unpacker.audit(body[:end], "x")


@given(st.binary(min_size=1, max_size=60))
def test_a_sealed_body_comes_back(body: bytes) -> None:
    assert unseal_audit(msgspec.msgpack.decode(seal_audit(body))) == body


def test_any_bytes_are_a_record_or_a_value_error() -> None:
    unpacker = Unpacker(lambda number: Redactor())
    rng = random.Random(1)
    good = packed("text", {"k": [1, {"a": None}]}, None, {"s": 2}, (1,), None, None)
    for _ in range(3000):
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        for decode in (unpacker.text, unpacker.metric):
            with suppress(ValueError, KeyError, OverflowError):  # KeyError: no such kind of measurement
                decode(bytes(damaged[: rng.randrange(len(damaged) + 1)]))


class Key(msgspec.Struct, frozen=True):
    base: str
    quote: str


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({Key("BTC", "USDT"): 1}, {"{'base': 'BTC', 'quote': 'USDT'}": 1}),
        (
            {"a": [{"b": {Key("a", "b"): {"c": 1}}}]},
            {"a": [{"b": {"{'base': 'a', 'quote': 'b'}": {"c": 1}}}]},
        ),
        (
            {Key("a", "b"): Key("c", "d"), 1: 2},
            {"{'base': 'a', 'quote': 'b'}": {"base": "c", "quote": "d"}, "1": 2},
        ),
        ({f"k{number}": number for number in range(20)} | {Key("a", "b"): 0}, 21),
        ({f"k{number}": number for number in range(70_000)} | {Key("a", "b"): 0}, 70_001),
        ({(Key("a", "b"),): 1}, {"[{'base': 'a', 'quote': 'b'}]": 1}),
    ],
    ids=["key", "nested", "beside others", "map16", "map32", "key in a key"],
)
def test_a_key_that_cannot_be_read_back_becomes_text(unpacker: Unpacker, value: Any, form: Any) -> None:
    for record in (
        unpacker.text(packed("x", {"k": value, "other": 1}))[1],
        unpacker.audit(sealed("x", {"k": value, "other": 1}), "id")[1],
    ):
        found = record.context["k"]
        assert (len(found) if isinstance(form, int) else found) == form
        assert record.context["other"] == 1
    assert unpacker.metric(packed("m", 1, {"tags": {Key("a", "b"): 1}}, level=GAUGE))[1].metric_tags == {
        "{'base': 'a', 'quote': 'b'}": 1
    }


def test_what_is_no_messagepack_cannot_be_made_readable() -> None:
    for data in (b"", b"\xc1", b"\x93\x01", b"\x81\xa1", packed("x", {})[:-1]):
        with pytest.raises(msgspec.DecodeError):
            readable(data)


def test_heads_are_decoded_once_and_do_not_pile_up(unpacker: Unpacker) -> None:
    first = unpacker.text(packed("x", {}, context={"order": 0}))[1]
    assert unpacker.text(packed("x", {"k": 1}, context={"order": 0}))[1].context == {"order": 0, "k": 1}
    assert first.context == {"order": 0}
    for number in range(_HEAD_CACHE + 5):
        assert unpacker.text(packed("x", {}, context={"order": number}))[1].context == {"order": number}
    assert len(unpacker._heads) <= _HEAD_CACHE
