"""A process that has no descriptors left reads no segment, takes none for damaged, loses nothing, and says what waits."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hft_otel import recovery
from hft_otel.audit.parked import Parking, read_parked
from hft_otel.destinations.base import Rejected
from hft_otel.lanes import segment as segment_module
from hft_otel.lanes.control import ControlPage
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.remote import RemoteIntake
from hft_otel.record import LogType
from tests.unit.audit_support import SECOND, Desk, frame
from tests.unit.core_support import Process, poll
from tests.unit.lanes_support import Reading, Writing, body


class Shortage:
    """While it `lasts`, no segment can be mapped, or a folder not be listed."""

    def __init__(self) -> None:
        self.lasts = False
        self.error = errno.EMFILE
        self.folder: Path | None = None
        """The one folder that cannot be listed; where there is none, it is maps that cannot be made."""
        self.refused = 0

    def check(self) -> None:
        if self.lasts:
            self.refused += 1
            raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def shortage(monkeypatch: pytest.MonkeyPatch) -> Shortage:
    made = Shortage()
    map_file, iterdir = segment_module._map_file, Path.iterdir

    def refuse_map(path: Path) -> mmap.mmap:
        if made.folder is None:
            made.check()
        return map_file(path)

    def refuse_list(path: Path) -> Iterator[Path]:
        if made.folder == path:
            made.check()
        return iterdir(path)

    monkeypatch.setattr(segment_module, "_map_file", refuse_map)
    monkeypatch.setattr(Path, "iterdir", refuse_list)
    return made


def full(folder: Path, events: int = 200) -> Desk:
    """Return a desk with segments that are counted and offered, as far as there is space, and set aside."""
    desk = Desk(folder)
    desk.outbox.limit = 20
    for number in range(events):
        desk.journal.replenish()
        assert desk.room.put(frame("filled", SECOND + number, order=number))
        desk.turn(settle=False)
    return desk


def drain(reading: Reading) -> list[bytes]:
    """Read and deliver all there is; return the audit events of it."""
    found: list[bytes] = []
    moved = 1
    while moved:
        moved = len(reading.turn()) + reading.audits.turn()
        delivered = reading.deliver()
        found += [each.message.encode("latin-1") for each in delivered if each.log_type is LogType.AUDIT]
    reading.turn()
    return found


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_events_wait_until_their_segments_can_be_opened(
    tmp_path: Path, shortage: Shortage, error: int
) -> None:
    desk = full(tmp_path)
    shortage.lasts, shortage.error = True, error
    for _ in range(100):
        desk.turn()
    assert shortage.refused
    assert len(desk.got) < 200
    assert os.strerror(error) in desk.reader.problem
    assert not desk.reader.settled
    assert desk.reader.total().emitted == 200
    shortage.lasts = False
    while len(desk.got) < 200:
        before = len(desk.got)
        desk.turn()
        assert len(desk.got) > before
    assert [record.context["order"] for record in desk.got] == list(range(200))
    assert desk.reader.problem == ""
    assert desk.reader.sums.dropped == {}
    desk.close()
    assert desk.reader.settled


def test_what_waits_is_counted_as_it_was_known_last(tmp_path: Path, shortage: Shortage) -> None:
    desk = Desk(tmp_path)
    for number in range(100):
        desk.journal.replenish()
        assert desk.room.put(frame("filled", SECOND + number, order=number))
    assert desk.reader.pending() == 100
    for number in range(100):
        desk.journal.replenish()
        assert desk.room.put(frame("filled", SECOND + number, order=number))
    desk.reader._census.segment.set_aside()
    shortage.lasts = True
    assert 100 <= desk.reader.pending() <= 200
    shortage.lasts = False
    assert desk.reader.pending() == 200
    for _ in range(10):
        desk.turn()
    assert desk.reader.pending() == 0
    desk.close()


def test_refused_events_are_parked_once_they_can_be_read(tmp_path: Path, shortage: Shortage) -> None:
    desk = Desk(tmp_path)
    desk.reader.parking = Parking(tmp_path, desk.stream)
    for number in range(200):
        desk.journal.replenish()
        assert desk.room.put(frame("filled", SECOND + number, order=number))
    while desk.reader.pending():
        desk.turn(settle=False)
    desk.turn(settle=False)
    records = list(desk.outbox._queue)
    desk.outbox._queue.clear()
    assert len(records) == 200
    for record in records:
        desk.outbox._drop(Rejected(record, "poison", ""))
    shortage.lasts = True
    desk.turn()
    assert len(desk.outbox.refused) == 200
    assert "cannot be read" in desk.reader.problem
    shortage.lasts = False
    desk.turn()
    assert desk.outbox.refused == {}
    parked = list(read_parked(tmp_path))
    assert len(parked) == 200
    desk.close()


@pytest.mark.parametrize("listed", [False, True])
def test_what_a_dead_process_left_waits_until_it_can_be_opened(
    tmp_path: Path, shortage: Shortage, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    monkeypatch.setattr(recovery, "_RETRY_AFTER", 0.01)
    desk = full(tmp_path)
    desk.leave()
    core = Process(tmp_path)
    shortage.lasts, shortage.folder = True, tmp_path / desk.stream if listed else None
    core.logger("next")
    seen = shortage.refused
    poll(lambda: shortage.refused > seen + 3)
    assert core.records(LogType.AUDIT) == []
    assert len(core.worker._recovered) == 1
    assert f"{desk.stream} waits" in core.worker.trail_problem
    shortage.lasts = False
    poll(lambda: not core.worker._recovered)
    orders = [record.context["order"] for record in core.records(LogType.AUDIT)]
    assert orders == list(range(200))
    assert core.worker.trail_problem == ""
    assert core.dropped() == {}
    core.close()
    assert not (tmp_path / desk.stream).exists()


def test_what_could_not_be_opened_is_there_for_the_next_start(tmp_path: Path, shortage: Shortage) -> None:
    desk = full(tmp_path)
    desk.leave()
    files = sorted((tmp_path / desk.stream).glob("*.seg"))
    core = Process(tmp_path)
    shortage.lasts = True
    core.logger("next")
    assert len(core.worker._recovered) == 1
    core.close()
    shortage.lasts = False
    assert sorted((tmp_path / desk.stream).glob("*.seg")) == files
    [stream] = Journal(tmp_path, 4096, 1).abandoned()  # its locks are free
    stream.close(settled=False)


@pytest.mark.parametrize("gone", [False, True])
def test_another_process_s_segments_wait_and_are_neither_damaged_nor_the_end(
    tmp_path: Path, shortage: Shortage, gone: bool
) -> None:
    writing = Writing(tmp_path)
    for number in range(3):
        assert writing.audit(body(number, 300))
    reading = Reading(writing.stream_folder)
    delivered = drain(reading)
    for number in range(3, 30):
        assert writing.audit(body(number, 300))
    if gone:
        writing.die()
        reading.intake.writer_gone()
    journal = writing.journal.stream_folder
    for folder in (None, journal) if gone else (None,):
        shortage.lasts, shortage.folder = True, folder
        for _ in range(3):
            delivered += drain(reading)
        assert shortage.refused
        assert len(delivered) < 30
        assert "Too many open files" in reading.audits.problem
        assert not reading.audits.settled
        assert reading.audits.total().emitted < 30
        assert reading.intake.audit.position > (30, 0)  # no flush is answered on the ground of what is known
        assert reading.intake.problem == ""
    shortage.lasts = False
    assert reading.intake.audit.position < (30, 2000)
    delivered += drain(reading)
    assert delivered == [body(number, 300) for number in range(30)]
    assert reading.dropped("audit") == {}
    assert reading.audits.settled
    reading.die()
    if not gone:
        writing.die()


@pytest.mark.parametrize("what", ["segments", "control", "folder"])
def test_a_stream_that_cannot_be_opened_is_left_as_it_is(
    tmp_path: Path, shortage: Shortage, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    writing = Writing(tmp_path)
    assert writing.audit(body(0))
    assert writing.put(writing.intake.low, body(1))
    writing.die()
    with monkeypatch.context() as patch:
        if what == "control":
            patch.setattr(ControlPage, "load", lambda path: shortage.check())
        shortage.lasts = True
        shortage.folder = writing.stream_folder if what == "folder" else None
        with pytest.raises(OSError, match="Too many open files"):
            RemoteIntake(writing.stream_folder)
    shortage.lasts = False
    reading = Reading(writing.stream_folder)  # its locks are free
    reading.intake.writer_gone()
    delivered = drain(reading)
    assert reading.intake.problem == ""
    assert delivered == [body(0)]
    assert reading.read["low"] == [body(1)]
    reading.die()


def test_damage_in_what_a_dead_process_left_is_counted_and_named(tmp_path: Path) -> None:
    desk = full(tmp_path)
    desk.leave()
    files = sorted((tmp_path / desk.stream).glob("*.seg"))
    foreign, cut, other = files[1], files[2], tmp_path / "host-1-1"
    foreign.write_bytes(b"not one of ours" * 100)
    os.truncate(cut, 2048)
    other.mkdir()
    for number in range(6):  # a stream of which nothing is readable
        (other / f"{number:08d}.seg").write_bytes(b"")
    core = Process(tmp_path)
    core.logger("next")
    poll(lambda: not core.worker._recovered)
    report = core.worker.flush(10)
    dropped = core.lane("recovered", report).dropped
    assert dropped["damaged"] == 8
    assert not report
    assert str(other / "00000000.seg") in core.worker.trail_problem
    assert "3 more files are damaged" in core.worker.trail_problem
    core.close()
    assert sorted(path.name for path in tmp_path.glob("*.damaged")) == sorted(
        [f"{desk.stream}.damaged", "host-1-1.damaged"]
    )


def test_segments_that_somebody_removes_while_they_wait_are_counted_and_what_comes_later_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_module, "_PATIENCE", 0.05)
    desk = full(tmp_path, 600)
    shutil.rmtree(tmp_path / desk.stream)
    desk.turn()
    assert "No such file" in desk.reader.problem
    poll(lambda: desk.turn() or desk.reader.settled)
    assert desk.reader._oldest is desk.room.active  # all before it is given back
    for number in range(600, 900):
        desk.journal.replenish()
        assert desk.room.put(frame("filled", SECOND + number, order=number))

    def done() -> bool:
        desk.turn()
        return desk.reader.settled

    poll(done)
    orders = [record.context["order"] for record in desk.got]
    assert orders == sorted(set(orders))
    assert orders[:20] == list(range(20))
    assert orders[-200:] == list(range(700, 900))
    assert all(record.audit_id == f"{desk.stream}-{record.context['order']}" for record in desk.got)
    tallies = desk.outbox.tallies
    assert tallies.dropped[LogType.AUDIT, "damaged"] == 900 - len(orders) > 0
    assert tallies.accepted[LogType.AUDIT] == tallies.settled[LogType.AUDIT] == 900
    assert desk.reader.problem == ""
    desk.leave()


def test_a_folder_that_comes_back_in_time_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = full(tmp_path, 600)
    (tmp_path / desk.stream).rename(tmp_path / "away")
    for _ in range(5):
        desk.turn()
    assert "No such file" in desk.reader.problem
    (tmp_path / "away").rename(tmp_path / desk.stream)
    while len(desk.got) < 600:
        before = len(desk.got)
        desk.turn()
        assert len(desk.got) > before
    assert desk.outbox.tallies.dropped == {}
    desk.close()


@pytest.mark.parametrize("gone", [False, True])
def test_another_process_s_segments_that_somebody_removes_are_counted_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    monkeypatch.setattr(segment_module, "_PATIENCE", 0.05)
    writing = Writing(tmp_path)
    for number in range(30):
        assert writing.audit(body(number, 300))
    reading = Reading(writing.stream_folder)
    assert reading.audits.pending() == 30  # which has looked at them all, and set them aside
    if gone:
        writing.die()
        reading.intake.writer_gone()
    for index in (1, 2, 5):
        (writing.journal.stream_folder / f"{index:08d}.seg").unlink()
    delivered: list[bytes] = []

    def done() -> bool:
        delivered.extend(drain(reading))
        return reading.audits.settled

    poll(done)
    lost = {number for number in range(30) if number // 3 in (1, 2, 5)}
    assert delivered == [body(number, 300) for number in range(30) if number not in lost]
    assert reading.dropped("audit") == {"damaged": 3}
    reading.die()
    if not gone:
        writing.die()
