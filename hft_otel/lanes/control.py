"""The control page: what both sides of file-backed lanes tell each other beside the records, also after a kill.

One page of memory in a file; each word has one writing side, and is written in one piece. Per room: how many records
the callers' side had to drop, and why; how far it had written when it was last asked; how many records the reader has
read and taken out of the lanes without their being settled.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from .segment import MAX_WORD, BadSegment

__all__ = ["REASONS", "ControlPage", "RoomPage"]

SIZE = 4096
MAGIC = b"HFTOTELC"
VERSION = 1
REASONS = ("room_full", "too_large", "after_shutdown", "logger_closed", "capture_failed")
"""Why the callers' side drops records, in the order of their counters; one more counts all other reasons."""
OTHER = "other"
ROOMS = ("audit", "high", "metric", "low")

_HEAD = struct.Struct("<8sIIQQ")
_WORD = struct.Struct("<Q")
_PIPELINES = 32
_ROOM, _ROOM_SIZE = 64, 256
_POSITION, _RELEASED = 16 * 8, 17 * 8
_JOURNALS = ((2048, 2048), (_ROOM + 4 * _ROOM_SIZE, 2048 - _ROOM - 4 * _ROOM_SIZE))
"""Where the path of the journal's stream stands, and that in the fallback folder; and how much space there is."""
_HALF = 2**32


class ControlPage:
    """The page as a whole: who writes, and the rooms' parts."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.rooms: Mapping[str, RoomPage] = {
            name: RoomPage(memory, _ROOM + number * _ROOM_SIZE) for number, name in enumerate(ROOMS)
        }

    @classmethod
    def create(cls, path: Path, pid: int, started_ns: int) -> ControlPage:
        """Make the page in a new file; raises OSError."""
        unready = path.with_suffix(".new")  # a kill in here must leave no page that cannot be read
        descriptor = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
            page = cls(mmap.mmap(descriptor, SIZE))
        finally:
            os.close(descriptor)
        _HEAD.pack_into(page.memory, 0, MAGIC, VERSION, 0, pid, started_ns)
        unready.rename(path)
        return page

    @classmethod
    def load(cls, path: Path) -> ControlPage:
        """Map the page of another process; raises BadSegment or OSError."""
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size != SIZE:
                raise BadSegment(f"{path} is not {SIZE} bytes long")
            page = cls(mmap.mmap(file.fileno(), SIZE))
        magic, version, *_ = _HEAD.unpack_from(page.memory)
        if magic != MAGIC or version != VERSION:
            page.close()
            raise BadSegment(f"{path} is not a control page of version {VERSION}")
        return page

    @classmethod
    def blank(cls) -> ControlPage:
        """Return a page that stands in for one that cannot be read, and says nothing."""
        return cls(mmap.mmap(-1, SIZE))

    @property
    def pid(self) -> int:
        """The writer's process id."""
        return int(_HEAD.unpack_from(self.memory)[3])

    @property
    def started_ns(self) -> int:
        """When the writer began, in nanoseconds since the epoch."""
        return int(_HEAD.unpack_from(self.memory)[4])

    @property
    def pipelines(self) -> int:
        """How many pipelines the writer has: a record of one that the reader does not know yet has to wait."""
        return int(_WORD.unpack_from(self.memory, _PIPELINES)[0])

    @pipelines.setter
    def pipelines(self, number: int) -> None:
        _WORD.pack_into(self.memory, _PIPELINES, number)

    @property
    def journals(self) -> tuple[str, ...]:
        """The paths of the writer's journal stream: where it belongs first, and where else it may be, if anywhere."""
        return tuple(path for place in _JOURNALS if (path := self._text(*place)))

    @journals.setter
    def journals(self, paths: tuple[str, ...]) -> None:
        for path, (offset, space) in zip(paths, _JOURNALS, strict=False):
            packed = path.encode(errors="surrogateescape")[: space - _WORD.size]
            self.memory[offset + _WORD.size : offset + _WORD.size + len(packed)] = packed
            _WORD.pack_into(self.memory, offset, len(packed))

    def _text(self, offset: int, space: int) -> str:
        size = min(_WORD.unpack_from(self.memory, offset)[0], space - _WORD.size)
        return self.memory[offset + _WORD.size :][:size].decode(errors="surrogateescape")

    def close(self) -> None:
        """Unmap the page."""
        self.memory.close()


class RoomPage:
    """One room's part of the page."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset

    def _load(self, place: int) -> int:
        return int(_WORD.unpack_from(self._memory, self._offset + place)[0])

    def _store(self, place: int, value: int) -> None:
        _WORD.pack_into(self._memory, self._offset + place, value & MAX_WORD)

    def note_dropped(self, reason: str, number: int) -> None:
        """Store how many records were dropped for a reason; the writer's side."""
        self._store(8 * (REASONS.index(reason) if reason in REASONS else len(REASONS)), number)

    def dropped(self) -> dict[str, int]:
        """Return how many records the writer dropped, by reason."""
        counts = {reason: self._load(8 * place) for place, reason in enumerate((*REASONS, OTHER))}
        return {reason: count for reason, count in counts.items() if count}

    def note_position(self, turn: int, offset: int) -> None:
        """Store up to where frames are known to be whole; the writer's side."""
        self._store(_POSITION, (turn % _HALF) * _HALF + offset)

    @property
    def position(self) -> tuple[int, int]:
        """The turn and the offset that the writer has stored last."""
        return divmod(self._load(_POSITION), _HALF)

    @property
    def released(self) -> int:
        """Records that the reader has taken out of the lane and not settled: lost, if it is killed; the reader's side."""
        return self._load(_RELEASED)

    @released.setter
    def released(self, number: int) -> None:
        self._store(_RELEASED, max(number, 0))
