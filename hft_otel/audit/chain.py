"""The hash chain over a stream's events, and the two files that say how far it had come: entries and anchors.

    head(-1) = SHA-256("hft-otel audit chain 1" || 0 || name of the stream)
    head(n)  = SHA-256(head(n-1) || n as 8 bytes, little-endian || frame body n, its CRC-32 included)

So the head at an event stands for all events up to it: none can be changed, left out, added or moved without another
head. Both files are lines of JSON without spaces. The `check` of a line finds accidents in it; whoever can write the
file can write a fitting one, which is why anchors also leave the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from ..lanes.streams import TRAIL

__all__ = [
    "ANCHORS",
    "ENTRIES",
    "Anchor",
    "BadLine",
    "Entry",
    "Head",
    "TornLine",
    "kept_name",
    "last_line",
    "read_lines",
    "to_line",
    "trail_folder",
]

ENTRIES = "chain.jsonl"
ANCHORS = "anchors.jsonl"
_CHECK = 16
_TAIL = 4096
"""Bytes at the end of a file that hold its last line."""


class BadLine(ValueError):
    """A line that is none of ours, or was changed."""


class TornLine(BadLine):
    """The end of a file without a line break: what a killed process was writing."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    check: str = ""

    def checked(self) -> Self:
        """Return the line with the check that fits it."""
        blank = msgspec.structs.replace(self, check="")
        return msgspec.structs.replace(self, check=sha256(_encode(blank)).hexdigest()[:_CHECK])


class Entry(_Line, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A segment that is completely read: the numbers of its events, its used bytes, and the head behind its last event."""

    number: int
    first_seq: int
    count: int
    size: int
    head: str

    @property
    def end_seq(self) -> int:
        """The number of the first event after it."""
        return self.first_seq + self.count


class Anchor(_Line, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The head behind event `seq` of a stream, as it was at `time_ns`; `kept_from` is the first event that was kept then."""

    stream: str
    seq: int
    head: str
    kept_from: int
    time_ns: int


class Head:
    """The running head of a stream."""

    __slots__ = ("_value",)

    def __init__(self, stream: str, known: str = "") -> None:
        self._value = bytes.fromhex(known) if known else _genesis(stream)

    def add(self, seq: int, body: bytes) -> None:
        """Take in the event of that number."""
        self._value = sha256(self._value + seq.to_bytes(8, "little") + body).digest()

    @property
    def text(self) -> str:
        """The head in hexadecimal digits."""
        return self._value.hex()


def _genesis(stream: str) -> bytes:
    return sha256(b"hft-otel audit chain 1\0" + stream.encode("utf-8", "surrogateescape")).digest()


_encode = msgspec.json.Encoder().encode
_L = TypeVar("_L", bound=_Line)


def to_line(line: _Line) -> bytes:
    """Return the line as it stands in its file, with its check."""
    return _encode(line.checked()) + b"\n"


def read_lines(path: Path, kind: type[_L]) -> Iterator[_L | BadLine]:
    """Yield the lines of a file, a BadLine for what is none; nothing where there is no file. Raises OSError."""
    if not path.exists():
        return
    decode = msgspec.json.Decoder(kind).decode
    *whole, torn = path.read_bytes().split(b"\n")
    for number, data in enumerate(whole, 1):
        try:
            line = decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield BadLine(f"{path.name}:{number}: {error}")
            continue
        if to_line(line) != data + b"\n":
            yield BadLine(f"{path.name}:{number}: its check does not fit")
        else:
            yield line
    if torn:
        yield TornLine(f"{path.name}:{len(whole) + 1}: it ends in the middle of a line")


def last_line(path: Path, kind: type[_L]) -> _L | None:
    """Return the last whole line of a file if it is one of ours; None also where there is no file. Raises OSError."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL, 0))
        *whole, _ = file.read().split(b"\n")
    try:
        line = msgspec.json.decode(whole[-1], type=kind) if whole else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return line if line is not None and to_line(line) == whole[-1] + b"\n" else None


def trail_folder(folder: Path, stream: str) -> Path:
    """Return where the journal of that folder keeps what is settled of a stream."""
    return folder / f"{stream}{TRAIL}"


def kept_name(first_seq: int) -> str:
    """Return the name of a kept segment: the number of its first event."""
    return f"{first_seq:012d}.seg"
