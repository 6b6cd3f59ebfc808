"""One destination's place in the journal: what it was offered, what it has settled, and what it refused for good."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from ..lanes.room import Cursor
from ..lanes.segment import HEADER_SIZE, Segment
from ..outbox import Outbox
from ..record import LogRecord, LogType
from .parked import Parked, Parking

__all__ = ["SLICE", "Feed", "first_seq"]

SLICE = 64


class _Mark(NamedTuple):
    """When the outbox has settled `offered` audit events, all before this place, and this number, is settled."""

    offered: int
    segment: Segment
    offset: int
    seq: int


class Feed:
    """One destination's place in the journal; `cursor` and `seq` are that of the next event to offer."""

    def __init__(self, outbox: Outbox, segment: Segment, offset: int, seq: int) -> None:
        self.outbox = outbox
        self.cursor = Cursor(segment, offset)
        self.seq = seq
        self.marks: deque[_Mark] = deque()
        self.settled: tuple[Segment, int] = (segment, offset)
        self.is_used = False
        """Whether an event was wanted here; who gets none needs no anchors either."""
        self.lost = 0
        """Events that were to be offered and whose segment was lost; to be counted once all before them is settled."""
        self._owed: deque[tuple[Segment, int]] = deque()
        """How many events of which segment are still to be offered."""
        self._settled_seq = seq
        self._parking: list[Parked] = []
        """Refused events on their way to the disk, before which nothing more counts as settled."""

    def owe(self, segment: Segment) -> None:
        """Note that an event of this segment is to be offered."""
        number = self._owed.pop()[1] if self._owed and self._owed[-1][0] is segment else 0
        self._owed.append((segment, number + 1))

    def offer(self, events: list[LogRecord]) -> None:
        """Offer events of the segment where the cursor is; there is space for them."""
        self.outbox.offer(events)
        self.outbox.audits_offered += len(events)
        if events and self._owed:
            segment, number = self._owed[0]
            self._owed[0] = segment, number - len(events)

    def leave(self, segment: Segment) -> None:
        """Go on behind a segment; what is still to be offered of it is lost, where it is."""
        if self._owed and self._owed[0][0] is segment:
            _, number = self._owed.popleft()
            self.lost += number if segment.is_lost else 0
        segment.set_aside()

    def write_off(self) -> bool:
        """Count what is lost as dropped, after all that was offered before it; say whether that is done."""
        if self.outbox.tallies.settled[LogType.AUDIT] < self.outbox.audits_offered:
            return False
        self.outbox.audits_offered += self.lost
        for _ in range(self.lost):
            self.outbox.tallies.drop(LogType.AUDIT, "damaged")
        self.lost = 0
        return True

    def mark(self) -> None:
        """Note that all before the cursor is settled once what is offered by now is."""
        offered = self.outbox.audits_offered
        if self.marks and self.marks[-1].offered == offered:
            self.marks.pop()  # nothing was offered since: events for others must not pile up marks here
        self.marks.append(_Mark(offered, self.cursor.segment, self.cursor.offset, self.seq))

    def advance(self, stream: str, parking: Parking | None) -> None:
        """Park what the destination has refused, and move the settled place on; not before that is on the disk."""
        done = self.outbox.tallies.settled[
            LogType.AUDIT
        ]  # first: what is refused after this look is not in it
        if self.outbox.refused:
            self._take_refused(stream, parking is not None)
        if self._parking and parking is not None:
            if not parking.park(self._parking):
                return
            self._parking.clear()
        while self.marks and self.marks[0].offered <= done:
            mark = self.marks.popleft()
            self.settled, self._settled_seq = (mark.segment, mark.offset), mark.seq

    def _take_refused(self, stream: str, are_kept: bool) -> None:
        """Take from the outbox the events of this stream that were refused, with their bodies if those are to be kept."""
        refused = {}
        for audit_id in list(self.outbox.refused):
            name, _, number = audit_id.rpartition("-")
            if name == stream:
                refused[int(number)] = self.outbox.refused[audit_id]
        unsettled = (each for each in self._unsettled() if each[0] in refused)
        # All of them before any is taken: their files may be impossible to read now, and will be read again then.
        found = list(islice(unsettled, len(refused) if are_kept else 0))
        for seq, body in found:
            _, reason, detail = refused[seq]
            identity = f"{stream}-{seq}"
            self._parking.append(Parked(identity, self.outbox.name, reason, detail, time.time_ns(), body))
        for seq in refused:
            del self.outbox.refused[f"{stream}-{seq}"]

    def _unsettled(self) -> Iterator[tuple[int, bytes]]:
        """Yield the events from the settled place up to the cursor, each with its number."""
        probe, seq = Cursor(*self.settled), self._settled_seq
        while True:
            if probe.offset == HEADER_SIZE and probe.segment.path is not None:
                seq = first_seq(probe.segment, seq)
            end = self.cursor.offset if probe.segment is self.cursor.segment else None
            bodies = probe.read(SLICE, end)
            yield from enumerate(bodies, seq)
            seq += len(bodies)
            if not bodies:
                left = probe.step() if end is None else None
                if left is None:
                    return
                left.set_aside()


def first_seq(segment: Segment, seq: int) -> int:
    """Return the number of a segment's first event: as it was noted, where one before it could not be read, else `seq`."""
    return max(segment.read_word("first_seq") - 1, seq)
