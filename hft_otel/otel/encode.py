"""LogRecord -> the bytes of an OTLP logs request, without the objects in between.

It means what the SDK's objects and the stock encoder make of the same records (a test holds the two together), at a
fraction of their cost (`make bench`); that matters, because every record on its way to a Collector passes here. Field
numbers: opentelemetry/proto/logs/v1/logs.proto and common/v1/common.proto; wire format: protobuf's own documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from time import time_ns
from typing import TYPE_CHECKING, Any

from ..record import LogRecord, LogType
from .convert import (
    clean,
    clean_attributes,
    clean_text,
    own_attributes,
    scope_attributes,
    severity,
    timestamp,
    trace_of,
)

if TYPE_CHECKING:
    from .sdk import Resource

__all__ = ["LogsEncoder"]

_MAX_CACHED = 4096
_TRUE, _FALSE = b"\x12\x02\x10\x01", b"\x12\x02\x10\x00"
_pack_double = struct.Struct("<BBBd").pack
_pack_times = struct.Struct("<BQBQ").pack
_pack_flags = struct.Struct("<BI").pack
_INT_MASK = (1 << 64) - 1
_SHORT = [bytes((number,)) for number in range(128)]
_ATTRIBUTE = [b"\x32" + length for length in _SHORT]
_TEXT = [b"\x12" + _SHORT[size + 2] + b"\x0a" + _SHORT[size] for size in range(126)]
"""What stands before an attribute, and before a text in it, by length."""


def varint(number: int) -> bytes:
    """Return a number from 0 to 2**64 - 1 as protobuf's varint."""
    if number < 128:
        return _SHORT[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(tag: bytes, data: bytes) -> bytes:
    """Return a field that has a length: text, bytes or a message."""
    return tag + varint(len(data)) + data


def any_value(value: Any) -> bytes:  # noqa: PLR0911  (one return per kind)
    """Return a clean value (see convert.clean) as the bytes of an AnyValue."""
    kind = type(value)
    if kind is str:
        return field(b"\x0a", value.encode())
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int:
        return b"\x18" + varint(value & _INT_MASK)
    if kind is float:
        return b"\x21" + struct.pack("<d", value)
    if kind is bytes:
        return field(b"\x3a", value)
    if kind is dict:
        return field(b"\x32", key_values(b"\x0a", value.items()))
    if value is None:
        return b""
    return field(b"\x2a", b"".join([field(b"\x0a", any_value(item)) for item in value]))


def key_values(tag: bytes, items: Iterable[tuple[str, Any]]) -> bytes:
    """Return clean attributes as repeated KeyValue fields of this tag."""
    return b"".join(
        [field(tag, field(b"\x0a", key.encode()) + field(b"\x12", any_value(value))) for key, value in items]
    )


class LogsEncoder:
    """Encodes TEXT and AUDIT records of one resource; keeps what repeats: keys, levels, scopes."""

    def __init__(self, resource: Resource) -> None:
        attributes = {key: _sequence(value) for key, value in resource.attributes.items()}
        self._resource = field(b"\x0a", key_values(b"\x0a", attributes.items()))
        self._schema_url = field(b"\x1a", resource.schema_url.encode()) if resource.schema_url else b""
        self._scopes: dict[tuple[str, tuple[str, ...]], bytes] = {}
        self._keys: dict[str, bytes] = {}
        self._levels: dict[int, bytes] = {}

    def logs(self, records: Sequence[LogRecord]) -> bytes:
        """Return an ExportLogsServiceRequest with the records, each scope's in their order."""
        observed = time_ns()
        scopes: dict[tuple[str, tuple[str, ...]], list[bytes]] = {}
        for record in records:
            key = (record.logger_name, record.via_collector)
            logs = scopes.get(key)
            if logs is None:
                logs = scopes[key] = [self._scope(*key)]
            encoded = self._record(record, observed)
            logs += (b"\x12", varint(len(encoded)), encoded)
        inside = [self._resource]
        inside += [field(b"\x12", b"".join(logs)) for logs in scopes.values()]
        inside.append(self._schema_url)
        return field(b"\x0a", b"".join(inside))

    def _scope(self, logger_name: str, backends: tuple[str, ...]) -> bytes:
        key = (logger_name, backends)
        scope = self._scopes.get(key)
        if scope is None:
            if len(self._scopes) >= _MAX_CACHED:
                self._scopes.clear()
            name, attributes = clean_text(logger_name), scope_attributes(backends) or {}
            inside = (field(b"\x0a", name.encode()) if name else b"") + key_values(
                b"\x1a", attributes.items()
            )
            scope = self._scopes[key] = field(b"\x0a", inside)
        return scope

    def _record(self, record: LogRecord, observed: int) -> bytes:
        parts = [
            _pack_times(0x09, timestamp(record), 0x59, observed),
            self._levels.get(record.level) or self._level(record),
            field(b"\x2a", field(b"\x0a", clean_text(record.message).encode())),
        ]
        own = own_attributes(record)
        self._attributes({**record.context, **own} if own else record.context, parts)
        if record.trace is not None and (trace := trace_of(record)) is not None:
            parts.append(
                _pack_flags(0x45, trace[2]) + b"\x4a\x10" + trace[0].to_bytes(16, "big")
                + b"\x52\x08" + trace[1].to_bytes(8, "big")
            )  # fmt: skip
        if record.log_type is LogType.AUDIT:
            parts.append(field(b"\x62", clean_text(record.event_name).encode()))
        return b"".join(parts)

    def _level(self, record: LogRecord) -> bytes:
        name = clean_text(record.level.name).encode()
        if len(self._levels) >= _MAX_CACHED:
            self._levels.clear()
        number = b"\x10" + varint(severity(record.level).value)
        level = self._levels[record.level] = number + field(b"\x1a", name)
        return level

    def _attributes(self, values: Mapping[Any, Any], parts: list[bytes]) -> None:
        """Append a KeyValue field per attribute; None is left out."""
        keys, start = self._keys, len(parts)
        for key, value in values.items():
            prefix = keys.get(key) or self._key(key)
            if (
                prefix is None
            ):  # a key that OTLP cannot carry as it is, and that may come to equal another one
                del parts[start:]
                return self._attributes(clean_attributes(values), parts)
            kind = type(value)
            if kind is str and value.isascii():
                data = value.encode()
                size = len(data)
                length = len(prefix) + size + 4
                if length < 128:  # those of all three layers fit one byte each
                    parts += (_ATTRIBUTE[length], prefix, _TEXT[size], data)
                    continue
                packed = field(b"\x12", field(b"\x0a", data))
            elif kind is float:
                packed = _pack_double(0x12, 9, 0x21, value)
            elif kind is bool:
                packed = _TRUE if value else _FALSE
            elif value is None:
                continue
            else:
                packed = field(b"\x12", any_value(clean(value)))
            length = len(prefix) + len(packed)
            parts += (_ATTRIBUTE[length] if length < 128 else b"\x32" + varint(length), prefix, packed)
        return None

    def _key(self, key: Any) -> bytes | None:
        """Return the bytes of a key, and keep them; None for one that is not clean."""
        if type(key) is not str or not key or clean_text(key) != key:
            return None
        if len(self._keys) >= _MAX_CACHED:
            self._keys.clear()
        prefix = self._keys[key] = field(b"\x0a", key.encode())
        return prefix


def _sequence(value: Any) -> Any:
    """Return a resource's attribute as `any_value` takes it."""
    return clean(list(value)) if isinstance(value, (tuple, list)) else clean(value)
