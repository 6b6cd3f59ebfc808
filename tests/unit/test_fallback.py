"""The journal's second folder: what the first one refuses goes there, in order, and the way back is found."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hft_otel.audit.reading import read_events
from hft_otel.audit.trail import Keeping, Trail
from hft_otel.audit.verify import verify
from hft_otel.audit_feed import AuditReader
from hft_otel.cli.app import app
from hft_otel.config import ConfigError, JournalConfig, LanesConfig, LogConfig
from hft_otel.lanes import journal as journal_module
from hft_otel.lanes import streams
from hft_otel.lanes.durability import DiskSync
from hft_otel.lanes.intake import Intake
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.remote import RemoteIntake
from hft_otel.lanes.room import Cursor
from hft_otel.lanes.shared import SharedLanes
from hft_otel.ledger import FlushReport
from hft_otel.notices import Notices
from hft_otel.outbox import Outbox
from hft_otel.record import LogLevel, LogRecord, LogType
from hft_otel.worker import Worker
from tests.unit.audit_support import KEEPING, Desk, frame
from tests.unit.lanes_support import TINY, Reading
from tests.unit.small_disk import SmallDisk, small_disk

SIZE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 256) as mounted:
        yield mounted


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_RETRY_AFTER", 0.0)


def in_the_way(folder: Path) -> Path:
    """Make a folder that cannot be made; what is removed makes it one that can."""
    folder.write_text("in the way")
    return folder


def homes(journal: Journal) -> list[str]:
    """The folder that each segment made ready is in."""
    return [str(segment.path and segment.path.parents[1].name) for segment in journal.supply]


def desk(folder: Path, fallback: Path, keeping: Keeping = KEEPING) -> Desk:
    return Desk(folder, keeping, journal=Journal(folder, SIZE, 2, fallback=fallback))


def numbers(found: list[str | None]) -> list[int]:
    return [int(str(each).rpartition("-")[2]) for each in found]


def test_a_full_disk_is_left_for_the_fallback_and_come_back_to(tmp_path: Path, disk: SmallDisk) -> None:
    journal = Journal(disk.path / "journal", SIZE, 2, fallback=tmp_path / "second")
    assert homes(journal) == ["journal", "journal"]
    assert not (tmp_path / "second").exists()
    disk.fill()
    taken = [journal.supply.popleft(), journal.supply.popleft()]
    journal.replenish()
    assert homes(journal) == ["second", "second"]
    assert "No space left on device; audit events go to" in journal.problem
    assert str(tmp_path / "second" / journal.stream) in journal.problem
    assert journal.displaced == {"fallback": 2}
    disk.free()
    taken += [journal.supply.popleft()]
    journal.replenish()
    assert homes(journal) == ["second", "journal"]
    assert journal.problem == ""
    assert [segment.index for segment in (*taken, *journal.supply)] == [0, 1, 2, 3, 4]
    journal.close(settled=True)
    assert list((disk.path / "journal").iterdir()) == list((tmp_path / "second").iterdir()) == []


def test_memory_is_what_is_left_where_both_folders_refuse(tmp_path: Path) -> None:
    first, second = in_the_way(tmp_path / "first"), in_the_way(tmp_path / "second")
    journal = Journal(first, SIZE, 2, fallback=second)
    assert [segment.path for segment in journal.supply] == [None, None]
    assert str(first) in journal.problem and str(second) in journal.problem
    assert "kept in memory only" in journal.problem
    assert journal.displaced == {"memory": 2}
    second.unlink()
    journal.supply.popleft()
    journal.replenish()
    assert homes(journal)[-1] == "second"
    assert journal.problem.endswith(f"go to {second / journal.stream}")
    journal.close(settled=True)
    assert list(second.iterdir()) == []


def test_the_first_folder_is_asked_again_a_second_after_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(journal_module, "_RETRY_AFTER", 1.0)
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    first = in_the_way(tmp_path / "first")
    journal = Journal(first, SIZE, 1, fallback=tmp_path / "second")
    first.unlink()
    for seconds, home in ((0.9, "second"), (0.2, "first")):
        now[0] += seconds
        journal.supply.popleft()
        journal.replenish()
        assert homes(journal) == [home]
    journal.close(settled=True)


def test_a_folder_that_vanishes_takes_no_event_with_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "first", SIZE, 3, fallback=tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    in_the_way(tmp_path / "first")
    journal.supply.popleft()
    journal.replenish()
    assert homes(journal) == ["second"] * 3  # none of those that nobody would find
    journal.close(settled=True)


def test_events_keep_their_order_and_numbers_across_both_folders(tmp_path: Path, disk: SmallDisk) -> None:
    made = desk(disk.path / "journal", tmp_path / "second")
    made.write(100)
    disk.fill()
    made.write(300)
    assert any((tmp_path / "second" / made.stream).glob("*.seg"))
    assert "cannot be written to" in made.trail.problem
    live = list(read_events(disk.path / "journal", tmp_path / "second"))
    assert numbers([record.audit_id for record in live]) == list(range(400))
    disk.free()
    disk.grow(1024)
    made.write(100)
    made.trail._retry_at = 0.0
    made.close()
    assert [record.context["order"] for record in made.got if "order" in record.context] == [
        f"{number:04d}" for number in range(500)
    ]
    (verdict,) = verify(disk.path / "journal")
    assert verdict.healthy, verdict.problems
    assert (verdict.events, verdict.anchored) == (500, 499)
    assert list((tmp_path / "second").iterdir()) == []


def test_a_trail_is_complete_with_the_fallback_and_not_without(tmp_path: Path, disk: SmallDisk) -> None:
    first, second = disk.path / "journal", tmp_path / "second"
    made = desk(first, second)
    made.write(60)
    disk.fill()
    made.write(200)
    made.leave()
    (verdict,) = verify(first, fallback=second)
    assert verdict.healthy, verdict.problems
    assert verdict.events == 260
    assert sum(each.events for each in verify(first)) < 260
    (tmp_path / "arrived.jsonl").write_text(
        "".join(
            f'{{"event_name":"audit.x","attributes":{{"audit.id":"{made.stream}-{n}"}}}}\n'
            for n in range(260)
        )
    )
    for command in (
        ["verify"],
        ["show", "--limit", "1"],
        ["reconcile", "--against", str(tmp_path / "arrived.jsonl")],
    ):
        arguments = ["audit", command[0], str(first), "--fallback", str(second), *command[1:]]
        assert CliRunner().invoke(app, arguments).exit_code == 0, command


def test_what_a_killed_process_left_in_both_folders_is_read_in_order_and_removed(
    tmp_path: Path, disk: SmallDisk
) -> None:
    first, second = disk.path / "journal", tmp_path / "second"
    made = desk(first, second)
    for _ in range(40):
        assert made.room.put(frame("filled", pad="x" * 200))
        made.journal.replenish()
    disk.fill()
    for _ in range(200):
        assert made.room.put(frame("filled", pad="x" * 200))
        made.journal.replenish()
    made.leave()
    next_journal = Journal(tmp_path / "other", SIZE, 1)
    (stream,) = journal_module.abandoned((first, second), next_journal.stream)
    assert stream.folder == first / made.stream
    assert {segment.path.parents[1] for segment in stream.segments if segment.path} == {first, second}
    indices = [segment.index for segment in stream.segments]
    assert indices == sorted(indices)
    assert list(journal_module.abandoned((first, second), "")) == []  # both are locked by now
    stream.close(settled=True)
    assert list(first.iterdir()) == list(second.iterdir()) == []
    next_journal.close(settled=True)


def test_a_stream_that_lives_in_the_fallback_alone_belongs_to_its_process(tmp_path: Path) -> None:
    first = in_the_way(tmp_path / "first")
    living = Journal(first, SIZE, 1, fallback=tmp_path / "second")
    first.unlink()
    other = Journal(first, SIZE, 1, fallback=tmp_path / "second")
    assert list(other.abandoned()) == []
    living.leave()
    (found,) = other.abandoned()
    assert found.folder == first / living.stream
    found.close(settled=True)
    other.close(settled=True)
    assert list((tmp_path / "second").iterdir()) == []


def test_a_file_that_cannot_be_read_is_kept_aside_in_the_folder_where_it_is(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "gone-1-1").mkdir(parents=True)
    (second / "gone-1-1" / "00000003.seg").write_bytes(b"not one of ours" * 100)
    (stream,) = journal_module.abandoned((first, second), "")
    stream.close(settled=True)
    assert list(first.iterdir()) == []
    assert [path.name for path in second.iterdir()] == ["gone-1-1.damaged"]


# --- another process reads


def test_an_agent_reads_both_folders_and_locks_the_second_when_it_appears(
    tmp_path: Path, disk: SmallDisk
) -> None:
    lanes = SharedLanes(tmp_path / "lanes", TINY)
    journal = Journal(disk.path / "journal", SIZE, 2, lanes, tmp_path / "second")
    intake = Intake(journal, TINY, lanes)
    reading = Reading(lanes.stream_folder)
    disk.fill()
    for number in range(300):
        journal.replenish()
        assert intake.audit.put(frame(f"e{number}", pad="x" * 200))
    reading.drain()
    assert reading.audits.sums.routed == 300 and reading.audits.sums.dropped == {}
    assert reading.intake.journal.displaced["fallback"] > 3
    stream = tmp_path / "second" / lanes.stream
    assert streams.try_lock(stream, streams.AGENT_LOCK) is None
    lanes.close(remove=False)
    journal.leave()
    assert list(journal_module.abandoned((disk.path / "journal", tmp_path / "second"), "")) == []
    reading.intake.writer_gone()
    reading.intake.close(remove=True)
    assert [list(folder.iterdir()) for folder in journal.folders] == [[], []]


def test_a_successor_of_both_reads_on_in_both_folders(tmp_path: Path) -> None:
    lanes = SharedLanes(tmp_path / "lanes", TINY)
    journal = Journal(tmp_path / "first", 1024, 2, lanes, tmp_path / "second")
    intake = Intake(journal, TINY, lanes)
    for number in range(60):
        if number == 20:
            (tmp_path / "first").rename(tmp_path / "kept")
            in_the_way(tmp_path / "first")
        journal.replenish()
        assert intake.audit.put(frame(f"e{number}"))
    lanes.close(remove=False)
    journal.leave()
    (tmp_path / "first").unlink()
    (tmp_path / "kept").rename(tmp_path / "first")
    reading = Reading(lanes.stream_folder)
    reading.intake.writer_gone()
    reading.drain()
    assert reading.audits.sums.routed == 60
    assert reading.intake.journal.displaced["fallback"] > 0
    reading.intake.close(remove=True)
    assert list((tmp_path / "second").iterdir()) == []


def test_a_second_reader_is_refused_by_the_fallback_alone(tmp_path: Path) -> None:
    first = in_the_way(tmp_path / "first")
    lanes = SharedLanes(tmp_path / "lanes", TINY)
    journal = Journal(first, 1024, 1, lanes, tmp_path / "second")
    Intake(journal, TINY, lanes)
    lock = streams.try_lock(tmp_path / "second" / lanes.stream, streams.AGENT_LOCK)
    assert lock is not None
    with pytest.raises(BlockingIOError):
        RemoteIntake(lanes.stream_folder)
    os.close(lock)
    RemoteIntake(lanes.stream_folder).close(remove=True)
    journal.close(settled=True)
    lanes.close(remove=True)


# --- what is said of it


def test_the_disk_is_asked_for_both_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{number:08d}.seg").write_bytes(b"x")
    synced: list[str] = []
    refused = ["a"]

    def fdatasync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.parent.name in refused:
            raise OSError(5, "Input/output error")
        synced.append(path.name)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    sync = DiskSync(lambda: (tmp_path / "a", tmp_path / "b"))
    sync.sync(1)
    assert synced == ["00000001.seg"]
    assert f"{tmp_path / 'a'} is not on the disk: [Errno 5] Input/output error" == sync.problem
    refused.clear()
    sync.sync(1)
    assert (sync.problem, synced[1:]) == ("", ["00000000.seg", "00000001.seg"])


def test_one_line_says_where_events_go_and_one_that_it_is_over(tmp_path: Path) -> None:
    first = in_the_way(tmp_path / "first")
    journal = Journal(first, SIZE, 1, fallback=tmp_path / "second")
    said: list[str] = []
    notices = Notices(FlushReport.nothing, list, lambda: journal.problem, out=said.append)
    for _ in range(3):
        notices.look()
    first.unlink()
    journal.supply.popleft()
    journal.replenish()
    notices.look()
    notices.look()
    assert len(said) == 2
    assert f"audit events go to {tmp_path / 'second'}" in said[0]
    assert said[1] == "the audit journal has recovered"
    journal.close(settled=True)


def test_the_loss_of_the_fallback_too_is_said_when_it_comes(tmp_path: Path) -> None:
    problem, now, said = ["/a: full; audit events go to /b"], [0.0], list[str]()
    notices = Notices(FlushReport.nothing, list, lambda: problem[0], out=said.append, clock=lambda: now[0])
    notices.look()
    problem[0] = "/a: full; /b: full; audit events are kept in memory only"
    for _ in range(100):
        now[0] += 1.0
        notices.look()
    assert len(said) == 2
    assert "in memory only" in said[1]


# --- the configuration


@pytest.mark.parametrize(
    ("journal", "lanes", "cause"),
    [
        ({"folder": "a/j", "fallback_folder": "a/./b/../j"}, None, "is the same as folder"),
        ({"folder": "a", "fallback_folder": "a/b"}, None, "stand in each other"),
        ({"folder": "a/b", "fallback_folder": "a"}, None, "stand in each other"),
        ({"folder": "a", "fallback_folder": "l"}, "l", "is the same as lanes.folder"),
        ({"folder": "a", "fallback_folder": " "}, None, "is empty"),
    ],
)
def test_a_fallback_that_is_no_other_place_is_refused(
    journal: dict[str, str], lanes: str | None, cause: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        LogConfig.from_dict({"journal": journal, "lanes": {"folder": lanes} if lanes else {}})
    assert cause in str(raised.value)
    assert "logging.journal.fallback_folder" in str(raised.value)
    assert "name a folder of its own, best on another disk, or leave it out" in str(raised.value)


def test_a_fallback_beside_the_folder_is_taken() -> None:
    config = LogConfig.from_dict({"journal": {"folder": "a", "fallback_folder": "ab"}})
    assert config.journal == JournalConfig(folder="a", fallback_folder="ab")
    assert config.lanes == LanesConfig()


def test_segments_that_are_not_where_they_belong_are_counted_for_the_metrics(tmp_path: Path) -> None:
    made = Intake(Journal(in_the_way(tmp_path / "first"), SIZE, 3, fallback=tmp_path / "second"), TINY)
    seen = {
        where["place"]: value
        for name, value, where in Worker(made).observe()
        if name == "telemetry.displaced"
    }
    assert seen == {"fallback": 3, "memory": 0}
    made.journal.close(settled=True)


def test_a_kill_after_the_disk_was_full_for_a_while_leaves_a_whole_chain(
    tmp_path: Path, disk: SmallDisk
) -> None:
    """What is kept late must not be kept out of order: the next start goes on at the first segment that is left."""
    first, second = disk.path / "journal", tmp_path / "second"
    made = desk(first, second)
    made.write(100)
    disk.fill()
    made.write(200)
    disk.free()
    disk.grow(1024)
    made.trail._retry_at = time.monotonic() + 60
    made.write(200)
    made.leave()
    (stream,) = journal_module.abandoned((first, second), "")
    offset, seq = stream.start
    reader = AuditReader(
        "recovered", stream.name, Cursor(stream.segments[0], offset), seq, _nobody_wants, stream.retire
    )
    reader.keep(Trail(first, stream.name, KEEPING))
    while reader.turn():
        pass
    reader.anchor()
    reader.finish()
    stream.close(settled=reader.settled)
    (verdict,) = verify(first)
    assert verdict.healthy, verdict.problems
    assert (verdict.events, verdict.anchored) == (500, 499)
    assert list(second.iterdir()) == []


def _nobody_wants(data: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
    return LogRecord(1.0, LogLevel.INFO, LogType.AUDIT, "x", audit_id=audit_id), ()
