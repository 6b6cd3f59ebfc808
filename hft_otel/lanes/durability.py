"""How an audit event gets from mapped memory to the disk, beside the kernel's own pace: group and sync.

    process  in file-backed memory when the call returns: survives a kill of every process, not a loss of power
    group    on the disk within an interval, by a thread of whoever reads; the call does not wait
    sync     on the disk when the call returns; calls of several threads share one look at the disk

`fdatasync` is what both use; Python lets other threads run meanwhile, which `mmap.flush` does not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from math import inf
from pathlib import Path

from .room import Room

__all__ = ["DiskSync", "Flusher", "SyncedRoom"]


class DiskSync:
    """Puts a stream's segments on the disk, beginning with the one that was the newest the last time."""

    def __init__(self, folders: Callable[[], Sequence[Path]]) -> None:
        self.problem = ""
        """What the disk said last; empty if nothing is wrong."""
        self._folders = folders
        self._from: tuple[Sequence[Path], int] = ((), 0)

    def sync(self, active: int, last: float = inf) -> None:
        """Put on the disk all that is written in the segments up to `last`; `active` is the first of the next time."""
        folders = self._folders()
        known, first = self._from
        first = first if known == folders else 0  # a forked child has a stream of its own
        has_new_files = self._from != (folders, active)
        problems: list[str] = []
        for folder in folders:
            try:
                _sync_between(folder, first, last)
                if (
                    has_new_files
                ):  # a file is on the disk with its content, and found by what its folder has there
                    _fsync_folders(folder)
            except OSError as error:
                problems.append(f"{folder} is not on the disk: {error}")
        self.problem = "; ".join(problems)
        if not problems:
            self._from = (folders, active)


def _sync_between(folder: Path, first: int, last: float) -> None:
    for path in folder.glob("*.seg"):
        if path.stem.isdecimal() and first <= int(path.stem) <= last:
            _fdatasync(path)


def _fsync_folders(folder: Path) -> None:
    """Put the names of a stream's segments on the disk, and that of its folder."""
    for each in (folder, folder.parent):
        with suppress(FileNotFoundError):
            descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _fdatasync(path: Path) -> None:
    with suppress(FileNotFoundError):  # every destination has it already
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


class SyncedRoom:
    """Stands where the audit room stood: a write returns once what was written is on the disk."""

    def __init__(self, room: Room, disk: DiskSync) -> None:
        self._room = room
        self._disk = disk
        self._numbers = count(1)
        self._latest = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew; in a forked child, where the inherited lock may be held for ever."""
        # One that may be taken again: a signal handler that logs may interrupt its holder.
        self._lock = threading.RLock()
        self._synced = 0

    @property
    def problem(self) -> str:
        """What the disk said last; empty if nothing is wrong."""
        return self._disk.problem

    @property
    def capacity(self) -> int:
        """The longest frame, in bytes, that can ever be written."""
        return self._room.capacity

    @property
    def failed(self) -> Iterator[int]:
        """Counts a record that could not be captured."""
        return self._room.failed

    def write(self, frame: bytes) -> None:
        """Write a frame to the active segment, and wait for the disk; raises ValueError where it does not fit."""
        self._room.write(frame)
        self._wait()

    def put(self, frame: bytes) -> bool:
        """Write a frame, and wait for the disk; count it as dropped where there is no space."""
        kept = self._room.put(frame)
        if kept:
            self._wait()
        return kept

    def drop(self, reason: str) -> None:
        """Count the record as dropped."""
        self._room.drop(reason)

    def _wait(self) -> None:
        """Return once the disk has all that this thread has written; one caller asks it for all that wait."""
        mine = self._latest = next(self._numbers)
        with self._lock:
            if self._synced < mine:
                upto = max(self._latest, mine)  # those have written before, and need not ask again
                active = self._room.active
                before = self._disk.problem
                if active.path is None:  # memory, which stands in where the disk refuses, and has no number
                    self._disk.sync(0)
                else:
                    self._disk.sync(active.index, active.index)
                self._synced = upto
                if self._disk.problem != before:
                    self._room.on_change()  # whoever says so may be asleep


class Flusher:
    """Has the disk take what is new every so many seconds, on a thread of its own."""

    def __init__(
        self,
        disk: DiskSync,
        interval: float,
        position: Callable[[], tuple[int, int]],
        active: Callable[[], int],
    ) -> None:
        self._disk = disk
        self._interval = interval
        self._position = position
        self._active = active
        self._seen: tuple[int, int] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hft-otel-disk", daemon=True)

    @property
    def problem(self) -> str:
        """What the disk said last; empty if nothing is wrong."""
        return self._disk.problem

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Do it a last time, and end."""
        self._stopped.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._turn()
        self._turn()

    def _turn(self) -> None:
        with suppress(
            Exception
        ):  # a segment may be unmapped by its reader meanwhile; the next turn looks again
            position = self._position()
            if position != self._seen:
                self._disk.sync(self._active())
                if not self._disk.problem:
                    self._seen = position
