"""Trails made by hand: an audit reader with a trail over a journal of its own, and a sender that settles at once."""

from __future__ import annotations

from pathlib import Path

from hft_otel.audit.chain import trail_folder
from hft_otel.audit.trail import Keeping, Trail
from hft_otel.audit_feed import AuditReader
from hft_otel.lanes.frames import AuditBody, Head, encode, seal_audit
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.room import Cursor, Room
from hft_otel.outbox import Outbox
from hft_otel.record import LogRecord, LogType
from hft_otel.redaction import Redactor
from hft_otel.unpack import Unpacker
from tests.unit.core_support import Recorder

KEEPING = Keeping(days=30, max_bytes=1 << 30, anchor_interval=3600)
HEAD = encode(Head(0, 3, "desk", {"exchange": "mexc"}))
SECOND = 1_000_000_000


def frame(event: str, time_ns: int = SECOND, **context: object) -> bytes:
    """Return the frame of an audit event."""
    import msgspec

    return seal_audit(encode(AuditBody(time_ns, msgspec.Raw(HEAD), event, dict(context))))


class Desk:
    """A process's journal and its reader, turned by hand; `kept` is a destination that takes anchors."""

    def __init__(
        self,
        folder: Path,
        keeping: Keeping = KEEPING,
        segment_size: int = 4096,
        journal: Journal | None = None,
    ) -> None:
        self.folder = folder
        self.journal = journal or Journal(folder, segment_size, 2)
        self.stream = self.journal.stream
        self.room = Room("audit", self.journal.supply, lambda: None)
        self.outbox = Outbox(Recorder("file", keeps_anchors=True))
        self.got: list[LogRecord] = []
        self.written = 0
        unpacker = Unpacker(lambda number: Redactor(()))

        def decode(body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
            return unpacker.audit(body, audit_id)[1], (self.outbox,)

        self.reader = AuditReader(
            "audit", self.stream, Cursor(self.room.first), 0, decode, self.journal.retire
        )
        self.trail = Trail(folder, self.stream, keeping)
        self.reader.keep(self.trail)
        self.reader.add([self.outbox])

    @property
    def trail_folder(self) -> Path:
        return trail_folder(self.folder, self.stream)

    def write(self, number: int, **context: object) -> None:
        for _ in range(number):
            self.journal.replenish()
            order = f"{self.written:04d}"
            assert self.room.put(frame("filled", SECOND + self.written, order=order, **context))
            self.written += 1
            self.turn()

    def turn(self, *, settle: bool = True) -> None:
        self.reader.turn()
        if settle:
            taken = list(self.outbox._queue)
            self.outbox._queue.clear()
            self.got += taken
            self.outbox.tallies.deliver(LogType.AUDIT, len(taken))
            self.reader.turn()

    def anchor(self) -> None:
        self.reader.anchor()
        self.turn()

    def close(self) -> None:
        """End as a process ends that has delivered all."""
        self.turn()
        self.anchor()
        self.reader.finish()
        self.room.shut()
        self.journal.close(settled=self.reader.settled)

    def leave(self) -> None:
        """End as a killed process ends: everything stays as it is, but for the lock."""
        self.room.shut()
        self.journal.close(settled=False)


def make_trail(folder: Path, events: int = 150) -> Desk:
    """Leave a healthy trail of a few segments, with anchors on the way and at the end."""
    desk = Desk(folder)
    for _ in range(3):
        desk.write(events // 3)
        desk.anchor()
    desk.close()
    return desk
