"""LogRecord -> what OpenTelemetry exporters take: log records for TEXT and AUDIT, spans with one event for AUDIT.

The exporters lose a whole batch for one value that OTLP cannot carry, so every value passes `clean` first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from hashlib import blake2b
from time import time_ns
from typing import Any

from ..record import LogRecord, LogType
from .sdk import (
    Event,
    InstrumentationScope,
    ReadableLogRecord,
    ReadableSpan,
    Resource,
    SeverityNumber,
    SpanContext,
    SpanKind,
    TraceFlags,
    log_record,
)

__all__ = [
    "BACKENDS_ATTRIBUTE",
    "Converter",
    "clean",
    "clean_attributes",
    "clean_text",
    "own_attributes",
    "scope_attributes",
    "severity",
    "timestamp",
    "trace_of",
]

BACKENDS_ATTRIBUTE = "hft.backends"
"""Scope attribute that tells the Collector which of its backends want what is inside, comma separated."""

_INT64 = 2**63
_MAX_DEPTH = 8
_MAX_NODES = 4096
_MAX_REPR = 1024
_CUT = "…"
_MAX_SCOPES = 4096
_PLAIN = (bool, float, bytes)
_SCALARS = (str, int, float, bool, bytes)
# A subclass may print as anything; what it is worth is what its base class says.
_BY_VALUE: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
)
_SEVERITIES = {number.value: number for number in SeverityNumber}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def clean_text(text: Any) -> str:
    """Return the text with lone surrogates replaced by U+FFFD, and pairs of them joined."""
    if type(text) is not str:
        return _text_of(text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean(value: Any) -> Any:
    """Return the value as OTLP can carry it: str, bool, int of 64 bits, float, bytes, and lists and mappings of these."""
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if -_INT64 <= value < _INT64 else _digits(value)
    return _clean_other(value, 0, [_MAX_NODES])


def clean_attributes(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping as attributes: keys are text, values clean, None left out."""
    attributes: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            continue
        attributes[clean_text(key) or "_"] = clean(value)
    return attributes


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # Python refuses to print more than some thousand digits
        return _cut(hex(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_REPR else text[:_MAX_REPR] + _CUT


def _text_of(value: Any) -> str:
    try:
        text = str.__str__(value) if isinstance(value, str) else _cut(str(value))
        return clean_text(str(text))
    except Exception as error:  # noqa: BLE001  # whatever a foreign __str__ raises, the record goes on
        return f"<{type(value).__name__} with a broken __str__: {type(error).__name__}>"


def _clean_node(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if value is None:
        return None
    return clean(value) if type(value) in _SCALARS else _clean_other(value, depth, budget)


def _clean_other(value: Any, depth: int, budget: list[int]) -> Any:
    """Convert what is not a plain value; `budget` bounds the nodes, so that a structure that holds itself ends."""
    try:
        if isinstance(value, Enum):
            return _clean_node(value.value, depth, budget)
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            return _clean_container(value, depth + 1, budget) if depth < _MAX_DEPTH else _CUT
        plain = _plain(value)
        return _text_of(value) if plain is None else clean(plain)
    except Exception:  # noqa: BLE001  # a hostile object becomes text
        return _text_of(value)


def _plain(value: Any) -> str | int | float | bytes | None:
    """Return the plain value that stands for an object, or None."""
    if isinstance(value, (dt.date, dt.time)):  # datetime is a date
        return value.isoformat()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if (
        hasattr(value, "dtype") and getattr(value, "ndim", None) == 0
    ):  # a numpy scalar, some of which are floats
        item = value.item()
        return item if type(item) in _SCALARS else None
    for kind, by_its_value in _BY_VALUE:
        if isinstance(value, kind):
            plain: str | int | float | bytes = by_its_value(value)
            return plain
    return None


def _clean_container(value: Any, depth: int, budget: list[int]) -> Any:
    if isinstance(value, Mapping):
        mapping: dict[str, Any] = {}
        for key, item in value.items():
            if budget[0] <= 0:
                mapping[_CUT] = True
                break
            mapping[clean_text(key) or "_"] = _clean_node(item, depth, budget)
        return mapping
    items: list[Any] = []
    for item in value:
        if budget[0] <= 0:
            items.append(_CUT)
            break
        items.append(_clean_node(item, depth, budget))
    return items


def severity(level: int) -> SeverityNumber:
    """Return OTel's severity for a level of Python's logging; levels between two names keep their order."""
    if level < 10:
        return SeverityNumber.TRACE
    base = min(level // 10, 5)
    return _SEVERITIES[1 + 4 * base + min(level - 10 * base, 3)]


class Converter:
    """Converts records for one resource, and keeps one instrumentation scope per logger name and set of backends."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._scopes: dict[tuple[str, tuple[str, ...]], InstrumentationScope] = {}

    def logs(self, records: Sequence[LogRecord]) -> list[ReadableLogRecord]:
        """Convert TEXT and AUDIT records."""
        observed = time_ns()
        return [self._log(record, observed) for record in records]

    def spans(self, records: Sequence[LogRecord]) -> list[ReadableSpan]:
        """Convert AUDIT records to spans of no duration, with one event each."""
        return [self._span(record) for record in records]

    def _log(self, record: LogRecord, observed: int) -> ReadableLogRecord:
        is_audit = record.log_type is LogType.AUDIT
        body = clean_text(record.message)
        return log_record(
            timestamp=timestamp(record),
            observed=observed,
            severity=severity(record.level),
            severity_text=clean_text(record.level.name),
            body=body,
            attributes=_attributes(record),
            event_name=clean_text(record.event_name) if is_audit else None,
            trace=trace_of(record),
            resource=self._resource,
            scope=self._scope(record),
        )

    def _span(self, record: LogRecord) -> ReadableSpan:
        when = timestamp(record)
        name = f"audit.{clean_text(record.message)}"
        attributes = _attributes(record)
        own_trace_id, span_id = _span_ids(record)
        trace = trace_of(record)
        parent = (
            SpanContext(trace[0], trace[1], is_remote=False, trace_flags=TraceFlags(trace[2]))
            if trace
            else None
        )
        context = SpanContext(
            trace[0] if trace else own_trace_id, span_id, is_remote=False, trace_flags=_SAMPLED
        )
        return ReadableSpan(
            name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes={"audit.id": attributes["audit.id"]} if "audit.id" in attributes else {},
            events=(Event(name, attributes, when),),
            kind=SpanKind.INTERNAL,
            start_time=when,
            end_time=when,
            instrumentation_scope=self._scope(record),
        )

    def _scope(self, record: LogRecord) -> InstrumentationScope:
        key = (record.logger_name, record.via_collector)
        scope = self._scopes.get(key)
        if scope is None:
            if len(self._scopes) >= _MAX_SCOPES:
                self._scopes.clear()
            scope = self._scopes[key] = make_scope(*key)
        return scope


def make_scope(name: str, backends: tuple[str, ...]) -> InstrumentationScope:
    """Return the scope of a logger, marked with the backends behind the Collector that want its records."""
    return InstrumentationScope(clean_text(name), attributes=scope_attributes(backends))


def scope_attributes(backends: tuple[str, ...]) -> dict[str, str] | None:
    """Return what the Collector routes by, or None when nothing behind it wants the records."""
    return {BACKENDS_ATTRIBUTE: clean_text(",".join(backends))} if backends else None


def own_attributes(record: LogRecord) -> dict[str, Any]:
    """Return the attributes that a record has beside its context: what was raised, where, and who it is."""
    attributes: dict[str, Any] = {}
    if (exception := record.exception) is not None:
        attributes["exception.type"] = clean_text(exception.type)
        attributes["exception.message"] = clean_text(exception.message)
        attributes["exception.stacktrace"] = clean_text(exception.stacktrace)
    if record.stack:
        attributes["code.stacktrace"] = clean_text(record.stack)
    if (site := record.call_site) is not None:
        attributes["code.file.path"] = clean_text(site.file)
        attributes["code.line.number"] = site.line
        attributes["code.function.name"] = clean_text(site.function)
    if record.audit_id:
        attributes["audit.id"] = clean_text(record.audit_id)
    if record.uid:
        attributes["log.record.uid"] = record.uid
    return attributes


def timestamp(record: LogRecord) -> int:
    """Return the record's time as OTLP can carry it, in nanoseconds since the epoch."""
    time_ns = record.time_ns
    if type(time_ns) is int and 0 <= time_ns < _INT64:
        return time_ns
    return min(max(int(time_ns), 0), _INT64 - 1)


def trace_of(record: LogRecord) -> tuple[int, int, int] | None:
    """Return trace id, span id and flags where they are valid ones."""
    trace = record.trace
    if trace is None or not (0 < trace.trace_id < 1 << 128 and 0 < trace.span_id < 1 << 64):
        return None
    return (trace.trace_id, trace.span_id, trace.trace_flags & 0xFF)


def _attributes(record: LogRecord) -> dict[str, Any]:
    return clean_attributes(record.context) | own_attributes(record)


def _span_ids(record: LogRecord) -> tuple[int, int]:
    """Return a trace id and a span id that repeat when the same event is delivered again."""
    identity = record.audit_id or f"{record.logger_name}\0{record.message}\0{record.time_ns}"
    digest = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=24).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:]) or 1
