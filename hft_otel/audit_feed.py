"""The way of audit events: every destination reads the journal at its own pace, and only what all have settled goes.

A destination that is down holds back nothing but its own place in the journal: memory stays flat, the other
destinations go on, and a restart begins where the slowest one was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .ledger import LaneSums
from .lanes.room import Cursor
from .lanes.segment import HEADER_SIZE, Segment
from .outbox import Outbox
from .record import LogRecord, LogType

__all__ = ["AuditReader"]

Decode = Callable[[bytes, str], tuple[LogRecord, "tuple[Outbox, ...]"]]
"""From a frame's body and the event's id to the record and the outboxes that want it; raises for what is no record."""

_SLICE = 64


class _Mark(NamedTuple):
    """When `outbox.settled(AUDIT)` reaches `offered`, all before this place is settled."""

    offered: int
    segment: Segment
    offset: int


class _Feed:
    """One destination's place in the journal."""

    def __init__(self, outbox: Outbox, segment: Segment, offset: int, seq: int) -> None:
        self.outbox = outbox
        self.cursor = Cursor(segment, offset)
        self.seq = seq
        self.marks: deque[_Mark] = deque()
        self.settled: tuple[Segment, int] = (segment, offset)

    def advance_settled(self) -> None:
        """Move the settled place up to what the destination has settled."""
        done = self.outbox.tallies.settled(LogType.AUDIT)
        while self.marks and self.marks[0].offered <= done:
            mark = self.marks.popleft()
            self.settled = (mark.segment, mark.offset)


class AuditReader:
    """Reads one chain of audit segments: counts each event once, and feeds it to every outbox that wants it.

    `retire` is given each segment once nothing in it is needed any more.
    """

    def __init__(
        self, lane: str, stream: str, start: Cursor, seq: int, decode: Decode, retire: Callable[[Segment], None]
    ) -> None:
        self.sums = LaneSums(lane, LogType.AUDIT.value)
        self.stream = stream
        self._census = Cursor(start.segment, start.offset)
        self._seq = seq
        self._decode = decode
        self._retire = retire
        self._oldest = start.segment
        self._feeds: dict[Outbox, _Feed] = {}

    def add(self, outboxes: Iterable[Outbox]) -> None:
        """Feed further outboxes, from the next event on."""
        for outbox in outboxes:
            if outbox not in self._feeds and LogType.AUDIT in outbox.destination.accepts:
                self._feeds[outbox] = _Feed(outbox, self._census.segment, self._census.offset, self._seq)

    def turn(self) -> int:
        """Read what is new, feed whoever has space, retire what is settled; return how many events moved."""
        moved = self._count_new()
        for feed in self._feeds.values():
            moved += self._serve(feed)
            feed.advance_settled()
        self._retire_settled()
        return moved

    @property
    def position(self) -> tuple[int, int]:
        """How far the events are counted; to compare with a room's position."""
        return self._census.position

    def pending(self) -> int:
        """Events that were written and not yet read."""
        return self._census.unread()

    @property
    def settled(self) -> bool:
        """Say whether every event read so far is settled everywhere, and nothing is left to read."""
        return not self._census.read_would_find() and all(
            not feed.marks and self._caught_up(feed) for feed in self._feeds.values()
        )

    def _count_new(self) -> int:
        moved = 0
        while moved < 4 * _SLICE:
            self._number_segment()
            bodies = self._census.read(_SLICE)
            for body in bodies:
                self._count(body)
            moved += len(bodies)
            if not bodies and self._census.step() is None:
                break
        return moved

    def _number_segment(self) -> None:
        """Note the sequence number of a segment's first event, for whoever reads it after a restart."""
        segment = self._census.segment
        if self._census.offset == HEADER_SIZE and segment.path is not None:
            header = segment.read_header()
            if not header.first_seq:
                segment.write_header(header._replace(first_seq=self._seq + 1))

    def _count(self, body: bytes) -> None:
        audit_id = self._next_id()
        try:
            _, outboxes = self._decode(body, audit_id)
        except Exception:  # a torn tail after a kill, a damaged file
            reasons = self.sums.dropped
            reasons["unreadable"] = reasons.get("unreadable", 0) + 1
            return
        takers = [outbox for outbox in outboxes if outbox in self._feeds]
        if takers:
            self.sums.routed += 1
        else:
            self.sums.unrouted += 1
        for outbox in takers:
            outbox.tallies.accepted[LogType.AUDIT] += 1

    def _next_id(self) -> str:
        audit_id = f"{self.stream}-{self._seq}"
        self._seq += 1
        return audit_id

    def _caught_up(self, feed: _Feed) -> bool:
        return feed.cursor.segment is self._census.segment and feed.cursor.offset >= self._census.offset

    def _serve(self, feed: _Feed) -> int:
        """Offer the outbox what it wants of the events up to the census, as far as it has space."""
        moved = 0
        while (space := feed.outbox.space) and not self._caught_up(feed):
            cursor = feed.cursor
            end = self._census.offset if cursor.segment is self._census.segment else None
            bodies = cursor.read(min(space, _SLICE), end)
            wanted: list[LogRecord] = []
            for body in bodies:
                audit_id = f"{self.stream}-{feed.seq}"
                feed.seq += 1
                try:
                    record, outboxes = self._decode(body, audit_id)
                except Exception:  # counted by the census
                    continue
                if feed.outbox in outboxes:
                    wanted.append(record)
            feed.outbox.offer(wanted)
            feed.outbox.audits_offered += len(wanted)
            moved += len(bodies)
            if not bodies and cursor.step() is None:
                break
            feed.marks.append(_Mark(feed.outbox.audits_offered, cursor.segment, cursor.offset))
        return moved

    def _retire_settled(self) -> None:
        """Note the slowest destination's place in the oldest segment, and let go of segments behind it."""
        while True:
            places = [feed.settled for feed in self._feeds.values()] or [(self._census.segment, self._census.offset)]
            offsets = [offset for segment, offset in places if segment is self._oldest]
            if not offsets and self._oldest is not self._census.segment and self._oldest.next is not None:
                done, self._oldest = self._oldest, self._oldest.next
                self._retire(done)
                continue
            if offsets and self._oldest.path is not None:
                header = self._oldest.read_header()
                if min(offsets) > header.settled:
                    self._oldest.write_header(header._replace(settled=min(offsets)))
            return
