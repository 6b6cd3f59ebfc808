"""What the caller's thread reads of OpenTelemetry: the current context, for trace ids and the scoped attributes.

The scope rides inside OTel's own context, so one read of one ContextVar serves both, and the scope goes wherever
the span goes: into tasks, `to_thread` and `call_soon`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ContextDecorator, suppress
from contextvars import ContextVar, Token
from operator import methodcaller
from typing import Any, NamedTuple, cast

import msgspec
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.trace import SpanContext

__all__ = [
    "Scope",
    "Trace",
    "UsedScope",
    "current_context",
    "current_scope",
    "scope_of",
    "trace_of",
]

_SCOPE_KEY = otel_context.create_key("hft-otel-scope")
_PACKED_KEY = otel_context.create_key("hft-otel-packed-scope")
_ENTRY_KEY = otel_context.create_key("hft-otel-scope-entry")

_NOTHING: Mapping[str, Any] = {}

Trace = tuple[bytes, int, int]


class Scope(NamedTuple):
    """The scoped context of a task: its values, and the same packed for copying into records."""

    values: Mapping[str, Any]
    packed: msgspec.Raw


def _reader() -> Callable[[], Context]:
    """The API's get_current costs 0.2 us, its ContextVar 0.02; the variable's name is not public, hence the fallback."""
    runtime = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    return variable.get if isinstance(variable, ContextVar) else otel_context.get_current


def _span_reader() -> Callable[[Context], Any]:
    """The API's get_current_span is three Python calls, a look into the dict none; its key is not public either."""
    key = getattr(trace.propagation, "_SPAN_KEY", None)
    probe = trace.set_span_in_context(trace.INVALID_SPAN, Context())
    if isinstance(key, str) and probe.get(key) is trace.INVALID_SPAN:
        return methodcaller("get", key)
    return trace.get_current_span


def _resetter() -> Callable[[Token[Context]], None]:
    """The API's detach prints a traceback where the token is of another task; what is below it raises, which we can see."""
    return getattr(getattr(otel_context, "_RUNTIME_CONTEXT", None), "detach", otel_context.detach)


current_context = _reader()

_reset = _resetter()

_span_of = _span_reader()

scope_of: Callable[[Context], msgspec.Raw | None] = methodcaller("get", _PACKED_KEY)
"""Return the packed scope of a context, if it has one; not a function, because a Python call more would be felt."""


def trace_of(context: Context) -> Trace | None:
    """Return trace id (16 bytes), span id and flags of the context's span; None without a valid one."""
    span = _span_of(context)
    if span is None:
        return None
    try:
        found = getattr(
            span, "_context", None
        )  # where the spans of API and SDK have it; asking is two calls more
        if type(found) is not SpanContext:
            found = span.get_span_context()
        trace_id, span_id, _, flags, _, valid = found  # a tuple; its properties are a call each
        return (trace_id.to_bytes(16, "big"), span_id, int(flags)) if valid else None
    except Exception:  # a span of somebody else's making must not cost the record  # noqa: BLE001
        return None


def current_scope() -> Mapping[str, Any]:
    """Return the values of the scope that is current."""
    return cast("Mapping[str, Any]", current_context().get(_SCOPE_KEY, {}))


class UsedScope(ContextDecorator):
    """Makes a scope current inside `with` and `async with`: again and again, nested, and in many tasks at once.

    Entered inside another scope than it was made in, it adds to that one only what it added to the first. Left in
    another task or thread than it was entered in, as when somebody else closes an async generator, it changes nothing there.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._base = cast("Mapping[str, Any]", current_context().get(_SCOPE_KEY, _NOTHING))
        self._entries: dict[object, Token[Context]] = {}
        """By the mark that each entry leaves in the context, so that an exit finds the entry of its own task."""

    def __enter__(self) -> None:
        """Make the scope current, and show its values on the span that is current, if it is being recorded."""
        now = current_context()
        values, packed = self._scope
        outer = cast("Mapping[str, Any]", now.get(_SCOPE_KEY, _NOTHING))
        if outer is not self._base:
            base = self._base
            own = {key: value for key, value in values.items() if key not in base or base[key] != value}
            values = {**outer, **own}
            packed = msgspec.Raw(msgspec.msgpack.encode(values))
        with suppress(Exception):  # a span of somebody else's making
            span = trace.get_current_span(now)
            if span.is_recording():
                span.set_attributes({key: _attribute(value) for key, value in values.items()})
        entry = object()
        inside = Context({**now, _SCOPE_KEY: values, _PACKED_KEY: packed, _ENTRY_KEY: entry})
        self._entries[entry] = otel_context.attach(inside)

    def __exit__(self, *_: object) -> None:
        """Make current what was before the entry."""
        entry = current_context().get(_ENTRY_KEY)
        token = self._entries.pop(entry, None)
        if token is not None:
            _was_reset(token)
            return
        # Something else was entered last, and is still, or this is another task: then none of the tokens fits.
        for other, token in reversed(list(self._entries.items())):
            if _was_reset(token):
                self._entries.pop(other, None)
                return

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def _was_reset(token: Token[Context]) -> bool:
    try:
        _reset(token)
    except Exception:  # noqa: BLE001 (of another task's context, or used)
        return False
    return True


def _attribute(value: Any) -> str | bool | int | float:
    return value if isinstance(value, (str, bool, int, float)) else str(value)
