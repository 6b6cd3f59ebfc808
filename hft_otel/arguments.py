"""What the arguments of a call mean: levels, reserved words, formats, and the context that a logger keeps."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any

import msgspec

from .lanes.capture import cut, message_text
from .lanes.exceptions import PackedException, capture_exception
from .otel.current import Trace, current_context, scope_of, trace_of

__all__ = [
    "ATOMS",
    "CALLER_WORDS",
    "EXTRA_PREFIX",
    "FORBIDDEN",
    "KEYWORD_PREFIX",
    "MISSING",
    "BoundContext",
    "Site",
    "caller_side",
    "calling_frame",
    "exc_info_of",
    "formatted",
    "level_and_message",
    "level_named",
    "merged_extra",
    "site_of",
    "stacklevel_of",
    "trace_and_scope",
]

Site = tuple[str, int, str]
"""Where a call was made: file, line, function."""

MISSING = object()
CALLER_WORDS = frozenset({"exc_info", "stack_info"})
"""Reserved words that only the caller's thread can answer."""
ATOMS = frozenset({str, int, float, bool, type(None), bytes})
"""Types whose values print the same before and after they were packed."""
FORBIDDEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Keys of `extra` that Python's logging refuses, since they name what a record has of its own."""
EXTRA_PREFIX = "extra."
"""What comes before such a key, which is kept."""
KEYWORD_PREFIX = "context."
"""What comes before such a key where a keyword of a call becomes an attribute of a `logging.LogRecord`."""
_OURS = frozenset(
    {__name__, logging.__name__, *(f"{__package__}.{name}" for name in ("calls", "logger", "standard"))}
)
"""Modules that are not where a call was made: LoggerAdapter's is among them."""


class BoundContext(dict[str, Any]):
    """The persistent context; every change repacks the head that the logger's records share."""

    def __init__(self, changed: Callable[[], None], values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._changed = changed
        self.version = 0
        """Grows with every change: who has packed an older state, and was overtaken meanwhile, packs again."""

    def _then_repack(name: str) -> Callable[..., Any]:  # type: ignore[misc]  # noqa: N805  (runs in the class body)
        plain_method = getattr(dict, name)

        def method(self: BoundContext, *args: Any, **kwargs: Any) -> Any:
            result = plain_method(self, *args, **kwargs)
            self.version += 1
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


def level_named(name: str, default: Any) -> Any:
    """Return the number of a level's name, as it was given or in capitals; else the default."""
    names = logging.getLevelNamesMapping()
    return names.get(name, names.get(name.upper(), default))


def level_and_message(level: Any, msg: Any, context: dict[str, Any]) -> tuple[int, Any, dict[str, Any]]:
    """Return the level as a number, wherever and however it was given."""
    if level is MISSING:
        level = context.pop("level", logging.INFO)
    if isinstance(level, str):
        level = level_named(level, level)
    if isinstance(level, int):
        return min(max(int(level), 0), 1000), msg, context
    return logging.INFO, msg, {**context, "hft.bad_level": level}


def caller_side(context: dict[str, Any]) -> tuple[dict[str, Any], PackedException | None, str | None]:
    """Take out the reserved words that only the caller's thread can answer, and answer them."""
    exc_info, stack_info = context.get("exc_info"), context.get("stack_info")
    if exc_info is None and stack_info is None:
        return context, None, None
    context = {key: value for key, value in context.items() if key not in CALLER_WORDS}
    info = exc_info_of(exc_info)
    exception = capture_exception(info[1], info[2]) if info else None
    stack = None
    if stack_info:
        lines = traceback.format_stack(calling_frame(stacklevel_of(context)))
        stack = cut("Stack (most recent call last):\n" + "".join(lines).removesuffix("\n"), 16_384)
    return context, exception, stack


def exc_info_of(given: Any) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    """Return what `exc_info` asks for, in whichever of its forms: true, an exception, or a tuple; else None."""
    error, trace = given, None
    if isinstance(given, tuple):
        error, trace = given[1] if len(given) > 1 else None, given[2] if len(given) > 2 else None
    elif not isinstance(given, BaseException):
        error = sys.exc_info()[1] if given else None
    if not isinstance(error, BaseException):
        return None
    return type(error), error, trace if isinstance(trace, TracebackType) else error.__traceback__


def stacklevel_of(context: Mapping[str, Any]) -> int:
    """Return the `stacklevel` of a call: 1 is its caller, 2 the caller's caller."""
    level = context.get("stacklevel", 1)
    return level if isinstance(level, int) else 1


def calling_frame(stacklevel: int = 1) -> FrameType:
    """Return the frame in which a logger was called; the outermost where there are not as many."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__") not in _OURS:
            stacklevel -= 1
            if stacklevel <= 0:
                break
        frame = frame.f_back
    return frame


def site_of(context: Mapping[str, Any]) -> Site:
    """Return where the call was made."""
    frame = calling_frame(stacklevel_of(context))
    return cut(frame.f_code.co_filename, 1024), frame.f_lineno, cut(frame.f_code.co_qualname, 512)


def merged_extra(context: dict[str, Any]) -> dict[str, Any]:
    """Return the context with what is in `extra`; keywords come first, and keys that logging refuses are prefixed."""
    extra = context.get("extra")
    if extra is None:
        return {key: value for key, value in context.items() if key != "extra"}
    if not isinstance(extra, Mapping):
        return context
    merged = {f"{EXTRA_PREFIX}{key}" if key in FORBIDDEN else key: value for key, value in extra.items()}
    merged |= context
    if merged.get("extra") is extra:
        del merged["extra"]
    return merged


def formatted(msg: Any, args: tuple[Any, ...]) -> str:
    """Return the message formatted now, since packing the arguments would change its text."""
    template = message_text(msg)
    values: Any = args
    if len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
        values = args[0]
    try:
        return str(template % values)
    except Exception as error:  # whatever a __str__ or __format__ raises
        listed = ", ".join(map(message_text, args))
        return f"{template} [{type(error).__name__} in formatting with: {listed}]"
