"""From the bytes of a frame to JSON values and price levels; everything broken ends as MalformedMessage."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

from .errors import MalformedMessage
from .messages import Level

__all__ = ["decode_json", "is_rest_body", "level", "levels", "positive"]

MAX_INFLATED = 16 * 1024 * 1024
RAW_DEFLATE, GZIP = -15, 31


def decode_json(frame: str | bytes) -> Any:
    """Return the JSON value of a text frame, or of a binary one: UTF-8, raw deflate (OKX) or gzip."""
    text = frame if isinstance(frame, str) else _text(frame)
    if not text or text.isspace():
        raise MalformedMessage("empty frame")
    try:
        return json.loads(text)
    except RecursionError:
        raise MalformedMessage("JSON nested too deeply") from None
    except ValueError as error:
        raise MalformedMessage(f"not JSON: {error}") from error


def level(price: Any, size: Any = 0.0) -> Level:
    """Return one price level; a size that is not given is not known."""
    return Level(positive(price), _size(size))


def levels(rows: Any) -> tuple[Level, ...]:
    """Return price levels from [price, size, ...] rows or from {p, s}, {p, v}, {price, quantity} objects."""
    if not rows:
        return ()
    if isinstance(rows[0], dict):
        return tuple([level(row.get("p", row.get("price")), _object_size(row)) for row in rows])
    return tuple([level(row[0], row[1]) for row in rows])


def is_rest_body(payload: Any) -> bool:
    """Say whether this is a list of objects, which the REST interfaces send and the websockets do not."""
    return isinstance(payload, list) and bool(payload) and isinstance(payload[0], dict)


def positive(value: Any) -> float:
    """Return a price as a finite float above zero; anything else is malformed."""
    number = float(value)
    if not 0.0 < number < math.inf:
        raise MalformedMessage(f"{value!r:.40} is not a price")
    return number


def _size(value: Any) -> float:
    number = abs(float(value))
    if not number < math.inf:
        raise MalformedMessage(f"{value!r:.40} is not a size")
    return number


def _object_size(row: dict[str, Any]) -> Any:
    for key in ("s", "v", "q", "quantity", "size"):
        if key in row:
            return row[key]
    raise MalformedMessage(f"a price level without a size: {row!r:.60}")


def _text(frame: bytes) -> str:
    try:
        return frame.decode("utf-8")
    except UnicodeDecodeError:
        return _inflate(frame)


def _inflate(frame: bytes) -> str:
    inflater = zlib.decompressobj(GZIP if frame[:2] == b"\x1f\x8b" else RAW_DEFLATE)
    try:
        data = inflater.decompress(frame, MAX_INFLATED)
        if not inflater.eof:
            raise MalformedMessage(f"binary frame of {len(frame)} bytes is cut, or too large when inflated")
        return data.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise MalformedMessage(
            f"binary frame of {len(frame)} bytes is neither UTF-8 nor compressed text"
        ) from error
