"""What stands in a frame: the shapes that the caller packs and the worker unpacks; one place for both.

A record is a MessagePack array, wrapped in a `bin`, which makes it a frame (see segment.py). Bound context and names
are packed once per logger, as the `Head`, and copied into each record, so that every frame explains itself.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec

from .capture import text
from .exceptions import PackedException

__all__ = [
    "UNSAID",
    "AuditBody",
    "Head",
    "MetricBody",
    "TextBody",
    "decoders",
    "encode",
    "readable",
    "seal_audit",
    "unseal_audit",
]

encode = msgspec.msgpack.Encoder().encode
"""Pack a value; raises for what MessagePack lacks, which sends the caller to the guarded way (capture.py)."""

GAUGE, COUNTER, LATENCY, AUDIT = 0, 1, 2, 3
"""What stands for the level in heads that are not of text."""


UNSAID = msgspec.msgpack.Ext(1, b"")
"""The value of a counter call that gave none: packed like any, and like none that a caller has."""


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What the records of one logger and level (or kind of measurement) share: pipeline, level, name, bound context."""

    pipeline: int
    level: int
    name: str
    context: dict[str, Any]


class TextBody(msgspec.Struct, array_like=True):
    """A text record: nanoseconds since the epoch, head, message or format, call context, and what is rare."""

    time_ns: int
    head: msgspec.Raw
    message: str
    context: dict[str, Any]
    trace: tuple[bytes, int, int] | None = None
    scope: dict[str, Any] | None = None
    args: tuple[Any, ...] | None = None
    exception: PackedException | None = None
    stack: str | None = None
    site: tuple[str, int, str] | None = None


class MetricBody(msgspec.Struct, array_like=True):
    """A measurement: time, head, name or operation, value, tags, and the scoped context."""

    time_ns: int
    head: msgspec.Raw
    name: Any
    value: Any
    tags: dict[str, Any]
    scope: dict[str, Any] | None = None


class AuditBody(msgspec.Struct, array_like=True):
    """An audit event: time, head, event, call context, caller's trace ids, scoped context."""

    time_ns: int
    head: msgspec.Raw
    event: str
    context: dict[str, Any]
    trace: tuple[bytes, int, int] | None = None
    scope: dict[str, Any] | None = None


class Decoders(msgspec.Struct):
    """One decoder per kind of body."""

    text: msgspec.msgpack.Decoder[TextBody]
    metric: msgspec.msgpack.Decoder[MetricBody]
    audit: msgspec.msgpack.Decoder[AuditBody]
    head: msgspec.msgpack.Decoder[Head]


def decoders() -> Decoders:
    """Return decoders for one reading thread."""
    return Decoders(
        msgspec.msgpack.Decoder(TextBody),
        msgspec.msgpack.Decoder(MetricBody),
        msgspec.msgpack.Decoder(AuditBody),
        msgspec.msgpack.Decoder(Head),
    )


_decode_any = msgspec.msgpack.Decoder().decode
_decode_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def readable(body: bytes) -> bytes:
    """Return a body that could not be decoded as one that can, with mapping keys as text.

    A dataclass, say, packs as a key and cannot be one when it is read back. Raises msgspec.DecodeError for what is
    no MessagePack at all.
    """
    return encode([_reread(item) for item in _decode_items(body)])


def _reread(packed: Any) -> Any:
    """Return a value as it is packed, if it can be decoded; else what is inside, with keys as text."""
    try:
        _decode_any(packed)
        return packed
    except msgspec.DecodeError:
        data = bytes(packed)
    tag = data[0]
    if tag >> 4 == 0x8 or tag in (0xDE, 0xDF):  # a mapping: read it as a list of its keys and values in turn
        start = {0xDE: 3, 0xDF: 5}.get(tag, 1)
        size = int.from_bytes(data[1:start], "big") if start > 1 else tag & 0xF
        items = _decode_items(b"\xdd" + (2 * size).to_bytes(4, "big") + data[start:])
        return {_key_text(key): _reread(value) for key, value in zip(items[::2], items[1::2], strict=True)}
    return [_reread(item) for item in _decode_items(data)]


def _key_text(packed: Any) -> str:
    key = _decode_any(encode(_reread(packed)))
    return key if isinstance(key, str) else text(key)


def seal_audit(body: bytes) -> bytes:
    """Return the frame of an audit body: the body, its CRC-32, and the frame's tag and length around both."""
    return encode(body + crc32(body).to_bytes(4, "little"))


def unseal_audit(sealed: bytes) -> bytes | None:
    """Return the audit body if its CRC-32 holds, else None."""
    body = sealed[:-4]
    return body if body and crc32(body) == int.from_bytes(sealed[-4:], "little") else None
