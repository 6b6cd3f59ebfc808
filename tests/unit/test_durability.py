"""The three durabilities: who waits for the disk, who shares a look at it, and what happens where it refuses."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hft_otel.audit.trail import Keeping
from hft_otel.config import JournalConfig
from hft_otel.lanes.durability import DiskSync, Flusher, SyncedRoom
from hft_otel.lanes.intake import Intake
from hft_otel.lanes.journal import Journal
from hft_otel.logger import HFTLogger
from tests.unit.audit_support import frame
from tests.unit.core_support import Recorder, core, poll


class Disk:
    """Counts what is asked of the real disk, and may be slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.folders: list[str] = []
        self.error: OSError | None = None
        self.seconds = 0.0
        real = os.fdatasync

        def fdatasync(descriptor: int) -> None:
            if self.error is not None:
                raise self.error
            time.sleep(self.seconds)
            real(descriptor)
            self.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

        real_fsync = os.fsync

        def fsync(descriptor: int) -> None:
            real_fsync(descriptor)
            self.folders.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    made = Intake(Journal(tmp_path, 4096, 2))
    yield made
    made.journal.close(settled=True)


def door(intake: Intake) -> SyncedRoom:
    intake.sync_audits()
    assert isinstance(intake.audit_door, SyncedRoom)
    return intake.audit_door


def test_a_synced_write_returns_once_the_active_segment_is_on_the_disk(intake: Intake, disk: Disk) -> None:
    room = door(intake)
    room.write(frame("a"))
    room.write(frame("b"))
    assert disk.synced == ["00000000.seg"] * 2
    intake.sync_audits()
    assert intake.audit_door is room


def test_the_segment_that_is_left_is_synced_with_the_one_that_follows(intake: Intake, disk: Disk) -> None:
    room = door(intake)
    room.write(frame("a"))
    while intake.audit.active.index == 0:
        assert room.put(frame("b"))
    assert sorted(disk.synced[-2:]) == ["00000000.seg", "00000001.seg"]
    names = list(map(str, (intake.journal.stream_folder, intake.journal.folder)))
    assert disk.folders == names * 2  # for each new file, not for each event
    disk.synced.clear()
    room.put(frame("c"))
    assert disk.synced == ["00000001.seg"]


def test_an_event_in_memory_has_all_files_before_it_synced(
    intake: Intake, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = door(intake)
    monkeypatch.setattr(intake.journal, "_create_file", lambda: None)
    while intake.audit.active.path is not None:
        assert room.put(frame("a"))
    assert "00000001.seg" in disk.synced[-2:]


def test_what_does_not_fit_is_dropped_and_waits_for_nothing(intake: Intake, disk: Disk) -> None:
    room = door(intake)
    assert not room.put(b"x" * 5000)
    room.drop("other")
    assert disk.synced == []
    assert {reason: tally.value for reason, tally in intake.audit.drops.items()} == {
        "too_large": 1,
        "other": 1,
    }
    assert room.capacity == intake.audit.capacity
    assert room.failed is intake.audit.failed


def test_callers_that_wait_at_the_same_time_share_one_look_at_the_disk(intake: Intake, disk: Disk) -> None:
    room = door(intake)
    disk.seconds = 0.05
    threads = [threading.Thread(target=room.write, args=(frame("a"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(disk.synced) <= 3


def test_a_disk_that_refuses_is_said_and_raises_nothing(intake: Intake, disk: Disk) -> None:
    room = door(intake)
    disk.error = OSError(5, "Input/output error")
    room.write(frame("a"))
    assert "Input/output error" in intake.problem
    disk.error = None
    room.write(frame("b"))
    assert intake.problem == ""


def test_a_segment_that_is_settled_meanwhile_is_no_fault(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "00000000.seg").write_bytes(b"x")
    (tmp_path / "readme.seg").write_bytes(b"x")
    sync = DiskSync(lambda: (tmp_path,))
    real, os.fdatasync = os.fdatasync, lambda descriptor: (_ for _ in ()).throw(FileNotFoundError())
    sync.sync(0)
    os.fdatasync = real
    assert sync.problem == ""


def test_loggers_go_through_the_door_and_close_it_behind_them(intake: Intake, disk: Disk) -> None:
    intake.sync_audits()
    logger = HFTLogger("x", [Recorder()], intake=intake)
    logger.audit("a", n=1)
    logger.audit("b", n=object())  # the guarded way
    assert len(disk.synced) == 2
    logger.close(0)
    logger.audit("late")
    assert len(disk.synced) == 2


def test_a_forked_child_does_not_wait_for_its_parent_s_lock(intake: Intake, disk: Disk) -> None:
    room = door(intake)
    room.write(frame("a"))
    held = room._lock
    held.acquire()
    room.forget()
    done = threading.Thread(target=room.write, args=(frame("b"),))
    done.start()
    done.join(5)
    assert not done.is_alive()
    held.release()


def test_a_flusher_asks_only_where_something_is_new(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "00000000.seg").write_bytes(b"x")
    position = [0, 64]
    flusher = Flusher(DiskSync(lambda: (tmp_path,)), 0.001, lambda: (position[0], position[1]), lambda: 0)
    flusher.start()
    poll(lambda: len(disk.synced) == 1)
    time.sleep(0.02)
    assert len(disk.synced) == 1
    position[1] = 100
    poll(lambda: len(disk.synced) == 2)
    disk.error = OSError(5, "Input/output error")
    position[1] = 101
    poll(lambda: flusher.problem != "")
    disk.error = None
    poll(lambda: len(disk.synced) == 3)
    flusher.stop()
    assert not flusher._thread.is_alive()


def test_group_puts_events_on_the_disk_without_the_call(tmp_path: Path, disk: Disk) -> None:
    config = JournalConfig(durability="group", group_interval_ms=2, keep_days=0)
    with core(tmp_path, Recorder()) as made:
        made.intake.start_drain, start = None, made.intake.start_drain
        assert start is not None
        made.worker.keep(Keeping.of(config))
        assert made.worker._flusher is not None
        made.worker._flusher.start()
        made.log.audit("a")
        poll(lambda: disk.synced)
        assert made.worker.trail_problem == ""
        made.stop()
        assert not made.worker._flusher._thread.is_alive()


def test_keeping_says_what_the_configuration_says() -> None:
    assert Keeping.of(JournalConfig()).group_interval == 0
    assert Keeping.of(JournalConfig(durability="sync")).group_interval == 0
    assert Keeping.of(JournalConfig(durability="group")).group_interval == 0.01
