"""What the arguments of a call mean: levels, reserved words, formats, and the context that a logger keeps."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .lanes.capture import cut, message_text
from .lanes.exceptions import PackedException, capture_exception
from .otel.current import Trace, current_context, scope_of, trace_of

__all__ = [
    "CALLER_WORDS",
    "MISSING",
    "BoundContext",
    "caller_side",
    "formatted",
    "level_and_message",
    "trace_and_scope",
]

MISSING = object()
CALLER_WORDS = frozenset({"exc_info", "stack_info"})
"""Reserved words that only the caller's thread can answer."""
_OURS = (__name__, f"{__package__}.logger")


class BoundContext(dict[str, Any]):
    """The persistent context; every change repacks the head that the logger's records share."""

    def __init__(self, changed: Callable[[], None], values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._changed = changed

    def _then_repack(name: str) -> Callable[..., Any]:  # type: ignore[misc]  # noqa: N805  (runs in the class body)
        plain_method = getattr(dict, name)

        def method(self: BoundContext, *args: Any, **kwargs: Any) -> Any:
            result = plain_method(self, *args, **kwargs)
            self._changed()
            return result

        return method

    __setitem__ = _then_repack("__setitem__")
    __delitem__ = _then_repack("__delitem__")
    __ior__ = _then_repack("__ior__")
    clear = _then_repack("clear")
    pop = _then_repack("pop")
    popitem = _then_repack("popitem")
    setdefault = _then_repack("setdefault")
    update = _then_repack("update")


def trace_and_scope() -> tuple[Trace | None, msgspec.Raw | None]:
    """Return the caller's trace ids and packed scope, None where there are none."""
    current = current_context()
    return (trace_of(current), scope_of(current)) if current else (None, None)


def level_and_message(level: Any, msg: Any, context: dict[str, Any]) -> tuple[int, Any, dict[str, Any]]:
    """Return the level as a number, wherever and however it was given."""
    if level is MISSING:
        level = context.pop("level", logging.INFO)
    if isinstance(level, str):
        level = logging.getLevelNamesMapping().get(level.upper(), level)
    if isinstance(level, int):
        return min(max(int(level), 0), 1000), msg, context
    return logging.INFO, msg, {**context, "hft.bad_level": level}


def caller_side(context: dict[str, Any]) -> tuple[dict[str, Any], PackedException | None, str | None]:
    """Take out the reserved words that only the caller's thread can answer, and answer them."""
    exc_info, stack_info = context.get("exc_info"), context.get("stack_info")
    if exc_info is None and stack_info is None:
        return context, None, None
    context = {key: value for key, value in context.items() if key not in CALLER_WORDS}
    error = exc_info
    if isinstance(exc_info, tuple):
        error = exc_info[1] if len(exc_info) > 1 else None
    elif not isinstance(exc_info, BaseException):
        error = sys.exc_info()[1] if exc_info else None
    exception = capture_exception(error) if isinstance(error, BaseException) else None
    stack = None
    if stack_info:
        frame = sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__") in _OURS:
            frame = frame.f_back
        stack = cut("Stack (most recent call last):\n" + "".join(traceback.format_stack(frame)), 16_384)
    return context, exception, stack


def formatted(msg: Any, args: tuple[Any, ...]) -> str:
    """Return the message formatted now, since packing the arguments would change its text."""
    template = message_text(msg)
    values: Any = args
    if len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
        values = args[0]
    try:
        return str(template % values)
    except Exception as error:  # noqa: BLE001  (whatever a __str__ or __format__ raises)
        listed = ", ".join(map(message_text, args))
        return f"{template} [{type(error).__name__} in formatting with: {listed}]"
