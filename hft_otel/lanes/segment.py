"""A segment: one piece of mapped memory that callers fill with frames and the worker reads once.

A frame is a MessagePack `bin`: a tag byte (0xC4, 0xC5 or 0xC6: never zero), a length of 1, 2 or 4 bytes, the body.
Memory is zeroed before use, so a zero tag marks the end of what was written.

Why no lock: `mmap.write` is one C call, so under the GIL the copy and the advance of the position are one step, and
the position is the commit point. At the end of the map it raises ValueError. To retire a segment its position is
moved to the end, after which a writer that still holds the bound `write` fails too, and takes the next segment.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["HEADER_SIZE", "BadSegment", "Header", "Segment", "split_frames"]

HEADER_SIZE = 64
"""Bytes before the first frame; of the same size in anonymous segments, where they stay unused."""
MAGIC = b"HFTOTEL\0"
VERSION = 1
_HEADER = struct.Struct("<8sIIQQQ")

_PREFIX = {0xC4: 2, 0xC5: 3, 0xC6: 5}
"""The tags of MessagePack's `bin`, and how many bytes each takes with the length that follows it."""
_ZEROS = bytes(64 * 1024)
_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


class BadSegment(ValueError):
    """A segment file that cannot be read: truncated, foreign, or of another version."""


class Header(NamedTuple):
    """What a file-backed segment says of itself.

    `number` counts the segments of one stream from 0; `first_seq` is the number of the first frame in its stream plus
    one (0 while unknown); `settled` is the offset up to which every destination is done.
    """

    number: int
    first_seq: int
    settled: int


class Segment:
    """Mapped memory with a write position.

    `next` is the segment that followed it, set once this one is sealed; `turn` says how many were active before it.
    """

    __slots__ = ("__weakref__", "index", "memory", "next", "path", "size", "turn", "write")

    def __init__(self, memory: mmap.mmap, path: Path | None = None, index: int = 0) -> None:
        self.memory = memory
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
            segment = cls(mmap.mmap(descriptor, size), path, index)
            segment.zero(size)  # touches the pages, so that no caller pays for them
            segment.write_header(Header(index, 0, HEADER_SIZE))
            unready.rename(path)
        except BaseException:
            unready.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return segment

    @classmethod
    def load(cls, path: Path) -> Segment:
        """Map an existing file for reading what a past process wrote; raises BadSegment or OSError."""
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= HEADER_SIZE:
                raise BadSegment(f"{path} is shorter than a header")
            segment = cls(mmap.mmap(file.fileno(), size), path)
        segment.index = segment.read_header().number
        return segment

    def read_header(self) -> Header:
        """Return the header; raises BadSegment where it is not one of ours."""
        magic, version, _, index, first_seq, settled = _HEADER.unpack_from(self.memory)
        if magic != MAGIC:
            raise BadSegment(f"{self.path} is not a segment of hft-otel")
        if version != VERSION:
            raise BadSegment(f"{self.path} has version {version}, this is version {VERSION}")
        return Header(index, first_seq, min(max(settled, HEADER_SIZE), self.size))

    def write_header(self, header: Header) -> None:
        """Store the header; the worker's side only."""
        _HEADER.pack_into(self.memory, 0, MAGIC, VERSION, 0, *header)

    def unseal(self) -> None:
        """Let callers write, from the first byte after the header."""
        self.memory.seek(HEADER_SIZE)

    def seal(self) -> None:
        """Let no caller write any more."""
        self.memory.seek(self.size)

    def committed(self) -> int:
        """Return the offset up to which frames may be read; exact once `next` is set, and while callers write."""
        return self.memory.tell()

    def zero(self, end: int) -> None:
        """Clear the memory up to `end`, in pieces that hold the GIL for a few microseconds each."""
        for start in range(0, end, len(_ZEROS)):
            stop = min(start + len(_ZEROS), end)
            self.memory[start:stop] = _ZEROS[: stop - start]

    def close(self, *, unlink: bool = False) -> None:
        """Unmap the memory, and remove the file where `unlink` is set."""
        self.memory.close()
        if unlink and self.path is not None:
            self.path.unlink(missing_ok=True)


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
        end = start + int.from_bytes(chunk[position + 1 : start], "big")
        if end > size:
            break
        bodies.append(chunk[start:end])
        position = end
    return bodies, position


def _locked(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Make the copy and the advance one step where there is no GIL to do so."""
    lock = threading.Lock()

    def locked_write(frame: bytes) -> object:
        with lock:
            return write(frame)

    return locked_write
