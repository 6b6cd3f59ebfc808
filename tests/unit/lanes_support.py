"""Both sides of file-backed lanes in one process: one that writes, readers that come, go and are killed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hft_otel.audit_feed import AuditReader
from hft_otel.lane_feed import UNCONFIRMED, Read, SharedLaneReader
from hft_otel.lanes.frames import encode, seal_audit, unseal_audit
from hft_otel.lanes.intake import Intake
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.remote import RemoteIntake
from hft_otel.lanes.room import Ahead, Cursor, Room
from hft_otel.lanes.shared import SharedLanes, Sizes
from hft_otel.outbox import Outbox
from hft_otel.record import LogLevel, LogRecord, LogType
from tests.unit.core_support import Recorder

TINY = Sizes(segment=1024 + 64, low=4, high=8, metric=2)


def unread(cursor: Cursor) -> int:
    """Return how many frames a cursor has before it."""
    return Ahead().count(lambda: (cursor.segment, cursor.offset, 0))


class Writing:
    """The trading process: an intake whose rooms are files."""

    def __init__(self, folder: Path, sizes: Sizes = TINY, segment_size: int = 1024, spare: int = 2) -> None:
        self.lanes = SharedLanes(folder / "lanes", sizes)
        assert self.lanes.usable, self.lanes.problem
        self.journal = Journal(folder / "journal", segment_size, spare, self.lanes)
        self.intake = Intake(self.journal, sizes, self.lanes)

    @property
    def stream_folder(self) -> Path:
        return self.lanes.stream_folder

    def put(self, room: Room, body: bytes) -> bool:
        return room.put(encode(body))

    def audit(self, body: bytes) -> bool:
        self.journal.replenish()
        return self.intake.audit.put(seal_audit(body))

    def die(self) -> None:
        """Let go of the locks, as the system does for a process that is killed."""
        self.lanes.close(remove=False)
        self.journal.leave()


class Reading:
    """A reader over that, turned by hand; its outboxes have no thread, and are emptied by hand."""

    def __init__(self, stream_folder: Path, names: Iterable[str] = ("a",), limit: int = 2048) -> None:
        self.intake = RemoteIntake(stream_folder)
        self.boxes = {name: Outbox(Recorder(name), limit) for name in names}
        self.lanes = {
            room.name: SharedLaneReader(room, kind, _decode, lambda: True, self.intake.stream)
            for room, kind in (
                (self.intake.high, LogType.TEXT),
                (self.intake.metric, LogType.METRIC),
                (self.intake.low, LogType.TEXT),
            )
        }
        offset, seq = self.intake.audit_start
        self.audits = AuditReader(
            "audit",
            self.intake.stream,
            Cursor(self.intake.audit.first, offset),
            seq,
            self._decode_audit,
            self.intake.journal.retire,
        )
        self.audits.add(self.boxes.values())
        self.read: dict[str, list[bytes]] = {name: [] for name in ("high", "metric", "low")}

    def _decode_audit(self, body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
        data = unseal_audit(body)
        if data is None:
            raise ValueError
        record = LogRecord(1.0, LogLevel.INFO, LogType.AUDIT, "x", data.decode("latin-1"), audit_id=audit_id)
        return record, tuple(self.boxes.values())

    def turn(self, *lanes: str) -> list[Read]:
        """Read a slice, hand it over, give back what is settled; as the worker's round does."""
        found = [read for name in lanes or tuple(self.lanes) for read in self.lanes[name].read()]
        for _, record, lane in found:
            lane.sums.routed += 1
            self.read[lane.room.name].append(record.message.encode("latin-1"))
            for box in self.boxes.values():
                box.tallies.accepted[record.log_type] += 1
                assert box.offer([record])
        for name in lanes or tuple(self.lanes):
            self.lanes[name].settle(self.boxes.values())
        return found

    def deliver(self, name: str = "a", number: int | None = None) -> list[LogRecord]:
        """Settle what is queued at a destination."""
        box = self.boxes[name]
        taken = [
            box._queue.popleft()
            for _ in range(len(box._queue) if number is None else min(number, len(box._queue)))
        ]
        for record in taken:
            box.tallies.deliver(record.log_type)
        return taken

    def drain(self) -> None:
        """Read and deliver all there is."""
        while self.turn() or self.audits.turn():
            for name in self.boxes:
                self.deliver(name)
        self.turn()
        self.audits.turn()

    def dropped(self, room: str) -> dict[str, int]:
        if room == "audit":
            return {**self.audits.sums.dropped, **{k: t.value for k, t in self.intake.audit.drops.items()}}
        return self.lanes[room].total().dropped

    def die(self) -> None:
        """Let go of the locks and the maps, as the system does for a process that is killed."""
        self.intake.close(remove=False)


def _decode(body: bytes) -> tuple[int, LogRecord]:
    if body[:1] != b"\x01" or body[-1:] != b"\x02":  # as real bodies are of a definite form
        raise ValueError
    return 0, LogRecord(1.0, LogLevel.INFO, LogType.TEXT, "x", body.decode("latin-1"))


def body(number: int, size: int = 0, fill: bytes = b".") -> bytes:
    """A body that says its number; `fill` makes up its length."""
    return (b"\x01%d|" % number).ljust(max(size - 1, 0), fill) + b"\x02"


def number_of(found: bytes) -> int:
    return int(found[1:].split(b"|")[0])


def is_unconfirmed(record: LogRecord) -> bool:
    return bool(record.context.get(UNCONFIRMED))
