"""The journal: what an audit call wrote outlives its process, is delivered once, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from hft_otel import worker as worker_module
from hft_otel.lanes import journal as journal_module
from hft_otel.lanes import streams
from hft_otel.lanes.frames import encode, seal_audit
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.room import Cursor
from hft_otel.lanes.segment import HEADER_SIZE, Segment
from hft_otel.record import LogType
from tests.unit.core_support import Process, poll, python
from tests.unit.lanes_support import unread

SIZE = 16 * 1024

WRITER = """
import sys, threading, time
from pathlib import Path
from hft_otel.interfaces import LogBackend
from tests.unit.core_support import Process

class Stuck(LogBackend):
    async def write(self, record):
        if {delivers} <= int(record.context["n"]):
            threading.Event().wait()

core = Process(Path(sys.argv[1]), segment_size={segment}, spare={spare})
log = core.logger("dying", Stuck())
for n in range({events}):
    log.audit("trade", n=n, pad="x" * {pad})
if {delivers}:
    stream = core.worker._audits
    while stream._oldest.turn < {retires} if {retires} else stream._oldest.read_header().settled <= 64:
        time.sleep(0.002)
print("written", flush=True)
threading.Event().wait()
"""


RECOVERER = """
import sys, threading, time
from pathlib import Path
from hft_otel.interfaces import LogBackend
from tests.unit.core_support import Process

class Stuck(LogBackend):
    async def write(self, record):
        if record.context["n"] >= 150:
            threading.Event().wait()

folder, gone = map(Path, sys.argv[1:])
process = Process(folder)
process.logger("recovering", Stuck())
while gone.exists():
    time.sleep(0.002)
print("written", flush=True)
threading.Event().wait()
"""


def killed(folder: Path, *, events: int, pad: int = 0, delivers: int = 0, retires: int = 0) -> None:
    """Run a process that writes events and is killed with them on its hands.

    Its backend blocks for ever at the event with the number `delivers`; it lives until so many segments are retired.
    """
    script = WRITER.format(events=events, pad=pad, segment=SIZE, spare=8, delivers=delivers, retires=retires)
    kill_once_written(python(script, folder))


def kill_once_written(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
    finally:
        process.send_signal(signal.SIGKILL)
        _, complaint = process.communicate(timeout=30)
    assert said == "written\n", complaint


def delivered_at_next_start(folder: Path) -> tuple[list[int], list[str]]:
    """Start, deliver what was left, stop; return the events' numbers and their ids."""
    core = Process(folder)
    core.logger("next")
    poll(lambda: not core.worker._recovered)
    records = core.records(LogType.AUDIT)
    core.close()
    return [int(record.context["n"]) for record in records], [record.audit_id or "" for record in records]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("events", "pad"), [(1, 0), (100, 0), (300, 200)], ids=["one", "a segment", "many segments"]
)
def test_every_event_of_a_killed_process_is_delivered_once_and_its_folder_removed(
    tmp_path: Path, events: int, pad: int
) -> None:
    killed(tmp_path, events=events, pad=pad)
    assert len(left_in(tmp_path)) == 1
    numbers, ids = delivered_at_next_start(tmp_path)
    assert numbers == list(range(events))
    assert len(set(ids)) == events
    assert left_in(tmp_path) == []
    assert delivered_at_next_start(tmp_path) == ([], [])


def test_what_was_settled_before_the_kill_is_not_delivered_again(tmp_path: Path) -> None:
    killed(tmp_path, events=150, delivers=64)
    numbers, ids = delivered_at_next_start(tmp_path)
    assert numbers == list(range(numbers[0], 150))
    assert 0 < numbers[0] <= 64
    assert [int(audit_id.rsplit("-", 1)[1]) for audit_id in ids] == numbers


def test_segments_that_were_settled_before_the_kill_are_gone_and_ids_go_on_counting(tmp_path: Path) -> None:
    killed(tmp_path, events=200, pad=200, delivers=150, retires=1)
    [stream] = tmp_path.iterdir()
    assert not (stream / "00000000.seg").exists()
    numbers, ids = delivered_at_next_start(tmp_path)
    assert numbers == list(range(numbers[0], 200))
    assert 0 < numbers[0] <= 150
    assert [int(audit_id.rsplit("-", 1)[1]) for audit_id in ids] == numbers


def test_a_kill_during_the_recovery_costs_nothing_and_repeats_only_what_was_unsettled(tmp_path: Path) -> None:
    killed(tmp_path, events=200, pad=200)
    [stream] = tmp_path.iterdir()
    kill_once_written(python(RECOVERER, tmp_path, stream / "00000000.seg"))
    numbers, ids = delivered_at_next_start(tmp_path)
    assert numbers == list(range(numbers[0], 200))
    assert 0 < numbers[0] <= 150
    assert ids == [f"{stream.name}-{number}" for number in numbers]
    assert left_in(tmp_path) == []


def test_the_stream_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    first.logger().audit("mine", n=1)
    second.logger().audit("other", n=2)
    assert [record.message for record in second.records(LogType.AUDIT)] == ["other"]
    assert [record.message for record in first.records(LogType.AUDIT)] == ["mine"]
    second.close()
    assert left_in(tmp_path) == [first.intake.journal.stream]
    first.close()
    assert left_in(tmp_path) == []


def test_a_stream_is_locked_before_anyone_can_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that starts at the same moment must not take a newborn stream for a dead one's, and remove it."""
    seen: list[list[Any]] = []
    lock = streams.try_lock

    def looked_at(folder: Path) -> int | None:
        monkeypatch.setattr(streams, "try_lock", lock)
        seen.append(list(other.abandoned()))
        return lock(folder)

    other = Journal(tmp_path, SIZE, 1)
    monkeypatch.setattr(streams, "try_lock", looked_at)
    journal = Journal(tmp_path, SIZE, 1)
    assert seen == [[]]
    assert not journal.problem
    assert list(other.abandoned()) == []


def test_a_torn_tail_is_counted_and_everything_before_it_delivered(tmp_path: Path) -> None:
    killed(tmp_path, events=10)
    [stream] = tmp_path.iterdir()
    segment = Segment.load(stream / "00000000.seg")
    cursor = Cursor(segment)
    while cursor.read(1):
        end = cursor.offset
    torn = seal_audit(encode((1, b"head", "torn", {"n": 10})))
    segment.memory[end : end + len(torn) - 6] = torn[:-6]
    segment.close()
    core = Process(tmp_path)
    core.logger("next")
    poll(lambda: not core.worker._recovered)
    assert [record.context["n"] for record in core.records(LogType.AUDIT)] == list(range(10))
    assert core.dropped() == {"torn": 1}
    core.close()
    assert left_in(tmp_path) == []


def test_damage_in_one_segment_costs_that_segment_s_rest_and_is_counted(tmp_path: Path) -> None:
    killed(tmp_path, events=200, pad=200)
    [stream] = tmp_path.iterdir()
    segment = Segment.load(stream / "00000001.seg")
    cursor = Cursor(segment)
    cursor.read(5)
    segment.memory[cursor.offset] = 0x07
    segment.close()
    core = Process(tmp_path)
    core.logger("next")
    poll(lambda: not core.worker._recovered)
    numbers = [int(record.context["n"]) for record in core.records(LogType.AUDIT)]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 199
    assert 0 < 200 - len(numbers) < 100
    assert core.dropped() == {"unreadable": 1}
    core.close()
    assert left_in(tmp_path) == []


def test_a_file_that_cannot_be_read_is_kept_aside_and_the_rest_delivered_once(tmp_path: Path) -> None:
    killed(tmp_path, events=200, pad=200)
    [stream] = tmp_path.iterdir()
    (stream / "00000001.seg").write_bytes(b"not one of ours" * 100)
    numbers, _ = delivered_at_next_start(tmp_path)
    assert numbers[0] == 0
    assert numbers[-1] == 199
    assert len(set(numbers)) == len(numbers) < 200
    assert left_in(tmp_path) == [stream.name + ".damaged"]
    assert [path.name for path in (tmp_path / (stream.name + ".damaged")).glob("*.seg")] == ["00000001.seg"]
    assert delivered_at_next_start(tmp_path) == ([], [])


def test_a_stream_without_a_segment_is_removed(tmp_path: Path) -> None:
    (tmp_path / "gone-1-1").mkdir()
    (tmp_path / "gone-1-1" / "00000000.new").write_bytes(b"")
    assert delivered_at_next_start(tmp_path) == ([], [])
    assert left_in(tmp_path) == []


def test_other_things_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hidden").mkdir()
    delivered_at_next_start(tmp_path)
    assert left_in(tmp_path) == [".hidden", "notes.txt"]


def test_folders_and_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    core = Process(tmp_path / "deep" / "journal")
    core.logger().audit("event", n=1)
    poll(lambda: len(core.intake.journal.supply) == core.intake.journal.spare)
    core.flush()
    folder = core.intake.journal.folder
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert len(modes) > 4
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    core.close()


def test_a_relative_folder_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(Path("journal"), SIZE, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    journal.supply.clear()
    journal.replenish()
    assert not journal.problem
    assert len(list((tmp_path / "journal").rglob("*.seg"))) == 2
    journal.close(settled=True)


def test_a_folder_that_cannot_be_written_means_memory_a_problem_and_no_exception(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    core = Process(tmp_path / "file" / "journal")
    log = core.logger()
    for n in range(20):
        log.audit("event", n=n)
    assert [record.context["n"] for record in core.records(LogType.AUDIT)] == list(range(20))
    assert str(tmp_path / "file") in core.intake.journal.problem
    report = core.stop(5)
    assert report.complete


def test_a_folder_that_becomes_writable_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_RETRY_AFTER", 0.0)
    (tmp_path / "journal").write_text("in the way")
    journal = Journal(tmp_path / "journal", SIZE, 2)
    assert [segment.path for segment in journal.supply] == [None, None]
    (tmp_path / "journal").unlink()
    journal.supply.popleft()
    journal.replenish()
    assert not journal.problem
    assert journal.supply[-1].path == journal.stream_folder / "00000000.seg"
    journal.close(settled=True)


def test_a_folder_that_was_deleted_is_made_again_and_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal", SIZE, 2)
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    journal.supply.popleft()
    journal.replenish()
    assert not journal.problem
    assert (journal.stream_folder / "00000002.seg").exists()
    assert list(Journal(tmp_path / "journal", SIZE, 1).abandoned()) == []
    journal.close(settled=True)


def full_disk(monkeypatch: pytest.MonkeyPatch, tries: list[int]) -> None:
    def allocate(descriptor: int, offset: int, size: int) -> None:
        tries.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", allocate)


def test_a_full_disk_is_bridged_by_bounded_memory_tried_again_slowly_and_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    tries: list[int] = []
    with monkeypatch.context() as patch:
        full_disk(patch, tries)
        journal = Journal(tmp_path, SIZE, 3)
        assert len(journal.supply) == 3
        assert "No space left" in journal.problem
        taken = [journal.supply.popleft() for _ in range(3)]
        journal.replenish()
        assert len(journal.supply) == 1  # four stand-ins in all, and no more
        for _ in range(100):
            journal.replenish()
        assert len(tries) == 1
        now[0] += 1.1
        journal.replenish()
        assert len(tries) == 2
    now[0] += 1.1
    journal.replenish()
    assert not journal.problem
    assert [segment.path is None for segment in journal.supply] == [True, False, False]
    assert journal.in_memory == 3
    for segment in taken:
        journal.retire(segment)
    assert journal.in_memory == 0
    journal.close(settled=True)


def test_no_memory_either_leaves_the_supply_short_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, SIZE, 2)
    journal.supply.clear()

    def no_memory(size: int) -> Segment:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    full_disk(monkeypatch, [])
    monkeypatch.setattr(Segment, "anonymous", no_memory)
    journal.replenish()
    assert len(journal.supply) == 0
    journal.close(settled=True)


def test_events_beyond_disk_and_memory_are_counted_as_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, [])
    core = Process(tmp_path, segment_size=4096, spare=3, started=False)
    log = core.logger()
    for n in range(500):
        log.audit("event", n=n, pad="x" * 100)
    room = core.intake.audit
    kept = unread(Cursor(core.intake.audit.active))
    assert kept  # of the last segment
    assert room.drops["room_full"].value > 300
    core.intake.journal.close(settled=True)


def test_what_a_flush_has_told_is_noted_so_that_a_kill_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("_IDLE", "_LONG_IDLE", "_YIELD"):
        monkeypatch.setattr(worker_module, pause, 0.1)  # its next turn comes well after the flush's answer
    core = Process(tmp_path)
    log = core.logger()
    for n in range(5):
        log.audit("event", n=n)
        core.flush()
        active = core.intake.audit.active
        assert active.read_header().settled == active.committed()
    core.close()


def test_callers_that_outrun_the_worker_make_the_segments_themselves(tmp_path: Path) -> None:
    core = Process(tmp_path, segment_size=4096, spare=2, started=False)
    log = core.logger()
    logged = 2_000
    for n in range(logged):
        log.audit("event", n=n, pad="x" * 100)
    assert core.intake.audit.drops == {}
    core.intake.start_drain = core._start
    core.intake.ensure_drain()
    events = core.records(LogType.AUDIT)
    assert [event.context["n"] for event in events] == list(range(logged))
    assert [int(str(event.audit_id).rpartition("-")[2]) for event in events] == list(range(logged))
    core.close()


def test_threads_that_need_a_segment_at_once_use_them_in_the_order_of_their_files(tmp_path: Path) -> None:
    core = Process(tmp_path, segment_size=4096, spare=2)
    log = core.logger()

    def run(thread: int) -> None:
        for n in range(500):
            log.audit("event", thread=thread, n=n, pad="x" * 200)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = core.records(LogType.AUDIT)
    for number in range(8):
        assert [event.context["n"] for event in events if event.context["thread"] == number] == list(
            range(500)
        )
    assert core.intake.audit.drops == {}
    core.close()


def test_a_handler_that_interrupts_the_making_of_a_segment_makes_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, SIZE, 1)
    journal.supply.take()
    create = Segment.create
    inside: list[object] = []

    def interrupted(path: Path, size: int, index: int) -> Segment:
        with pytest.raises(IndexError):
            journal.supply.popleft()
        inside.append(path)
        return create(path, size, index)

    monkeypatch.setattr(Segment, "create", interrupted)
    assert journal.supply.popleft().index == 1
    assert len(inside) == 1
    journal.close(settled=True)


def open_descriptors() -> set[str]:
    return {str(path) for path in Path("/proc/self/fd").iterdir() if path.exists()}


def test_a_file_system_without_locks_means_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = open_descriptors()
    monkeypatch.setattr(streams.fcntl, "flock", refuse)
    journal = Journal(tmp_path, SIZE, 2)
    assert [segment.path for segment in journal.supply] == [None, None]
    assert "No locks" in journal.problem
    assert list(journal.abandoned()) == []
    assert open_descriptors() <= before


def test_a_closed_journal_makes_nothing_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE, 2)
    journal.close(settled=True)
    journal.supply.clear()
    journal.replenish()
    assert len(journal.supply) == 0
    assert left_in(tmp_path) == []


def test_an_unsettled_stream_stays_for_the_next_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SIZE, 2)
    name = journal.stream
    journal.close(settled=False)
    assert left_in(tmp_path) == [name]
    [stream] = Journal(tmp_path, SIZE, 1).abandoned()
    assert stream.name == name
    assert stream.start == (HEADER_SIZE, 0)
    stream.close(settled=False)
    assert name in left_in(tmp_path)


def test_a_stopped_worker_leaves_what_nobody_delivered_to_the_next_start(tmp_path: Path) -> None:
    killed(tmp_path, events=5)
    for _ in range(2):
        journal = Journal(tmp_path, SIZE, 1)
        [found] = journal.abandoned()
        found.close(settled=False)
        journal.close(settled=True)
    assert delivered_at_next_start(tmp_path)[0] == list(range(5))


def test_a_folder_one_may_not_open_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, SIZE, 1)
    (tmp_path / "somebody-else-s").mkdir()

    def refuse(folder: Path, name: str) -> int | None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(streams, "try_lock", refuse)
    assert list(journal.abandoned()) == []
    monkeypatch.undo()
    journal.close(settled=True)
    assert list(Journal(tmp_path / "nowhere", SIZE, 1).abandoned()) == []
