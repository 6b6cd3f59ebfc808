"""What left: anchors and the identities of events, in files of JSON lines, ours or the Collector's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..record import ANCHOR_EVENT
from .chain import Anchor

__all__ = ["NotJsonLines", "Seen", "anchors_in", "read_seen"]

_EVENT = "audit."
_BEGINNINGS = (b'{"resourceLogs":', b'{"timestamp":')
"""Of what the Collector writes, and of what we write; neither can stand inside of a JSON string."""
_VALUES = ("stringValue", "intValue", "boolValue", "doubleValue", "bytesValue")


class NotJsonLines(ValueError):
    """A file that holds no line that we understand."""


class Seen(NamedTuple):
    """A log record as it was found outside: its event name and its attributes."""

    event_name: str
    attributes: dict[str, Any]

    @property
    def audit_id(self) -> str:
        """The identity of an audit event; empty for anything else."""
        return str(self.attributes.get("audit.id", "")) if self.event_name.startswith(_EVENT) else ""


def read_seen(path: Path) -> Iterator[Seen]:
    """Yield the log records of a file: lines of our file backend, OTLP/JSON as the Collector writes it, or anchors.jsonl.

    Lines that are none of these are left out; raises NotJsonLines where there is no other, OSError, and UnicodeError.
    Where a writer was killed and the next one has gone on in its torn line, the whole entry behind it is found.
    """
    understood = others = 0
    with path.open("rb") as file:
        for line in file:
            try:
                found = list(_of_line(_decode(line)))
            except (msgspec.DecodeError, AttributeError, TypeError, KeyError, ValueError):
                others += 1
                continue
            understood += 1
            yield from found
    if others and not understood:
        raise NotJsonLines(
            f"{path} holds no JSON lines that are known here; a file backend needs format: json"
        )


def anchors_in(path: Path) -> Iterator[Anchor]:
    """Yield the anchors of a file; see read_seen."""
    for seen in read_seen(path):
        if seen.event_name == ANCHOR_EVENT:
            stream, seq, head, kept_from = (
                seen.attributes.get(f"audit.{key}") for key in ("stream", "seq", "head", "kept_from")
            )
            yield Anchor(
                stream=str(stream),
                seq=int(seq or 0),
                head=str(head),
                kept_from=int(kept_from or 0),
                time_ns=0,
            )


def _decode(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        for start in sorted(_starts(line)):
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(line[start:])
        raise


def _starts(line: bytes) -> Iterator[int]:
    for beginning in _BEGINNINGS:
        at = line.find(beginning, 1)
        while at > 0:
            yield at
            at = line.find(beginning, at + 1)


def _of_line(line: Any) -> Iterator[Seen]:
    if "resourceLogs" in line:
        for resource in line["resourceLogs"]:
            for scope in resource.get("scopeLogs", ()):
                for record in scope.get("logRecords", ()):
                    yield Seen(record.get("eventName", ""), _attributes(record))
    elif "head" in line and "stream" in line:
        yield Seen(ANCHOR_EVENT, {f"audit.{key}": value for key, value in line.items()})
    elif "severity_text" in line or "event_name" in line or "metric_name" in line:
        yield Seen(line.get("event_name") or "", line.get("attributes") or {})
    elif not {"resourceSpans", "resourceMetrics"} & set(line):
        raise ValueError("a line of something else")


def _attributes(record: Any) -> dict[str, Any]:
    return {
        item["key"]: next((item["value"][kind] for kind in _VALUES if kind in item["value"]), None)
        for item in record.get("attributes", ())
    }
