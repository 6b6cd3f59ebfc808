"""HFTLogger: gate, context, capture. All of it runs on the caller's thread, so all of it is short.

A call packs its arguments as they are and writes one frame. What that fast way cannot pack (and what needs the
caller's frames, such as `exc_info=True`) goes the guarded way, `_capture`; what even that cannot keep is counted.
The worker does the rest: reserved words that need no capture, `%`-formatting, redaction, routing.
"""

from __future__ import annotations

import logging
import math
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, NamedTuple, Self

import msgspec

from .arguments import (
    ATOMS,
    CALLER_WORDS,
    MISSING,
    BoundContext,
    Site,
    caller_side,
    formatted,
    level_and_message,
    site_of,
    trace_and_scope,
)
from .calls import HEADS, metric_method, text_method
from .interfaces import HFTLoggerInterface, LogBackend
from .lanes.capture import cut, message_text, plain, plain_context
from .lanes.durability import SyncedRoom
from .lanes.exceptions import PackedException
from .lanes.frames import COUNTER, GAUGE, LATENCY, UNSAID, encode, seal_audit
from .lanes.intake import Intake, Pipeline, Router, process_intake
from .lanes.room import ClosedRoom, Room
from .ledger import FlushReport
from .listeners import Watched
from .otel.current import Scope, Trace, UsedScope, current_context, current_scope, scope_of, trace_of
from .redaction import Redactor
from .standard import NEVER, StandardLogger
from .taken import taken

__all__ = ["HFTLogger"]

_MAX_BOUND = 16 * 1024
"""Bytes of persistent context in every record; what is longer would leave records no space in a segment."""
_LIMITS = (65_536, 2_048, 128)
"""Characters to which strings are cut, tried in turn until the record fits."""
_FLUSH_TIMEOUT = 5.0


class HFTLogger(HFTLoggerInterface, StandardLogger):
    """The logger that the factory hands out; `backends` and `router` as in the plan, usually made by the factory."""

    def __init__(
        self,
        name: str,
        backends: Sequence[LogBackend] | Mapping[str, LogBackend] = (),
        router: Router | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        level: int = logging.NOTSET,
        pipeline: Pipeline | None = None,
        intake: Intake | None = None,
        call_site: int = logging.WARNING,
    ) -> None:
        intake = intake or process_intake()
        if pipeline is None:
            listed = tuple(backends.values() if isinstance(backends, Mapping) else backends)
            pipeline = intake.register(router or _ToAll(listed), listed, Redactor())
        self.name = name
        self._pipeline = pipeline
        self._call_site = call_site
        self.backends: list[LogBackend] = list(pipeline.backends)
        self.router = pipeline.router
        self._intake = intake
        self._low, self._high, self._metric, self._audit = (
            intake.low,
            intake.high,
            intake.metric,
            intake.audit_door,
        )
        self._closed = False
        self._context: BoundContext = BoundContext(self._repack, context or {})
        self._origin: tuple[Callable[..., HFTLogger], tuple[Any, ...]] | None = None
        """How the factory would make this logger in another process."""
        self._repack()
        self._become_standard(level)
        self._set_gates()

    debug = text_method(logging.DEBUG, "debug")
    info = text_method(logging.INFO, "info")
    warning = text_method(logging.WARNING, "warning")
    error = text_method(logging.ERROR, "error")
    critical = text_method(logging.CRITICAL, "critical")
    warn, fatal = warning, critical  # the old names of Python's logging

    metric = metric_method(GAUGE, "metric", MISSING)
    counter = metric_method(
        COUNTER, "counter", UNSAID
    )  # one, unless `value=` is among the tags; see Unpacker.metric
    latency = metric_method(LATENCY, "latency", MISSING)

    def exception(self, msg: Any = MISSING, /, *args: Any, **context: Any) -> None:
        """Log at ERROR with the exception being handled."""
        try:
            context.setdefault("exc_info", True)
            self.error(msg, *args, **context)
        except Exception:  # see calls.py
            for _ in self._high.failed:
                break

    def log(self, level: Any = MISSING, msg: Any = MISSING, /, *args: Any, **context: Any) -> None:
        """Log at a level given as a number (or by name), with Python logging's numbers."""
        try:
            number, msg, context = level_and_message(level, msg, context)
            if self._gate <= number:
                self._aside(number, msg, args, context)
        except Exception:  # see calls.py
            for _ in self._high.failed:
                break

    def audit(self, event: Any = MISSING, /, **context: Any) -> None:
        """Record an audit event durably; it is in file-backed memory when the call returns."""
        try:
            if type(event) is not str:
                self._capture_audit(event, context)
                return
            redactor = self._pipeline.redactor
            if event not in redactor.clean_events:
                event = redactor.redact_event(event)
            safe = redactor.redact(context, whole=True)
            if current := current_context():
                body = encode((time_ns(), self._heads[-1], event, safe, trace_of(current), scope_of(current)))
            else:
                body = encode((time_ns(), self._heads[-1], event, safe))
            frame = seal_audit(body)
            try:
                self._audit.write(frame)
            except ValueError:  # the segment is full
                if len(frame) > self._audit.capacity:
                    raise
                self._audit.put(frame)
        except Exception:
            try:
                self._capture_audit(event, context)
            except Exception:  # such as a caller at the very end of its stack: a step of a loop is no call
                for _ in self._audit.failed:
                    break

    @property
    def context(self) -> dict[str, Any]:
        """The persistent context; changing it changes what later calls carry."""
        return self._context

    def set_context(self, /, **context: Any) -> None:
        """Add to the persistent context of this logger."""
        self._context.update(context)

    def bind(self, /, **context: Any) -> Self:
        """Return a child logger with more context; this logger stays as it is."""
        child = object.__new__(type(self))
        child.__dict__.update(self.__dict__)
        child._context = BoundContext(child._repack, {**self._context, **context})
        child._children = {}
        child._repack()
        child._enlist()
        return child

    def scoped(self, /, **context: Any) -> UsedScope:
        """Add context to every call of this task and of the tasks it starts, until exit; threads: docs/stdlib.md."""
        values = dict(
            self._pipeline.redactor.redact(plain_context({**current_scope(), **context}, _LIMITS[1]))
        )
        return UsedScope(Scope(values, msgspec.Raw(encode(values))))

    async def flush(self, timeout: float | None = None) -> FlushReport:
        """Wait, without blocking the event loop, until what was logged so far is delivered; see `force_flush`."""
        drain = self._intake.ensure_drain()
        return FlushReport.nothing() if drain is None else await drain.flush_async(_seconds(timeout))

    def force_flush(self, timeout: float | None = _FLUSH_TIMEOUT) -> FlushReport:
        """Wait at most `timeout` seconds until what was logged so far is delivered; falsy when something is not."""
        drain = self._intake.ensure_drain()
        return FlushReport.nothing() if drain is None else drain.flush(_seconds(timeout))

    def close(self, timeout: float = 2.0) -> FlushReport:
        """Flush, and ignore (but count) every later call of this logger."""
        report = self.force_flush(timeout)
        if not self._closed:
            self._closed = True
            self._low, self._high, self._metric, self._audit = (ClosedRoom(room) for room in self._rooms())  # type: ignore[assignment,arg-type]
        return report

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({logging.getLevelName(self.getEffectiveLevel())})>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name, the configuration (with its secrets), the context and the level."""
        if self._is_managed():
            return logging.getLogger, (self.name,)
        if self._origin is None:
            raise pickle.PicklingError(
                f"logger {self.name} has live backends: make it by LoggerFactory.create_logger"
            )
        made, arguments = self._origin
        return made, (self.name, *arguments, plain_context(self._context, _LIMITS[1]), self._own_level)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def _renamed(self, name: str) -> HFTLogger:
        child = self.bind()
        child.name, child._parent = name, self
        child._own_level, child._propagate = logging.NOTSET, None
        child._handlers, child._filters = Watched(), Watched()
        child._repack()
        child._set_gates()
        return child

    def _count_failure(self) -> None:
        for _ in self._high.failed:
            break

    def _rooms(self) -> tuple[Room, Room, Room, Room | SyncedRoom]:
        return self._low, self._high, self._metric, self._audit

    def _room(self, level: int) -> Room:
        return self._high if level >= logging.WARNING else self._low

    def _repack(self) -> None:
        """Pack what the records of this logger share; anew where another thread has changed the context meanwhile."""
        packed = -1
        while packed != self._context.version:
            packed = self._context.version
            self._pack()

    def _pack(self) -> None:
        """Pack what the records of this logger share, once per level and kind."""
        for limit in _LIMITS[1:]:
            bound = encode(self._pipeline.redactor.redact(plain_context(self._context, limit)))
            if len(bound) <= _MAX_BOUND:
                break
        else:
            bound = encode({"hft.cut": True})
        self._bound = msgspec.Raw(bound)
        self._packed_name = msgspec.Raw(encode(cut(message_text(self.name), 256)))
        self._heads = tuple(map(self._head, HEADS))

    def _head(self, level: int) -> msgspec.Raw:
        """Return the packed head for a level that may be none of the usual ones."""
        return msgspec.Raw(encode((self._pipeline.number, level, self._packed_name, self._bound)))

    def _capture(self, level: int, msg: Any, args: tuple[Any, ...], context: dict[str, Any]) -> None:
        """The other ways for text: quick where it packs as it is, else guarded, and fitted into a segment."""
        site = site_of(context) if self._call_site <= level else None
        if type(msg) is str and ATOMS.issuperset(map(type, args)) and CALLER_WORDS.isdisjoint(context):
            try:
                head = self._heads[HEADS.index(level)]
                body = (time_ns(), head, msg, context, *trace_and_scope(), args or None, None, None, site)
                if self._written(self._room(level), encode(encode(body))):
                    return
            except Exception:  # noqa: S110  (a value that does not pack: the guarded way sees to it)
                pass
        if msg is MISSING:
            context = dict(context)
            msg = context.pop("msg", "")
        context, exception, stack = caller_side(context)
        if args:
            msg = formatted(msg, args)
        elif type(msg) is not str:
            msg = message_text(msg)
        self._fit(level, _Text(time_ns(), msg, context, *trace_and_scope(), None, exception, stack, site))

    @staticmethod
    def _written(room: Room, frame: bytes) -> bool:
        """Write a frame, or count it as dropped where there is no space: then the call must cost no more than others."""
        try:
            room.write(frame)
        except ValueError:
            if len(frame) > room.capacity:
                return False
            room.put(frame)
        return True

    def _take(self, record: logging.LogRecord) -> None:
        level = min(max(int(record.levelno), 0), 1000)
        text = _Text(*taken(record, with_site=self._call_site < NEVER))
        try:
            frame = encode(encode((text.time_ns, self._head(level), *text[1:])))
            if self._written(self._room(level), frame):
                return
        except Exception:  # noqa: S110  (a value that does not pack)
            pass
        self._fit(level, text)

    def _fit(self, level: int, text: _Text) -> None:
        """Make a text record packable, and cut it until it fits into a segment."""
        head, room = self._head(level), self._room(level)
        msg = formatted(text.msg, text.args) if text.args else text.msg
        for limit in _LIMITS:
            body = (text.time_ns, head, cut(msg, limit), plain_context(text.context, limit))
            frame = encode(encode((*body, *text[3:5], None, *text[6:])))
            if len(frame) <= room.capacity:
                break
        else:
            frame = encode(encode((text.time_ns, head, cut(msg, limit), {"hft.cut": True}, text.trace)))
        room.put(frame)

    def _capture_metric(self, kind: int, name: Any, value: Any, tags: dict[str, Any]) -> None:
        """The other ways for measurements: as it is where only the segment was full, else guarded."""
        try:
            frame = encode(encode((time_ns(), self._head(kind), name, value, tags, trace_and_scope()[1])))
            if self._written(self._metric, frame):
                return
        except Exception:  # noqa: S110  (a value that does not pack: the guarded way sees to it)
            pass
        tags = dict(tags)
        if name is MISSING:
            name = tags.pop("operation" if kind == LATENCY and "operation" in tags else "name", "")
        if value is MISSING:
            value = tags.pop("duration_ms" if kind == LATENCY and "duration_ms" in tags else "value", None)
        value = value if value is UNSAID else plain(value, 64)
        name, tags = cut(message_text(name), 256), plain_context(tags, 256)
        self._metric.put(
            encode(encode((time_ns(), self._head(kind), name, value, tags, trace_and_scope()[1])))
        )

    def _capture_audit(self, event: Any, context: dict[str, Any]) -> None:
        """The guarded way for audit events."""
        if event is MISSING:
            context = dict(context)
            event = context.pop("event", "")
        event = cut(self._pipeline.redactor.redact_text(cut(message_text(event), 8192)), 1024)
        trace, scope = trace_and_scope()
        now = time_ns()
        for limit in _LIMITS:
            safe = self._pipeline.redactor.redact(plain_context(context, limit))
            frame = seal_audit(encode((now, self._heads[-1], event, safe, trace, scope)))
            if len(frame) <= self._audit.capacity:
                break
        else:
            frame = seal_audit(encode((now, self._heads[-1], event, {"hft.cut": True}, trace)))
        self._audit.put(frame)


class _Text(NamedTuple):
    """A text record as it is packed, without its head; see lanes.frames.TextBody."""

    time_ns: int
    msg: str
    context: dict[str, Any]
    trace: Trace | None
    scope: msgspec.Raw | None
    args: tuple[Any, ...] | None = None
    exception: PackedException | None = None
    stack: str | None = None
    site: Site | None = None


def _seconds(timeout: object) -> float:
    """Return a timeout that can be waited for: the default for None, and for what is no number."""
    try:
        seconds = float(timeout)  # type: ignore[arg-type]  # what it raises is caught
    except Exception:
        return _FLUSH_TIMEOUT
    return _FLUSH_TIMEOUT if math.isnan(seconds) else min(max(seconds, 0.0), threading.TIMEOUT_MAX / 2)


class _ToAll:
    """The router of a logger that was given none: every backend gets everything it takes."""

    def __init__(self, backends: Sequence[LogBackend]) -> None:
        self._backends = backends

    def get_backends(self, record: object) -> Sequence[LogBackend]:
        return self._backends
