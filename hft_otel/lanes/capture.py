"""The guarded way to pack: any value becomes one that a frame can hold; nothing here raises.

The fast way packs a record as it is and fails on what MessagePack lacks. Then this module makes a plain copy: types
that OpenTelemetry has stay, those with a defined form take it, the rest becomes its `repr`; all of it bounded in
depth and number, and marked where something was cut.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from itertools import islice
from typing import Any

import msgspec

__all__ = ["class_name", "cut", "format_message", "message_text", "plain", "plain_context", "text"]

MAX_DEPTH = 8
MAX_ITEMS = 1000
MAX_VALUES = 4096
"""Values copied of one context: a structure that holds itself many times over must not keep the caller busy."""
MAX_REPR = 2048
MAX_KEY = 256
MAX_WIDTH = 99_999
"""The widest field that a `%`-format may ask for; some would fill the memory."""

_CUT = "...[cut]"
_PACKED_AS_TEXT = (
    decimal.Decimal,
    uuid.UUID,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
)
_INT64 = range(-(2**63), 2**63)
_WIDTH = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\d{6}|\*|\d*\.(?:\d{6}|\*))")
class_name: Callable[[type], str] = type.__dict__["__name__"].__get__
"""A class's name, also where its metaclass has other ideas."""


def text(value: object, limit: int = MAX_REPR) -> str:
    """Return the value's `repr`, cut; for one whose `repr` fails, say so."""
    try:
        return cut(repr(value), limit)
    except Exception as error:
        return f"<{class_name(type(value))} whose repr raised {class_name(type(error))}>"


def message_text(value: object) -> str:
    """Return `str(value)`; for one whose `str` fails, say so."""
    try:
        return _exact(str(value))
    except Exception as error:
        return f"<{class_name(type(value))} whose str raised {class_name(type(error))}>"


def format_message(template: str, args: tuple[Any, ...]) -> tuple[str, str]:
    """Return `template % args` and nothing; where that fails, both side by side and what was wrong."""
    try:
        width = _WIDTH.search(template)
        if width and (
            "*" not in width[0] or any(isinstance(arg, int) and abs(arg) > MAX_WIDTH for arg in args)
        ):
            raise ValueError("field too wide")
        by_name = len(args) == 1 and isinstance(args[0], Mapping) and args[0]
        return _exact(template % (args[0] if by_name else args)), ""
    except Exception as error:
        problem = f"{class_name(type(error))}: {message_text(error)}"
        return f"{template} {' '.join(map(message_text, args))}", problem


def cut(value: str, limit: int) -> str:
    """Return the string as one that UTF-8 can hold, marked where it had to be cut to `limit` characters."""
    value = _exact(value)
    dropped = len(value) - limit
    if dropped > 0:
        value = f"{value[:limit]}...[{dropped} characters cut]"
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates
        value = value.encode(errors="backslashreplace").decode()
    return value


def plain(value: Any, limit: int) -> Any:
    """Return a copy of the value that always packs; strings are cut to `limit` characters, the rest accordingly."""
    return _plain(value, limit, MAX_DEPTH, [_values(limit)])


def plain_context(context: Mapping[Any, Any], limit: int) -> dict[str, Any]:
    """Return a context with string keys and values that always pack; a large value leaves the others their space."""
    share = max(_values(limit) // max(len(context), 1), 8)
    most = min(MAX_ITEMS, max(limit // 2, 64))
    result = {_key(key): _plain(value, limit, MAX_DEPTH, [share]) for key, value in _first(context, most)}
    if len(context) > most:
        result[_CUT] = f"{len(context) - most} keys"
    return result


def _values(limit: int) -> int:
    return min(MAX_VALUES, max(limit // 4, 32))


def _first(mapping: Mapping[Any, Any], most: int) -> list[tuple[Any, Any]]:
    """Return the first items; of a copy, since another thread may change a dict, and copying is one step under the GIL."""
    return list(islice((dict.copy(mapping) if isinstance(mapping, dict) else mapping).items(), most))


def _key(key: Any) -> str:
    name = key if isinstance(key, str) and not isinstance(key, Enum) else _plain(key, MAX_KEY, 1, [16])
    return cut(name if isinstance(name, str) else text(name), MAX_KEY)


def _plain(value: Any, limit: int, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    kind = type(value)
    if kind is str:
        return cut(value, limit)
    if kind is float or kind is bool or value is None:
        return value
    if kind is int:
        return value if value in _INT64 else cut(_big_int(value), limit)
    if kind is bytes:
        return _cut_bytes(value, limit)
    try:
        return _structured(value, limit, depth, left)
    except Exception:
        return text(value)


def _structured(value: Any, limit: int, depth: int, left: list[int]) -> Any:  # noqa: PLR0911  (one return per form)
    if isinstance(value, _PACKED_AS_TEXT):
        return cut(_standard_text(value), limit)
    for kind, exact in _EXACT:
        if isinstance(value, kind) and not isinstance(value, Enum):
            return _plain(exact(value), limit, depth, left)
    if depth <= 0 or left[0] <= 0:
        return f"{_CUT} {class_name(type(value))}"
    if isinstance(value, Enum):
        return _plain(value.value, limit, depth - 1, left)
    if isinstance(value, Mapping):
        return _plain_mapping(value, limit, depth - 1, left)
    if isinstance(value, (list, tuple, Set)):
        return _plain_items(value, limit, depth - 1, left)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain_mapping(fields, limit, depth - 1, left)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _plain(value.item(), limit, depth - 1, left)
    return text(value)


def _plain_mapping(mapping: Mapping[Any, Any], limit: int, depth: int, left: list[int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for number, (key, value) in enumerate(_first(mapping, MAX_ITEMS + 1)):
        if number == MAX_ITEMS or left[0] <= 0:
            result[_CUT] = f"{len(mapping) - number} keys"
            break
        result[_key(key)] = _plain(value, limit, depth, left)
    return result


def _plain_items(values: Iterable[Any], limit: int, depth: int, left: list[int]) -> list[Any]:
    result: list[Any] = []
    for number, value in enumerate(list(islice(values, MAX_ITEMS + 1))):
        if number == MAX_ITEMS or left[0] <= 0:
            result.append(_CUT)
            break
        result.append(_plain(value, limit, depth, left))
    return result


def _standard_text(value: Any) -> str:
    """Return the form that the fast way packs these types in; a subclass may not be known there."""
    try:
        return str(msgspec.to_builtins(value))
    except Exception:
        return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else str(value)


def _cut_bytes(value: bytes, limit: int) -> bytes:
    dropped = len(value) - limit
    return value[:limit] + b"...[%d bytes cut]" % dropped if dropped > 0 else value


def _big_int(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python agrees to print
        return f"{value >> (value.bit_length() - 64):#x}...[{value.bit_length()} bits]"


def _exact(value: str) -> str:
    """Return a str and nothing derived from it, which may measure, slice and print itself as anything."""
    return value if type(value) is str else str.__str__(value)


_EXACT: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    ((bytearray, memoryview), bytes),
)
"""Types whose subclasses may print as anything; what counts is what the base class says."""
