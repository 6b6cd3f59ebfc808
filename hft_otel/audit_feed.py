"""The way of audit events: every destination reads the journal at its own pace, and only what all have settled goes.

A destination that is down holds back nothing but its own place in the journal: memory stays flat, the other
destinations go on, and a restart begins where the slowest one was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from .audit.chain import Anchor
from .audit.exported import Outgoing
from .audit.feed import SLICE, Feed, first_seq
from .audit.parked import Parking
from .audit.trail import NO_TRAIL, NoTrail
from .lanes.room import Ahead, Cursor
from .lanes.segment import HEADER_SIZE, Segment
from .ledger import LaneSums
from .outbox import Outbox
from .record import LogRecord, LogType

__all__ = ["AuditReader"]

Decode = Callable[[bytes, str], tuple[LogRecord, "tuple[Outbox, ...]"]]
"""From a frame's body and the event's id to the record and the outboxes that want it; raises for what is no record."""

_Event = tuple[LogRecord, "tuple[Outbox, ...]"] | None
"""A decoded event with the outboxes that want it; None for bytes that are no event."""


class AuditReader:
    """Reads one chain of audit segments: counts each event once, and feeds it to every outbox that wants it.

    `seq` is the number, in its stream, of the first event of the segment where `start` is. `retire` is given each
    segment once nothing in it is needed any more. An event's id is made of the stream's name and its number. `known` says
    whether every pipeline is known that an event may be of.
    """

    def __init__(
        self,
        lane: str,
        stream: str,
        start: Cursor,
        seq: int,
        decode: Decode,
        retire: Callable[[Segment], None],
        known: Callable[[], bool] = lambda: True,
    ) -> None:
        self.sums = LaneSums(lane, LogType.AUDIT.value)
        self.stream = stream
        self._census = Cursor(start.segment, start.offset)
        self._trail: NoTrail = NO_TRAIL
        self.parking: Parking | None = None
        """Where events go that a destination refuses for good; without one they are counted only."""
        self.outgoing = Outgoing()
        """What has the anchors leave."""
        self._seq = seq + sum(1 for _ in _events_before(start))
        self._place = (start.segment, start.offset, 0)
        """Up to where the census has counted, and how many events those were."""
        self._ahead = Ahead(set_aside=True)
        self._decode = decode
        self._retire = retire
        self._known = known
        self._oldest = start.segment
        self._noted = (start.segment, start.offset)
        self._feeds: dict[Outbox, Feed] = {}
        self._fresh: dict[int, _Event] = {}
        """What the census decoded in this turn, by number, so that those who keep up need not decode it again."""
        self._via: dict[str, None] = {}
        """The backends behind the Collector that want events; in the order in which they were met."""
        self._is_kept = True
        self._unreadable = self._held_up = ""
        """What could not be opened in the last turn, and in this one."""
        self._total = 0
        """Events in the stream, as counted last."""
        self._settled_before: list[bytes] = []
        """The last event that a reader before us has delivered: who wanted it wants the anchor of it, too."""

    def keep(self, trail: NoTrail) -> None:
        """Keep what is read on this trail; before the first turn."""
        before = list(_events_before(self._census))
        trail.begin(self._seq - len(before), before)
        self._trail = trail
        self._settled_before = before[-1:]

    @property
    def problem(self) -> str:
        """Why something cannot be kept at the moment; empty while all is."""
        parking = self.parking.problem if self.parking is not None else ""
        return self._trail.problem or parking or self._unreadable

    def add(self, outboxes: Iterable[Outbox]) -> None:
        """Feed further outboxes, from the next event on."""
        for outbox in outboxes:
            if outbox not in self._feeds and LogType.AUDIT in outbox.destination.accepts:
                self._feeds[outbox] = Feed(outbox, self._census.segment, self._census.offset, self._seq)

    def turn(self) -> int:
        """Read what is new, feed whoever has space, retire what is settled; return how many events moved."""
        self._held_up = ""
        moved = self._try(self._count_new)
        for feed in self._feeds.values():
            moved += self._try(self._serve, feed)
            self._try(self._advance, feed)
        self._fresh.clear()
        self._try(self._retire_settled)
        self._unreadable = self._held_up
        self._export(self._trail.due())
        return moved

    def _try(self, step: Callable[..., int | None], *what: Feed) -> int:
        """Take a step; a segment that cannot be opened holds it up, and is tried again in the next turn."""
        try:
            return step(*what) or 0
        except OSError as error:
            self._held_up = f"audit events wait, as they cannot be read: {error}"
            return 0

    def note_settled(self) -> None:
        """Note what is settled by now, so that a kill after this brings no repeats of it."""
        for feed in self._feeds.values():
            self._try(self._advance, feed)
        self._try(self._note_settled)

    def _advance(self, feed: Feed) -> None:
        feed.advance(self.stream, self.parking)

    def anchor(self) -> None:
        """Anchor what is read so far, whatever the time; at the end."""
        self._export(self._trail.due(final=True))

    def finish(self) -> None:
        """Keep what is settled, after which the stream may go if it is `settled`."""
        settled = self.settled
        kept = self._trail.finish(self._census.segment, self._census.offset, settled=settled)
        self._is_kept = kept or not settled

    @property
    def cursor(self) -> Cursor:
        """The place up to which the events are counted."""
        return self._census

    @property
    def position(self) -> tuple[int, int]:
        """How far the events are counted; to compare with a room's position."""
        return self._census.position

    def total(self) -> LaneSums:
        """Return the sums with what is unread."""
        sums = self.sums
        return LaneSums(sums.lane, sums.type, sums.routed, sums.unrouted, dict(sums.dropped), self.pending())

    def pending(self) -> int:
        """Events that were written and not yet read."""
        with suppress(OSError):  # as known last, where a segment cannot be opened now
            pending = self._ahead.count(lambda: self._place)
            self._total = self._place[2] + pending
            return pending
        return max(self._total - self._place[2], 0)

    @property
    def settled(self) -> bool:
        """Say whether every event read so far is settled everywhere, and nothing is left to read."""
        census = self._census
        try:
            return (
                self._is_kept
                and census.segment.next is None
                and not census.read_would_find()
                and all(
                    not feed.marks and not feed.lost and self._caught_up(feed)
                    for feed in self._feeds.values()
                )
            )
        except OSError:  # it cannot be opened now
            return False

    def _count_new(self) -> int:
        moved = 0
        while moved < 4 * SLICE:
            self._number_segment()
            before = self._census.offset
            bodies = self._census.read(SLICE)
            # Looked at after reading: what all that was written until then is of has been announced.
            if bodies and not self._known():
                self._census.offset = before
                break
            for body in bodies:
                self._count(body, last=body is bodies[-1])
            self._place = (self._census.segment, self._census.offset, self._place[2] + len(bodies))
            moved += len(bodies)
            if not bodies and not self._step():
                break
        return moved

    def _step(self) -> bool:
        """Go to the next segment, if there is one; say whether there is."""
        segment, offset = self._census.segment, self._census.offset
        is_damaged = segment.next is not None and segment.holds_more(offset)  # first: it may raise
        left = self._census.step()
        if left is None:
            return False
        self._trail.seal(left, offset)
        if is_damaged:
            self._lost("unreadable")
        if left.is_lost:
            self._lost("damaged")
        left.set_aside()
        self._place = (self._census.segment, self._census.offset, self._place[2])
        return True

    def _lost(self, reason: str) -> None:
        self.sums.dropped[reason] = self.sums.dropped.get(reason, 0) + 1

    def _number_segment(self) -> None:
        """Note the number of a segment's first event, for whoever reads it after a restart; go by it, if it is noted."""
        segment = self._census.segment
        if self._census.offset == HEADER_SIZE and segment.path is not None:
            self._seq = first_seq(segment, self._seq)
            segment.note_first_seq(self._seq + 1)

    def _count(self, body: bytes, *, last: bool) -> None:
        self._trail.add(self._seq, body)
        event = self._fresh[self._seq] = self._event(body, self._seq)
        self._seq += 1
        if event is None:
            self._lost("torn" if last and self._at_dead_end() else "unreadable")  # after a kill, or damaged
            return
        takers = [outbox for outbox in event[1] if outbox in self._feeds]
        if takers:
            self.sums.routed += 1
        else:
            self.sums.unrouted += 1
        for outbox in takers:
            outbox.tallies.accepted[LogType.AUDIT] += 1
            self._feeds[outbox].owe(self._census.segment)
        self._note_takers(event)

    def _note_takers(self, event: tuple[LogRecord, tuple[Outbox, ...]]) -> None:
        """Remember who keeps events, for the anchors."""
        for outbox in event[1]:
            if outbox in self._feeds:
                self._feeds[outbox].is_used = True
        for name in event[0].via_collector:
            self._via[name] = None

    def _at_dead_end(self) -> bool:
        """Say whether nothing comes behind the census, nor ever will."""
        segment = self._census.segment
        with suppress(OSError):  # it cannot be opened now
            return (
                segment.next is None
                and segment.committed() == segment.size
                and not self._census.read_would_find()
            )
        return False

    def _event(self, body: bytes, seq: int) -> _Event:
        try:
            return self._decode(body, f"{self.stream}-{seq}")
        except Exception:  # noqa: BLE001  (whatever the bytes are, the next event must be read)
            return None

    def _caught_up(self, feed: Feed) -> bool:
        return feed.cursor.segment is self._census.segment and feed.cursor.offset >= self._census.offset

    def _serve(self, feed: Feed) -> int:
        """Offer the outbox what it wants of the events up to the census, as far as it has space."""
        moved = 0
        if feed.lost:
            if not feed.write_off():
                return 0
            feed.mark()
        while (space := feed.outbox.space) and moved < 4 * SLICE and not self._caught_up(feed):
            cursor = feed.cursor
            end = self._census.offset if cursor.segment is self._census.segment else None
            if cursor.offset == HEADER_SIZE and cursor.segment.path is not None:
                feed.seq = first_seq(cursor.segment, feed.seq)
            bodies = cursor.read(min(space, SLICE), end)
            wanted: list[LogRecord] = []
            for body in bodies:
                event = self._fresh[feed.seq] if feed.seq in self._fresh else self._event(body, feed.seq)
                feed.seq += 1
                if event is not None and feed.outbox in event[1]:
                    wanted.append(event[0])
            feed.offer(wanted)
            moved += len(bodies)
            if not bodies:
                left = cursor.step()
                if left is None:
                    break
                feed.leave(left)
                if feed.lost:
                    break
            feed.mark()
        return moved

    def _export(self, anchors: Iterable[Anchor]) -> None:
        """Offer anchors to whoever keeps audit events; they leave behind the events, and are counted like them."""
        for anchor in anchors:
            while self._settled_before:
                event = self._event(self._settled_before.pop(), self._seq)
                if event is not None:
                    self._note_takers(event)
            feeds = (feed for feed in self._feeds.values() if feed.is_used)
            boxes = [feed.outbox for feed in feeds if feed.outbox.destination.keeps_anchors]
            self.outgoing.send(anchor, tuple(self._via), boxes, self._trail.exported)
        self.outgoing.turn()

    def _retire_settled(self) -> None:
        """Let go of segments behind the slowest destination, and note its place in the oldest that is left."""
        while self._slowest() is None and self._oldest is not self._census.segment:
            if self._oldest.next is None:
                break
            done, self._oldest = self._oldest, self._oldest.next
            self._trail.release(self._retire, done)
            done.set_aside()  # where it has to wait for its copy
            done.next = None  # else a chain of all that ever were would hang on the first one
        self._note_settled()

    def _slowest(self) -> int | None:
        """Return up to where the oldest segment is settled everywhere; None for all of it."""
        census = (self._census.segment, self._census.offset)
        places = [feed.settled for feed in self._feeds.values()] or [census]
        return min((offset for segment, offset in places if segment is self._oldest), default=None)

    def _note_settled(self) -> None:
        offset = self._slowest()
        if offset is not None and self._oldest.path is not None and (self._oldest, offset) != self._noted:
            self._oldest.note_settled(offset)
            self._noted = (self._oldest, offset)


def _events_before(start: Cursor) -> Iterator[bytes]:
    """Yield the events of the segment that come before the place."""
    probe = Cursor(start.segment)
    while found := probe.read(SLICE, start.offset):
        yield from found
