"""The journal: the audit room's segments as files, so that what was written outlives the process.

Layout: `<folder>/<stream>/<index>.seg`, with a `lock` file per stream that its process holds for as long as it lives.
A stream whose lock is free belongs to a process that is gone; the next start reads it, delivers it and removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from .segment import HEADER_SIZE, BadSegment, Segment

__all__ = ["Journal", "Stream"]

_LOCK = "lock"
_MEMORY_SEGMENTS = 4
"""How many segments of plain memory may stand in for files that cannot be made."""


class Journal:
    """The audit segments of this process, and the streams that dead processes left in the same folder."""

    def __init__(self, folder: Path, segment_size: int, spare: int) -> None:
        self.folder = folder
        self.segment_size = segment_size
        self.spare = spare
        self.supply: deque[Segment] = deque()
        self.problem = ""
        """Why segments are plain memory at the moment; empty while they are files."""
        self._begin()

    def _begin(self) -> None:
        self.stream = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self.stream_folder = self.folder / self.stream
        self._next_index = 0
        self._in_memory = 0
        self._lock: int | None = None
        try:
            self.stream_folder.mkdir(mode=0o700, parents=True)
            self._lock = _try_lock(self.stream_folder)
        except OSError as error:
            self.problem = str(error)
        self.replenish()

    def replenish(self) -> None:
        """Make segments until the spare number is ready; in memory, up to a bound, where files cannot be made."""
        while len(self.supply) < self.spare:
            try:
                segment = self._create_file()
                self.problem = ""
            except OSError as error:
                self.problem = str(error)
                if self._in_memory >= _MEMORY_SEGMENTS:
                    return
                self._in_memory += 1
                segment = Segment.anonymous(self.segment_size)
            self.supply.append(segment)

    def _create_file(self) -> Segment:
        if self._lock is None:
            raise OSError(f"{self.stream_folder} cannot be used: {self.problem}")
        path = self.stream_folder / f"{self._next_index:08d}.seg"
        segment = Segment.create(path, self.segment_size, self._next_index)
        self._next_index += 1
        return segment

    def retire(self, segment: Segment) -> None:
        """Give back a segment whose every event is settled at every destination."""
        if segment.path is None:
            self._in_memory -= 1
        segment.close(unlink=True)

    def close(self, *, settled: bool) -> None:
        """Let go of the stream; remove it where every event is settled, else leave it to the next start."""
        if self._lock is None:
            return
        if settled:
            shutil.rmtree(self.stream_folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    def after_fork(self) -> None:
        """Begin a stream of the child's own; the parent's files and lock stay the parent's."""
        if self._lock is not None:
            os.close(self._lock)  # the parent's descriptor still holds the lock
        self.supply = deque()
        self._begin()

    def abandoned(self) -> Iterator[Stream]:
        """Yield the streams of dead processes, each locked against every other process that starts."""
        try:
            folders = sorted(path for path in self.folder.iterdir() if path.is_dir())
        except OSError:
            return
        for folder in folders:
            if folder == self.stream_folder:
                continue
            try:
                lock = _try_lock(folder)
            except OSError:
                continue
            if lock is not None:
                yield Stream(folder, lock)


class Stream:
    """What a dead process left: its segments, linked in order, from the first that has unsettled events."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self.name = folder.name
        self.damaged: list[str] = []
        self._lock = lock
        self.segments: list[Segment] = []
        for path in sorted(folder.glob("*.seg")):
            try:
                self.segments.append(Segment.load(path))
            except (BadSegment, OSError) as error:
                self.damaged.append(str(error))
        for segment, following in zip(self.segments, self.segments[1:], strict=False):
            segment.next = following

    @property
    def start(self) -> tuple[int, int]:
        """The offset of the first unsettled event in the first segment, and that segment's first sequence number."""
        if not self.segments:
            return HEADER_SIZE, 0
        header = self.segments[0].read_header()
        return header.settled, max(header.first_seq - 1, 0)

    def close(self, *, settled: bool) -> None:
        """Remove the stream where all of it is settled, else leave it to the next start."""
        for segment in self.segments:
            segment.close()
        if settled and not self.damaged:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _try_lock(folder: Path) -> int | None:
    """Return a descriptor that holds the stream's lock, or None where its process is alive."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
