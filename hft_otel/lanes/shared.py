"""The lanes as files: the trading process's side, where another process reads (see remote.py for its side).

Layout: `<folder>/<stream>/` holds `lock` (held while the trading process lives), `agent.lock` (held by whoever reads),
`control` (see control.py), and `<room>-<index>.seg` for each room but audit, whose segments are the journal's.
All are mapped and touched at the start. Reader and writer share no lock, and no call of either waits for the other.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from . import streams
from .control import ControlPage
from .segment import BadSegment, Segment, unpack_header

__all__ = ["CONTROL", "SharedLanes", "SharedSupply", "Sizes", "default_folder", "remove_unfinished"]

CONTROL = "control"
_SHM = Path("/dev/shm")
_TMPFS = "tmpfs"
_CLAIMED = -2
_PER_MB = 16


class Sizes(NamedTuple):
    """The bounds on memory, in bytes: segments per room times the size of one."""

    segment: int = 64 * 1024
    low: int = 32
    high: int = 16
    metric: int = 24

    @classmethod
    def of_megabytes(cls, low: float, high: float, metric: float) -> Self:
        """Return as many segments of the usual size as go into each."""
        return cls(low=round(low * _PER_MB), high=round(high * _PER_MB), metric=round(metric * _PER_MB))


def default_folder() -> Path:
    """Return where lanes are kept unless the configuration says otherwise: in memory where possible."""
    name = f"hft-otel-{os.getuid()}"
    if _is_tmpfs(_SHM) and os.access(_SHM, os.W_OK | os.X_OK):
        return _SHM / name
    return Path(tempfile.gettempdir()) / name


def _is_tmpfs(folder: Path) -> bool:
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, *_ = line.split()
            if where == str(folder):
                return kind == _TMPFS
    return False


class SharedLanes:
    """One process's stream of lanes. `usable` says whether it is there; else `problem` says why, and all else is void."""

    def __init__(self, folder: Path, sizes: Sizes = Sizes()) -> None:  # noqa: B008  (an immutable value)
        self.folder = folder.absolute()  # the process may change its directory later
        self.sizes = sizes
        self._lock: int | None = None
        self.begin()

    def begin(self) -> None:
        """Start a stream; again in a forked child that logs."""
        self.stream = streams.new_name()
        self.stream_folder = self.folder / self.stream
        self.control = ControlPage.blank()
        self.supplies: dict[str, SharedSupply] = {}
        self.usable = False
        self.problem = ""
        try:
            self._make()
        except OSError as error:
            self.problem = f"{self.stream_folder}: {error}"
            self.close(remove=True)

    def _make(self) -> None:
        self.stream_folder, self._lock = streams.make_folder(self.folder, self.stream, private=True)
        for room in ("low", "high", "metric"):
            self.supplies[room] = SharedSupply(list(self._segments(room, getattr(self.sizes, room))))
        self.control = ControlPage.create(self.stream_folder / CONTROL, os.getpid(), time.time_ns())
        self.usable = True

    def _segments(self, room: str, count: int) -> Iterator[Segment]:
        for index in range(count):
            yield Segment.create(self.stream_folder / f"{room}-{index:04d}.seg", self.sizes.segment, index)

    def leave(self) -> None:
        """Let go of the parent's stream in a forked child; the parent's own descriptor still holds the lock."""
        self.close(remove=False)

    def close(self, *, remove: bool) -> None:
        """Let go of the stream; remove it where nobody is to read it."""
        self.usable = False
        if remove:
            streams.remove(self.stream_folder)
            streams.remove(self.folder / f".{self.stream}")
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill has left of a stream while it was made, or removed: no whole control page, no segment ever used.

    Nothing is done where its process, or an agent, lives. Raises OSError and BadSegment where that cannot be told.
    """
    if _is_finished(folder) or (locks := streams.locked(folder)) is None:
        return
    try:
        # A list: `glob` would take a folder that cannot be opened now for an empty one.
        segments = [path for path in list(folder.iterdir()) if path.suffix == ".seg"]
        unused = all(unpack_header(path.read_bytes(), path).turn == 0 for path in segments)
        # It may have been finished, and its process ended, since the first look.
        if unused and not _is_finished(folder):
            streams.remove(folder)
    finally:
        for lock in locks:
            os.close(lock)


def _is_finished(folder: Path) -> bool:
    """Say whether the control page says where the journal is, as it does before anything is logged; raises OSError."""
    try:
        page = ControlPage.load(folder / CONTROL)
    except (BadSegment, FileNotFoundError):
        return False
    noted = bool(page.journals)
    page.close()
    return noted


class SharedSupply:
    """The free ones among a room's segments: those whose last turn the reader has given back.

    Takes the lowest of them, since it is the likeliest to be in the caches still.
    """

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = segments
        for segment in segments:
            segment.turn = -1

    def __len__(self) -> int:
        """Count the free segments."""
        return sum(segment.turn + 1 == segment.read_word("freed") for segment in self.segments)

    def popleft(self) -> Segment:
        """Take a free segment; raises IndexError where there is none."""
        for segment in self.segments:
            freed = segment.read_word("freed")
            if segment.turn + 1 == freed:
                segment.turn = (
                    _CLAIMED  # before the next call, inside of which a signal handler might take it too
                )
                return segment
        raise IndexError("no segment is free")
