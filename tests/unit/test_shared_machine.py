"""File-backed lanes against a plain list: whatever writer and readers do, and whenever either is killed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hft_otel.lanes.frames import encode, seal_audit
from hft_otel.record import LogRecord
from tests.unit.lanes_support import Reading, Writing, body, is_unconfirmed, number_of

PACE = settings(
    max_examples=settings.default.max_examples // 4,
    stateful_step_count=25,
    phases=set(Phase) - {Phase.explain},  # which takes minutes here
    suppress_health_check=[HealthCheck.too_slow],
)
SIZES = st.one_of(st.integers(0, 400), st.integers(900, 1030))
ROOMS = st.sampled_from(["low", "high"])
FILLS = st.sampled_from([b".", b"\0"])


def room_of(record: LogRecord) -> str:
    assert record.uid is not None
    return record.uid.rsplit("-", 3)[1]


class SharedMachine(RuleBasedStateMachine):
    """Text: what is published is delivered, by this reader or its successor, in order; or it is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.writing = Writing(self.folder)
        self.reading = Reading(self.writing.stream_folder)
        self.number = 0
        self.published: dict[str, list[int]] = {"low": [], "high": []}
        self.refused = {"low": 0, "high": 0}
        self.read: dict[str, list[int]] = {"low": [], "high": []}
        """By the present reader."""
        self.delivered: dict[str, set[int]] = {"low": set(), "high": set()}
        self.killed_with = {"low": 0, "high": 0}
        self.uids: dict[str, int] = {}
        self.torn: dict[str, int] = {}
        """The number of the frame in flight, by room, that a kill has torn."""

    def teardown(self) -> None:
        self.finish()
        shutil.rmtree(self.folder)

    @precondition(lambda self: not self.torn)
    @rule(room=ROOMS, size=SIZES, fill=FILLS, times=st.integers(1, 8))
    def write(self, room: str, size: int, fill: bytes, times: int) -> None:
        for _ in range(times):
            self.number += 1
            if self.writing.put(getattr(self.writing.intake, room), body(self.number, size, fill)):
                self.published[room].append(self.number)
            else:
                self.refused[room] += 1

    @rule(times=st.integers(1, 4))
    def turn(self, times: int) -> None:
        for _ in range(times):
            for _, record, lane in self.reading.turn():
                number = self.number_in(record)
                if is_unconfirmed(record):  # the last one, of a dead writer, in flight or not
                    assert self.torn
                    assert number in [self.torn.get(lane.room.name), *self.published[lane.room.name][-1:]]
                assert record.uid is not None
                assert self.uids.setdefault(record.uid, number) == number
                self.read[lane.room.name].append(number)

    @rule(number=st.integers(1, 40))
    def deliver(self, number: int) -> None:
        for record in self.reading.deliver("a", number):
            self.delivered[room_of(record)].add(self.number_in(record))

    def number_in(self, record: LogRecord) -> int:
        try:
            return number_of(record.message.encode("latin-1"))
        except ValueError:  # torn in the middle of its number
            assert is_unconfirmed(record)
            return self.torn[room_of(record)]

    @precondition(lambda self: not self.torn)
    @rule()
    def ask(self) -> None:
        self.writing.intake.publish()

    @rule()
    def kill_reader(self) -> None:
        for room in self.killed_with:
            self.killed_with[room] += getattr(self.reading.intake, room).released
        self.reading.die()
        gone = self.reading.intake._writer.gone
        self.reading = Reading(self.writing.stream_folder)
        if gone:
            self.reading.intake.writer_gone()
        self.read = {"low": [], "high": []}

    @precondition(lambda self: not self.torn)
    @rule(room=ROOMS, size=st.integers(0, 400), data=st.data())
    def kill_writer(self, room: str, size: int, data: st.DataObject) -> None:
        """With a frame in flight, of which an end or a piece is missing; it was never confirmed."""
        target = getattr(self.writing.intake, room)
        self.number += 1
        frame = encode(body(self.number, size))
        if target.put(frame):
            memory, end = target.active.memory, target.active.committed()
            start = data.draw(st.integers(0, len(frame) - 1))
            length = data.draw(st.integers(1, len(frame) - start)) if data.draw(st.booleans()) else len(frame)
            first = end - len(frame) + start
            last = min(first + length, end)
            memory[first:last] = bytes(last - first)
            self.torn[room] = self.number
        else:
            self.refused[room] += 1
            self.torn["none"] = 0
        self.writing.die()
        self.reading.intake.writer_gone()

    @invariant()
    def in_order_and_once_by_each_reader(self) -> None:
        for room, read in self.read.items():
            whole = [number for number in read if number != self.torn.get(room)]
            assert whole == sorted(set(whole))
            assert set(whole) <= set(self.published[room])

    @invariant()
    def bounded(self) -> None:
        names = sorted(path.name for path in self.writing.stream_folder.glob("*.seg"))
        assert len([name for name in names if not name.startswith("audit-")]) == 4 + 8 + 2

    def finish(self) -> None:
        """At the end, everything is there."""
        if not self.torn:
            self.writing.intake.publish()
        for _ in range(200):
            before = len(self.read["low"]) + len(self.read["high"])
            self.turn(1)
            self.deliver(10_000)
            if before == len(self.read["low"]) + len(self.read["high"]):
                break
        self.turn(1)
        for room in ("low", "high"):
            missing = set(self.published[room]) - self.delivered[room]
            assert len(missing) <= self.killed_with[room], (room, missing, self.killed_with)
            dropped = self.reading.dropped(room)
            assert sum(dropped.get(reason, 0) for reason in ("room_full", "too_large")) == self.refused[room]
            in_flight = self.torn.get(room)
            if in_flight in self.read[room]:
                assert dropped.get("torn", 0) == 0
            assert set(dropped) <= {"room_full", "too_large", "torn", "agent_killed"}
            assert self.reading.lanes[room].settled


TestSharedMachine = SharedMachine.TestCase
TestSharedMachine.settings = PACE


class AuditMachine(RuleBasedStateMachine):
    """Audit events: all of them, at every destination, under the same id each time; two readers in a row at most repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.writing = Writing(self.folder)
        self.names = ("a", "b")
        self.reading = Reading(self.writing.stream_folder, self.names, limit=20)
        self.published: list[int] = []
        self.refused = 0
        self.number = 0
        self.got: dict[str, list[int]] = {name: [] for name in self.names}
        """By the present reader."""
        self.delivered: dict[str, set[int]] = {name: set() for name in self.names}
        self.ids: dict[str, int] = {}
        self.gone = False

    def teardown(self) -> None:
        self.finish()
        shutil.rmtree(self.folder)

    @precondition(lambda self: not self.gone)
    @rule(size=st.integers(0, 300), fill=FILLS, times=st.integers(1, 12))
    def write(self, size: int, fill: bytes, times: int) -> None:
        for _ in range(times):
            self.number += 1
            if self.writing.audit(body(self.number, size, fill)):
                self.published.append(self.number)
            else:
                self.refused += 1

    @rule()
    def turn(self) -> None:
        self.reading.audits.turn()

    @rule(name=st.sampled_from(["a", "b"]), number=st.integers(1, 30))
    def deliver(self, name: str, number: int) -> None:
        for record in self.reading.deliver(name, number):
            found = number_of(record.message.encode("latin-1"))
            assert record.audit_id is not None
            assert self.ids.setdefault(record.audit_id, found) == found
            self.got[name].append(found)
            self.delivered[name].add(found)

    @rule()
    def kill_reader(self) -> None:
        self.reading.die()
        self.reading = Reading(self.writing.stream_folder, self.names, limit=20)
        if self.gone:
            self.reading.intake.writer_gone()
        self.got = {name: [] for name in self.names}

    @precondition(lambda self: not self.gone)
    @rule(size=st.integers(0, 300), data=st.data())
    def kill_writer(self, size: int, data: st.DataObject) -> None:
        self.number += 1
        frame = seal_audit(body(self.number, size))
        room = self.writing.intake.audit
        self.gone = True
        if room.put(frame):
            end = room.active.committed()
            start = data.draw(st.integers(0, len(frame) - 1))
            room.active.memory[end - len(frame) + start : end] = bytes(len(frame) - start)
        else:
            self.refused += 1
        self.writing.die()
        self.reading.intake.writer_gone()

    @invariant()
    def in_order_and_once_by_each_reader(self) -> None:
        for got in self.got.values():
            assert got == sorted(set(got))
            assert set(got) <= set(self.published)

    def finish(self) -> None:
        for _ in range(300):
            for name in self.names:
                self.deliver(name, 1000)
            if not self.reading.audits.turn():
                break
        self.turn()
        for name in self.names:
            assert self.delivered[name] == set(self.published)
        assert self.reading.audits.settled
        assert set(self.reading.dropped("audit")) <= {"torn", "room_full", "too_large"}
        files = list((self.folder / "journal").rglob("*.seg")) + list(self.folder.rglob("audit-*.seg"))
        assert len(files) <= 1 + 2 + 2


TestAuditMachine = AuditMachine.TestCase
TestAuditMachine.settings = PACE
