"""The methods that are called all day, as closures: gate, pack, write; each of them one Python call.

What the short way cannot pack (and what needs the caller's frames, such as `exc_info=True`) goes the guarded way,
`HFTLogger._capture`; what even that cannot keep is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from sys import _getframe
from time import time_ns
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .arguments import ATOMS, CALLER_WORDS, MISSING
from .interfaces import HFTLoggerInterface
from .lanes.frames import AUDIT, COUNTER, GAUGE, LATENCY, encode
from .otel.current import current_context, scope_of, trace_of
from .record import LogLevel

if TYPE_CHECKING:  # types only
    from .logger import HFTLogger

__all__ = ["HEADS", "metric_method", "text_method"]

_CAPTURED = CALLER_WORDS | {"stacklevel"}
HEADS = (*map(int, LogLevel), GAUGE, COUNTER, LATENCY, AUDIT)
"""What each of a logger's packed heads is for, in their order."""


_switch: Any = logging.root.manager
if not hasattr(_switch, "_disable"):  # the attribute is a property, whose call each record would pay for
    _switch = SimpleNamespace(_disable=0)


def text_method(level: int, name: str) -> Callable[..., None]:
    """Return the method for one level; a closure, because one call more would cost a tenth of the whole."""
    method = (_marked_method if level >= logging.WARNING else _plain_method)(level, HEADS.index(level))
    method.__name__ = name
    method.__qualname__ = f"HFTLogger.{name}"
    method.__doc__ = getattr(HFTLoggerInterface, name).__doc__
    return method


def _plain_method(level: int, head: int) -> Callable[..., None]:
    """Return the method for a level below WARNING."""
    switch, atoms = _switch, ATOMS.issuperset

    def method(self: HFTLogger, msg: Any = MISSING, /, *args: Any, **context: Any) -> None:  # noqa: PLR0912  (a call more would be felt)
        if self._threshold > level:
            if self._gate <= level:
                try:
                    self._aside(level, msg, args, context)
                except Exception:
                    for _ in self._low.failed:
                        break
            return
        if switch._disable >= level:
            return
        try:
            if type(msg) is not str or "exc_info" in context or "stack_info" in context:
                self._capture(level, msg, args, context)
            elif args:
                if not atoms(map(type, args)):
                    self._capture(level, msg, args, context)
                    return
                trace = scope = None
                if current := current_context():
                    trace, scope = trace_of(current), scope_of(current)
                record = (time_ns(), self._heads[head], msg, context, trace, scope, args)
                self._low.write(encode(encode(record)))
            elif current := current_context():
                trace, scope = trace_of(current), scope_of(current)
                self._low.write(encode(encode((time_ns(), self._heads[head], msg, context, trace, scope))))
            else:
                self._low.write(encode(encode((time_ns(), self._heads[head], msg, context))))
        except Exception:
            try:
                self._capture(level, msg, args, context)
            except Exception:  # such as a caller at the very end of its stack: a step of a loop is no call
                for _ in self._low.failed:
                    break

    return method


def _marked_method(level: int, head: int) -> Callable[..., None]:
    """Return the method for WARNING or above, whose records say where the call was made."""
    switch, atoms = _switch, ATOMS.issuperset

    def method(self: HFTLogger, msg: Any = MISSING, /, *args: Any, **context: Any) -> None:
        if self._threshold > level:
            if self._gate <= level:
                try:
                    self._aside(level, msg, args, context)
                except Exception:
                    for _ in self._high.failed:
                        break
            return
        if switch._disable >= level:
            return
        try:
            if (
                type(msg) is not str
                or not _CAPTURED.isdisjoint(context)
                or (args and not atoms(map(type, args)))
            ):
                self._capture(level, msg, args, context)
                return
            site = None
            if self._call_site <= level:
                code = (frame := _getframe(1)).f_code
                site = (code.co_filename, frame.f_lineno, code.co_qualname)
            trace = scope = None
            if current := current_context():
                trace, scope = trace_of(current), scope_of(current)
            record = (
                time_ns(),
                self._heads[head],
                msg,
                context,
                trace,
                scope,
                args or None,
                None,
                None,
                site,
            )
            self._high.write(encode(encode(record)))
        except Exception:
            try:
                self._capture(level, msg, args, context)
            except Exception:  # such as a caller at the very end of its stack: a step of a loop is no call
                for _ in self._high.failed:
                    break

    return method


def metric_method(kind: int, name: str, default: float | object) -> Callable[..., None]:
    """Return the method for one kind of measurement."""
    head = HEADS.index(kind)

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
