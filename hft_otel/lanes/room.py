"""A room: the bounded chain of segments for one kind of record, so that no kind displaces another."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable

from .segment import HEADER_SIZE, Segment, split_frames

__all__ = ["Cursor", "Room", "Tally"]

_CHUNK = 32 * 1024


class Tally:
    """A count that any thread or signal handler may raise without a lock: one C call is one step under the GIL."""

    __slots__ = ("_count", "add")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.add = self._count.__next__

    @property
    def value(self) -> int:
        """How often `add` was called."""
        return int(repr(self._count)[6:-1])  # "count(3)": the one look that does not take a number


class Room:
    """Segments of fixed size: one that callers write, those ready to follow it, and those not yet read.

    `supply` holds segments made ready by the worker. `write` is the active segment's; it raises ValueError when a
    frame does not fit, and `put` is what to call then.
    """

    __slots__ = ("_active", "_advances", "_advancing", "_lock", "drops", "full_reason", "name", "on_change", "supply", "write")

    def __init__(self, name: str, supply: deque[Segment], on_change: Callable[[], object]) -> None:
        self.name = name
        self.supply = supply
        self.on_change = on_change
        self.drops: dict[str, Tally] = {}
        self.full_reason = "room_full"
        self._lock = threading.RLock()
        self._advancing = False
        self._advances = 0
        self._active = supply.popleft()
        self._active.unseal()
        self.write = self._active.write

    @property
    def active(self) -> Segment:
        """The segment that callers write at this moment."""
        return self._active

    @property
    def capacity(self) -> int:
        """The longest frame, in bytes, that can ever be written."""
        return self._active.size - HEADER_SIZE

    @property
    def position(self) -> tuple[int, int]:
        """How many segments were left behind, and the offset behind the last frame; to compare with a cursor's."""
        while True:
            advances = self._advances
            offset = self._active.committed()
            if advances == self._advances:
                return advances, offset

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
        self.drops.setdefault(reason, Tally()).add()

    def shut(self) -> None:
        """Take nothing more, and count every later record as dropped: nobody reads this room any longer."""
        self.full_reason = "after_shutdown"
        self.supply = deque()
        self._active.seal()

    def _advance(self, failed_write: Callable[[bytes], object]) -> bool:
        """Make the next segment the active one, unless another thread already has."""
        with self._lock:
            if self._advancing:  # a signal handler has interrupted this very function on this thread
                return False
            if self.write is not failed_write:
                return True
            self._advancing = True
            try:
                return self._replace_active()
            finally:
                self._advancing = False

    def _replace_active(self) -> bool:
        try:
            segment = self.supply.popleft()
        except IndexError:
            self.on_change()
            return False
        full = self._active
        segment.next = None
        segment.unseal()
        self._active = segment
        self.write = segment.write
        full.seal()
        self._advances += 1
        full.next = segment  # last: a reader that sees it knows that nothing more comes in `full`
        self.on_change()
        return True

    def replace(self, supply: deque[Segment]) -> None:
        """Begin anew in a forked child: other memory, no count of the parent's, no lock that may be held for ever."""
        self._lock = threading.RLock()
        self._advancing = False
        self._advances = 0
        self.full_reason = "room_full"
        self.drops = {}
        self.supply = supply
        self._active = supply.popleft()
        self._active.unseal()
        self.write = self._active.write


class Cursor:
    """A reader's place in a chain of segments; one thread only."""

    __slots__ = ("corrupt", "offset", "segment", "steps")

    def __init__(self, segment: Segment, offset: int = HEADER_SIZE) -> None:
        self.segment = segment
        self.offset = offset
        self.steps = 0
        self.corrupt = 0
        """Segments whose rest had to be given up because what stood there was no frame."""

    def read(self, limit: int, end: int | None = None) -> list[bytes]:
        """Return at most `limit` frame bodies from the current segment; empty when there is nothing new in it.

        `end` is the offset of a frame's end to stop at; without it, all that is committed is read.
        """
        segment = self.segment
        if end is None:
            end = _committed(segment)
        if self.offset >= end:
            return []
        stop = min(end, self.offset + _CHUNK)
        bodies, taken, corrupt = split_frames(segment.memory[self.offset : stop], limit)
        if not bodies and not corrupt:
            if stop < end:  # a frame longer than a chunk
                bodies, taken, corrupt = split_frames(segment.memory[self.offset : end], 1)
            corrupt = corrupt or (not bodies and segment.memory[self.offset] != 0)  # a length beyond the segment's end
        self.offset += taken
        if corrupt:
            self.corrupt += 1
            self.offset = end
        return bodies

    def step(self) -> Segment | None:
        """Go to the next segment if this one is sealed and read; return the one that was left, else None."""
        left = self.segment
        if left.next is None or self.read_would_find():
            return None
        self.segment = left.next
        self.offset = HEADER_SIZE
        self.steps += 1
        return left

    @property
    def position(self) -> tuple[int, int]:
        """How many segments were left behind, and the offset of the next frame."""
        return self.steps, self.offset

    def read_would_find(self) -> bool:
        """Say whether the current segment still has something to read."""
        return self.offset < _committed(self.segment) and self.segment.memory[self.offset] != 0

    def unread(self) -> int:
        """Count the frames that are still to be read, in this segment and all after it."""
        return len(self.peek())

    def peek(self) -> list[bytes]:
        """Return every frame that is still to be read, without moving."""
        bodies: list[bytes] = []
        probe = Cursor(self.segment, self.offset)
        while True:
            found = probe.read(4096)
            bodies += found
            if not found and probe.step() is None:
                return bodies


def _committed(segment: Segment) -> int:
    """Return where reading ends: `next` is looked at first, since after it nothing more is written."""
    return segment.size if segment.next is not None else segment.committed()
