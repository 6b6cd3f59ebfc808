"""A segment: one piece of mapped memory that callers fill with frames and the worker reads once.

A frame is a MessagePack `bin`: a tag byte (0xC4, 0xC5 or 0xC6: never zero), a length of 1, 2 or 4 bytes, the body.
Memory is zeroed before use, so a zero tag marks the end of what was written.

Why no lock: `mmap.write` is one C call, so under the GIL the copy and the advance of the position are one step, and
the position is the commit point. At the end of the map it raises ValueError. To retire a segment its position is
moved to the end, after which a writer that still holds the bound `write` fails too, and takes the next segment.

A segment that is a file can be read by another process, which does not see the position; what it goes by is in its
header (and in remote.py). Each word of the header has one writing side, so neither needs the other's lock.

A map takes a file descriptor, and there may be any number of full segments that wait on the disk: one that is set aside
is not mapped, and is mapped again when somebody looks at it. Its map is let go of and not closed, so that whoever is
reading it at that moment has it until he is done.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

__all__ = [
    "HEADER_SIZE",
    "MAX_WORD",
    "BadSegment",
    "Header",
    "Segment",
    "Word",
    "count_frames",
    "frame_length",
    "is_shortage",
    "is_tag",
    "last_frame",
    "pack_header",
    "split_frames",
    "unpack_header",
]

HEADER_SIZE = 64
"""Bytes before the first frame; of the same size in anonymous segments, where they stay unused."""
MAGIC = b"HFTOTEL\0"
VERSION = 2
_READABLE = (1, 2)
"""Version 1 has zeros where later versions have the size, `turn`, `following` and `freed`."""
_HEADER = struct.Struct("<8sIIQQQQQQ")
_SIZE = struct.Struct("<I")
_WORD = struct.Struct("<Q")  # written and read in one piece
MAX_WORD = 2**64 - 1
"""What is counted on from a damaged word must not raise where it is stored."""
Word = Literal["first_seq", "settled", "turn", "following", "freed"]
_WORDS: dict[Word, int] = {"first_seq": 24, "settled": 32, "turn": 40, "following": 48, "freed": 56}

_PREFIX = {0xC4: 2, 0xC5: 3, 0xC6: 5}
"""The tags of MessagePack's `bin`, and how many bytes each takes with the length that follows it."""
_ZEROS = bytes(64 * 1024)
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Has a map of a file keep no descriptor, where Python can do without: one is for resizing, which nobody does here."""
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_PATIENCE = 10.0
_missing: dict[Path, float] = {}
"""Since when files are missed, by their folder; in seconds of time.monotonic. After `_PATIENCE` they are lost."""
_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


class BadSegment(ValueError):
    """A segment file that cannot be read: truncated, foreign, or of another version."""


class Header(NamedTuple):
    """What a segment that is a file says of itself.

    Of the file: `number` counts the segments of one room or stream from 0.
    Of the reader: `first_seq` is the number of the first frame in its stream plus one (0 while unknown); `settled` is
    the offset up to which every destination is done; `freed` is the `turn` that is read, settled and zeroed.
    Of the writer: `turn` says how many segments of its room were active before it, plus one (0 while it never was);
    `following` is the number of the segment after it, plus one, and says that nothing more is written to this one.
    """

    number: int
    first_seq: int = 0
    settled: int = HEADER_SIZE
    turn: int = 0
    following: int = 0
    freed: int = 0


class Segment:
    """Mapped memory with a write position.

    `next` is the segment that followed it, set once this one is sealed; `turn` says how many were active before it.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_map",
        "index",
        "is_lost",
        "next",
        "path",
        "size",
        "turn",
        "write",
    )

    def __init__(self, memory: mmap.mmap, path: Path | None = None, index: int = 0) -> None:
        self._map: mmap.mmap | None = memory
        self._closed = False
        self.is_lost = False
        """Whether its file was removed while it waited: it is read as an empty one from then on."""
        self.size = len(memory)
        self.path = path
        self.index = index
        self.next: Segment | None = None
        self.turn = 0
        self.write: Callable[[bytes], object] = memory.write if _HAS_GIL else _locked(memory.write)
        self.seal()

    @classmethod
    def anonymous(cls, size: int) -> Segment:
        """Return a segment of private memory, touched so that no caller pays for its first pages."""
        segment = cls(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        segment.zero(size)
        return segment

    @classmethod
    def create(cls, path: Path, size: int, index: int) -> Segment:
        """Return a segment in a new file with its disk space allocated; raises OSError where that is not to be had."""
        unready = path.with_suffix(
            ".new"
        )  # a kill in here must not leave a file that looks like a damaged segment
        descriptor = os.open(unready, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            segment = cls(mmap.mmap(descriptor, size, **_UNTRACKED), path, index)
            segment.zero(size)  # touches the pages, so that no caller pays for them
            segment.write_header(Header(index))
            unready.rename(path)
        except BaseException:
            unready.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return segment

    @classmethod
    def load(cls, path: Path) -> Self:
        """Map an existing file for reading what a past process wrote; raises BadSegment or OSError."""
        segment = cls(_map_file(path), path)
        segment.index = segment.read_header().number
        return segment

    @property
    def memory(self) -> mmap.mmap:
        """The map, made again where the segment was set aside.

        Raises OSError where that cannot be done now, and ValueError where the segment was closed.
        """
        memory = self._map
        return self._map_again() if memory is None else memory

    def _map_again(self) -> mmap.mmap:
        if self._closed or self.path is None:
            raise ValueError("the segment is closed")
        try:
            memory = _map_file(self.path)
        except BadSegment as error:
            raise OSError(str(error)) from error
        except (FileNotFoundError, NotADirectoryError):
            if time.monotonic() < _missing.setdefault(self.path.parent, time.monotonic()) + _PATIENCE:
                raise  # a folder may be on its way from one place to another
            self.is_lost = True
            memory = mmap.mmap(-1, self.size)
        else:
            _missing.pop(self.path.parent, None)
        if len(memory) < self.size:
            raise OSError(f"{self.path} was cut short while it was waiting")
        memory.seek(self.size)
        # Two threads may come here at once: they have two maps of the same pages, and one of them stays.
        self._map = memory
        return memory

    def read_header(self) -> Header:
        """Return the header; raises BadSegment where it is not one of ours."""
        header = unpack_header(self.memory, self.path)
        return header._replace(settled=min(max(header.settled, HEADER_SIZE), self.size))

    def write_header(self, header: Header) -> None:
        """Store the whole header; only while nobody else has the file."""
        self.memory[:HEADER_SIZE] = pack_header(header, self.size)

    @property
    def is_cut(self) -> bool:
        """Say whether the file was longer when it was made."""
        return self.size < int(_SIZE.unpack_from(self.memory, 12)[0])

    def read_word(self, name: Word) -> int:
        """Return one of the header's words as it stands."""
        word: int = _WORD.unpack_from(self.memory, _WORDS[name])[0]
        return word

    def note_first_seq(self, first_seq: int) -> None:
        """Store the number of the first frame in its stream, plus one; the reader's side."""
        self._store("first_seq", first_seq)

    def note_settled(self, offset: int) -> None:
        """Store up to where every destination is done; the reader's side."""
        self._store("settled", offset)

    def note_freed(self, turn: int) -> None:
        """Give back the segment, zeroed, of this turn (as the header counts); the reader's side."""
        self._store("freed", turn)

    def _store(self, name: Word, value: int) -> None:
        _WORD.pack_into(self.memory, _WORDS[name], value & MAX_WORD)

    def unseal(self) -> None:
        """Let callers write, from the first byte after the header; `take_turn` comes before the first of them."""
        if self.path is not None:
            self._store("following", 0)
        self.memory.seek(HEADER_SIZE)

    def take_turn(self, turn: int) -> None:
        """Note how many segments were active before this one."""
        self.turn = turn
        if self.path is not None:
            self._store("turn", turn + 1)

    def lead_to(self, following: Segment) -> None:
        """Say, once sealed, which segment comes next: a reader that sees it knows that nothing more comes in this one."""
        if self.path is not None:
            self._store("following", following.index + 1)
        self.next = following

    def seal(self) -> None:
        """Let no caller write any more."""
        memory = self._map
        if memory is not None:  # else it is
            memory.seek(self.size)

    @property
    def is_over(self) -> bool:
        """Say whether it is full, or was closed: its writer has no more use for the map."""
        return self.next is not None or self._closed

    def committed(self) -> int:
        """Return the offset up to which frames may be read; exact once `next` is set, and while callers write."""
        memory = self._map
        return self.size if memory is None else memory.tell()

    def holds_more(self, offset: int) -> bool:
        """Say whether something stands behind the last frame of a segment that was read: it is damaged then."""
        rest = self.memory[offset:]
        return rest.count(0) != len(rest)

    def set_aside(self) -> None:
        """Unmap a full file until somebody looks at it again: what waits there is on the disk, and takes nothing else."""
        # Elsewhere, and where somebody has removed the file, the map is all there is.
        if self._map is not None and self.path is not None and self.path.exists():
            self.write = _refuse
            self._map = None

    def zero(self, end: int, begin: int = 0) -> None:
        """Clear the memory up to `end`, in pieces that hold the GIL for a few microseconds each."""
        for start in range(begin, end, len(_ZEROS)):
            stop = min(start + len(_ZEROS), end)
            self.memory[start:stop] = _ZEROS[: stop - start]

    def close(self, *, unlink: bool = False) -> None:
        """Unmap the memory, and remove the file where `unlink` is set."""
        memory, self._closed = self._map, True
        if memory is not None:
            memory.close()
        if unlink and self.path is not None and not self.is_lost:  # it may come back, for the next start
            self.path.unlink(missing_ok=True)


def pack_header(header: Header, size: int) -> bytes:
    """Return a header as it stands at the beginning of a file of that size."""
    return _HEADER.pack(MAGIC, VERSION, size, *header)


def unpack_header(data: bytes | mmap.mmap, path: Path | None = None) -> Header:
    """Return the header that a file begins with; raises BadSegment where it is not one of ours."""
    if len(data) < _HEADER.size:
        raise BadSegment(f"{path} is shorter than a header")
    magic, version, _, *words = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise BadSegment(f"{path} is not a segment of hft-otel")
    if version not in _READABLE:
        raise BadSegment(f"{path} has version {version}, this is version {VERSION}")
    return Header(*words)


def split_frames(chunk: bytes, limit: int) -> tuple[list[bytes], int]:
    """Cut a chunk into at most `limit` frame bodies, and return how many bytes they and their tags took.

    What is no frame ends the list: a zero tag, a frame that goes on beyond the chunk, corruption.
    """
    bodies: list[bytes] = []
    position, size = 0, len(chunk)
    while len(bodies) < limit and position < size:
        start = position + _PREFIX.get(chunk[position], size + 1)
        if start > size:
            break
        end = start + (chunk[position + 1] if start == position + 2 else _length(chunk, position + 1, start))
        if end > size:
            break
        bodies.append(chunk[start:end])
        position = end
    return bodies, position


def last_frame(chunk: bytes) -> tuple[int, int]:
    """Return where the last frame of a chunk begins and ends; both are 0 where there is none that is all in it."""
    _, last, end = _scan(chunk)
    return last, end


def count_frames(chunk: bytes) -> tuple[int, int]:
    """Return how many frames a chunk begins with, and how many bytes they take; what ends `split_frames` ends it."""
    count, _, end = _scan(chunk)
    return count, end


def _scan(chunk: bytes) -> tuple[int, int, int]:
    """Return how many frames a chunk begins with, and where the last of them begins and ends."""
    count, last, position, size = 0, 0, 0, len(chunk)
    while position < size:
        start = position + _PREFIX.get(chunk[position], size + 1)
        if start > size:
            break
        end = start + (chunk[position + 1] if start == position + 2 else _length(chunk, position + 1, start))
        if end > size:
            break
        count, last, position = count + 1, position, end
    return count, last, position


def _length(chunk: bytes, begin: int, end: int) -> int:
    return int.from_bytes(chunk[begin:end], "big")


def is_shortage(error: BaseException) -> bool:
    """Say whether the process or the machine was short of descriptors or memory: what was to be opened is all right."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


def is_tag(byte: int) -> bool:
    """Say whether a frame may begin with this byte."""
    return byte in _PREFIX


def frame_length(body: bytes) -> int:
    """Return how many bytes the frame takes that a body came in."""
    size = len(body)
    return size + (2 if size < 0x100 else 3 if size < 0x10000 else 5)


def _map_file(path: Path) -> mmap.mmap:
    """Map all of a file; raises BadSegment where it has not even a header, and OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size <= HEADER_SIZE:
            raise BadSegment(f"{path} is shorter than a header")
        return mmap.mmap(descriptor, size, **_UNTRACKED)
    finally:
        os.close(descriptor)


def _refuse(frame: bytes) -> object:
    """Take no frame: stands where the `write` of a map was that is gone."""
    raise ValueError("the segment is full")


def _locked(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Make the copy and the advance one step where there is no GIL to do so."""
    lock = threading.Lock()

    def locked_write(frame: bytes) -> object:
        with lock:
            return write(frame)

    return locked_write
