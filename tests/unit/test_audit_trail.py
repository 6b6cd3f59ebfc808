"""What the reader leaves: chain, anchors, kept segments; across restarts, full disks and retention."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import msgspec
import pytest

from hft_otel.audit.chain import (
    ANCHORS,
    ENTRIES,
    Anchor,
    BadLine,
    Entry,
    TornLine,
    last_line,
    read_lines,
    to_line,
)
from hft_otel.audit.exported import EXPORTED, has_left, not_exported, note_exported
from hft_otel.audit.parked import PARKED
from hft_otel.audit.retention import prune
from hft_otel.audit.trail import NO_TRAIL, Keeping, Trail, make_trail
from hft_otel.audit.verify import verify
from hft_otel.audit_feed import AuditReader
from hft_otel.config import JournalConfig
from hft_otel.lanes.intake import Intake
from hft_otel.lanes.journal import Journal, Stream
from hft_otel.lanes.room import Cursor
from hft_otel.outbox import Outbox
from hft_otel.record import LogRecord, LogType
from hft_otel.redaction import Redactor
from hft_otel.unpack import Unpacker
from hft_otel.worker import Worker
from tests.unit.audit_support import KEEPING, Desk, frame
from tests.unit.audit_support import make_trail as leave_trail
from tests.unit.core_support import Process, Recorder, poll


def entries(desk: Desk) -> list[Entry]:
    return [line for line in read_lines(desk.trail_folder / ENTRIES, Entry) if isinstance(line, Entry)]


def anchors(desk: Desk) -> list[Anchor]:
    return [line for line in read_lines(desk.trail_folder / ANCHORS, Anchor) if isinstance(line, Anchor)]


def exported(desk: Desk) -> list[LogRecord]:
    return [record for record in desk.got if record.event_name == "hft.audit.anchor"]


def problems(folder: Path) -> list[str]:
    return [problem for verdict in verify(folder) for problem in verdict.problems]


def left(folder: Path) -> Stream:
    """Take what a killed process left, as the next start does."""
    journal = Journal(folder, 4096, 1)
    (stream,) = journal.abandoned()
    journal.close(settled=True)
    return stream


def recover(desk: Desk, deliver: bool = True) -> list[str | None]:
    """Read what a killed process left, as the next start does; return the identities that are delivered."""
    stream = left(desk.folder)
    offset, seq = stream.start
    outbox = Outbox(Recorder("file", keeps_anchors=True))
    unpacker = Unpacker(lambda number: Redactor(()))

    def decode(body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
        return unpacker.audit(body, audit_id)[1], (outbox,)

    start = Cursor(stream.segments[0], offset)
    reader = AuditReader("recovered", stream.name, start, seq, decode, stream.retire)
    reader.keep(Trail(desk.folder, stream.name, KEEPING))
    reader.add([outbox])
    got: list[str | None] = []
    while reader.turn():
        if deliver:
            got += [record.audit_id for record in outbox._queue]
            outbox.tallies.deliver(LogType.AUDIT, len(outbox._queue))
            outbox._queue.clear()
    reader.turn()
    if deliver:
        reader.anchor()
        got += [record.audit_id for record in outbox._queue]
        reader.finish()
    stream.close(settled=reader.settled)
    return got


class TestWhatIsLeft:
    def test_a_stream_without_events_leaves_nothing(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_settled_stream_leaves_its_trail_and_nothing_else(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(150)
        desk.close()
        assert [path.name for path in tmp_path.iterdir()] == [f"{desk.stream}.trail"]
        found = entries(desk)
        assert [entry.number for entry in found] == list(range(len(found)))
        assert sum(entry.count for entry in found) == 150

    def test_what_is_kept_is_read_only_cut_and_for_the_owner_alone(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(5)
        desk.close()
        (kept,) = desk.trail_folder.glob("*.seg")
        assert stat.S_IMODE(kept.stat().st_mode) == 0o400
        assert stat.S_IMODE(desk.trail_folder.stat().st_mode) == 0o700
        assert kept.stat().st_size == entries(desk)[0].size < 1000

    def test_a_segment_is_kept_only_once_every_destination_has_it(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        for number in range(100):
            desk.journal.replenish()
            assert desk.room.put(b"\xc4\x40" + bytes([number]) * 64)
            desk.turn(settle=False)
        assert desk.reader.sums.dropped  # no events at all, and yet bytes that are chained
        desk.leave()

    def test_nothing_is_kept_where_the_configuration_says_so(self, tmp_path: Path) -> None:
        keeping = Keeping.of(JournalConfig(keep_days=0))
        assert make_trail(tmp_path, "s", keeping) is NO_TRAIL
        assert make_trail(tmp_path, "s", None) is NO_TRAIL
        assert Keeping.of(JournalConfig()) == Keeping(30, 1 << 30, 60)


class TestAnchors:
    def test_an_anchor_leaves_behind_the_events_that_it_proves(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(3)
        desk.anchor()
        assert [record.event_name for record in desk.got] == ["audit.filled"] * 3 + ["hft.audit.anchor"]
        (anchor,) = anchors(desk)
        context = exported(desk)[0].context
        assert context["audit.head"] == anchor.head
        assert (context["audit.seq"], anchor.seq) == (2, 2)
        desk.close()

    def test_no_anchor_is_made_where_nothing_new_came(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.anchor()
        desk.write(1)
        desk.anchor()
        desk.anchor()
        desk.close()
        assert [anchor.seq for anchor in anchors(desk)] == [0]

    def test_anchors_come_at_their_interval(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path, KEEPING._replace(anchor_interval=0.02))
        desk.write(1)
        time.sleep(0.03)
        desk.turn()
        assert [anchor.seq for anchor in anchors(desk)] == [0]
        desk.close()

    def test_an_anchor_is_counted_as_accepted_and_delivered(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(2)
        desk.anchor()
        (sums,) = desk.outbox.tallies.sums("file")
        assert (sums.accepted, sums.delivered, sums.pending) == (3, 3, 0)
        assert desk.reader.settled
        desk.close()

    def test_who_does_not_keep_anchors_gets_none(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.outbox.destination.keeps_anchors = False
        desk.write(2)
        desk.anchor()
        assert exported(desk) == []
        assert len(anchors(desk)) == 1
        desk.close()


class TestRestarts:
    def test_a_killed_process_s_chain_is_continued(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(100)
        desk.anchor()
        for _ in range(100):
            desk.journal.replenish()
            assert desk.room.put(b"\xc4\x03abc")  # unreadable, yet part of the stream
        desk.leave()
        recover(desk)
        assert not (tmp_path / desk.stream).exists()
        (verdict,) = verify(tmp_path)
        assert (verdict.problems, verdict.last, verdict.anchored) == ([], 199, 199)

    def test_what_nobody_settled_is_chained_the_same_way_again(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        for number in range(150):
            desk.journal.replenish()
            assert desk.room.put(frame("filled", number=number))
        desk.turn(settle=False)
        desk.leave()
        recover(desk, deliver=False)
        before = entries(desk)
        assert before
        got = recover(desk)
        assert got == [*(f"{desk.stream}-{number}" for number in range(150)), None]
        assert entries(desk)[: len(before)] == before
        assert problems(tmp_path) == []

    def test_the_anchor_of_what_was_delivered_before_a_kill_leaves_at_the_next_start(
        self, tmp_path: Path
    ) -> None:
        desk = Desk(tmp_path)
        desk.write(10)
        desk.leave()
        assert recover(desk) == [None]
        assert [anchor.seq for anchor in anchors(desk)] == [9]

    def test_a_line_that_a_kill_cut_off_is_mended(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(60)
        desk.anchor()
        desk.leave()
        with (desk.trail_folder / ANCHORS).open("ab") as file:
            file.write(b'{"check":"12')
        (verdict,) = verify(tmp_path)
        assert verdict.healthy
        assert "in the middle of a line" in verdict.notes[0]
        recover(desk)
        (verdict,) = verify(tmp_path)
        assert (verdict.problems, verdict.notes) == ([], [])

    def test_a_journal_that_was_changed_between_two_starts_is_said(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        for number in range(300):
            desk.journal.replenish()
            assert desk.room.put(frame("filled", order=f"{number:020d}"))
            desk.turn(settle=False)
        desk.leave()
        path = tmp_path / desk.stream / "00000000.seg"
        content = path.read_bytes()
        path.write_bytes(content.replace(b"%020d" % 7, b"%020d" % 8))
        stream = left(tmp_path)
        reader = AuditReader("recovered", stream.name, Cursor(stream.segments[0]), 0, _nothing, stream.retire)
        reader.keep(Trail(tmp_path, stream.name, KEEPING))
        while reader.turn():
            pass
        assert "not what was chained before" in reader.problem
        stream.close(settled=False)
        assert problems(tmp_path)


def _nothing(body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
    raise ValueError


class TestTheDisk:
    def test_that_refuses_keeps_the_segments_where_they_are_until_it_takes_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hft_otel.audit.trail._RETRY_AFTER", 0.0)
        desk = Desk(tmp_path)
        desk.trail_folder.write_text("in the way")
        desk.write(150)
        assert desk.reader.problem.startswith("the audit trail cannot be written to")
        live = list((tmp_path / desk.stream).glob("*.seg"))
        assert len(live) > 3
        desk.trail_folder.unlink()
        desk.turn()
        assert desk.reader.problem == ""
        desk.close()
        assert [path.name for path in tmp_path.iterdir()] == [f"{desk.stream}.trail"]
        (verdict,) = verify(tmp_path)
        assert (verdict.problems, verdict.events) == ([], 150)

    def test_that_refuses_at_the_end_leaves_the_stream_to_the_next_start(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.trail_folder.write_text("in the way")
        desk.write(10)
        desk.close()
        assert not desk.reader.settled
        assert (tmp_path / desk.stream).is_dir()
        desk.trail_folder.unlink()
        recover(desk)
        (verdict,) = verify(tmp_path)
        assert (verdict.problems, verdict.events) == ([], 10)

    def test_events_in_memory_for_lack_of_it_are_kept_too(self, tmp_path: Path) -> None:
        folder = tmp_path / "journal"
        folder.write_text("in the way")
        journal = Journal(folder, 4096, 2)
        folder.unlink()
        desk = Desk(folder, journal=journal)
        desk.write(100)
        desk.close()
        (verdict,) = verify(folder)
        assert (verdict.problems, verdict.events, verdict.last) == ([], 100, 99)


class TestRetention:
    def trail(self, folder: Path) -> Desk:
        desk = Desk(folder)
        desk.write(300)
        desk.close()
        assert len(list(desk.trail_folder.glob("*.seg"))) == 5
        return desk

    def test_by_age_removes_the_oldest_and_the_rest_still_proves_itself(self, tmp_path: Path) -> None:
        desk = self.trail(tmp_path)
        for path in sorted(desk.trail_folder.glob("*.seg"))[:2]:
            os.utime(path, (0, 0))
        (anchor,) = prune(tmp_path, 3600, 1 << 30)
        assert anchor.kept_from == entries(desk)[1].end_seq
        (verdict,) = verify(tmp_path)
        assert (verdict.problems, verdict.removed) == ([], anchor.kept_from)
        assert verdict.events == 300 - anchor.kept_from
        assert prune(tmp_path, 3600, 1 << 30) == []

    def test_by_size_keeps_the_newest(self, tmp_path: Path) -> None:
        desk = self.trail(tmp_path)
        prune(tmp_path, 3600, 3 * 4096)
        kept = sorted(desk.trail_folder.glob("*.seg"))
        assert sum(path.stat().st_size for path in kept) <= 3 * 4096
        assert kept[-1].stem == f"{entries(desk)[-1].first_seq:012d}"
        assert problems(tmp_path) == []

    def test_that_removes_all_leaves_the_chain(self, tmp_path: Path) -> None:
        desk = self.trail(tmp_path)
        prune(tmp_path, 0, 1)
        assert list(desk.trail_folder.glob("*.seg")) == []
        (verdict,) = verify(tmp_path)
        assert (verdict.problems, verdict.removed, verdict.events) == ([], 300, 0)

    def test_never_touches_what_is_not_settled(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(10)
        prune(tmp_path, 0, 1)
        assert (tmp_path / desk.stream / "00000000.seg").exists()
        desk.close()

    def test_leaves_a_segment_alone_that_the_chain_does_not_know(self, tmp_path: Path) -> None:
        desk = self.trail(tmp_path)
        (desk.trail_folder / ENTRIES).unlink()
        before = sorted(desk.trail_folder.iterdir())
        assert prune(tmp_path, 0, 1) == []
        assert sorted(desk.trail_folder.iterdir()) == before

    def test_by_the_reader_exports_the_anchor_that_says_so(self, tmp_path: Path) -> None:
        old = self.trail(tmp_path)
        for path in old.trail_folder.glob("*.seg"):
            os.utime(path, (0, 0))
        desk = Desk(tmp_path, KEEPING._replace(days=1))
        desk.write(3)
        desk.trail._prune_at = 0.0
        desk.turn()
        told = [record.context for record in exported(desk) if record.context["audit.stream"] == old.stream]
        assert [context["audit.kept_from"] for context in told] == [300]
        desk.close()


class TestWhatRetentionLeft:
    """Chain and anchors of a stream of which nothing is kept: removed late, and never unseen."""

    def emptied(self, folder: Path) -> tuple[Desk, Anchor]:
        """Leave a stream all of whose events were removed, and say by which anchor."""
        desk = leave_trail(folder)
        (anchor,) = prune(folder, 0, 1)
        assert not list(desk.trail_folder.glob("*.seg"))
        return desk, anchor

    def test_goes_once_it_is_old_and_its_last_anchor_has_left(self, tmp_path: Path) -> None:
        desk, anchor = self.emptied(tmp_path)
        outside = anchors(desk)
        prune(tmp_path, 0, 1)
        assert desk.trail_folder.exists()  # the anchor that names the removal has not left
        note_exported(tmp_path, anchor)
        prune(tmp_path, 3600, 1)
        assert desk.trail_folder.exists()  # it is not old
        prune(tmp_path, 0, 1)
        assert list(tmp_path.iterdir()) == []
        assert verify(tmp_path) == []
        (verdict,) = verify(tmp_path, outside)
        assert verdict.healthy, verdict.problems
        assert (verdict.removed, verdict.outside) == (150, 149)
        assert "retention has removed all of it" in verdict.notes[0]

    def test_is_missed_where_no_anchor_from_outside_names_the_removal(self, tmp_path: Path) -> None:
        desk = leave_trail(tmp_path)
        outside = anchors(desk)
        shutil.rmtree(desk.trail_folder)  # as somebody would who deletes a stream
        (verdict,) = verify(tmp_path, outside)
        assert "nothing is there of it" in verdict.problems[0]

    def test_is_missed_where_only_a_part_was_removed_by_retention(self, tmp_path: Path) -> None:
        desk = leave_trail(tmp_path)
        os.utime(min(desk.trail_folder.glob("*.seg")), (0, 0))
        (anchor,) = prune(tmp_path, 3600, 1 << 30)
        assert 0 < anchor.kept_from < 150
        outside = anchors(desk)
        shutil.rmtree(desk.trail_folder)
        (verdict,) = verify(tmp_path, outside)
        assert "nothing is there of it" in verdict.problems[0]

    @pytest.mark.parametrize("why", ["it lives", "it lives in the fallback", "something is kept"])
    def test_stays_where_it_is_needed(self, tmp_path: Path, why: str) -> None:
        folder, second = tmp_path / "journal", tmp_path / "second"
        desk, anchor = self.emptied(folder)
        note_exported(folder, anchor)
        needs = {
            "it lives": folder / desk.stream,
            "it lives in the fallback": second / desk.stream,
            "something is kept": desk.trail_folder / "000000000150.seg",
        }[why]
        needs.mkdir(parents=True)
        prune(folder, 0.0, 1 << 30, second) if why != "something is kept" else prune(folder, 3600, 1 << 30)
        assert desk.trail_folder.exists()
        needs.rmdir()
        prune(folder, 0.0, 1 << 30, second)
        assert not desk.trail_folder.exists()

    def test_stays_while_something_is_parked_that_is_not_old(self, tmp_path: Path) -> None:
        desk, anchor = self.emptied(tmp_path)
        old = msgspec.structs.replace(anchor, time_ns=1)
        (desk.trail_folder / ANCHORS).write_bytes(to_line(old))
        note_exported(tmp_path, old)
        parked = desk.trail_folder / PARKED
        parked.write_text("x")
        prune(tmp_path, 3600, 1)
        assert desk.trail_folder.exists()
        os.utime(parked, (0, 0))
        prune(tmp_path, 3600, 1)
        assert not desk.trail_folder.exists()

    def test_half_removed_by_a_killed_process_goes_with_the_next_look(self, tmp_path: Path) -> None:
        desk, anchor = self.emptied(tmp_path)
        note_exported(tmp_path, anchor)
        hidden = desk.trail_folder.rename(tmp_path / f".{desk.stream}.trail")
        (hidden / ENTRIES).unlink()
        assert verify(tmp_path) == []
        prune(tmp_path, 3600, 1)
        assert list(tmp_path.iterdir()) == []


class Keeps(Process):
    """A process whose worker keeps a trail."""

    def _start(self, intake: Intake) -> Worker:
        worker = Worker(intake)
        worker.keep(KEEPING)
        for pipeline in intake.pipelines:
            worker.add(pipeline)
        worker.start()
        return worker


class TestAnchorsThatLeave:
    def test_are_noted_once_every_destination_has_them(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(3)
        desk.reader.anchor()
        assert not has_left(desk.trail_folder)
        desk.turn()
        assert has_left(desk.trail_folder)
        desk.write(1)
        desk.reader.anchor()
        assert not has_left(desk.trail_folder)
        desk.close()
        assert has_left(desk.trail_folder)
        assert stat.S_IMODE((desk.trail_folder / EXPORTED).stat().st_mode) == 0o400

    def test_wait_for_space_and_keep_their_order(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(2)
        desk.outbox.limit = 0
        desk.reader.anchor()
        desk.room.put(frame("filled"))
        desk.turn(settle=False)
        desk.reader.anchor()
        assert not desk.outbox._queue
        desk.outbox.limit = 100
        desk.turn()
        desk.turn()
        assert [record.context["audit.seq"] for record in exported(desk)] == [1, 2]
        assert has_left(desk.trail_folder)
        desk.close()

    def test_to_nobody_are_not_noted(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.outbox.destination.keeps_anchors = False  # type: ignore[misc]  # of this one
        desk.write(2)
        desk.close()
        assert not has_left(desk.trail_folder)

    @pytest.mark.parametrize("kept", [True, False])
    def test_not_before_the_end_are_sent_again_by_the_next_start(self, tmp_path: Path, kept: bool) -> None:
        desk = Desk(tmp_path)
        desk.write(150)
        desk.reader.anchor()  # to a destination that takes it no more
        desk.reader.finish()
        desk.room.shut()
        desk.journal.close(settled=True)
        if not kept:
            for path in desk.trail_folder.glob("*.seg"):
                path.unlink()
        assert [anchor.seq for anchor in not_exported([tmp_path], "")] == [149]
        assert list(not_exported([tmp_path], desk.stream)) == []
        for number in (1, 0):
            file = Recorder("file", keeps_anchors=True)
            text_only = Recorder("other")
            made = Keeps(tmp_path)
            log = made.logger("x", file, text_only)
            try:
                log.info("x")
                made.flush()
                poll(lambda: has_left(desk.trail_folder))
            finally:
                made.close()
            found = [record for record in file.got if record.event_name == "hft.audit.anchor"]
            assert [record.context["audit.seq"] for record in found] == [149] * number
            assert [record.log_type for record in text_only.got] == [LogType.TEXT]

    def test_of_a_living_stream_are_left_to_its_process(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(2)
        desk.reader.anchor()
        assert list(not_exported([tmp_path], "")) == []
        desk.leave()
        assert list(not_exported([tmp_path], "")) == []
        assert recover(desk) == [None]
        assert list(not_exported([tmp_path], "")) != []  # that reader had no time to note it


class TestLines:
    @pytest.mark.parametrize(
        "change",
        [lambda line: line[:-3] + b"\n", lambda line: line.replace(b":5", b":6"), lambda line: b"[]\n"],
    )
    def test_that_were_changed_are_said(self, tmp_path: Path, change: object) -> None:
        line = to_line(Entry(number=5, first_seq=0, count=1, size=70, head="00" * 32))
        path = tmp_path / ENTRIES
        path.write_bytes(change(line))  # type: ignore[operator]
        (found,) = read_lines(path, Entry)
        assert isinstance(found, BadLine)
        assert str(found).startswith("chain.jsonl:1: ")

    def test_without_an_end_are_torn(self, tmp_path: Path) -> None:
        line = to_line(Entry(number=5, first_seq=0, count=1, size=70, head="00" * 32))
        (tmp_path / ENTRIES).write_bytes(line + line[:-1])
        whole, torn = read_lines(tmp_path / ENTRIES, Entry)
        assert isinstance(whole, Entry)
        assert isinstance(torn, TornLine)

    def test_at_the_end_are_found_by_a_look_at_the_end(self, tmp_path: Path) -> None:
        lines = [to_line(Entry(number=n, first_seq=n, count=1, size=70, head="00" * 32)) for n in range(100)]
        path = tmp_path / ENTRIES
        assert last_line(path, Entry) is None
        path.write_bytes(b"".join(lines) + lines[0][:-1])
        last = last_line(path, Entry)
        assert last is not None and last.number == 99
        path.write_bytes(b"".join(lines)[:-9] + b"\n")
        assert last_line(path, Entry) is None
        path.write_bytes(lines[0].replace(b":0", b":1"))
        assert last_line(path, Entry) is None

    def test_of_no_file_are_none(self, tmp_path: Path) -> None:
        assert list(read_lines(tmp_path / ENTRIES, Entry)) == []


def test_a_stream_of_a_dead_process_is_no_trail(tmp_path: Path) -> None:
    """Else a start would take what is kept for what is to be delivered."""
    desk = Desk(tmp_path)
    desk.write(10)
    desk.close()
    journal = Journal(tmp_path, 4096, 1)
    assert list(journal.abandoned()) == []
    journal.close(settled=True)
