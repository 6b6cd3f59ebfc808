"""The trail of one stream, written by whoever reads it: chain, anchors, and the segments that are settled.

Layout, beside the stream's own folder: `<folder>/<stream>.trail/` holds `<first seq>.seg` (read-only, cut to what is
used), `chain.jsonl` and `anchors.jsonl`. It is made with the first event, and outlives the stream. What the disk refuses
is tried again, said in `problem`, and never raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ..config import JournalConfig
from ..lanes.segment import HEADER_SIZE, Header, Segment, pack_header
from .chain import ANCHORS, ENTRIES, Anchor, Entry, Head, kept_name, read_lines, to_line, trail_folder
from .exported import note_exported
from .files import append, mend, store
from .retention import prune

__all__ = ["NO_TRAIL", "Keeping", "NoTrail", "Trail", "make_trail"]

_RETRY_AFTER = 1.0
_PRUNE_EVERY = 60.0
_DAY = 86_400.0
_MB = 1 << 20


class Keeping(NamedTuple):
    """How long settled segments are kept, and how often the chain is anchored."""

    days: float
    max_bytes: int
    anchor_interval: float
    group_interval: float = 0.0
    """Seconds between two looks at what is to be put on the disk; 0 leaves that to the kernel, or to the callers."""
    fallback: Path | None = None
    """Where else than in the journal's folder there may be something of a stream."""

    @classmethod
    def of(cls, config: JournalConfig) -> Keeping:
        """Return what a configuration says."""
        group = config.group_interval_ms / 1000 if config.durability == "group" else 0.0
        fallback = Path(config.fallback_folder).absolute() if config.fallback_folder else None
        return cls(config.keep_days, int(config.keep_mb * _MB), config.anchor_interval, group, fallback)


class NoTrail:
    """Stands where nothing is kept: a segment goes as soon as it is settled."""

    problem = ""

    def begin(self, seq: int, bodies: Iterable[bytes]) -> None:
        """Do nothing."""

    def add(self, seq: int, body: bytes) -> None:
        """Do nothing."""

    def seal(self, segment: Segment, end: int) -> None:
        """Do nothing."""

    def release(self, retire: Callable[[Segment], None], segment: Segment) -> None:
        """Let go of the segment."""
        retire(segment)

    def due(self, *, final: bool = False) -> list[Anchor]:
        """Return no anchors."""
        return []

    def exported(self, anchor: Anchor) -> None:
        """Do nothing."""

    def finish(self, segment: Segment, end: int, *, settled: bool) -> bool:
        """Say that the stream may go if it is settled."""
        return settled


NO_TRAIL = NoTrail()


class Trail(NoTrail):
    """Chain, anchors and kept segments of one stream; used by one reading thread."""

    def __init__(self, folder: Path, stream: str, keeping: Keeping) -> None:
        self.folder = trail_folder(folder, stream)
        self.problem = ""
        """What the disk refuses at the moment; empty while it takes all."""
        self._stream = stream
        self._keeping = keeping
        self._head = Head(stream)
        self._number = 0  # of the next line in the chain
        self._known: dict[int, Entry] = {}  # lines of segments that are yet to be read again
        self._first: int | None = None  # the first event since the last entry
        self._last = -1
        self._anchored = -1
        self._kept_from = 0
        self._sealed: dict[Segment, Entry] = {}
        self._waiting: list[tuple[Callable[[Segment], None], Segment]] = []
        self._unwritten: list[tuple[str, bytes]] = []
        self._anchor_at = time.monotonic() + keeping.anchor_interval
        self._prune_at = 0.0
        self._retry_at = 0.0

    def begin(self, seq: int, bodies: Iterable[bytes]) -> None:
        """Go on where a reader before us was: at the segment that begins with event `seq`, of which `bodies` are read."""
        for entry in self._load():
            self._number += 1
            if entry.end_seq == seq:
                self._head = Head(self._stream, entry.head)
            elif entry.first_seq >= seq:
                self._known[entry.first_seq] = entry
        self._last = seq - 1
        for number, body in enumerate(bodies, seq):
            self.add(number, body)

    def _load(self) -> list[Entry]:
        found: list[Entry] = []
        try:
            for name in (ENTRIES, ANCHORS):
                mend(self.folder / name)
            found = [line for line in read_lines(self.folder / ENTRIES, Entry) if isinstance(line, Entry)]
            for anchor in read_lines(self.folder / ANCHORS, Anchor):
                if isinstance(anchor, Anchor):
                    self._kept_from = max(self._kept_from, anchor.kept_from)
        except OSError as error:
            self._refused(error)
        return found

    def add(self, seq: int, body: bytes) -> None:
        """Take in the next event."""
        if self._first is None:
            self._first = seq
        self._last = seq
        self._head.add(seq, body)

    def seal(self, segment: Segment, end: int) -> None:
        """Note that the segment is read completely; `end` is the offset behind its last event."""
        if self._first is None:
            return
        first, self._first = self._first, None
        entry = self._known.pop(first, None)
        if entry is None:
            count = self._last + 1 - first
            entry = Entry(number=self._number, first_seq=first, count=count, size=end, head=self._head.text)
            self._number += 1
            self._write(ENTRIES, to_line(entry))
        elif entry.head != self._head.text:
            self.problem = f"{self.folder}: event {first} and those after it are not what was chained before"
        self._sealed[segment] = entry

    def release(self, retire: Callable[[Segment], None], segment: Segment) -> None:
        """Keep a copy of a segment that is settled everywhere, then let go of it; later, where the disk refuses now.

        In order, and after its line in the chain: after a kill the next start goes on at the first that is left.
        """
        waits = bool(self._waiting or self._unwritten) and segment.path is not None
        if (waits or not self._keep(segment)) and segment.path is not None:
            self._waiting.append((retire, segment))
            return
        self._sealed.pop(segment, None)
        retire(segment)

    def due(self, *, final: bool = False) -> list[Anchor]:
        """Return the anchors to be exported now, which stand in the file already; and see to what has to wait."""
        now = time.monotonic()
        found: list[Anchor] = []
        if (self._waiting or self._unwritten) and now >= self._retry_at:
            self._retry()
        if now >= self._prune_at:
            self._prune_at = now + _PRUNE_EVERY
            found += self._prune()
        if final or now >= self._anchor_at:
            self._anchor_at = now + self._keeping.anchor_interval
            found += self._anchor()
        return found

    def exported(self, anchor: Anchor) -> None:
        """Note that everybody has the anchor who is to have it; only where it stands in its file by now."""
        if not self._unwritten:
            note_exported(self.folder.parent, anchor)

    def finish(self, segment: Segment, end: int, *, settled: bool) -> bool:
        """End with this segment, read up to `end`; say whether the stream may go: all is settled, and kept."""
        if settled:
            self._retry()
            self.seal(segment, end)
            if segment in self._sealed:
                settled = self._keep(segment)
        return settled and not self._waiting and not self._unwritten

    def _anchor(self) -> list[Anchor]:
        if self._last <= self._anchored:
            return []
        self._anchored = self._last
        anchor = Anchor(
            stream=self._stream,
            seq=self._last,
            head=self._head.text,
            kept_from=self._kept_from,
            time_ns=time.time_ns(),
        )
        self._write(ANCHORS, to_line(anchor))
        return [anchor]

    def _prune(self) -> list[Anchor]:
        try:
            keeping = self._keeping
            anchors = prune(self.folder.parent, keeping.days * _DAY, keeping.max_bytes, keeping.fallback)
        except OSError as error:
            self._refused(error)
            return []
        own = (anchor.kept_from for anchor in anchors if anchor.stream == self._stream)
        self._kept_from = max(self._kept_from, *own, 0)
        return anchors

    def _keep(self, segment: Segment) -> bool:
        """Copy what is used of a segment; say whether that is done, or nothing of it is to be kept."""
        entry = self._sealed.get(segment)
        if entry is None:
            return True
        path = self.folder / kept_name(entry.first_seq)
        header = Header(entry.number, entry.first_seq + 1, entry.size)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            store(path, pack_header(header, entry.size) + segment.memory[HEADER_SIZE : entry.size])
        except OSError as error:
            self._refused(error)
            return False
        return True

    def _write(self, name: str, line: bytes) -> None:
        self._unwritten.append((name, line))
        self._write_waiting()

    def _retry(self) -> None:
        self._write_waiting()
        waiting, self._waiting = self._waiting, []
        for retire, segment in waiting:
            self.release(retire, segment)
        self._note_recovered()

    def _write_waiting(self) -> None:
        """Append the lines that are not in their files yet, in order."""
        try:
            while self._unwritten:
                name, line = self._unwritten[0]
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                append(self.folder / name, line)
                del self._unwritten[0]
        except OSError as error:
            self._refused(error)
            return
        self._note_recovered()

    def _note_recovered(self) -> None:
        if not self._waiting and not self._unwritten and self.problem.startswith(_REFUSED):
            self.problem = ""

    def _refused(self, error: OSError) -> None:
        self.problem = f"{_REFUSED} {self.folder}: {error}; segments wait on the disk until it can"
        self._retry_at = time.monotonic() + _RETRY_AFTER


def make_trail(folder: Path, stream: str, keeping: Keeping | None) -> NoTrail:
    """Return the trail of a stream in a journal's folder, if it is to have one."""
    return Trail(folder, stream, keeping) if keeping is not None and keeping.days else NO_TRAIL


_REFUSED = "the audit trail cannot be written to"
