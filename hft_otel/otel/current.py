"""What the caller's thread reads of OpenTelemetry: the current context, for trace ids and the scoped attributes.

The scope rides inside OTel's own context, so one read of one ContextVar serves both, and the scope goes wherever
the span goes: into tasks, `to_thread` and `call_soon`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from operator import methodcaller
from typing import Any, NamedTuple, cast

import msgspec
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.trace import SpanContext

__all__ = ["Scope", "Trace", "current_context", "current_scope", "scope_of", "trace_of", "use_scope"]

_SCOPE_KEY = otel_context.create_key("hft-otel-scope")
_PACKED_KEY = otel_context.create_key("hft-otel-packed-scope")

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


current_context = _reader()

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


@contextmanager
def use_scope(scope: Scope) -> Iterator[None]:
    """Make the scope current, and show its values on the span that is current, if it is being recorded."""
    with suppress(Exception):  # a span of somebody else's making
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes({key: _attribute(value) for key, value in scope.values.items()})
    with_values = otel_context.set_value(_SCOPE_KEY, scope.values)
    token = otel_context.attach(otel_context.set_value(_PACKED_KEY, scope.packed, with_values))
    try:
        yield
    finally:
        otel_context.detach(token)


def _attribute(value: Any) -> str | bool | int | float:
    return value if isinstance(value, (str, bool, int, float)) else str(value)
