"""The guarded way to pack: any value becomes one that a frame can hold; nothing here raises.

The fast way packs a record as it is and fails on what MessagePack lacks. Then this module makes a plain copy: types
that OpenTelemetry has stay, those with a defined form take it, the rest becomes its `repr`, cut.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import uuid
from collections.abc import Mapping, Set
from enum import Enum
from typing import Any

__all__ = ["cut", "message_text", "plain", "plain_context", "text"]

MAX_DEPTH = 8
MAX_ITEMS = 1000
MAX_REPR = 2048
_ATOMS = frozenset({bool, float, type(None)})
_PACKED_AS_TEXT = (
    decimal.Decimal,
    uuid.UUID,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
)
_INT64 = range(-(2**63), 2**63)


def text(value: object, limit: int = MAX_REPR) -> str:
    """Return the value's `repr`, cut; for one whose `repr` fails, say so."""
    try:
        return cut(repr(value), limit)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


def message_text(value: object) -> str:
    """Return `str(value)`; for one whose `str` fails, say so."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose str raised {type(error).__name__}>"


def cut(value: str, limit: int) -> str:
    """Return the string as one that UTF-8 can hold, marked where it had to be cut to `limit` characters."""
    dropped = len(value) - limit
    if dropped > 0:
        value = f"{value[:limit]}...[{dropped} characters cut]"
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates
        value = value.encode(errors="backslashreplace").decode()
    return value


def plain(value: Any, limit: int, depth: int = 0) -> Any:
    """Return a copy of the value that always packs; strings are cut to `limit` characters."""
    kind = type(value)
    if kind is str:
        return cut(value, limit)
    if kind in _ATOMS:
        return value
    if kind is bytes:
        return value[:limit]
    if kind is int:
        return value if value in _INT64 else _big_int(value)
    try:
        return _structured(value, limit, depth)
    except Exception:  # a mapping whose items() raises, a recursion that a property makes...
        return text(value)


def _structured(value: Any, limit: int, depth: int) -> Any:
    if isinstance(value, Enum):
        return plain(value.value, limit, depth + 1) if depth < MAX_DEPTH else text(value)
    if isinstance(value, _PACKED_AS_TEXT):
        return value.isoformat() if isinstance(value, datetime.datetime) else str(value)
    if isinstance(value, str):
        return cut(str.__str__(value), limit)
    if isinstance(value, int):
        return plain(int(value), limit, depth)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)[:limit]
    if depth >= MAX_DEPTH:
        return text(value)
    if isinstance(value, Mapping):
        return plain_context(value, limit, depth + 1)
    if isinstance(value, (list, tuple, Set)):
        return [plain(item, limit, depth + 1) for _, item in zip(range(MAX_ITEMS), value, strict=False)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return plain_context(fields, limit, depth + 1)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return plain(value.item(), limit, depth + 1)
    return text(value)


def plain_context(context: Mapping[Any, Any], limit: int, depth: int = 0) -> dict[str, Any]:
    """Return a context (or nested mapping) with string keys and values that always pack."""
    result: dict[str, Any] = {}
    for _, (key, value) in zip(range(MAX_ITEMS), context.items(), strict=False):
        name = key if type(key) is str else key if isinstance(key, str) else text(key)
        result[cut(name, 256)] = plain(value, limit, depth)
    return result


def _big_int(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python agrees to print
        return f"{value >> (value.bit_length() - 64):#x}...[{value.bit_length()} bits]"
