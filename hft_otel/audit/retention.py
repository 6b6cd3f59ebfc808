"""Retention: which kept segments go, oldest first; an anchor says so before the first of them is gone.

What is left of a stream that is removed as a whole, its chain and its anchors, goes when it is as old as a segment may be
and the anchor that names the removal has left: then an outsider knows that retention did it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..lanes.streams import TRAIL
from .chain import ANCHORS, ENTRIES, Anchor, Entry, last_line, read_lines, to_line
from .exported import has_left
from .files import append
from .parked import PARKED

__all__ = ["prune"]


class _Kept(NamedTuple):
    age: float
    size: int
    path: Path


def prune(folder: Path, seconds: float, max_bytes: int, fallback: Path | None = None) -> list[Anchor]:
    """Remove what is older than so many seconds, and the oldest beyond so many bytes; return anchors that say so.

    Only kept segments are looked at, which every destination has acknowledged. The chain's entries stay, until all of a
    stream goes. Raises OSError.
    """
    _remove_emptied(folder, seconds, fallback or folder)
    kept = sorted(_kept(folder), reverse=True)
    total = sum(each.size for each in kept)
    last: dict[Path, str] = {}  # per trail the newest that goes; all before it go with it
    for age, size, path in kept:
        if age <= seconds and total <= max_bytes:
            break
        last[path.parent] = max(path.name, last.get(path.parent, ""))
        total -= size
    return [anchor for trail, name in last.items() for anchor in _remove(trail, name)]


def _remove_emptied(folder: Path, seconds: float, fallback: Path) -> None:
    """Remove the trails in which nothing is kept any more, whose stream has ended, and that nobody needs."""
    for trail in folder.glob(f"*{TRAIL}"):
        stream = trail.name.removesuffix(TRAIL)
        lives = (folder / stream).exists() or (fallback / stream).exists()
        if not lives and not any(trail.glob("*.seg")) and _may_go(trail, time.time() - seconds):
            with suppress(FileNotFoundError):  # another process does the same
                trail.rename(trail.with_name(f".{trail.name}"))  # at once: half of it would look like a fault
    for gone in folder.glob(f".*{TRAIL}"):
        shutil.rmtree(gone, ignore_errors=True)


def _may_go(trail: Path, before: float) -> bool:
    """Say whether its last anchor is from before then, says that nothing is kept, and has left; and nothing is parked."""
    anchor, entry = last_line(trail / ANCHORS, Anchor), last_line(trail / ENTRIES, Entry)
    if anchor is None or entry is None:
        return False
    is_empty = anchor.kept_from == anchor.seq + 1 == entry.end_seq
    parked = trail / PARKED
    is_old = anchor.time_ns / 1e9 < before and not (parked.exists() and parked.stat().st_mtime >= before)
    return is_empty and is_old and has_left(trail)


def _kept(folder: Path) -> Iterator[_Kept]:
    now = time.time()
    for path in folder.glob(f"*{TRAIL}/*.seg"):
        with suppress(FileNotFoundError):  # another process looks at the same
            status = path.stat()
            yield _Kept(now - status.st_mtime, status.st_size, path)


def _remove(trail: Path, last: str) -> Iterator[Anchor]:
    """Remove a trail's segments up to that name; nothing where the chain does not know it."""
    entries = [line for line in read_lines(trail / ENTRIES, Entry) if isinstance(line, Entry)]
    first = Path(last).stem
    entry = next((each for each in entries if first.isdecimal() and each.first_seq == int(first)), None)
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
