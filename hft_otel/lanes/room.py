"""A room: the bounded chain of segments for one kind of record, so that no kind displaces another."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from .control import RoomPage
from .segment import HEADER_SIZE, Segment, count_frames, split_frames

__all__ = ["Ahead", "ClosedRoom", "Cursor", "Room", "Supply", "Tally"]

_CHUNK = 32 * 1024
_PATIENCE = 0.2
"""Seconds that a count waits for another one."""
NO_FRAME = b""
"""What a cursor returns, once, for the rest of a segment that is no frame: no decoder takes it, so it gets counted."""


class Tally:
    """A count that any thread or signal handler may raise without a lock: one C call is one step under the GIL."""

    __slots__ = ("_count", "add")

    def __init__(self, count: itertools.count[int] | int = 0) -> None:
        self._count = itertools.count(count) if isinstance(count, int) else count
        self.add = self._count.__next__

    @property
    def value(self) -> int:
        """How often `add` was called."""
        return int(repr(self._count)[6:-1])  # "count(3)": the one look that does not take a number


class Supply(Protocol):
    """Segments ready to be written."""

    def __len__(self) -> int: ...

    def popleft(self) -> Segment:
        """Take one; raises IndexError where there is none."""
        ...


class Room:
    """Segments of fixed size: one that callers write, those ready to follow it, and those not yet read.

    `supply` holds segments made ready by whoever reads. `write` is the active segment's; it raises ValueError when a
    frame does not fit, and `put` is what to call then. Where another process reads, `page` is what it sees of the
    drops, and `left` takes the segments that are not to be kept for it here.
    """

    __slots__ = (
        "_active",
        "_behind",
        "_drops",
        "_first",
        "_left",
        "_lock",
        "_next",
        "_page",
        "failed",
        "full_reason",
        "name",
        "on_change",
        "size",
        "supply",
        "write",
    )

    def __init__(
        self,
        name: str,
        supply: Supply,
        on_change: Callable[[], object],
        page: RoomPage | None = None,
        left: deque[Segment] | None = None,
    ) -> None:
        self.name = name
        self.on_change = on_change
        self._lock = threading.RLock()
        self._count_anew()
        self.begin(supply, page, left)

    def begin(self, supply: Supply, page: RoomPage | None = None, left: deque[Segment] | None = None) -> None:
        """Take the first segment; again in a forked child, whose memory must not be its parent's."""
        self.full_reason = "room_full"
        self.supply = supply
        self.size = len(supply)
        self._page = page
        self._left = left
        self._next: Segment | None = None
        """One that was taken from the supply and not written to yet."""
        self._behind: tuple[Segment, Segment] | None = None
        """The segment that was active before, until it is closed, and the one that follows it."""
        self._active = segment = supply.popleft()
        self._first = segment if left is None else None
        segment.unseal()
        segment.take_turn(0)
        self.write: Callable[[bytes], object] = segment.write

    def leave(self, write: Callable[[bytes], object]) -> None:
        """Let go of the parent's segments in a forked child: the first call of `write` is to see to the child's own."""
        self._lock = threading.RLock()  # the inherited one may be held for ever
        self._count_anew()
        self._page = None
        self._next = self._behind = None
        self.supply = deque()
        self._active.seal()  # the child's position only, but a `write` on its way may go to a file of the parent's
        self.write = write

    def _count_anew(self) -> None:
        self._drops: dict[str, Tally] = {}
        self.failed = itertools.count()
        """One step of it counts a record that could not be captured, at the end of a stack where no call is left."""

    @property
    def drops(self) -> dict[str, Tally]:
        """Why records were not kept, with their numbers."""
        failed = Tally(self.failed)
        return {**self._drops, "capture_failed": failed} if failed.value else self._drops

    @property
    def active(self) -> Segment:
        """The segment that callers write at this moment."""
        return self._active

    @property
    def first(self) -> Segment:
        """Where reading begins, in this process: threads may fill it while the drain is still being made."""
        return self._first or self._active

    @property
    def has_space(self) -> bool:
        """Say whether more than an eighth of the segments wait to be written."""
        return 8 * len(self.supply) > self.size

    @property
    def capacity(self) -> int:
        """The longest frame, in bytes, that can ever be written."""
        return self._active.size - HEADER_SIZE

    @property
    def position(self) -> tuple[int, int]:
        """How many segments were left behind, and the offset behind the last frame; to compare with a cursor's."""
        if self._behind is not None:
            with self._lock:
                self._finish()
        active = self._active
        return active.turn, active.committed()

    def put(self, frame: bytes) -> bool:
        """Write a frame, in the next segment if need be; where there is none, count the drop and return False."""
        if len(frame) > self.capacity:
            self.drop("too_large")
            return False
        for _ in range(64):  # another thread may fill each segment before we come to it
            write = self.write
            try:
                write(frame)
                return True
            except ValueError:
                if not self._advance(write):
                    break
        self.drop(self.full_reason)
        return False

    def drop(self, reason: str) -> None:
        """Count a record that was not kept."""
        tally = self._drops.setdefault(reason, Tally())
        tally.add()
        if self._page is not None:
            _show(self._page, reason, tally)

    def publish(self) -> None:
        """Let another process that reads know what was dropped, and up to where frames are whole."""
        page = self._page
        if page is not None:
            for reason, tally in self.drops.copy().items():
                _show(page, reason, tally)
            page.note_position(*self.position)

    def release(self, segment: Segment) -> None:
        """Take back a segment that is read; the reader's side, in this process."""
        segment.zero(segment.size)
        segment.next = None
        self.supply.appendleft(segment)  # type: ignore[attr-defined]  # the next one used, since it is still in the caches

    def shut(self, late: Callable[[bytes], object] | None = None) -> None:
        """Take nothing more: nobody reads this room any longer. Later records go to `late`, else they count as dropped."""
        with self._lock:
            self.full_reason = "after_shutdown"
            self.supply, self._next = deque(), None
            self._active.seal()
            if late is not None:
                self.write = late

    def _advance(self, failed_write: Callable[[bytes], object]) -> bool:
        """Make the next segment the active one, unless another thread, or a signal handler in here, already has."""
        with self._lock:
            self._finish()
            if self.write is not failed_write:
                return True
            segment, self._next = self._next, None
            try:
                if segment is None:
                    segment = self.supply.popleft()
                segment.next = None
                segment.unseal()
                full = None
                while full is not self._active:  # a signal handler that logs in the call below may change it
                    full = self._active
                    segment.take_turn(full.turn + 1)
                # Signal handlers run between calls: up to the next call, one that logs finds all of this done or nothing.
                self._behind = (full, segment)
                self._active = segment
                self.write = segment.write
            except IndexError:
                self.on_change()
                return False
            except (
                BaseException
            ):  # a signal handler of the application's, Ctrl-C's for one, raises in these calls
                self._next = segment
                raise
            try:
                self._finish()
            except BaseException:
                self._finish()  # or the reader would stay in `full` for ever
                raise
        self.on_change()
        return True

    def _finish(self) -> None:
        """Close the segment that was left behind, if that was not done yet; to be called with the lock."""
        behind = self._behind
        if behind is not None:
            full, segment = behind
            full.seal()
            full.lead_to(segment)  # last: a reader that sees it knows that nothing more comes in `full`
            if self._left is not None:
                self._left.append(full)
            if self._behind is behind:  # else a signal handler that logs was here meanwhile
                self._behind = None


class ClosedRoom:
    """Stands where a closed logger's room stood: keeps nothing, counts everything."""

    def __init__(self, room: Room | ClosedRoom) -> None:
        self._room = room
        self.capacity: int = room.capacity
        self.failed: Iterator[int] = room.failed

    def write(self, frame: bytes) -> None:
        """Count the record as dropped."""
        self.put(frame)

    def put(self, frame: bytes) -> bool:
        """Count the record as dropped."""
        self._room.drop("logger_closed")
        return False

    def drop(self, reason: str) -> None:
        """Count the record as dropped."""
        self._room.drop(reason)


class Cursor:
    """A reader's place in a chain of segments; one thread only."""

    __slots__ = ("offset", "segment")

    def __init__(self, segment: Segment, offset: int = HEADER_SIZE) -> None:
        self.segment = segment
        self.offset = offset

    def read(self, limit: int, end: int | None = None) -> list[bytes]:
        """Return at most `limit` frame bodies from the current segment; empty when there is nothing new in it.

        `end` is the offset of a frame's end to stop at; without it, all that is committed is read. The rest of a
        segment in which no frame begins is given up, and returned as one NO_FRAME.
        """
        segment = self.segment
        if end is None:
            end = _committed(segment)
        if self.offset >= end:
            return []
        stop = min(end, self.offset + _CHUNK)
        bodies, taken = split_frames(segment.memory[self.offset : stop], limit)
        if not bodies and stop < end:  # a frame longer than a chunk
            bodies, taken = split_frames(segment.memory[self.offset : end], 1)
        if not bodies and segment.memory[self.offset] != 0:  # no tag, or a length beyond the segment's end
            self.offset = end
            return [NO_FRAME]
        self.offset += taken
        return bodies

    def skip(self) -> int:
        """Go beyond the next frames of the current segment and return how many; those that `read` would return."""
        segment, end = self.segment, _committed(self.segment)
        count, taken = count_frames(segment.memory[self.offset : min(end, self.offset + _CHUNK)])
        self.offset += taken
        return count or len(self.read(1, end))  # none, a long one, or what is no frame

    def step(self) -> Segment | None:
        """Go to the next segment if this one is sealed and read; return the one that was left, else None."""
        left = self.segment
        if left.next is None or self.read_would_find():
            return None
        self.segment = left.next
        self.offset = HEADER_SIZE
        return left

    @property
    def position(self) -> tuple[int, int]:
        """How many segments were left behind, and the offset of the next frame."""
        return self.segment.turn, self.offset

    def read_would_find(self) -> bool:
        """Say whether the current segment still has something to read."""
        return self.offset < _committed(self.segment) and self.segment.memory[self.offset] != 0


class Ahead:
    """Counts what a reader still has before it, each frame once, however often that is asked and however far it is behind.

    With `set_aside`, the memory of what was counted is given back until it is read: for files that wait on a disk.
    """

    def __init__(self, *, set_aside: bool = False) -> None:
        self._set_aside = set_aside
        self._lock = threading.Lock()
        self._probe: Cursor | None = None
        self._number = 0

    def count(self, place: Callable[[], tuple[Segment, int, int]]) -> int:
        """Return how many frames are unread; `place` is where the reader is: segment, offset, and frames read so far."""
        if not self._lock.acquire(timeout=_PATIENCE):
            return max(
                self._number - place()[2], 0
            )  # as known last: a signal handler has interrupted the holder
        try:
            while True:
                here = segment, offset, number = place()
                if self._probe is None or self._number <= number:
                    self._probe, self._number = Cursor(segment, offset), number
                try:
                    self._walk(self._probe)
                except ValueError:  # the reader was here meanwhile, and has given the segment back
                    self._probe = None
                    if place() != here:
                        continue
                return max(self._number - place()[2], 0)  # where the reader has ended, what was known last
        finally:
            self._lock.release()

    def _walk(self, probe: Cursor) -> None:
        while True:
            found = probe.skip()
            self._number += found
            if not found:
                left = probe.step()
                if left is None:
                    return
                if self._set_aside:
                    left.set_aside()


def _show(page: RoomPage, reason: str, tally: Tally) -> None:
    """Store a count; whoever was overtaken while storing an older one stores it anew."""
    shown = -1
    while shown != tally.value:
        shown = tally.value
        page.note_dropped(reason, shown)


def _committed(segment: Segment) -> int:
    """Return where reading ends: `next` is looked at first, since after it nothing more is written."""
    return segment.size if segment.next is not None else segment.committed()
