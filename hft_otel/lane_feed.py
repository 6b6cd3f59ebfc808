"""The way of text and measurements out of a lane: read once, and given back when that is safe.

Where the reader is a thread of the writing process, a segment that is read is given back at once: should the process
die, nothing of either would be left. Where it is another process, text goes back only when every destination has
settled it, so that a reader that is killed loses none; its successor reads it again. Under pressure the oldest goes
back before that, and how many records those were stands where the successor finds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

from .lanes.remote_room import RemoteRoom, RemoteSegment
from .lanes.room import Ahead, Cursor, Room
from .lanes.segment import HEADER_SIZE, Segment, frame_length
from .ledger import LaneSums
from .outbox import Outbox
from .record import LogRecord, LogType

__all__ = [
    "SHARED_SLICE",
    "SLICE",
    "LaneReader",
    "Read",
    "SharedLaneReader",
    "oldest_unread",
    "with_drops",
]

SLICE = 64
"""Records that are read of a lane at once: about what holds the GIL for half a millisecond."""
SHARED_SLICE = 512
"""The same where the GIL is nobody else's."""
UNCONFIRMED = "hft.unconfirmed"
"""Attribute of a record that its process may have been writing when it was killed."""

Decode = Callable[[bytes], tuple[int, LogRecord]]


class LaneReader:
    """A room with its reader's place and its sums; not for audit, which has its own reader."""

    def __init__(self, room: Room | RemoteRoom, log_type: LogType, decode: Decode) -> None:
        self.room = room
        self.log_type = log_type
        self.cursor = Cursor(room.first)
        self.sums = LaneSums(room.name, log_type.value)
        self._decode = decode
        self._number = 0
        """Frames read so far."""
        self._ahead = Ahead()

    def read(self) -> list[Read]:
        """Return the next records, and give segments that are done back to the room."""
        bodies = self.cursor.read(SLICE)
        while not bodies and (done := self.cursor.step()) is not None:
            self.room.release(done)
            bodies = self.cursor.read(SLICE)
        self._number += len(bodies)
        records: list[Read] = []
        for body in bodies:
            try:
                records.append((*self._decode(body), self))
            except Exception:  # noqa: BLE001  (one bad record must not stop the drain)
                self.drop("unreadable")
        return records

    @property
    def has_space(self) -> bool:
        """Say whether callers have space to write."""
        return self.room.has_space

    def total(self) -> LaneSums:
        """Return the sums with what callers dropped and what is unread."""
        sums = self.sums
        dropped = with_drops(sums.dropped, self.room)
        pending = self._ahead.count(self._here)
        return LaneSums(sums.lane, sums.type, sums.routed, sums.unrouted, dropped, pending)

    def _here(self) -> tuple[Segment, int, int]:
        return self.cursor.segment, self.cursor.offset, self._number

    def drop(self, reason: str) -> None:
        """Count a record that was read and goes nowhere."""
        self.sums.dropped[reason] = self.sums.dropped.get(reason, 0) + 1


Read = tuple[int, LogRecord, LaneReader]
"""What a lane yields: the pipeline's number, the record, and the lane that it counts in."""


class _Place(NamedTuple):
    """Once every one of these outboxes has settled so many text records, all before this place is settled."""

    segment: Segment
    turn: int
    offset: int
    counts: tuple[tuple[Outbox, int], ...]


class SharedLaneReader(LaneReader):
    """A lane of another process. `known` says whether every pipeline is known that a record may be of.

    `stream` is the name that makes the records' identities; the same record, read again, has the same.
    """

    room: RemoteRoom

    def __init__(
        self, room: RemoteRoom, log_type: LogType, decode: Decode, known: Callable[[], bool], stream: str
    ) -> None:
        super().__init__(room, log_type, decode)
        self._known = known
        self._stream = stream
        self._left: deque[tuple[Segment, int]] = deque()
        """Segments that are read to their end, and how many records each held."""
        self._places: deque[_Place] = deque()
        self._released: deque[tuple[int, int]] = deque()
        """Turns that were given back unsettled, and how many records each held."""
        self._count = 0
        """Records read from the current segment."""
        if isinstance(room.first, RemoteSegment):
            self.cursor.offset = room.first.settled_offset()

    def read(self) -> list[Read]:
        """Return the next records."""
        cursor = self.cursor
        offset = cursor.offset
        bodies = cursor.read(SHARED_SLICE)
        while not bodies and (done := cursor.step()) is not None:
            self._leave(done, offset)
            offset = cursor.offset
            bodies = cursor.read(SHARED_SLICE)
        # Looked at after reading: what all that was written until then is of has been announced.
        if bodies and not self._known():
            cursor.offset = offset
            return []
        self._count += len(bodies)
        self._number += len(bodies)
        records: list[Read] = []
        segment = cursor.segment
        for body in bodies:
            uid = f"{self._stream}-{self.room.name}-{segment.turn}-{offset}"
            offset += frame_length(body)
            unproven = body is bodies[-1] and isinstance(segment, RemoteSegment) and segment.unproven(offset)
            try:
                number, record = self._decode(body)
            except Exception:  # noqa: BLE001  (one bad record must not stop the drain)
                self.drop("torn" if unproven else "unreadable")
                continue
            if self.log_type is LogType.TEXT:
                record.uid = uid
                if unproven:
                    record.context = {**record.context, UNCONFIRMED: True}
            records.append((number, record, self))
        return records

    @property
    def has_space(self) -> bool:
        """Say whether callers have space to write, once all is given back that can be."""
        self._advance()
        self._relieve()
        return self.room.has_space

    def settle(self, outboxes: Collection[Outbox]) -> None:
        """Note what the outboxes have been offered, all that was read, and give back what they have settled."""
        if self.log_type is LogType.TEXT:
            self._note(outboxes)
            self._advance()
            self._relieve()
            return
        segment, offset = self.cursor.segment, self.cursor.offset
        if segment.path is not None and offset != self._noted(segment):
            # Or a successor, which counts from zero, would count these once more.
            segment.note_settled(offset)

    @property
    def settled(self) -> bool:
        """Say whether all that was read is settled, and nothing is left to read."""
        cursor = self.cursor
        return not self._places and cursor.segment.next is None and not cursor.read_would_find()

    def _leave(self, segment: Segment, offset: int) -> None:
        if segment.holds_more(offset):
            self.drop("unreadable")
        if self.log_type is LogType.TEXT:
            self._left.append((segment, self._count))
        else:  # aggregated, which a successor begins anew
            self.room.release(segment)
        self._count = 0

    def _note(self, outboxes: Collection[Outbox]) -> None:
        cursor = self.cursor
        last = self._places[-1] if self._places else None
        if last is None and not self._left and cursor.offset == self._noted(cursor.segment):
            return
        if last is None or (last.turn, last.offset) != cursor.position:
            counts = ((outbox, outbox.tallies.expected().get(LogType.TEXT, 0)) for outbox in outboxes)
            open_counts = tuple(each for each in counts if not _reached(*each))
            if last is not None and last.counts == open_counts:
                self._places.pop()  # what full queues refuse must not pile up places here
            self._places.append(_Place(cursor.segment, *cursor.position, open_counts))

    def _noted(self, segment: Segment) -> int:
        """Return the offset up to which a segment is noted as settled."""
        return max(segment.read_word("settled"), HEADER_SIZE)

    def _advance(self) -> None:
        """Give back the segments before the last place that everybody has reached, and note that place."""
        reached = None
        while self._places and all(_reached(*each) for each in self._places[0].counts):
            reached = self._places.popleft()
        if reached is None:
            return
        while self._left and self._left[0][0].turn < reached.turn:
            self.room.release(self._left.popleft()[0])
        while self._released and self._released[0][0] < reached.turn:
            self.room.released -= self._released.popleft()[1]
        if reached.segment.turn == reached.turn and reached.segment.path is not None:
            oldest = self._left[0][0] if self._left else self.cursor.segment
            if oldest.turn <= reached.turn:  # else it was given back unsettled
                reached.segment.note_settled(reached.offset)

    def _relieve(self) -> None:
        """Give back the oldest unsettled, so that callers have space; it is read, and in the outboxes."""
        while self._left and not self.room.has_space:
            segment, count = self._left.popleft()
            self._released.append((segment.turn, count))
            self.room.released += count
            self.room.release(segment)


def _reached(outbox: Outbox, count: int) -> bool:
    return outbox.tallies.settled[LogType.TEXT] >= count


def with_drops(dropped: Mapping[str, int], room: Room | RemoteRoom) -> dict[str, int]:
    """Return what was dropped behind a room together with what was dropped before it."""
    result = dict(dropped)
    for reason, tally in room.drops.copy().items():
        result[reason] = result.get(reason, 0) + tally.value
    return result


def oldest_unread(cursor: Cursor) -> int | None:
    """Return when the next record at a reader's place was written, in nanoseconds since the epoch; None if there is none.

    Works on any lane, as every body begins with an array whose first item is the time.
    """
    probe = Cursor(cursor.segment, cursor.offset)
    with suppress(OSError):  # it cannot be opened now
        bodies = probe.read(1)
        if not bodies and cursor.segment.next is not None:
            bodies = Cursor(cursor.segment.next).read(1)
        return _time(bodies[0]) if bodies else None
    return None


def _time(body: bytes) -> int | None:
    """Return the first item of a packed array, a whole number of 8 bytes, as the clock's are."""
    if len(body) > 9 and body[0] >> 4 == 0x9 and body[1] in (0xCF, 0xD3):
        return int.from_bytes(body[2:10], "big")
    return None
