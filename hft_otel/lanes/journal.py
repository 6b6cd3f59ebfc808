"""The journal: the audit room's segments as files, so that what was written outlives the process.

Layout: `<folder>/<stream>/<index>.seg`, with a `lock` file per stream that its process holds for as long as it lives.
A stream whose lock is free belongs to a process that is gone; the next start reads it, delivers it and removes it.
What is left of a stream with files that cannot be read is kept under the name `<stream>.damaged`.

Where the folder refuses a segment, that one is a file in the fallback folder, in a stream's folder that is laid out and
locked alike; where that refuses too, it is memory. The numbers of segments go on over all of these.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from . import streams
from .segment import HEADER_SIZE, BadSegment, Segment, is_shortage
from .shared import SharedLanes

__all__ = ["STAND_IN", "Journal", "Stream", "abandoned", "segment_files", "segment_name"]

STAND_IN = "audit-"
"""What the names of segments begin with that stand in a process's lanes for files that the journal's disk refuses."""
_MEMORY_SEGMENTS = 4
"""How many segments of plain memory may stand in for files that cannot be made."""
_RETRY_AFTER = 1.0


class Journal:
    """The audit segments of this process, and the streams that dead processes left in the same folder."""

    def __init__(
        self,
        folder: Path,
        segment_size: int,
        spare: int,
        lanes: SharedLanes | None = None,
        fallback: Path | None = None,
    ) -> None:
        # Absolute: the process may change its directory later.
        self.folders = tuple(each.absolute() for each in (folder, fallback) if each is not None)
        self.folder = self.folders[0]
        self.segment_size = segment_size
        self.spare = spare
        self.displaced: Counter[str] = Counter()
        """How many segments so far are not where they belong, by where they are: `fallback`, `memory`."""
        self._lanes = lanes
        self.begin()

    def successor(self) -> Journal:
        """Return a journal in the same folders, of a stream of its own, which nobody reads before the next start."""
        return Journal(self.folder, self.segment_size, 1, fallback=next(iter(self.folders[1:]), None))

    def begin(self) -> None:
        """Start a stream and make its first segments; again in a forked child that logs."""
        shared = self._lanes is not None and self._lanes.usable
        self.stream = self._lanes.stream if self._lanes is not None and shared else streams.new_name()
        self._places = tuple(_Place(folder, self.stream) for folder in self.folders)
        self.supply = _Supply(self._next_for_caller)
        self.left: deque[Segment] | None = deque() if shared else None
        """Where another process reads: segments that are full, to be unmapped here when `replenish` comes to it."""
        self._mapped: deque[Segment] = deque()
        """The segments that callers write now, or will; set aside once they are full, however far readers are behind."""
        self._making = (
            threading.RLock()
        )  # new in a forked child, where the inherited one may be held for ever
        self._is_making = False
        self._next_index = 0
        self._in_memory = 0
        self._closed = False
        self.replenish()

    @property
    def stream_folders(self) -> tuple[Path, ...]:
        """Where segments of this stream may be files; the first is where they belong."""
        return tuple(place.stream_folder for place in self._places)

    @property
    def stream_folder(self) -> Path:
        """Where segments of this stream belong."""
        return self._places[0].stream_folder

    @property
    def problem(self) -> str:
        """Why the last segment is not where it belongs, and where it is; empty while all is well."""
        if not self._places[0].problem:
            return ""
        takes = next((place for place in self._places if not place.problem), None)
        where = "are kept in memory only" if takes is None else f"go to {takes.stream_folder}"
        return f"{'; '.join(filter(None, (place.problem for place in self._places)))}; audit events {where}"

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
                self._leave_out_vanished()
                segment = self._create_next()
                if segment is None:
                    return
                self.supply.append(segment)

    def _leave_out_vanished(self) -> None:
        """Use no segment whose folder somebody removed: nobody else would ever find it."""
        if any(place.vanished for place in self._places):
            for segment in tuple(self.supply):
                if segment.path is not None and not segment.path.exists():
                    with contextlib.suppress(ValueError):  # a caller has taken it meanwhile
                        self.supply.remove(segment)
                        segment.close()

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
            while self._mapped and self._mapped[0].is_over:
                self._mapped.popleft().set_aside()
            segment = self._create_file() or self._create_stand_in()
            if segment is not None:
                self._mapped.append(segment)
            return segment
        finally:
            self._is_making = False

    def _unmap_left(self) -> None:
        if self.left:
            self.left.clear()

    def _create_file(self) -> Segment | None:
        """Return the next segment, in the first place that takes it; None where it cannot be a file."""
        for place in self._places:
            segment = place.create(self.segment_size, self._next_index)
            if segment is not None:
                self._next_index += 1
                if place is not self._places[0]:
                    self.displaced["fallback"] += 1
                return segment
        return None

    def _create_stand_in(self) -> Segment | None:
        if self._stand_ins() >= _MEMORY_SEGMENTS:
            return None
        try:
            segment = self._memory_segment()
        except OSError:  # no memory either
            return None
        self._in_memory += 1
        self.displaced["memory"] += 1
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

    def retire(self, segment: Segment) -> None:
        """Give back a segment whose every event is settled at every destination."""
        if segment.path is None:
            self._in_memory -= 1
        segment.close(unlink=True)

    def close(self, *, settled: bool) -> None:
        """Let go of the stream; remove it where every event is settled, else leave it to the next start."""
        self._closed = True
        for place in self._places:
            place.close(remove=settled)

    def leave(self) -> None:
        """Let go of the parent's stream in a forked child; the parent's own descriptor still holds the lock."""
        self.close(settled=False)

    def abandoned(self) -> Iterator[Stream]:
        """Yield the streams of dead processes, each locked against every other process that starts."""
        yield from abandoned(self.folders, self.stream)


class _Place:
    """A folder for a stream's segments: made and locked for the first one; asked again a second after it refused one."""

    def __init__(self, folder: Path, stream: str) -> None:
        self.stream_folder = folder / stream
        self.problem = ""
        """Why it took no segment when it was asked last; empty where it did."""
        self._lock: int | None = None
        self._retry_at = 0.0

    @property
    def vanished(self) -> bool:
        """Say whether the folder was made, and is not there any more."""
        return self._lock is not None and not self.stream_folder.exists()

    def create(self, size: int, index: int) -> Segment | None:
        """Return the segment of that number as a file in here; None where that is not to be had now."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            if self._lock is None or self.vanished:
                self._make_folder()
            segment = Segment.create(self.stream_folder / segment_name(index), size, index)
        except OSError as error:
            self.problem = f"{self.stream_folder}: {error}"
            self._retry_at = time.monotonic() + _RETRY_AFTER
            return None
        self.problem = ""
        return segment

    def close(self, *, remove: bool) -> None:
        """Let go of the folder; remove it where it is there and nobody is to read it."""
        if self._lock is not None and remove:
            streams.remove(self.stream_folder)
        self._unlock()

    def _make_folder(self) -> None:
        self._unlock()
        _, self._lock = streams.make_folder(self.stream_folder.parent, self.stream_folder.name)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


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


class _Found(NamedTuple):
    """The segments of a stream that have something in them, those that do not, and what is damaged."""

    segments: list[Segment]
    unused: list[Segment]
    damaged: list[str]


class Stream:
    """What a dead process left: its segments, linked in order, from the first that has unsettled events.

    `folder` is where they belong, `folders` are those that there are. None of the segments is mapped before it is read.
    """

    def __init__(self, folder: Path, folders: Sequence[Path], locks: Sequence[int]) -> None:
        self.folder = folder
        self.name = folder.name
        self._folders = folders
        self._locks = locks

    @property
    def segments(self) -> list[Segment]:
        """The segments; raises OSError where files cannot be opened now, which is to be tried again later."""
        return self._found.segments

    @property
    def damaged(self) -> list[str]:
        """What cannot be read, each a file as a whole or in part; raises as `segments` does."""
        return self._found.damaged

    @cached_property
    def _found(self) -> _Found:
        found = _Found([], [], [])
        files = (path for folder in self._folders for path in segment_files(folder))
        for path in sorted(files, key=lambda path: path.name):
            try:
                segment = Segment.load(path)
            except (BadSegment, OSError) as error:
                if is_shortage(error):
                    raise
                found.damaged.append(str(error))
                continue
            found.unused.append(segment)
            if segment.memory[HEADER_SIZE]:
                found.segments.extend(found.unused)  # it, and those before it
                found.unused.clear()
                if segment.is_cut:
                    found.damaged.append(f"{path} was cut short")
            segment.set_aside()
        for segment, following in zip(found.segments, found.segments[1:], strict=False):
            segment.next = following
        return found

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
        found = self.__dict__.get("_found")
        for segment in (*found.segments, *found.unused) if found is not None else ():
            segment.close(unlink=settled)
        for folder in self._folders if settled else ():
            if self.damaged and any(folder.glob("*.seg")):
                with contextlib.suppress(OSError):
                    folder.rename(folder.with_name(folder.name + streams.DAMAGED))
            else:
                streams.remove(folder)
        for lock in self._locks:
            os.close(lock)


def abandoned(folders: Sequence[Path], own: str) -> Iterator[Stream]:
    """Yield what dead processes left in a journal's folders, of which the first is where it belongs; locked, but the own."""
    for name in sorted({stream.name for folder in folders for stream in streams.others(folder, own)}):
        found = [folder / name for folder in folders if (folder / name).is_dir()]
        locks = streams.locked(*found)
        if locks is not None:
            yield Stream(folders[0] / name, found, locks)


def segment_name(number: int) -> str:
    """Return the name of a stream's segment."""
    return f"{number:08d}.seg"


def segment_files(folder: Path, prefix: str = "") -> list[Path]:
    """Return the segments in a folder, in order of their names; raises OSError, which Path.glob may keep to itself."""
    return sorted(each for each in folder.iterdir() if each.name.startswith(prefix) and each.suffix == ".seg")
