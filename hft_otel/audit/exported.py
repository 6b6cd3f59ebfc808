"""Anchors on their way out, and the note of the last one that left: beside the trail, in `exported.jsonl`.

An anchor that nobody outside has proves nothing. So one that could not be delivered before its process ended is sent
again by the next start, and the files of a stream that retention has emptied stay until its last anchor has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ..lanes.streams import TRAIL
from ..outbox import Outbox
from ..record import ANCHOR_EVENT, LogLevel, LogRecord, LogType
from .chain import ANCHORS, Anchor, last_line, to_line, trail_folder
from .files import store

__all__ = ["EXPORTED", "Outgoing", "anchor_record", "has_left", "not_exported", "note_exported"]

EXPORTED = "exported.jsonl"


class _Leaving(msgspec.Struct):
    """An anchor that not everybody has yet."""

    anchor: Anchor
    record: LogRecord
    unsent: list[Outbox]
    noted: Callable[[Anchor], None]
    offered: list[tuple[Outbox, int]] = []
    """Who was offered it, and how many audit events each had been offered by then."""


class Outgoing:
    """Hands anchors to those who keep audit events, and notes those that all of them have; one reading thread only."""

    def __init__(self) -> None:
        self._leaving: list[_Leaving] = []

    def send(
        self, anchor: Anchor, via: tuple[str, ...], boxes: Sequence[Outbox], noted: Callable[[Anchor], None]
    ) -> None:
        """Hand it to these destinations with the next `turn`; call `noted` once all of them have settled it."""
        if boxes:
            self._leaving.append(_Leaving(anchor, anchor_record(anchor, via), list(boxes), noted))

    def turn(self) -> None:
        """Offer what is not offered yet, in order, and note what has left."""
        full: set[Outbox] = set()
        for each in list(self._leaving):
            for box in list(each.unsent):
                if box in full or box.closed.is_set() or not box.offer([each.record]):
                    full.add(box)
                    continue
                box.tallies.accepted[LogType.AUDIT] += 1
                box.audits_offered += 1
                each.unsent.remove(box)
                each.offered.append((box, box.audits_offered))
            if not each.unsent and all(
                box.tallies.settled[LogType.AUDIT] >= upto for box, upto in each.offered
            ):
                self._leaving.remove(each)
                each.noted(each.anchor)


def note_exported(folder: Path, anchor: Anchor) -> None:
    """Note in the trail of its stream that the anchor has left; where that cannot be, it is sent again later."""
    with suppress(OSError):
        store(trail_folder(folder, anchor.stream) / EXPORTED, to_line(anchor))


def has_left(trail: Path) -> bool:
    """Say whether the last anchor of a trail has left. Raises OSError."""
    last = last_line(trail / ANCHORS, Anchor)
    return last is not None and last == last_line(trail / EXPORTED, Anchor)


def not_exported(folders: Sequence[Path], own: str) -> Iterator[Anchor]:
    """Yield the last anchors that have not left, of streams that nobody reads any more. Raises OSError.

    `folders` are the journal's, of which the first has the trails; `own` is the stream of this process.
    """
    for trail in sorted(folders[0].glob(f"*{TRAIL}")):
        stream = trail.name.removesuffix(TRAIL)
        if stream != own and not any((folder / stream).exists() for folder in folders):
            last = last_line(trail / ANCHORS, Anchor)
            if last is not None and last != last_line(trail / EXPORTED, Anchor):
                yield last


def anchor_record(anchor: Anchor, via_collector: tuple[str, ...]) -> LogRecord:
    """Return an anchor as what it leaves as; without an `audit.id`, which only the application's events have."""
    return LogRecord(
        anchor.time_ns / 1e9,
        LogLevel.INFO,
        LogType.AUDIT,
        "hft_otel.audit",
        ANCHOR_EVENT,
        {
            "audit.stream": anchor.stream,
            "audit.seq": anchor.seq,
            "audit.head": anchor.head,
            "audit.kept_from": anchor.kept_from,
        },
        time_ns=anchor.time_ns,
        via_collector=via_collector,
    )
