"""File-backed lanes, the writer's side: made whole or not at all, private, bounded, never shared with a child."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hft_otel.lanes import intake as intake_module
from hft_otel.lanes import shared as shared_module
from hft_otel.lanes import streams
from hft_otel.lanes.control import ControlPage
from hft_otel.lanes.frames import encode
from hft_otel.lanes.intake import Intake, agent_intake
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.shared import CONTROL, SharedLanes, default_folder, remove_unfinished
from hft_otel.lanes.streams import AGENT_LOCK, LOCK
from tests.unit.core_support import python
from tests.unit.lanes_support import TINY, Reading, Writing, body, number_of


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    made = Writing(tmp_path)
    yield made
    made.die()


def test_a_stream_is_private_complete_and_touched(writing: Writing) -> None:
    folder = writing.stream_folder
    names = sorted(path.name for path in folder.iterdir())
    assert [name for name in names if not name.endswith(".seg")] == ["control", "lock"]
    assert sum(name.startswith("low-") for name in names) == TINY.low
    assert sum(name.startswith("high-") for name in names) == TINY.high
    assert sum(name.startswith("metric-") for name in names) == TINY.metric
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    page = ControlPage.load(folder / "control")
    assert page.pid == os.getpid()
    assert page.started_ns > 1e18
    assert page.journals == (str(writing.journal.stream_folder),)


def test_the_lock_says_that_the_writer_lives(writing: Writing) -> None:
    assert streams.try_lock(writing.stream_folder) is None
    assert streams.locked(writing.stream_folder) is None
    writing.die()
    locks = streams.locked(writing.stream_folder)
    assert locks is not None and len(locks) == 2
    assert streams.locked(writing.stream_folder) is None  # one recovers it, not two
    for lock in locks:
        os.close(lock)


def test_a_stream_whose_agent_lives_is_nobody_else_s(writing: Writing) -> None:
    reading = Reading(writing.stream_folder)
    writing.die()
    assert streams.locked(writing.stream_folder) is None
    other = Journal(writing.journal.folder, 4096, 1)
    assert list(other.abandoned()) == []
    other.close(settled=True)
    reading.die()
    assert {AGENT_LOCK, LOCK} <= {path.name for path in writing.stream_folder.iterdir()}


def test_the_write_of_a_room_is_the_c_function_itself(writing: Writing) -> None:
    for room in writing.intake.rooms:
        assert type(room.write).__name__ == "builtin_function_or_method"


def no_space(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    allocate, made = os.posix_fallocate, [0]

    def refuse(descriptor: int, offset: int, size: int) -> None:
        made[0] += 1
        if made[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse)


@pytest.mark.parametrize("after", [0, 5, TINY.low + TINY.high + TINY.metric])
def test_no_space_leaves_nothing_behind_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    no_space(monkeypatch, after)
    lanes = SharedLanes(tmp_path, TINY)
    assert not lanes.usable
    assert "No space left" in lanes.problem
    assert list(tmp_path.iterdir()) == []


def test_lanes_that_cannot_be_made_mean_private_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    lanes = SharedLanes(tmp_path / "file" / "lanes", TINY)
    assert str(tmp_path / "file") in lanes.problem
    intake = Intake(Journal(tmp_path / "journal", 4096, 2, lanes), TINY, lanes)
    assert not intake.shared
    assert intake.low.active.path is None
    assert intake.low.put(b"x")
    intake.announce(1)
    intake.publish()
    intake.journal.close(settled=True)


@pytest.mark.parametrize("made", [SharedLanes, lambda folder: Journal(folder, 4096, 1)])
def test_an_own_folder_that_others_may_write_to_is_closed_to_them(
    tmp_path: Path, made: Callable[[Path], SharedLanes | Journal]
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    kept = made(folder)
    assert kept.problem == ""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert kept.stream_folder.is_dir()
    kept.close(remove=True) if isinstance(kept, SharedLanes) else kept.close(settled=True)


def test_a_folder_for_everybody_as_tmp_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    lanes = SharedLanes(tmp_path, TINY)
    assert lanes.usable
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777
    lanes.close(remove=True)


@pytest.mark.parametrize(
    ("user", "owner", "refused"),
    [(1234, 4321, True), (1234, 0, False), (0, 4321, False), (1234, 1234, False)],
)
def test_a_journal_in_a_folder_of_another_user_is_refused_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, owner: int, refused: bool
) -> None:
    """Root may have made it, as a volume is mounted, and in a container root may be given anybody's."""
    real = os.stat_result(tmp_path.stat())
    owned = os.stat_result((*real[:4], owner, *real[5:]))
    monkeypatch.setattr(streams.os, "getuid", lambda: user)
    monkeypatch.setattr(Path, "stat", lambda self, **options: owned)
    monkeypatch.setattr(Path, "lstat", lambda self: owned)
    if not refused:
        streams._check_owner(tmp_path, private=False)
        return
    with pytest.raises(PermissionError, match="belongs to user 4321; name a folder of user 1234"):
        streams._check_owner(tmp_path, private=False)
    journal = Journal(tmp_path, 4096, 1)
    assert "belongs to user 4321" in journal.problem


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        streams.try_lock(tmp_path)
    assert streams.locked(tmp_path) is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_module.os, "getuid", lambda: 4_000_000)
    lanes = SharedLanes(tmp_path, TINY)
    assert not lanes.usable
    assert "belongs to user" in lanes.problem


def test_the_default_folder_is_memory_where_that_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"hft-otel-{os.getuid()}"
    monkeypatch.setattr(shared_module, "_is_tmpfs", lambda folder: True)
    monkeypatch.setattr(shared_module.os, "access", lambda *arguments: True)
    assert default_folder() == Path("/dev/shm") / name
    monkeypatch.setattr(shared_module.os, "access", lambda *arguments: False)
    assert default_folder() == Path(tempfile.gettempdir()) / name


def test_a_tmpfs_is_known_by_the_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "tmpfs /dev/shm tmpfs rw 0 0\next4 / ext4 rw 0 0\n"
    monkeypatch.setattr(shared_module.Path, "read_text", lambda self: mounts)
    assert shared_module._is_tmpfs(Path("/dev/shm"))
    assert not shared_module._is_tmpfs(Path("/"))
    assert not shared_module._is_tmpfs(Path("/nowhere"))


def test_the_lowest_free_segment_is_taken_and_none_twice(writing: Writing) -> None:
    supply = writing.lanes.supplies["low"]
    assert len(supply) == TINY.low - 1
    taken = [supply.popleft() for _ in range(3)]
    assert [segment.index for segment in taken] == [1, 2, 3]
    with pytest.raises(IndexError):
        supply.popleft()
    taken[1].take_turn(5)
    taken[1].note_freed(5)  # an older turn
    assert len(supply) == 0
    taken[1].note_freed(6)
    assert supply.popleft() is taken[1]


def test_a_signal_handler_that_logs_in_a_change_of_segment_loses_nothing(tmp_path: Path) -> None:
    """As in test_room, over files: each call on the way is one where a handler may run."""
    for interrupted_at in range(30):
        writing = Writing(tmp_path / str(interrupted_at))
        reading = Reading(writing.stream_folder)
        room, calls = writing.intake.high, [0]

        def profile(frame: object, event: str, argument: object, calls: list[int] = calls, at: int = interrupted_at, room: object = room) -> None:  # fmt: skip
            if event in ("call", "c_call", "c_return"):
                calls[0] += 1
                if calls[0] == at + 1:
                    sys.setprofile(None)
                    for number in (10, 11, 12):
                        assert room.put(encode(body(number, 500)))  # type: ignore[attr-defined]
                    sys.setprofile(profile)

        assert writing.put(room, body(0, 900))
        sys.setprofile(profile)
        try:
            assert room.put(encode(body(1, 900)))
        finally:
            sys.setprofile(None)
        assert writing.put(room, body(2, 900))
        writing.intake.publish()
        found = [
            number_of(record.message.encode()) for _ in range(9) for _, record, _ in reading.turn("high")
        ]
        assert [number for number in found if number < 10] == [0, 1, 2]
        assert [number for number in found if number >= 10] in ([10, 11, 12], [])
        assert (10 in found) == (calls[0] > interrupted_at)
        assert len(found) == len(set(found))
        reading.die()
        writing.die()


def test_what_is_dropped_is_seen_from_outside_at_once(writing: Writing) -> None:
    room = writing.intake.low
    page = ControlPage.load(writing.stream_folder / "control").rooms["low"]
    while writing.put(room, body(0, 500)):
        pass
    assert page.dropped() == {"room_full": 1}
    room.drop("too_large")
    room.shut()
    room.put(b"x")
    assert page.dropped() == {"room_full": 1, "too_large": 1, "after_shutdown": 1}


def test_a_count_that_was_overtaken_is_stored_anew(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    room = writing.intake.low
    page = writing.lanes.control.rooms["low"]
    store = page.note_dropped
    nested: list[int] = []

    def overtaken(reason: str, number: int) -> None:
        if not nested:  # a signal handler that drops too, just before the store
            nested.append(1)
            room.drop("room_full")
        store(reason, number)

    monkeypatch.setattr(page, "note_dropped", overtaken)
    room.drop("room_full")
    assert page.dropped() == {"room_full": 2}


def mapped(folder: Path) -> int:
    """How many bytes of files in there this process maps."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(folder) in line:
            low, high = line.split()[0].split("-")
            total += int(high, 16) - int(low, 16)
    return total


def test_the_memory_of_the_writer_is_bounded_by_counts(tmp_path: Path) -> None:
    writing = Writing(tmp_path, segment_size=16 * 1024)
    writing.journal.replenish()
    before = mapped(tmp_path)
    for number in range(3000):  # 25 journal segments; the lanes are full and drop
        assert writing.audit(body(number, 120))
        writing.put(writing.intake.low, body(number, 120))
    writing.journal.replenish()
    assert mapped(tmp_path) == before
    page = 4096
    lanes = (TINY.low + TINY.high + TINY.metric) * page  # smaller than that
    assert before <= lanes + (1 + 2) * 16 * 1024 + page
    files = list(writing.journal.stream_folder.glob("*.seg"))
    assert len(files) > 20  # they wait for a reader, on disk
    reading = Reading(writing.stream_folder)
    while reading.audits.turn():
        reading.deliver()
    reading.audits.turn()
    assert len(list(writing.journal.stream_folder.glob("*.seg"))) == 3
    assert not reading.dropped("audit")
    reading.die()
    writing.die()


def test_a_segment_may_be_retired_while_the_writer_still_maps_it(writing: Writing) -> None:
    held = writing.intake.audit.active
    for number in range(40):
        assert writing.audit(body(number, 120))
    reading = Reading(writing.stream_folder)
    while reading.audits.turn():
        reading.deliver()
    reading.audits.turn()
    assert held.path is not None and not held.path.exists()
    with pytest.raises(ValueError):  # sealed, and of nobody's memory but ours
        held.write(b"x")
    reading.die()


def test_a_full_disk_is_bridged_by_files_in_the_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = Writing(tmp_path)
    create = shared_module.Segment.create.__func__  # type: ignore[attr-defined]
    full = [True]

    def refuse(cls: type, path: Path, size: int, index: int) -> object:
        if full[0] and "journal" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return create(cls, path, size, index)

    monkeypatch.setattr(shared_module.Segment, "create", classmethod(refuse))
    number = 0
    while writing.audit(body(number, 120)):
        number += 1
    assert "No space left" in writing.journal.problem
    assert len(list(writing.stream_folder.glob("audit-*.seg"))) == 4  # and no more
    reading = Reading(writing.stream_folder)
    got = []
    while reading.audits.turn():
        got += [number_of(record.message.encode()) for record in reading.deliver()]
    reading.audits.turn()
    full[0] = False
    writing.journal._places[0]._retry_at = 0.0
    assert writing.audit(body(number, 120))
    assert not writing.journal.problem
    while reading.audits.turn():
        got += [number_of(record.message.encode()) for record in reading.deliver()]
    assert got == list(range(number + 1))
    reading.die()
    writing.die()


FORKING = """
import os, sys
from pathlib import Path
from hft_otel.lanes.frames import encode
from tests.unit.lanes_support import Reading, Writing, body, number_of
writing = Writing(Path(sys.argv[1]))
intake = writing.intake
writing.put(intake.low, body(1, 60))
stale = intake.low.write
child = os.fork()
if not child:
    status = 1
    try:
        try:
            stale(encode(body(9, 60)))
            os._exit(2)
        except ValueError:
            pass
        parents = set((Path(sys.argv[1]) / "lanes").iterdir())
        assert not intake.shared
        assert writing.put(intake.low, body(2, 60))
        assert intake.shared and len(set((Path(sys.argv[1]) / "lanes").iterdir()) - parents) == 1
        assert writing.audit(body(3, 60))
        reading = Reading(writing.stream_folder)
        intake.publish()
        assert [number_of(r.message.encode()) for _, r, _ in reading.turn("low")] == [2]
        assert intake.journal.stream == intake.lanes.stream
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
writing.put(intake.low, body(4, 60))
intake.publish()
reading = Reading(writing.stream_folder)
assert [number_of(r.message.encode()) for _, r, _ in reading.turn("low")] == [1, 4]
assert reading.audits.turn() == 0
"""


def test_a_forked_child_has_lanes_of_its_own_and_leaves_its_parent_s_alone(tmp_path: Path) -> None:
    process = python(FORKING, tmp_path, measured=False)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint


def test_a_child_that_never_logs_makes_nothing_and_keeps_no_lock(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from hft_otel.lanes import streams
from tests.unit.lanes_support import Writing
writing = Writing(Path(sys.argv[1]))
there, go = os.pipe(), os.pipe()
if not os.fork():
    os.write(there[1], b"x")
    os.read(go[0], 1)
    os._exit(0)
os.read(there[0], 1)
writing.die()
assert streams.try_lock(writing.stream_folder) is not None
assert len(list((Path(sys.argv[1]) / "lanes").iterdir())) == 1
os.write(go[1], b"x")
os.wait()
"""
    process = python(script, tmp_path, measured=False)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint


def test_an_intake_can_fall_back_to_a_thread(writing: Writing) -> None:
    stream, journal = writing.stream_folder, writing.journal.stream_folder
    writing.intake.fall_back()
    assert not stream.exists() and not journal.exists()
    assert not writing.intake.shared
    assert writing.put(writing.intake.low, b"x")
    assert writing.intake.low.first.path is None
    assert writing.journal.stream_folder.exists()
    writing.journal.close(settled=True)


def test_the_intake_for_the_agent_exists_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "_agents", None)
    made = agent_intake(str(tmp_path / "journal"), 4096, 1, tmp_path / "lanes", TINY)
    assert made.shared
    assert agent_intake("elsewhere", 4096, 1, tmp_path / "elsewhere") is made
    assert made.lanes is not None
    made.lanes.close(remove=True)
    made.journal.close(settled=True)


def test_what_an_old_version_left_is_read(tmp_path: Path) -> None:
    """A journal of version 1 has no turns, nor a size."""
    journal = Journal(tmp_path, 4096, 2)
    segment = journal.supply.popleft()
    segment.unseal()
    segment.write(encode(b"old"))
    segment.memory[8:16] = (1).to_bytes(4, "little") + bytes(4)
    journal.close(settled=False)
    [stream] = Journal(tmp_path, 4096, 1).abandoned()
    assert [found.index for found in stream.segments] == [0]
    stream.close(settled=True)


@pytest.mark.parametrize("page", ["none", "empty", "zeros", "no journal"])
def test_lanes_whose_making_a_kill_ended_are_removed(tmp_path: Path, page: str) -> None:
    lanes = SharedLanes(tmp_path, TINY)
    control = lanes.stream_folder / CONTROL
    if page == "none":
        control.rename(control.with_suffix(".new"))
    elif page != "no journal":  # which is how the lanes alone make it
        control.write_bytes(b"" if page == "empty" else bytes(4096))
    remove_unfinished(lanes.stream_folder)
    assert lanes.stream_folder.exists()  # its process lives, and may be making it
    lanes.leave()
    reader = streams.try_lock(lanes.stream_folder, AGENT_LOCK)
    assert reader is not None
    remove_unfinished(lanes.stream_folder)
    assert lanes.stream_folder.exists()  # an agent reads it
    os.close(reader)
    remove_unfinished(lanes.stream_folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", ["whole", "none", "empty"])
def test_lanes_that_were_used_are_never_taken_for_unfinished(writing: Writing, page: str) -> None:
    writing.die()
    control = writing.stream_folder / CONTROL
    if page == "none":
        control.unlink()
    elif page == "empty":
        control.write_bytes(b"")
    remove_unfinished(writing.stream_folder)
    assert control.exists() is (page != "none")
    assert list(writing.stream_folder.glob("*.seg"))


@pytest.mark.parametrize("short_of", ["the page", "the folder"])
def test_without_descriptors_nothing_is_taken_for_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_of: str
) -> None:
    lanes = SharedLanes(tmp_path, TINY)
    lanes.leave()

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(*((ControlPage, "load") if short_of == "the page" else (Path, "iterdir")), fail)
    with pytest.raises(OSError, match="Too many"):
        remove_unfinished(lanes.stream_folder)
    assert (lanes.stream_folder / CONTROL).exists()


def test_a_kill_while_the_control_page_is_made_leaves_none_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = os.posix_fallocate

    def fallocate(descriptor: int, offset: int, size: int) -> None:
        seen.append([path.name for path in tmp_path.iterdir()])
        real(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    page = ControlPage.create(tmp_path / CONTROL, 7, 9)
    assert seen == [["control.new"]]
    assert [path.name for path in tmp_path.iterdir()] == [CONTROL]
    page.pipelines = 3
    found = ControlPage.load(tmp_path / CONTROL)
    assert (found.pid, found.started_ns, found.pipelines) == (7, 9, 3)
