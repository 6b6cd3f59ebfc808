"""HFTLogger: gate, context, capture. All of it runs on the caller's thread, so all of it is short.

A call packs its arguments as they are and writes one frame. What that fast way cannot pack (and what needs the
caller's frames, such as `exc_info=True`) goes the guarded way, `_capture`; what even that cannot keep is counted.
The worker does the rest: reserved words that need no capture, `%`-formatting, redaction, routing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from time import time_ns
from typing import Any, Self

import msgspec

from .arguments import (
    CALLER_WORDS,
    MISSING,
    BoundContext,
    caller_side,
    formatted,
    level_and_message,
    trace_and_scope,
)
from .interfaces import HFTLoggerInterface, LogBackend
from .lanes.capture import cut, message_text, plain, plain_context
from .lanes.durability import SyncedRoom
from .lanes.frames import AUDIT, COUNTER, GAUGE, LATENCY, UNSAID, encode, seal_audit
from .lanes.intake import Intake, Pipeline, Router, process_intake
from .lanes.room import ClosedRoom, Room
from .ledger import FlushReport
from .otel.current import Scope, current_context, current_scope, scope_of, trace_of, use_scope
from .record import LogLevel
from .redaction import Redactor

__all__ = ["HFTLogger"]

_MAX_BOUND = 16 * 1024
"""Bytes of persistent context in every record; what is longer would leave records no space in a segment."""
_ATOMS = frozenset({str, int, float, bool, type(None), bytes})
_LIMITS = (65_536, 2_048, 128)
"""Characters to which strings are cut, tried in turn until the record fits."""


_HEADS = (*map(int, LogLevel), GAUGE, COUNTER, LATENCY, AUDIT)
"""What each of a logger's packed heads is for, in their order."""


def _text_method(level: int, name: str) -> Callable[..., None]:
    """Return the method for one level; a closure, because one call more would cost a tenth of the whole."""
    high = level >= logging.WARNING
    head = _HEADS.index(level)

    def method(self: HFTLogger, msg: Any = MISSING, /, *args: Any, **context: Any) -> None:
        if self._threshold > level:
            return
        try:
            if args or type(msg) is not str or "exc_info" in context or "stack_info" in context:
                self._capture(level, msg, args, context)
            elif current := current_context():
                record = (time_ns(), self._heads[head], msg, context, trace_of(current), scope_of(current))
                (self._high if high else self._low).write(encode(encode(record)))
            else:
                (self._high if high else self._low).write(
                    encode(encode((time_ns(), self._heads[head], msg, context)))
                )
        except Exception:
            try:
                self._capture(level, msg, args, context)
            except Exception:  # such as a caller at the very end of its stack: a step of a loop is no call
                for _ in (self._high if high else self._low).failed:
                    break

    method.__name__ = name
    method.__qualname__ = f"HFTLogger.{name}"
    method.__doc__ = getattr(HFTLoggerInterface, name).__doc__
    return method


def _metric_method(kind: int, name: str, default: float | object) -> Callable[..., None]:
    """Return the method for one kind of measurement."""
    head = _HEADS.index(kind)

    def method(self: HFTLogger, name: Any = MISSING, value: Any = default, /, **tags: Any) -> None:
        if self._metrics_off:
            return
        try:
            if current := current_context():
                record = (time_ns(), self._heads[head], name, value, tags, scope_of(current))
                self._metric.write(encode(encode(record)))
            else:
                self._metric.write(encode(encode((time_ns(), self._heads[head], name, value, tags))))
        except Exception:
            try:
                self._capture_metric(kind, name, value, tags)
            except Exception:  # such as a caller at the very end of its stack: a step of a loop is no call
                for _ in self._metric.failed:
                    break

    method.__name__ = name
    method.__qualname__ = f"HFTLogger.{name}"
    method.__doc__ = getattr(HFTLoggerInterface, name).__doc__
    return method


class HFTLogger(HFTLoggerInterface):
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
    ) -> None:
        intake = intake or process_intake()
        if pipeline is None:
            listed = tuple(backends.values() if isinstance(backends, Mapping) else backends)
            pipeline = intake.register(router or _ToAll(listed), listed, Redactor())
        self.name = name
        self.level = level
        self._pipeline = pipeline
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
        self._context = BoundContext(self._repack, context or {})
        self._repack()
        self._set_gates()

    debug = _text_method(logging.DEBUG, "debug")
    info = _text_method(logging.INFO, "info")
    warning = _text_method(logging.WARNING, "warning")
    error = _text_method(logging.ERROR, "error")
    critical = _text_method(logging.CRITICAL, "critical")

    metric = _metric_method(GAUGE, "metric", MISSING)
    counter = _metric_method(
        COUNTER, "counter", UNSAID
    )  # one, unless `value=` is among the tags; see Unpacker.metric
    latency = _metric_method(LATENCY, "latency", MISSING)

    def exception(self, msg: Any = MISSING, /, *args: Any, **context: Any) -> None:
        """Log at ERROR with the exception being handled."""
        try:
            context.setdefault("exc_info", True)
            self.error(msg, *args, **context)
        except Exception:  # see _text_method
            for _ in self._high.failed:
                break

    def log(self, level: Any = MISSING, msg: Any = MISSING, /, *args: Any, **context: Any) -> None:
        """Log at a level given as a number (or by name), with Python logging's numbers."""
        try:
            number, msg, context = level_and_message(level, msg, context)
            if self._threshold <= number:
                self._capture(number, msg, args, context)
        except Exception:  # see _text_method
            for _ in self._high.failed:
                break

    def audit(self, event: Any = MISSING, /, **context: Any) -> None:
        """Record an audit event durably; it is in file-backed memory when the call returns."""
        try:
            if type(event) is not str:
                self._capture_audit(event, context)
                return
            safe = self._pipeline.redactor.redact(context)
            if current := current_context():
                body = encode((time_ns(), self._heads[-1], event, safe, trace_of(current), scope_of(current)))
            else:
                body = encode((time_ns(), self._heads[-1], event, safe))
            self._audit.write(seal_audit(body))
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
        child._repack()
        return child

    def scoped(self, /, **context: Any) -> AbstractContextManager[None]:
        """Add context to every call of the current task, in this and in the tasks and threads it starts, until exit."""
        values = dict(
            self._pipeline.redactor.redact(plain_context({**current_scope(), **context}, _LIMITS[1]))
        )
        return use_scope(Scope(values, msgspec.Raw(encode(values))))

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  (Python logging's name)
        """Say whether a text call at this level would be captured."""
        return level >= self._threshold

    def getEffectiveLevel(self) -> int:  # noqa: N802  (Python logging's name)
        """Return the lowest level that is captured."""
        return self._threshold

    def setLevel(self, level: int | str) -> None:  # noqa: N802  (Python logging's name)
        """Capture nothing below this level, whatever the routes want."""
        self.level = (
            level if isinstance(level, int) else logging.getLevelNamesMapping().get(level.upper(), self.level)
        )
        self._set_gates()

    async def flush(self, timeout: float | None = None) -> FlushReport:
        """Wait, without blocking the event loop, until what was logged so far is delivered; see `force_flush`."""
        drain = self._intake.ensure_drain()
        return (
            FlushReport.nothing()
            if drain is None
            else await drain.flush_async(5.0 if timeout is None else timeout)
        )

    def force_flush(self, timeout: float = 5.0) -> FlushReport:
        """Wait at most `timeout` seconds until what was logged so far is delivered; falsy when something is not."""
        drain = self._intake.ensure_drain()
        return FlushReport.nothing() if drain is None else drain.flush(timeout)

    def close(self, timeout: float = 2.0) -> FlushReport:
        """Flush, and ignore (but count) every later call of this logger."""
        report = self.force_flush(timeout)
        if not self._closed:
            self._closed = True
            self._low, self._high, self._metric, self._audit = (ClosedRoom(room) for room in self._rooms())  # type: ignore[assignment,arg-type]
        return report

    def __repr__(self) -> str:
        return f"<HFTLogger {self.name} ({logging.getLevelName(self._threshold)})>"

    def _rooms(self) -> tuple[Room, Room, Room, Room | SyncedRoom]:
        return self._low, self._high, self._metric, self._audit

    def _room(self, level: int) -> Room:
        return self._high if level >= logging.WARNING else self._low

    def _set_gates(self) -> None:
        self._threshold = max(self._pipeline.threshold(self.name), self.level)
        self._metrics_off = not self._pipeline.wants_metrics(self.name)

    def _repack(self) -> None:
        """Pack what the records of this logger share, once per level and kind."""
        for limit in _LIMITS[1:]:
            bound = encode(self._pipeline.redactor.redact(plain_context(self._context, limit)))
            if len(bound) <= _MAX_BOUND:
                break
        else:
            bound = encode({"hft.cut": True})
        self._bound = msgspec.Raw(bound)
        self._packed_name = msgspec.Raw(encode(cut(message_text(self.name), 256)))
        self._heads = tuple(map(self._head, _HEADS))

    def _head(self, level: int) -> msgspec.Raw:
        """Return the packed head for a level that may be none of the usual ones."""
        return msgspec.Raw(encode((self._pipeline.number, level, self._packed_name, self._bound)))

    def _capture(self, level: int, msg: Any, args: tuple[Any, ...], context: dict[str, Any]) -> None:
        """The other ways for text: with `%`-args that pack as they are, else guarded, and fitted into a segment."""
        if (
            args
            and type(msg) is str
            and _ATOMS.issuperset(map(type, args))
            and CALLER_WORDS.isdisjoint(context)
        ):
            try:
                head = self._heads[_HEADS.index(level)]
                frame = encode(encode((time_ns(), head, msg, context, *trace_and_scope(), args)))
                self._room(level).write(frame)
                return
            except Exception:  # noqa: S110  (a value that does not pack, a full segment: the guarded way sees to it)
                pass
        self._capture_guarded(level, msg, args, context)

    def _capture_guarded(self, level: int, msg: Any, args: tuple[Any, ...], context: dict[str, Any]) -> None:
        """Capture what needs the caller, make the rest packable, and fit it into a segment."""
        if msg is MISSING:
            context = dict(context)
            msg = context.pop("msg", "")
        context, exception, stack = caller_side(context)
        if args:
            msg, args = formatted(msg, args), ()
        elif type(msg) is not str:
            msg = message_text(msg)
        trace, scope = trace_and_scope()
        now, head = time_ns(), self._head(level)
        room = self._room(level)
        for limit in _LIMITS:
            body = (now, head, cut(msg, limit), plain_context(context, limit), trace, scope)
            frame = encode(encode((*body, None, exception, stack)))
            if len(frame) <= room.capacity:
                break
        else:
            frame = encode(encode((now, head, cut(msg, limit), {"hft.cut": True}, trace)))
        room.put(frame)

    def _capture_metric(self, kind: int, name: Any, value: Any, tags: dict[str, Any]) -> None:
        """The guarded way for measurements."""
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
        event = cut(message_text(event), 1024)
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


class _ToAll:
    """The router of a logger that was given none: every backend gets everything it takes."""

    def __init__(self, backends: Sequence[LogBackend]) -> None:
        self._backends = backends

    def get_backends(self, record: object) -> Sequence[LogBackend]:
        return self._backends
