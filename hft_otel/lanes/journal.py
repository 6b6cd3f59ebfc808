"""The journal: the audit room's segments as files, so that what was written outlives the process.

Layout: `<folder>/<stream>/<index>.seg`, with a `lock` file per stream that its process holds for as long as it lives.
A stream whose lock is free belongs to a process that is gone; the next start reads it, delivers it and removes it.
What is left of a stream with files that cannot be read is kept under the name `<stream>.damaged`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from . import streams
from .segment import HEADER_SIZE, BadSegment, Segment
from .shared import SharedLanes

__all__ = ["STAND_IN", "Journal", "Stream", "segment_name"]

STAND_IN = "audit-"
"""What the names of segments begin with that stand in a process's lanes for files that the journal's disk refuses."""
_MEMORY_SEGMENTS = 4
"""How many segments of plain memory may stand in for files that cannot be made."""
_RETRY_AFTER = 1.0


class Journal:
    """The audit segments of this process, and the streams that dead processes left in the same folder."""

    def __init__(self, folder: Path, segment_size: int, spare: int, lanes: SharedLanes | None = None) -> None:
        self.folder = folder.absolute()  # the process may change its directory later
        self.segment_size = segment_size
        self.spare = spare
        self.problem = ""
        """Why segments are plain memory at the moment; empty while they are files."""
        self._lanes = lanes
        self.begin()

    def begin(self) -> None:
        """Start a stream and make its first segments; again in a forked child that logs."""
        shared = self._lanes is not None and self._lanes.usable
        self.stream = self._lanes.stream if self._lanes is not None and shared else streams.new_name()
        self.stream_folder = self.folder / self.stream
        self.supply = _Supply(self._next_for_caller)
        self.left: deque[Segment] | None = deque() if shared else None
        """Where another process reads: segments that are full, to be unmapped here when `replenish` comes to it."""
        self._making = (
            threading.RLock()
        )  # new in a forked child, where the inherited one may be held for ever
        self._is_making = False
        self._next_index = 0
        self._in_memory = 0
        self._lock: int | None = None
        self._closed = False
        self._retry_at = 0.0
        self.replenish()

    @property
    def in_memory(self) -> int:
        """How many of the segments that were written to are plain memory, which ends with the process."""
        return self._in_memory - sum(segment.path is None for segment in tuple(self.supply))

    def replenish(self) -> None:
        """Make segments until the spare number is ready; in memory, up to a bound, where files cannot be made."""
        self._unmap_left()
        while len(self.supply) < self.spare and not self._closed:
            self._unmap_left()  # again: callers may be as fast as this is
            with self._making:
                segment = self._create_next()
                if segment is None:
                    return
                self.supply.append(segment)

    def _next_for_caller(self) -> Segment | None:
        """Return the next segment to whoever cannot wait for `replenish`; None where there is none to be had."""
        with self._making:
            return self.supply.take() if self.supply else self._create_next()

    def _create_next(self) -> Segment | None:
        """Make the segment after all others; to be called with the lock, since they are used in this order."""
        if (
            self._closed or self._is_making
        ):  # the latter: a signal handler that logs has interrupted this very call
            return None
        self._is_making = True
        try:
            return self._create_file() or self._create_stand_in()
        finally:
            self._is_making = False

    def _unmap_left(self) -> None:
        if self.left:
            self.left.clear()

    def _create_file(self) -> Segment | None:
        """Return the next segment; None where it cannot be a file, which is tried again after a second."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            if self._lock is None or not self.stream_folder.exists():
                self._make_folder()
            path = self.stream_folder / segment_name(self._next_index)
            segment = Segment.create(path, self.segment_size, self._next_index)
        except OSError as error:
            self.problem = f"{self.stream_folder}: {error}"
            self._retry_at = time.monotonic() + _RETRY_AFTER
            return None
        self.problem = ""
        self._next_index += 1
        return segment

    def _create_stand_in(self) -> Segment | None:
        if self._stand_ins() >= _MEMORY_SEGMENTS:
            return None
        try:
            segment = self._memory_segment()
        except OSError:  # no memory either
            return None
        self._in_memory += 1
        return segment

    def _memory_segment(self) -> Segment:
        """Return a segment of memory: plain, or, where another process reads, a file in the lanes."""
        if self._lanes is None or self.left is None:
            return Segment.anonymous(self.segment_size)
        path = self._lanes.stream_folder / f"{STAND_IN}{segment_name(self._next_index)}"
        segment = Segment.create(path, self.segment_size, self._next_index)
        self._next_index += 1
        return segment

    def _stand_ins(self) -> int:
        if self._lanes is None or self.left is None:
            return self._in_memory
        return sum(1 for _ in self._lanes.stream_folder.glob(f"{STAND_IN}*")) if self._in_memory else 0

    def _make_folder(self) -> None:
        self._unlock()
        _, self._lock = streams.make_folder(self.folder, self.stream)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def retire(self, segment: Segment) -> None:
        """Give back a segment whose every event is settled at every destination."""
        if segment.path is None:
            self._in_memory -= 1
        segment.close(unlink=True)

    def close(self, *, settled: bool) -> None:
        """Let go of the stream; remove it where every event is settled, else leave it to the next start."""
        self._closed = True
        if self._lock is not None and settled:
            streams.remove(self.stream_folder)
        self._unlock()

    def leave(self) -> None:
        """Let go of the parent's stream in a forked child; the parent's own descriptor still holds the lock."""
        self._unlock()
        self._closed = True

    def abandoned(self) -> Iterator[Stream]:
        """Yield the streams of dead processes, each locked against every other process that starts."""
        for folder in streams.others(self.folder, self.stream):
            locks = streams.locked(folder)
            if locks is not None:
                yield Stream(folder, locks)


class _Supply(deque[Segment]):
    """Segments made ready. Where there is none, the caller makes the next one: an audit is worth that wait."""

    def __init__(self, make: Callable[[], Segment | None]) -> None:
        super().__init__()
        self._make = make

    def popleft(self) -> Segment:
        """Take a segment; raises IndexError where none can be made either."""
        try:
            return super().popleft()
        except IndexError:
            segment = self._make()
            if segment is None:
                raise
            return segment

    def take(self) -> Segment:
        """Take one that is ready."""
        return super().popleft()


class Stream:
    """What a dead process left: its segments, linked in order, from the first that has unsettled events."""

    def __init__(self, folder: Path, locks: tuple[int, ...]) -> None:
        self.folder = folder
        self.name = folder.name
        self.damaged: list[str] = []
        self._locks = locks
        self.segments: list[Segment] = []
        for path in sorted(folder.glob("*.seg")):
            try:
                self.segments.append(Segment.load(path))
            except (BadSegment, OSError) as error:
                self.damaged.append(str(error))
        self._unused: list[Segment] = []
        while self.segments and not self.segments[-1].memory[HEADER_SIZE]:
            self._unused.append(self.segments.pop())
        for segment, following in zip(self.segments, self.segments[1:], strict=False):
            segment.next = following

    @property
    def start(self) -> tuple[int, int]:
        """The offset of the first unsettled event in the first segment, and that segment's first sequence number."""
        if not self.segments:
            return HEADER_SIZE, 0
        header = self.segments[0].read_header()
        return header.settled, max(header.first_seq - 1, 0)

    def retire(self, segment: Segment) -> None:
        """Remove a segment whose every event is settled, so that no later start delivers it again."""
        segment.close(unlink=True)

    def close(self, *, settled: bool) -> None:
        """Remove the stream where all of it is settled, but for files that could not be read; else leave it."""
        for segment in (*self.segments, *self._unused):
            segment.close(unlink=settled)
        if settled and self.damaged:
            with contextlib.suppress(OSError):
                self.folder.rename(self.folder.with_name(self.folder.name + streams.DAMAGED))
        elif settled:
            streams.remove(self.folder)
        for lock in self._locks:
            os.close(lock)


def segment_name(number: int) -> str:
    """Return the name of a stream's segment."""
    return f"{number:08d}.seg"
