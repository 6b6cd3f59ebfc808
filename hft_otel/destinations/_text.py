r"""A record as a line: the plan's text layout, or JSON after OpenTelemetry's data model; and lines written whole.

A line of text holds no raw control character, so that no message can forge a line or steer a terminal: they show as
Python escapes (`\n`, `\x1b`). Backslashes and tabs stay as they are.
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from ..lanes.capture import cut, message_text, plain
from ..record import CapturedException, LogRecord, LogType

__all__ = [
    "Written",
    "as_json",
    "context_of",
    "details",
    "escape",
    "local_time",
    "reason_of",
    "render",
    "severity_number",
    "write_lines",
]

INDENT = "\n    "
_MAX_TEXT = 1 << 20
# C0 without the tab, DEL, C1, line and paragraph separators, bidirectional overrides, lone surrogates
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_JSON_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class _Seconds:
    """Text of a second, made once for all records in it; one reference is swapped, so threads may share it."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make
        self._last = (-1, "")

    def __call__(self, second: int) -> str:
        last, text = self._last
        if last != second:
            text = self._make(second)
            self._last = (second, text)
        return text


_local_second = _Seconds(lambda second: str(datetime.fromtimestamp(second)))
_utc_second = _Seconds(lambda second: datetime.fromtimestamp(second, UTC).isoformat()[:19])


def local_time(timestamp: float) -> tuple[str, int]:
    """Return local date and time to the second, and the microseconds, rounded as datetime.fromtimestamp does."""
    second = int(timestamp)
    micros = round((timestamp - second) * 1e6)
    if 0 <= micros < 1_000_000:
        return _local_second(second), micros
    moment = datetime.fromtimestamp(timestamp)  # before 1970, or rounded up into the next second
    return str(moment.replace(microsecond=0)), moment.microsecond


def escape(text: str) -> str:
    """Return the text with control characters shown as Python escapes."""
    if text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def context_of(record: LogRecord) -> dict[str, Any]:
    """Return the context as it is shown: an audit event's with its id."""
    return {**record.context, "audit.id": record.audit_id} if record.audit_id else record.context


def details(record: LogRecord) -> str:
    """Return the exception's stack trace and the stack, each line indented, or an empty string."""
    blocks = [record.exception.stacktrace] if record.exception else []
    if record.stack:
        blocks.append(record.stack)
    return "".join(INDENT + escape(line) for block in blocks for line in block.splitlines())


@lru_cache(maxsize=128)
def severity_number(level: int) -> int:
    """Return OpenTelemetry's severity number: TRACE 1, DEBUG 5, INFO 9, WARNING 13, ERROR 17, CRITICAL 21."""
    if level < 10:
        return 1
    base = min(level // 10, 5)
    return 1 + 4 * base + min(level - 10 * base, 3)


class _Line(msgspec.Struct, omit_defaults=True, gc=False):
    timestamp: str
    severity_text: str | None = None
    severity_number: int | None = None
    scope: str = ""
    body: str | None = None
    event_name: str | None = None
    metric_name: str | None = None
    metric_value: float | str | None = None
    metric_unit: str | None = None
    instrument: str | None = None
    attributes: dict[str, Any] | None = None
    trace_id: str | None = None
    span_id: str | None = None
    trace_flags: int | None = None


_encode = msgspec.json.Encoder(decimal_format="string").encode


def as_json(record: LogRecord) -> str:
    """Return one JSON object without line breaks, named after OpenTelemetry's data model.

    Numbers that JSON lacks are the strings NaN, Infinity and -Infinity, bytes are Base64 (both as in OTLP/JSON),
    Decimal is a string.
    """
    line = _line(record)
    encoded = _encode(line)
    if b"null" in encoded:  # what NaN and infinity become
        if not _finite(line.attributes):
            line.attributes = _named(line.attributes)
        if not _finite(record.metric_value):
            line.metric_value = _named(record.metric_value)
        encoded = _encode(line)
    text = encoded.decode()
    return text if encoded.isascii() else _JSON_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _line(record: LogRecord) -> _Line:
    second, nanos = divmod(record.time_ns, 1_000_000_000)
    timestamp = f"{_utc_second(second)}.{nanos:09d}Z"
    level = record.level
    attributes = record.context
    kind = record.log_type
    if kind is LogType.METRIC:
        line = _Line(timestamp, scope=record.logger_name)
        line.metric_name = record.metric_name
        line.metric_value = record.metric_value
        line.metric_unit = record.unit or None
        line.instrument = record.instrument.value
        attributes = record.metric_tags
    else:
        line = _Line(timestamp, level._name_, severity_number(level), record.logger_name, record.message)
        if kind is LogType.AUDIT:
            line.event_name = record.event_name
            attributes = context_of(record)
        elif record.uid:
            attributes = {**attributes, "log.record.uid": record.uid}
    exception = record.exception
    if exception is not None:
        named = ("exception.type", "exception.message", "exception.stacktrace")
        attributes = {**attributes, **dict(zip(named, exception, strict=True))}
    if record.stack:
        attributes = {**attributes, "code.stacktrace": record.stack}
    if record.call_site is not None:
        named = ("code.file.path", "code.line.number", "code.function.name")
        attributes = {**attributes, **dict(zip(named, record.call_site, strict=True))}
    line.attributes = attributes or None
    trace = record.trace
    if trace is not None:
        line.trace_id = f"{trace.trace_id:032x}"
        line.span_id = f"{trace.span_id:016x}"
        line.trace_flags = trace.trace_flags
    return line


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, (list, tuple, set, frozenset)) else True


def _named(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, (list, tuple, set, frozenset)) else value


def render(
    layout: Callable[[LogRecord], str],
    batch: Sequence[LogRecord],
    fallback: Callable[[LogRecord], str],
) -> list[bytes]:
    """Return a line, with its line end, for every record; one that `layout` fails on is cleaned for `fallback`."""
    lines = []
    for record in batch:
        try:
            line = layout(record)
        except Exception:  # noqa: BLE001 (a repr that raises, a structure that JSON lacks, a user's own layout)
            line = _guarded(record, fallback)
        lines.append(f"{line}\n".encode(errors="backslashreplace"))
    return lines


def _guarded(record: LogRecord, layout: Callable[[LogRecord], str]) -> str:
    try:
        return layout(_clean(record))
    except Exception as error:  # noqa: BLE001 (not a record at all)
        return f"<a record that cannot be shown: {type(error).__name__}>"


def _clean(record: LogRecord) -> LogRecord:
    """Return a copy in which every value is one that both layouts take."""
    timestamp, time_ns = _possible(record.timestamp, record.time_ns)
    exception = record.exception
    return msgspec.structs.replace(
        record,
        timestamp=timestamp,
        time_ns=time_ns,
        logger_name=cut(message_text(record.logger_name), _MAX_TEXT),
        message=cut(message_text(record.message), _MAX_TEXT),
        context=_mapping(record.context),
        metric_name=cut(message_text(record.metric_name), _MAX_TEXT),
        metric_tags=_mapping(record.metric_tags),
        exception=exception
        and CapturedException(*(cut(message_text(part), _MAX_TEXT) for part in exception)),
        stack=record.stack and cut(message_text(record.stack), _MAX_TEXT),
    )


def _mapping(value: Any) -> dict[str, Any]:
    result = plain(value, _MAX_TEXT)
    return result if isinstance(result, dict) else {"context": result}


def _possible(timestamp: float, time_ns: int) -> tuple[float, int]:
    """Return the instants, or the epoch where a calendar has no such day."""
    try:
        local_time(timestamp)
        _utc_second(time_ns // 1_000_000_000)
    except (ValueError, OverflowError, OSError):
        return 0.0, 0
    return timestamp, time_ns


class Written(NamedTuple):
    """How far a write came: complete lines, bytes of the line it broke off in, and why it did."""

    lines: int
    torn: int = 0
    error: OSError | None = None


def write_lines(descriptor: int, lines: Sequence[bytes]) -> Written:
    """Write the lines with as few system calls as the descriptor allows; an error is returned, not raised."""
    data = memoryview(b"".join(lines))
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError as error:
        for count, line in enumerate(lines):
            if written < len(line):
                return Written(count, written, error)
            written -= len(line)
    return Written(len(lines))


_REASONS = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "file_too_large",
    errno.EIO: "io_error",
    errno.EROFS: "not_writable",
    errno.EACCES: "not_writable",
    errno.EPERM: "not_writable",
    errno.EAGAIN: "would_block",
    errno.EPIPE: "broken_pipe",
}


def reason_of(error: OSError) -> str:
    """Return the counter's key for a failed system call."""
    return _REASONS.get(error.errno or 0, "os_error")
