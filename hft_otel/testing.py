"""Telemetry in memory, for the tests of those who use hft-otel: no thread, no file, no network, and a clock that is theirs.

Under pytest the fixture `hft_telemetry` is a Telemetry that is started; it comes with the package.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

from . import calls, factory
from . import logger as logger_module
from ._validation import validate
from .bridge import Bridge, installed
from .config import LogConfig
from .lanes.intake import Drain, Intake, Pipeline, Sizes
from .lanes.journal import Journal
from .lanes.room import Cursor, Room
from .lanes.segment import Segment
from .ledger import DestinationSums, FlushReport, LaneSums
from .listeners import loggers
from .logger import HFTLogger
from .otel.convert import clean_attributes, own_attributes, severity
from .record import LogLevel, LogRecord, LogType
from .redaction import Redactor
from .router import level_number
from .standard import call_site_level
from .unpack import Unpacker

__all__ = ["FakeClock", "Telemetry", "as_dict"]

_SIZES = Sizes(segment=256 * 1024, low=4, high=4, metric=4)
_MOVED = ("_low", "_high", "_metric", "_audit", "_intake", "_pipeline", "router", "backends", "_call_site")
"""What ties a logger to where its records go."""


class FakeClock:
    """Nanoseconds since the epoch: begins at `start`, and goes on by `step` with every look at it."""

    def __init__(self, start: int = 1_700_000_000_000_000_000, step: int = 1_000_000) -> None:
        self.now = start
        self.step = step

    def __call__(self) -> int:
        """Return the time, and let it go on."""
        now = self.now
        self.now += self.step
        return now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1e9)


class Telemetry:
    """While it is started, every logger of the process logs into it: those that are there, and those yet to be made.

    The configurations that loggers are made with count as far as what is said goes (level, context, redaction), and
    not where it would go. `call_site` is a level, `always` or `never`; other than in production it is `never`, so that
    records compare equal wherever a test is moved to. Also a context manager.
    """

    def __init__(self, clock: Callable[[], int] | None = None, call_site: str = "never") -> None:
        self.clock = clock if clock is not None else FakeClock()
        self._call_site = call_site_level(call_site)
        self._records: list[LogRecord] = []
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Take over."""
        self._intake = Intake(_NoFiles(Path(), _SIZES.segment, 4), _SIZES)
        self._reader = _Reader(self._intake, self._records.append)
        self._intake.drain = self._reader
        self._tracer: Any = None
        self._pipeline = self.pipeline(LogConfig())
        for module in (calls, logger_module):
            self._replace(module, "time_ns", self.clock)
        self._replace(factory, "_process", self)
        for logger in loggers():
            if not logger._closed:  # type: ignore[attr-defined]  # they are HFTLoggers all
                self._move(logger)

    def stop(self) -> None:
        """Give everything back; the records stay."""
        self._reader.drain()
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        before = getattr(owner, name)
        self._undo.append(lambda: setattr(owner, name, before))
        setattr(owner, name, value)

    def _move(self, logger: Any) -> None:
        before = {name: logger.__dict__[name] for name in (*_MOVED, "_closed")}

        def put(values: dict[str, Any]) -> None:
            logger.__dict__.update(values)
            logger._repack()
            logger._set_gates()

        self._undo.append(lambda: put(before))
        rooms = self._intake
        pipeline = self._pipeline
        if before["_pipeline"].redactor is not pipeline.redactor:
            pipeline = self._intake.register(_Everywhere(), (), before["_pipeline"].redactor)
        now = (rooms.low, rooms.high, rooms.metric, rooms.audit, rooms, pipeline)
        put(dict(zip(_MOVED, (*now, pipeline.router, [], self._call_site), strict=True)))

    # -- what the factory asks for: this stands in its place --

    def logger(self, name: str, config: LogConfig | None = None) -> HFTLogger:
        """Return a logger; with a configuration, of its level, context and redaction. Raises ConfigError."""
        config = LogConfig() if config is None else config
        validate(config)
        logger = HFTLogger(
            name,
            pipeline=self.pipeline(config),
            intake=self._intake,
            context=config.global_context,
            level=level_number(config.min_level, LogLevel.DEBUG),
            call_site=self._call_site,
        )
        logger._origin = factory.LoggerFactory._unpickled, (config,)
        if config.stdlib.bridge and installed() is None:
            self.bridge(config)
        return logger

    def bridge(self, config: LogConfig) -> Bridge:
        """Return a bridge from Python's logging into this telemetry, installed."""
        bridge = Bridge.configured(self.logger("stdlib", LogConfig(redact=config.redact)), config)
        bridge.install()
        self._undo.append(bridge.uninstall)
        return bridge

    def backends(self, config: LogConfig) -> dict[str, Any]:
        """Return no backends: everything goes here."""
        return {}

    def pipeline(self, config: LogConfig) -> Pipeline:
        """Return the way here, with the configuration's redaction."""
        return self._intake.register(_Everywhere(), (), Redactor(config.redact))

    # -- what was said --

    @property
    def records(self) -> list[dict[str, Any]]:
        """Everything so far, in the order of time, as plain dicts (see `as_dict`)."""
        self._reader.drain()
        self._records.sort(key=lambda record: record.time_ns)
        return [as_dict(record) for record in self._records]

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The text among the records."""
        return self._of(LogType.TEXT)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The measurements among the records, one per call."""
        return self._of(LogType.METRIC)

    @property
    def audits(self) -> list[dict[str, Any]]:
        """The audit events among the records."""
        return self._of(LogType.AUDIT)

    def _of(self, log_type: LogType) -> list[dict[str, Any]]:
        return [record for record in self.records if record["type"] == log_type.value]

    def clear(self) -> None:
        """Forget the records so far."""
        self._reader.drain()
        self._records.clear()

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Start a span that is current in the block; trace and span ids count from 1."""
        if self._tracer is None:
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON

            provider = TracerProvider(sampler=ALWAYS_ON, id_generator=_counting_ids(), shutdown_on_exit=False)
            self._tracer = provider.get_tracer(__name__)
        return _span(self._tracer, name)


@contextmanager
def _span(tracer: Any, name: str) -> Iterator[Any]:
    with tracer.start_as_current_span(name) as span:
        yield span


def _counting_ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class CountingIds(IdGenerator):
        """Ids from 1 upwards."""

        def __init__(self) -> None:
            self._spans, self._traces = itertools.count(1), itertools.count(1)

        def generate_span_id(self) -> int:
            return next(self._spans)

        def generate_trace_id(self) -> int:
            return next(self._traces)

    return CountingIds()


def as_dict(record: LogRecord) -> dict[str, Any]:
    """Return a record as a plain dict, with what an exporter would be given of it.

    Keys: type, logger, timestamp (nanoseconds), body, severity_text, severity_number, attributes, trace_id and span_id
    (hexadecimal, None without a span), event_name (of audit events), metric (name, value, unit and instrument of a
    measurement), stacktrace (of an exception, whose type and message are attributes).
    """
    is_metric, is_audit = record.log_type is LogType.METRIC, record.log_type is LogType.AUDIT
    attributes = clean_attributes(record.metric_tags if is_metric else record.context)
    attributes |= own_attributes(record)
    metric = None
    if is_metric:
        metric = {
            "name": record.metric_name,
            "value": record.metric_value,
            "unit": record.unit,
            "instrument": record.instrument.value,
        }
    return {
        "type": record.log_type.value,
        "logger": record.logger_name,
        "timestamp": record.time_ns,
        "body": None if is_metric else record.message,
        "severity_text": None if is_metric else record.level.name,
        "severity_number": None if is_metric else severity(record.level).value,
        "stacktrace": attributes.pop("exception.stacktrace", None),
        "attributes": attributes,
        "trace_id": f"{record.trace.trace_id:032x}" if record.trace else None,
        "span_id": f"{record.trace.span_id:016x}" if record.trace else None,
        "event_name": f"audit.{record.message}" if is_audit else None,
        "metric": metric,
    }


class _NoFiles(Journal):
    """A journal whose segments are plain memory."""

    def _create_file(self) -> Segment:
        return Segment.anonymous(self.segment_size)


class _Everywhere:
    """A router for records that all go to one place, which is known."""

    def get_backends(self, record: object) -> tuple[()]:
        return ()


class _Reader(Drain):
    """Reads the rooms when it is asked to, on the thread that asks."""

    def __init__(self, intake: Intake, keep: Callable[[LogRecord], None]) -> None:
        self._keep = keep
        unpacker = Unpacker(lambda number: intake.pipelines[number].redactor)
        numbers = itertools.count(1)

        def audit(body: bytes) -> tuple[int, LogRecord]:
            return unpacker.audit(body, f"audit-{next(numbers)}")

        decoders = (audit, unpacker.text, unpacker.metric, unpacker.text)
        self._places = [
            (room, Cursor(room.first), decode) for room, decode in zip(intake.rooms, decoders, strict=True)
        ]
        self._read: Counter[tuple[str, LogType]] = Counter()
        self._lock = threading.Lock()

    def add(self, pipeline: Pipeline) -> None:
        """Serve a further pipeline, as it serves all."""

    def wake(self) -> None:
        """Read what is there, unless a thread is at it: a segment is full."""
        self.drain(patience=0.0)

    def drain(self, patience: float = 5.0) -> None:
        """Read all that is there."""
        if not self._lock.acquire(timeout=patience):
            return
        try:
            for room, cursor, decode in self._places:
                self._drain(room, cursor, decode)
        finally:
            self._lock.release()

    def _drain(self, room: Room, cursor: Cursor, decode: Callable[[bytes], tuple[int, LogRecord]]) -> None:
        while True:
            bodies = cursor.read(64)
            for body in bodies:
                record = decode(body)[1]
                self._read[room.name, record.log_type] += 1
                self._keep(record)
            if not bodies:
                done = cursor.step()
                if done is None:
                    return
                room.release(done)

    def flush(self, timeout: float) -> FlushReport:
        """Read all that is there, and say that it was delivered."""
        self.drain()
        lanes, destinations = [], []
        for room, _, _ in self._places:
            drops = {reason: tally.value for reason, tally in room.drops.items()}
            kind = {"audit": LogType.AUDIT, "metric": LogType.METRIC}.get(room.name, LogType.TEXT)
            lanes.append(LaneSums(room.name, kind.value, self._read[room.name, kind], dropped=drops))
        for kind in LogType:
            total = sum(count for (_, of), count in self._read.items() if of is kind)
            destinations.append(DestinationSums("memory", kind.value, total, total))
        return FlushReport(lanes, destinations, True)

    async def flush_async(self, timeout: float) -> FlushReport:
        """Like `flush`."""
        return self.flush(timeout)
