"""Reads the streams of a journal's folder, kept and live, while they are written or when all is over."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from ..lanes.segment import HEADER_SIZE, BadSegment, Header, split_frames, unpack_header
from ..lanes.streams import DAMAGED, TRAIL
from ..record import LogRecord
from ..redaction import Redactor
from ..unpack import Unpacker
from .chain import trail_folder

__all__ = [
    "SegmentFile",
    "StreamFiles",
    "bodies",
    "find_streams",
    "last_kept",
    "read_events",
    "segments_of",
]

_SLICE = 1024


class StreamFiles(NamedTuple):
    """Where a stream's files are: what is settled and kept, and what is not settled yet (or anything but kept)."""

    name: str
    trail: Path | None
    live: tuple[Path, ...]


class SegmentFile(NamedTuple):
    """A segment as it stands in its file; `first_seq` is the number of its first event."""

    path: Path
    is_kept: bool
    first_seq: int
    header: Header
    data: bytes
    problem: str = ""


def find_streams(folder: Path, fallback: Path | None = None) -> list[StreamFiles]:
    """Return the streams in a journal's folder, or the one whose folder it is; raises OSError.

    `fallback` is the journal's fallback folder, where events may wait that the folder would not take.
    """
    folders = [folder, *((fallback,) if fallback is not None else ())]
    if folder.name.endswith(TRAIL):
        return [_stream([folder.parent, *folders[1:]], folder.name.removesuffix(TRAIL))]
    names = {
        path.name.removesuffix(TRAIL).removesuffix(DAMAGED)
        for each in folders
        for path in each.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    }
    return [_stream(folders, name) for name in sorted(names)]


def _stream(folders: Sequence[Path], name: str) -> StreamFiles:
    trail = folders[0] / f"{name}{TRAIL}"
    live = (path for folder in folders for path in (folder / name, folder / f"{name}{DAMAGED}"))
    return StreamFiles(name, trail if trail.is_dir() else None, tuple(path for path in live if path.is_dir()))


def segments_of(stream: StreamFiles) -> list[SegmentFile]:
    """Return the segments that hold events, in order; what cannot be read says so in `problem`. Raises OSError.

    Live ones are looked at first: what is settled meanwhile is kept before it is removed, so that nothing is missed.
    """
    live = list(_read((path for folder in stream.live for path in folder.glob("*.seg")), is_kept=False))
    kept = [] if stream.trail is None else list(_read(sorted(stream.trail.glob("*.seg")), is_kept=True))
    found = {each.first_seq: each for each in kept}
    following = max((each.first_seq + _count(each) for each in kept), default=0)
    for each in sorted(live, key=lambda each: each.header.number):
        first = each.header.first_seq - 1 if each.header.first_seq else following
        count = _count(each)
        if count:
            found.setdefault(first, each._replace(first_seq=first))
            following = max(following, first + count)
        elif each.problem:
            found.setdefault(-1 - each.header.number, each)
    return [found[first] for first in sorted(found)]


def _read(paths: Iterable[Path], *, is_kept: bool) -> Iterator[SegmentFile]:
    for path in paths:
        with suppress(FileNotFoundError):  # retired meanwhile
            data = path.read_bytes()
            number = int(path.stem) if path.stem.isdecimal() else 0
            problem = "" if path.stem.isdecimal() else "no name of ours"
            header = Header(number)
            try:
                header = unpack_header(data, path)
            except BadSegment as error:
                problem = str(error)
            yield SegmentFile(path, is_kept, number if is_kept else -1, header, data, problem)


def _count(segment: SegmentFile) -> int:
    return 0 if segment.problem else sum(1 for _ in bodies(segment.data))


def bodies(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the frame bodies of a segment, each with the offset of its end, in the way in which the reader numbers them.

    The rest of a segment in which no frame begins is one body of no bytes.
    """
    position, size = HEADER_SIZE, len(data)
    while position < size and data[position]:
        found, _ = split_frames(data[position : position + 65536], _SLICE)
        if not found:
            found, _ = split_frames(data[position:], 1)
        if not found:
            yield b"", size
            return
        for body in found:
            position += _frame_size(body, data, position)
            yield body, position


def _frame_size(body: bytes, data: bytes, position: int) -> int:
    return len(body) + {0xC4: 2, 0xC5: 3, 0xC6: 5}[data[position]]


def read_events(folder: Path, fallback: Path | None = None) -> Iterator[LogRecord]:
    """Yield all audit events that can be read, by time; those of one stream stay in their order. Raises OSError."""
    return heapq.merge(*map(_events, find_streams(folder, fallback)), key=attrgetter("time_ns"))


def last_kept(folder: Path, stream: str) -> LogRecord | None:
    """Return the last event that is kept of a stream and can be read. Raises OSError."""
    unpacker = Unpacker(lambda number: Redactor(()))
    found = None
    for path in sorted(trail_folder(folder, stream).glob("*.seg"))[-1:]:
        first = int(path.stem) if path.stem.isdecimal() else 0
        for seq, (body, _) in enumerate(bodies(path.read_bytes()), first):
            with suppress(Exception):  # torn or changed; `verify` is who says so
                _, found = unpacker.audit(body, f"{stream}-{seq}")
    return found


def _events(stream: StreamFiles) -> Iterator[LogRecord]:
    unpacker = Unpacker(lambda number: Redactor(()))
    for segment in segments_of(stream):
        if segment.problem:
            continue
        for seq, (body, _) in enumerate(bodies(segment.data), segment.first_seq):
            try:
                _, record = unpacker.audit(body, f"{stream.name}-{seq}")
            except Exception:  # noqa: BLE001  (torn or changed; `verify` is who says so)
                continue
            yield record
