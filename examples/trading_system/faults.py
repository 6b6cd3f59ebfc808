"""Broken frames, of the kinds that a feed really sends on a bad day."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

__all__ = ["malformed_frame"]


def malformed_frame(dice: random.Random, sound: str | bytes) -> str | bytes:
    """Return a broken frame, some kinds of it made from a sound one."""
    return dice.choice(KINDS)(dice, sound)


def _truncated(dice: random.Random, sound: str | bytes) -> str | bytes:
    return sound[: dice.randrange(1, max(2, len(sound) - 1))]


def _noise(dice: random.Random, sound: str | bytes) -> bytes:
    return b"\xff\xfe" + dice.randbytes(dice.randrange(8, 64))


def _empty(dice: random.Random, sound: str | bytes) -> str:
    return ""


def _wrong_types(dice: random.Random, sound: str | bytes) -> str:
    wrong = dice.choice([None, 17, "soon", {"p": "?"}, [[None, "x"]]])
    return json.dumps(
        {
            "channel": "spot.trades",
            "event": "update",
            "result": wrong,
            "c": wrong,
            "symbol": "BTC_USDT",
            "price": "?",
        }
    )


def _not_json(dice: random.Random, sound: str | bytes) -> str:
    return dice.choice(
        ["<html><body>502 Bad Gateway</body></html>", "pong", "{'single': 'quotes'}", "[" * 2_000]
    )


def _scalar(dice: random.Random, sound: str | bytes) -> str:
    return dice.choice(["null", "true", "0", '"hello"', "[]", "NaN"])


KINDS: tuple[Callable[[random.Random, str | bytes], str | bytes], ...] = (
    _truncated,
    _noise,
    _empty,
    _wrong_types,
    _not_json,
    _scalar,
)
