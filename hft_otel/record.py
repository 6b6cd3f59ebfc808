"""The one value that moves: what a logger call becomes, as routers and backends see it."""

from __future__ import annotations

import logging
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import msgspec

__all__ = [
    "ANCHOR_EVENT",
    "CallSite",
    "CapturedException",
    "InstrumentKind",
    "LogLevel",
    "LogRecord",
    "LogType",
    "TraceIds",
]

ANCHOR_EVENT = "hft.audit.anchor"
"""The event name of an anchor of the audit trail (see audit/chain.py), which is no event of the application's."""


class LogLevel(IntEnum):
    """Severity with the numbers of Python's logging; any other integer becomes a pseudo-member with its name."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50

    @classmethod
    def _missing_(cls, value: object) -> LogLevel | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = logging.getLevelName(value)
        member._value_ = value
        if member._name_ == f"Level {value}":  # not kept: `logging.addLevelName` may give it a name yet
            return member
        return cls._value2member_map_.setdefault(value, member)  # type: ignore[return-value]  # holds members only


class LogType(StrEnum):
    """What a record is; latency and counter calls are METRIC."""

    TEXT = "TEXT"
    METRIC = "METRIC"
    AUDIT = "AUDIT"


class InstrumentKind(StrEnum):
    """The OpenTelemetry instrument that a METRIC record is recorded on."""

    GAUGE = "gauge"
    COUNTER = "counter"
    UP_DOWN_COUNTER = "up_down_counter"
    HISTOGRAM = "histogram"


class TraceIds(NamedTuple):
    """The caller's span at the time of the call: 128-bit and 64-bit identifiers and the W3C trace flags."""

    trace_id: int
    span_id: int
    trace_flags: int


class CallSite(NamedTuple):
    """Where a call was made: `code.file.path`, `code.line.number` and `code.function.name`."""

    file: str
    line: int
    function: str


class CapturedException(NamedTuple):
    """An exception as text: its qualified type, its message and the stack trace as Python's logging prints it."""

    type: str
    message: str
    stacktrace: str


class LogRecord(msgspec.Struct):
    """One log line, measurement or audit event, complete and no longer bound to the caller's objects.

    `timestamp` is in seconds since the epoch, `time_ns` the same instant in nanoseconds. `context` holds the merged
    context (global < bound < scoped < call). METRIC records carry `metric_name`, `metric_value` and `metric_tags`;
    a latency is in milliseconds, as the caller gave it. `audit_id` is unique per audit event and repeats only when
    the same event is delivered again; so is `uid` per TEXT record, where an agent delivers. `msgspec.structs.asdict` and
    `msgspec.structs.replace` make a mapping, or a changed copy, of a record.
    """

    timestamp: float
    level: LogLevel
    log_type: LogType
    logger_name: str
    message: str = ""
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    metric_name: str = ""
    metric_value: float = 0.0
    metric_tags: dict[str, Any] = msgspec.field(default_factory=dict)
    instrument: InstrumentKind = InstrumentKind.GAUGE
    unit: str = ""
    time_ns: int = 0
    trace: TraceIds | None = None
    exception: CapturedException | None = None
    stack: str | None = None
    call_site: CallSite | None = None
    audit_id: str | None = None
    via_collector: tuple[str, ...] = ()
    """Names of the backends behind the Collector that want this record."""
    uid: str | None = None

    def __post_init__(self) -> None:
        if not self.time_ns:
            self.time_ns = int(self.timestamp * 1e9)

    @property
    def event_name(self) -> str:
        """What an audit event is called outside."""
        return self.message if self.message == ANCHOR_EVENT else f"audit.{self.message}"

    @property
    def exchange(self) -> Any:
        """The exchange that the record is about: its tag, else its context value, else None."""
        return self.metric_tags.get("exchange", self.context.get("exchange"))

    @property
    def symbol(self) -> Any:
        """The traded symbol that the record is about: its tag, else its context value, else None."""
        return self.metric_tags.get("symbol", self.context.get("symbol"))
