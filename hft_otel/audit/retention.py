"""Retention: which kept segments go, oldest first; an anchor says so before the first of them is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..lanes.streams import TRAIL
from .chain import ANCHORS, ENTRIES, Anchor, Entry, read_lines, to_line
from .files import append

__all__ = ["prune"]


class _Kept(NamedTuple):
    age: float
    size: int
    path: Path


def prune(folder: Path, seconds: float, max_bytes: int) -> list[Anchor]:
    """Remove what is older than so many seconds, and the oldest beyond so many bytes; return anchors that say so.

    Only kept segments are looked at, which every destination has acknowledged. The chain's entries stay. Raises OSError.
    """
    kept = sorted(_kept(folder), reverse=True)
    total = sum(each.size for each in kept)
    last: dict[Path, str] = {}  # per trail the newest that goes; all before it go with it
    for age, size, path in kept:
        if age <= seconds and total <= max_bytes:
            break
        last[path.parent] = max(path.name, last.get(path.parent, ""))
        total -= size
    return [anchor for trail, name in last.items() for anchor in _remove(trail, name)]


def _kept(folder: Path) -> Iterator[_Kept]:
    now = time.time()
    for path in folder.glob(f"*{TRAIL}/*.seg"):
        with suppress(FileNotFoundError):  # another process looks at the same
            status = path.stat()
            yield _Kept(now - status.st_mtime, status.st_size, path)


def _remove(trail: Path, last: str) -> Iterator[Anchor]:
    """Remove a trail's segments up to that name; nothing where the chain does not know it."""
    entries = [line for line in read_lines(trail / ENTRIES, Entry) if isinstance(line, Entry)]
    entry = next((each for each in entries if each.first_seq == int(Path(last).stem)), None)
    if entry is None:
        return
    stream = trail.name.removesuffix(TRAIL)
    anchor = Anchor(
        stream=stream,
        seq=entry.end_seq - 1,
        head=entry.head,
        kept_from=entry.end_seq,
        time_ns=time.time_ns(),
    )
    append(trail / ANCHORS, to_line(anchor))
    for path in trail.glob("*.seg"):
        if path.name <= last:
            with suppress(FileNotFoundError):
                path.unlink()
    yield anchor
