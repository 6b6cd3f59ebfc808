"""What stands in a frame: the shapes that the caller packs and the worker unpacks; one place for both.

A record is a MessagePack array, wrapped in a `bin`, which makes it a frame (see segment.py). Bound context and names
are packed once per logger, as the `Head`, and copied into each record, so that every frame explains itself.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec

from .exceptions import PackedException

__all__ = ["AuditBody", "Head", "MetricBody", "TextBody", "decoders", "encode", "seal_audit", "unseal_audit"]

encode = msgspec.msgpack.Encoder().encode
"""Pack a value; raises for what MessagePack lacks, which sends the caller to the guarded way (capture.py)."""

GAUGE, COUNTER, LATENCY = 0, 1, 2
"""The kinds of a MetricBody."""


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What all records of one logger share: its pipeline (config), its name, its bound context."""

    pipeline: int
    name: str
    context: dict[str, Any]


class TextBody(msgspec.Struct, array_like=True):
    """A text record: nanoseconds since the epoch, level, head, message or format, call context, and what is rare."""

    time_ns: int
    level: int
    head: msgspec.Raw
    message: str
    context: dict[str, Any]
    trace: tuple[bytes, int, int] | None = None
    scope: dict[str, Any] | None = None
    args: tuple[Any, ...] | None = None
    exception: PackedException | None = None
    stack: str | None = None


class MetricBody(msgspec.Struct, array_like=True):
    """A measurement: time, kind, head, name or operation, value, tags, and the scoped context."""

    time_ns: int
    kind: int
    head: msgspec.Raw
    name: str
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


def seal_audit(body: bytes) -> bytes:
    """Return the frame of an audit body: the body, its CRC-32, and the frame's tag and length around both."""
    return encode(body + crc32(body).to_bytes(4, "little"))


def unseal_audit(sealed: bytes) -> bytes | None:
    """Return the audit body if its CRC-32 holds, else None."""
    body = sealed[:-4]
    return body if crc32(body) == int.from_bytes(sealed[-4:], "little") else None
