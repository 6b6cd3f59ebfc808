"""Events that a destination refused for good: kept aside with the reason, so that somebody can look and send them again.

One line of JSON each in `<folder>/<stream>.trail/parked.jsonl`, with the body as it stood in its segment. It is written
before the event counts as settled: a kill in between parks it twice, and never loses it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ..record import LogRecord
from ..redaction import Redactor
from ..unpack import Unpacker
from .chain import trail_folder
from .files import append, mend
from .reading import find_streams

__all__ = ["PARKED", "Parked", "Parking", "read_parked"]

PARKED = "parked.jsonl"
LIMIT = 16 << 20
"""Bytes of such a file; what is refused beyond it is counted only."""
_RETRY_AFTER = 1.0


class Parked(msgspec.Struct, frozen=True):
    """An event, and who refused it, when (nanoseconds since the epoch) and why."""

    audit_id: str
    destination: str
    reason: str
    detail: str
    time_ns: int
    body: bytes
    """As in its segment, with its CRC-32."""


class Parking:
    """Where the refused events of one stream go; used by one reading thread."""

    def __init__(self, folder: Path, stream: str) -> None:
        self.problem = ""
        """Why nothing more can be parked at the moment; empty while it can."""
        self._path = trail_folder(folder, stream) / PARKED
        self._is_whole = False
        self._retry_at = 0.0

    def park(self, events: Sequence[Parked]) -> bool:
        """Write the events, all or none; say whether that is done, or no more of them are to be kept."""
        if time.monotonic() < self._retry_at:
            return False
        lines = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_whole:  # a killed process may have left half a line
                mend(self._path)
                self._is_whole = True
            if self._path.exists() and self._path.stat().st_size + len(lines) > LIMIT:
                self.problem = f"{self._path} is full: what is refused from now on is counted and not parked"
                return True
            append(self._path, lines)
        except OSError as error:
            self.problem = f"refused audit events cannot be parked in {self._path}: {error}; they wait"
            self._retry_at = time.monotonic() + _RETRY_AFTER
            return False
        self.problem = ""
        return True


def read_parked(folder: Path) -> Iterator[tuple[Parked, LogRecord]]:
    """Yield what is parked in a journal's folder, or in the trail that it is, each once per destination; raises OSError."""
    decode = msgspec.json.Decoder(Parked).decode
    unpacker = Unpacker(lambda number: Redactor(()))
    for stream in find_streams(folder):
        path = stream.trail and stream.trail / PARKED
        seen: set[tuple[str, str]] = set()
        for line in path.read_bytes().splitlines() if path and path.exists() else ():
            try:
                parked = decode(line)
                _, record = unpacker.audit(parked.body, parked.audit_id)
            except Exception:  # noqa: BLE001  (half a line, or changed by somebody)
                continue
            if (parked.audit_id, parked.destination) not in seen:
                seen.add((parked.audit_id, parked.destination))
                yield parked, record
