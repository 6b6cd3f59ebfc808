"""From a frame's body to a LogRecord: formatting, source lines and redaction happen here, on the worker's time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from .arguments import merged_extra
from .lanes.capture import cut, format_message, message_text
from .lanes.exceptions import render_exception
from .lanes.frames import (
    COUNTER,
    GAUGE,
    LATENCY,
    UNSAID,
    AuditBody,
    Head,
    MetricBody,
    TextBody,
    decoders,
    readable,
    unseal_audit,
)
from .record import CallSite, InstrumentKind, LogLevel, LogRecord, LogType, TraceIds
from .redaction import Redactor

__all__ = ["Unpacker"]

_HEAD_CACHE = 4096
_MAX_NAME = 256
_LEVELS = {int(level): level for level in LogLevel}
_KINDS = {GAUGE: InstrumentKind.GAUGE, COUNTER: InstrumentKind.COUNTER, LATENCY: InstrumentKind.HISTOGRAM}


class Unpacker:
    """Decodes what one reading thread reads; `redactor_of` maps a pipeline's number to its Redactor.

    Every method returns the record with its pipeline's number, and raises `msgspec.DecodeError` (or ValueError) for
    bytes that are no record.
    """

    def __init__(self, redactor_of: Callable[[int], Redactor]) -> None:
        self._decoders = decoders()
        self._heads: dict[bytes, Head] = {}
        self._redactor_of = redactor_of

    def text(self, data: bytes) -> tuple[int, LogRecord]:
        """Return the text record of a frame's body."""
        body: TextBody = _read(self._decoders.text, data)
        head = self._head(body.head)
        redactor = self._redactor_of(head.pipeline)
        call = body.context
        if not _RESERVED.isdisjoint(call):
            call = _merge_reserved(call)
        context = _merged(head.context, body.scope, call)
        message = body.message
        if body.args:
            message, problem = format_message(message, body.args)
            if problem:
                context = {**context, "hft.format_error": problem}
        record = LogRecord(
            body.time_ns / 1e9,
            _LEVELS.get(head.level) or LogLevel(head.level),
            LogType.TEXT,
            head.name,
            redactor.redact_text(message),
            redactor.redact(context),  # type: ignore[arg-type]  # a dict goes in, a dict comes out
            time_ns=body.time_ns,
            trace=_trace(body.trace),
            stack=body.stack and redactor.redact_text(body.stack),
            call_site=body.site and CallSite(*body.site),
        )
        if body.exception is not None:
            found = render_exception(body.exception)
            record.exception = found._replace(
                message=redactor.redact_text(found.message), stacktrace=redactor.redact_text(found.stacktrace)
            )
        return head.pipeline, record

    def metric(self, data: bytes) -> tuple[int, LogRecord]:
        """Return the measurement of a frame's body; its value is as the caller gave it."""
        body: MetricBody = _read(self._decoders.metric, data)
        head = self._head(body.head)
        redactor = self._redactor_of(head.pipeline)
        tags, value = body.tags, body.value
        if head.level == COUNTER and value == UNSAID:
            value = tags.pop("value", 1)
        if "tags" in tags:
            tags = _merge_tags(tags)
        name, unit = cut(message_text(body.name), _MAX_NAME), ""
        if head.level == LATENCY:
            tags = {**tags, "operation": name}
            name, unit = "latency", "ms"
        tags = {str(key): value for key, value in tags.items() if value is not None}
        record = LogRecord(
            body.time_ns / 1e9,
            LogLevel.INFO,
            LogType.METRIC,
            head.name,
            "",
            _merged(head.context, body.scope, {}),
            name,
            value,
            redactor.redact(tags),  # type: ignore[arg-type]  # a dict goes in, a dict comes out
            _KINDS[head.level],
            unit,
            time_ns=body.time_ns,
        )
        return head.pipeline, record

    def audit(self, sealed: bytes, audit_id: str) -> tuple[int, LogRecord]:
        """Return the audit event of a frame's body; raises ValueError where its checksum does not hold."""
        data = unseal_audit(sealed)
        if data is None:
            raise ValueError("checksum")
        body: AuditBody = _read(self._decoders.audit, data)
        head = self._head(body.head)
        record = LogRecord(
            body.time_ns / 1e9,
            LogLevel.INFO,
            LogType.AUDIT,
            head.name,
            body.event,
            _merged(head.context, body.scope, body.context),
            time_ns=body.time_ns,
            trace=_trace(body.trace),
            audit_id=audit_id,
        )
        return head.pipeline, record

    def _head(self, raw: msgspec.Raw) -> Head:
        data = bytes(raw)
        head = self._heads.get(data)
        if head is None:
            if len(self._heads) >= _HEAD_CACHE:  # a bind per order must not fill the memory
                self._heads.clear()
            head = self._heads[data] = self._decoders.head.decode(data)
        return head


_Body = TypeVar("_Body")


def _read(decoder: msgspec.msgpack.Decoder[_Body], data: bytes) -> _Body:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:  # a mapping key that packs and does not unpack
        return decoder.decode(readable(data))


_RESERVED = frozenset({"extra", "stacklevel", "exc_info", "stack_info"})


def _merge_reserved(call: dict[str, Any]) -> dict[str, Any]:
    """Take out what is reserved and needs nothing of the caller's thread; `extra` becomes context."""
    return merged_extra({key: value for key, value in call.items() if key == "extra" or key not in _RESERVED})


def _merge_tags(tags: dict[str, Any]) -> dict[str, Any]:
    """Take out `tags=`; what is in it becomes tags, beside which those given one by one come first."""
    more = tags.pop("tags")
    if isinstance(more, Mapping):
        return {**more, **tags}
    return tags if more is None else {**tags, "tags": more}


def _merged(bound: dict[str, Any], scope: dict[str, Any] | None, call: dict[str, Any]) -> dict[str, Any]:
    if scope:
        return {**bound, **scope, **call}
    return {**bound, **call} if bound else call


def _trace(packed: tuple[bytes, int, int] | None) -> TraceIds | None:
    return None if packed is None else TraceIds(int.from_bytes(packed[0], "big"), packed[1], packed[2])
