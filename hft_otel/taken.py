"""From a `logging.LogRecord`, of whatever logger, to what is packed: what its formatter would have printed, and all that it carries."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from .arguments import ATOMS, FORBIDDEN, KEYWORD_PREFIX, Site, exc_info_of, formatted, trace_and_scope
from .lanes.capture import cut, message_text
from .lanes.exceptions import PackedException, capture_exception, printed_exception
from .otel.current import Trace

__all__ = ["taken"]

_MAX_STACK = 16_384


def taken(
    record: logging.LogRecord, *, with_site: bool = True
) -> tuple[
    int,
    str,
    dict[str, Any],
    Trace | None,
    msgspec.Raw | None,
    tuple[Any, ...] | None,
    PackedException | None,
    str | None,
    Site | None,
]:
    """Return time, message, context, trace, scope, arguments, exception, stack and call-site of a record.

    The message stays unformatted where its arguments print the same after they were packed; otherwise it is
    formatted here, once, since packing would change its text.
    """
    msg, args = record.msg, record.args
    if not args:
        args = None
    elif type(msg) is not str or type(args) is not tuple or not ATOMS.issuperset(map(type, args)):
        msg = formatted(msg, args if isinstance(args, tuple) else (args,))
        args = None
    if type(msg) is not str:
        msg = message_text(msg)
    exception = None
    if record.exc_info:
        info = exc_info_of(record.exc_info)
        exception = capture_exception(info[1], info[2]) if info else None
    elif record.exc_text:  # it came from another process, which has printed it
        exception = printed_exception(str(record.exc_text))
    site = None
    if with_site and record.pathname:
        site = (
            cut(str(record.pathname), 1024),
            int(record.lineno or 0),
            cut(str(record.funcName or ""), 512),
        )
    return (
        round(record.created * 1e6) * 1000,  # a float of seconds knows no more than microseconds
        msg,
        _context_of(record),
        *trace_and_scope(),
        args,
        exception,
        cut(str(record.stack_info), _MAX_STACK) if record.stack_info else None,
        site,
    )


def _context_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is not a record's own: what came as `extra`, or was set by a filter."""
    return {
        _own_name(key) if type(key) is str else key: value
        for key, value in record.__dict__.items()
        if key not in FORBIDDEN
    }


def _own_name(key: str) -> str:
    """Undo what a keyword was called among the attributes of a record; see StandardLogger._record."""
    if key.startswith(KEYWORD_PREFIX) and (name := key[len(KEYWORD_PREFIX) :]) in FORBIDDEN:
        return name
    return key
