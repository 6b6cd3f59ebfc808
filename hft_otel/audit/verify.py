"""Proves of a journal's folder that no event was changed, left out, added, moved or cut off before the last anchor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..lanes.frames import unseal_audit
from ..lanes.segment import HEADER_SIZE, Header, pack_header
from .chain import ANCHORS, ENTRIES, Anchor, Entry, Head, TornLine, kept_name, read_lines
from .exported import EXPORTED
from .reading import SegmentFile, StreamFiles, bodies, find_streams, segments_of

__all__ = ["Verdict", "verify"]


@dataclass
class Verdict:
    """What can be said of one stream. `problems` is empty for a healthy one; `notes` are no fault of anybody's."""

    stream: str
    events: int = 0
    """Events that are there."""
    removed: int = 0
    """Events that retention has removed."""
    anchored: int = -1
    """The number of the last event that an anchor proves, -1 where none does."""
    outside: int = -1
    """The same, for the anchors from outside alone."""
    last: int = -1
    """The number of the last event that is there."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Say whether nothing is wrong."""
        return not self.problems


def verify(
    folder: Path, outside: Iterable[Anchor] | None = None, fallback: Path | None = None
) -> list[Verdict]:
    """Return a verdict per stream of a journal's folders; also for those that only the anchors know. Raises OSError."""
    known: dict[str, list[Anchor]] = {}
    for anchor in outside or ():
        known.setdefault(anchor.stream, []).append(anchor)
    streams = find_streams(folder, fallback)
    verdicts = [
        _Check(stream, known.pop(stream.name, ()), strict=outside is not None).verdict() for stream in streams
    ]
    verdicts = [each for each in verdicts if each.events or each.removed or each.problems]
    for name, anchors in known.items():
        last = max(anchor.seq for anchor in anchors)
        if max(anchor.kept_from for anchor in anchors) > last:
            notes = ["retention has removed all of it, as an anchor from outside says"]
            verdicts.append(
                Verdict(name, removed=last + 1, anchored=last, outside=last, last=last, notes=notes)
            )
            continue
        text = (
            f"nothing is there of it, though {len(anchors)} anchors from outside know its events up to {last}"
        )
        verdicts.append(Verdict(name, problems=[text]))
    return verdicts


_L = TypeVar("_L", Anchor, Entry)


class _Check:
    """The look at one stream; goes along its segments with the running head."""

    def __init__(self, stream: StreamFiles, outside: Sequence[Anchor], *, strict: bool) -> None:
        self._stream = stream
        self._strict = strict
        self._said = Verdict(stream.name)
        # In this order, since the stream may be written meanwhile: what an anchor speaks of is there after it.
        exported = self._lines(EXPORTED, Anchor)
        anchors = self._lines(ANCHORS, Anchor)
        if any(anchor not in anchors for anchor in exported):
            self._problem(f"{EXPORTED} names an anchor that {ANCHORS} does not have")
        self._segments = segments_of(stream)
        self._entries = self._lines(ENTRIES, Entry)
        again = self._lines(ANCHORS, Anchor, quiet=True)
        self._kept_from = max((each.kept_from for each in again), default=0)
        self._outside_from = max((each.kept_from for each in outside), default=0)
        self._anchors = _by_seq(anchors)
        self._outside = _by_seq(outside)
        self._by_first = {entry.first_seq: entry for entry in self._entries}
        self._head = Head(stream.name)
        self._next = 0

    def verdict(self) -> Verdict:
        """Look at everything and return what was found."""
        said = self._said
        if not self._entries and not self._anchors and not self._outside:
            said.notes.append("it is not chained; its events are counted only")
        self._check_order()
        present = {segment.first_seq for segment in self._segments}
        missing = [entry for entry in self._entries if entry.first_seq not in present]
        steps: list[tuple[int, Entry | SegmentFile]] = [(entry.first_seq, entry) for entry in missing]
        steps += [(segment.first_seq, segment) for segment in self._segments]
        for _, step in sorted(steps, key=lambda step: step[0]):
            if isinstance(step, Entry):
                self._without_segment(step)
            else:
                self._segment(step)
        self._check_end()
        return said

    def _lines(self, name: str, kind: type[_L], *, quiet: bool = False) -> list[_L]:
        found: list[_L] = []
        if self._stream.trail is None:
            return found
        for line in read_lines(self._stream.trail / name, kind):
            if isinstance(line, kind):
                found.append(line)
            elif not quiet and isinstance(line, TornLine) and self._stream.live:
                self._said.notes.append(f"{line}: it is being written, or its process was killed")
            elif not quiet:
                self._problem(str(line))
        return found

    def _check_order(self) -> None:
        """Check that each entry continues the one before it."""
        for number, entry in enumerate(self._entries):
            before = self._entries[number - 1] if number else None
            if entry.number != number:
                self._problem(f"{ENTRIES}: segment {entry.number} stands where {number} should")
            if before is not None and entry.first_seq != before.end_seq:
                gap = _span(before.end_seq, entry.first_seq)
                self._problem(f"{ENTRIES}: {gap} are missing between segments {number - 1} and {number}")

    def _without_segment(self, entry: Entry) -> None:
        """Take an entry's word for a segment that is gone, where retention has removed it."""
        span = _span(entry.first_seq, entry.end_seq)
        if entry.end_seq > self._kept_from:
            self._problem(f"{kept_name(entry.first_seq)} is missing: {span}")
        elif self._strict and entry.end_seq > self._outside_from:
            self._problem(
                f"{kept_name(entry.first_seq)} is missing: {span} were removed, and no anchor from outside says that"
                " retention did it"
            )
        else:
            self._said.removed += entry.count
        self._head = Head(self._stream.name, entry.head)
        self._next = entry.end_seq
        self._compare(entry.end_seq - 1, entry.head)

    def _segment(self, segment: SegmentFile) -> None:
        if segment.problem:
            self._problem(f"{segment.path.name}: {segment.problem}")
            return
        entry = self._by_first.get(segment.first_seq)
        if segment.first_seq != self._next:
            self._jump(segment, entry)
        if segment.is_kept:
            self._check_file(segment, entry)
        first = seq = segment.first_seq
        broken: list[int] = []
        end = HEADER_SIZE
        for body, offset in bodies(segment.data):
            if unseal_audit(body) is None:
                broken.append(seq)
            self._head.add(seq, body)
            if seq in self._anchors or seq in self._outside:
                self._compare(seq, self._head.text)
            seq, end = seq + 1, offset
        self._said.events += seq - first
        self._next = seq
        where = f" (checksums fail at {', '.join(map(str, broken[:5]))})" if broken else ""
        if entry is not None and (entry.count, entry.size, entry.head) != (seq - first, end, self._head.text):
            span = _span(first, max(seq, entry.end_seq))
            self._problem(f"{segment.path.name}: {span} are not those that were chained{where}")
            self._head = Head(self._stream.name, entry.head)  # so that what comes after is judged by itself
            self._next = entry.end_seq
        elif broken:
            self._said.notes.append(f"{segment.path.name}: written as it is, but not readable{where}")

    def _jump(self, segment: SegmentFile, entry: Entry | None) -> None:
        """Go on at a segment that does not continue the one before it."""
        if not self._next and (entry is None or not entry.number):
            text = f"its chain begins at event {segment.first_seq}"
            (self._said.problems if self._kept_from or self._anchors.get(0) else self._said.notes).append(
                text
            )
        elif segment.first_seq > self._next:
            span = _span(self._next, segment.first_seq)
            self._problem(f"{span} are missing before {segment.path.name}")
        else:
            self._problem(f"{segment.path.name}: its events are there twice, from {segment.first_seq} on")
        self._next = segment.first_seq

    def _check_file(self, segment: SegmentFile, entry: Entry | None) -> None:
        """Check what no hash covers: name, header and length of a kept segment."""
        if entry is None:
            self._problem(f"{segment.path.name} has no entry in {ENTRIES}")
            return
        header = Header(entry.number, entry.first_seq + 1, entry.size)
        if segment.data[:HEADER_SIZE] != pack_header(header, entry.size):
            self._problem(f"{segment.path.name}: its header was changed, or it is another segment")
        if len(segment.data) != entry.size:
            self._problem(f"{segment.path.name}: {len(segment.data)} bytes, chained were {entry.size}")

    def _compare(self, seq: int, head: str) -> None:
        """Compare the head behind an event with what the anchors say of it."""
        for anchors, source in ((self._anchors, ANCHORS), (self._outside, "the anchors from outside")):
            for known in anchors.pop(seq, ()):
                if known != head:
                    self._problem(f"up to event {seq} it is not what {source} say")
                elif source == ANCHORS:
                    self._said.anchored = max(self._said.anchored, seq)
                else:
                    self._said.outside = max(self._said.outside, seq)
                    self._said.anchored = max(self._said.anchored, seq)

    def _check_end(self) -> None:
        """Check that nothing was cut off that an anchor knows."""
        self._said.last = self._next - 1
        for anchors, source in ((self._anchors, ANCHORS), (self._outside, "the anchors from outside")):
            ahead = [seq for seq in anchors if seq >= self._next]
            if ahead:
                here = f"ends at event {self._next - 1}" if self._next else "has no event"
                self._problem(f"it was cut off: it {here}, and {source} know of event {max(ahead)}")

    def _problem(self, text: str) -> None:
        self._said.problems.append(text)


def _by_seq(anchors: Iterable[Anchor]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for anchor in anchors:
        found.setdefault(anchor.seq, []).append(anchor.head)
    return found


def _span(first: int, end: int) -> str:
    """Name the events from `first` up to, and without, `end`."""
    return f"event {first}" if end - first == 1 else f"events {first} to {end - 1}"
