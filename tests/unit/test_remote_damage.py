"""Damaged files of another process: nothing escapes the reader, loss is counted, and the rest is read."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hft_otel.lanes import remote as remote_module
from hft_otel.lanes import remote_room
from hft_otel.lanes.control import ControlPage
from hft_otel.lanes.remote import RemoteIntake
from hft_otel.lanes.remote_room import RemoteSegment
from hft_otel.lanes.segment import HEADER_SIZE, BadSegment
from tests.unit.lanes_support import Reading, Writing, body, number_of

PER_ROOM = 40
ROOMS = ("low", "high", "audit")


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp())
    yield made
    shutil.rmtree(made)


def written(folder: Path) -> tuple[Writing, dict[str, dict[int, Path]]]:
    """Run a process that writes and dies; return it, and for each room which number is in which file."""
    writing = Writing(folder)
    where: dict[str, dict[int, Path]] = {room: {} for room in ROOMS}
    for number in range(PER_ROOM):
        for name in ROOMS:
            room = getattr(writing.intake, name)
            size = 20 + (number * 37) % 60
            taken = (
                writing.audit(body(number, size))
                if name == "audit"
                else writing.put(room, body(number, size))
            )
            assert taken
            assert room.active.path is not None
            where[name][number] = room.active.path
    writing.die()
    return writing, where


def read_all(stream_folder: Path) -> tuple[Reading, dict[str, list[int]]]:
    """Read a dead process's stream to its end."""
    reading = Reading(stream_folder)
    reading.intake.writer_gone()
    found: dict[str, list[int]] = {room: [] for room in ROOMS}
    idle = 0
    for _ in range(500):
        moved = len(reading.turn()) + reading.audits.turn()
        for record in reading.deliver():
            room = record.uid.rsplit("-", 3)[1] if record.uid else "audit"
            try:
                found[room].append(number_of(record.message.encode("latin-1")))
            except ValueError:
                found[room].append(-1)
        idle = 0 if moved else idle + 1
        if idle > 4:
            break
    else:
        pytest.fail("the reader does not come to an end")
    assert all(lane.settled for lane in reading.lanes.values())
    assert reading.audits.settled
    return reading, found


def losses(reading: Reading, room: str) -> int:
    return sum(reading.dropped(room).values())


def all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix == ".seg" or path.name == "control")


@settings(
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.data())
def test_damage_to_any_file_costs_at_most_what_is_in_it_and_is_counted(data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        writing, where = written(folder)
        files = all_files(folder)
        used = {path for numbers in where.values() for path in numbers.values()}
        path = data.draw(st.sampled_from([each for each in files if each in used or each.name == "control"]))
        content = bytearray(path.read_bytes())
        kind = data.draw(
            st.sampled_from(["flip", "flip", "cut", "noise", "zero", "version", "gone", "empty"])
        )
        at = data.draw(st.one_of(st.integers(0, HEADER_SIZE - 1), st.integers(0, len(content) - 1)))
        if kind == "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "version":
            content[8:12] = (7).to_bytes(4, "little")
        elif kind == "empty":
            content.clear()
        elif kind in ("noise", "zero"):
            noise = random.Random(at).randbytes(200) if kind == "noise" else bytes(200)
            content[at : at + 200] = noise[: len(content) - at]
        path.write_bytes(content)
        if kind == "gone":
            path.unlink()
        reading, found = read_all(writing.stream_folder)
        for room in ROOMS:
            if path.name == "control" and room == "audit":
                continue  # whose folder may no longer be known
            elsewhere = [number for number, place in where[room].items() if place != path]
            assert set(elsewhere) <= set(found[room]), (room, path.name, kind, at)
            if len(found[room]) < len(where[room]) and path.exists() and any(content[HEADER_SIZE:]):
                assert losses(reading, room), (room, path.name, kind, at)
            if path.name != "control" and set(elsewhere) != set(where[room]):
                continue
            assert found[room] == elsewhere
        reading.die()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["cut", "version", "empty", "foreign"])
@pytest.mark.parametrize("room", ROOMS)
def test_a_file_that_cannot_be_read_is_counted_and_said(folder: Path, room: str, kind: str) -> None:
    writing, where = written(folder)
    path = where[room][PER_ROOM // 2]
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:30],
            "version": content[:8] + b"\x07" + content[9:],
            "empty": b"",
            "foreign": b"x" * len(content),
        }[kind]
    )
    reading, found = read_all(writing.stream_folder)
    assert found[room] == [number for number, place in where[room].items() if place != path]
    assert reading.dropped(room) == {"damaged": 1}
    assert path.name in reading.intake.problem
    reading.die()


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_file_one_may_not_open_is_counted_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    writing, where = written(folder)
    refused = {where[room][3] for room in ROOMS}
    load = RemoteSegment.load.__func__  # type: ignore[attr-defined]

    def refuse(cls: type[RemoteSegment], path: Path) -> RemoteSegment:
        if path in refused:
            raise OSError(error, os.strerror(error), str(path))
        return load(cls, path)  # type: ignore[no-any-return]

    monkeypatch.setattr(RemoteSegment, "load", classmethod(refuse))
    reading, found = read_all(writing.stream_folder)
    for room in ROOMS:
        assert found[room] == [number for number, place in where[room].items() if place not in refused]
        assert reading.dropped(room) == {"damaged": 1}
    assert os.strerror(error) in reading.intake.problem
    reading.die()


def test_a_control_page_that_cannot_be_read_costs_no_text(folder: Path) -> None:
    writing, where = written(folder)
    (writing.stream_folder / "control").write_bytes(b"not one of ours")
    reading, found = read_all(writing.stream_folder)
    assert found["low"] == list(where["low"])
    assert found["high"] == list(where["high"])
    assert found["audit"] == []
    assert "control" in reading.intake.problem
    reading.die()
    given = RemoteIntake(
        writing.stream_folder, writing.journal.stream_folder
    )  # whoever knows can say where it is
    assert given.audit.first.path is not None
    given.close(remove=False)


def test_a_control_page_that_names_another_folder_has_nobody_else_s_files_removed(folder: Path) -> None:
    writing, _ = written(folder)
    other = folder / "precious"
    other.mkdir()
    (other / "00000000.seg").write_bytes(b"x")
    page = ControlPage.load(writing.stream_folder / "control")
    page.journals = (str(other),)
    reading, _ = read_all(writing.stream_folder)
    reading.intake.close(remove=True)
    assert (other / "00000000.seg").exists()
    assert not writing.stream_folder.exists()


@pytest.mark.parametrize("word", ["turn", "following", "freed", "settled", "first_seq"])
@pytest.mark.parametrize("value", [0, 1, 3, 2**63, 2**64 - 1])
def test_a_header_that_lies_stops_neither_writer_nor_reader(folder: Path, word: str, value: int) -> None:
    writing = Writing(folder)
    reading = Reading(writing.stream_folder)
    delivered = 0
    for number in range(200):
        for name in ROOMS:
            if name == "audit":
                writing.audit(body(number, 100))
            else:
                writing.put(getattr(writing.intake, name), body(number, 100))
        if number == 50:
            for name in ROOMS:
                getattr(writing.intake, name).active._store(word, value)
        reading.turn()
        reading.audits.turn()
        delivered += len(reading.deliver())
    writing.intake.publish()
    writing.die()
    reading.intake.writer_gone()
    for _ in range(100):
        reading.turn()
        reading.audits.turn()
        delivered += len(reading.deliver())
    refused = sum(losses(reading, room) for room in ROOMS)
    assert delivered + refused >= 3 * 200 - 3 * 10  # of each room at most a segment's worth
    reading.die()


def test_no_stream_at_all_is_an_error_that_says_so(folder: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        RemoteIntake(folder / "nowhere")


def test_two_readers_at_once_are_refused(folder: Path) -> None:
    writing = Writing(folder)
    first = RemoteIntake(writing.stream_folder)
    with pytest.raises(BlockingIOError):
        RemoteIntake(writing.stream_folder)
    first.close(remove=False)
    RemoteIntake(writing.stream_folder).close(remove=False)
    writing.die()


def test_a_length_of_which_half_is_seen_is_looked_at_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store across two cache lines may be seen in two pieces; what is read must be the whole."""
    writing = Writing(folder)
    room = writing.intake.low
    writing.put(room, body(1, 300))
    writing.put(room, body(2, 20))
    reading = Reading(writing.stream_folder)
    segment = reading.intake.low.first
    assert isinstance(segment, RemoteSegment)
    whole = room.active.memory[HEADER_SIZE + 1]
    looks = []
    last_frame = remote_room.last_frame

    def look(chunk: bytes) -> tuple[int, int]:
        looks.append(chunk)
        if len(looks) == 1:  # it becomes whole between the two looks
            torn = bytearray(chunk)
            torn[1] = 0
            room.active.memory[HEADER_SIZE + 1] = whole
            return last_frame(bytes(torn))
        return last_frame(chunk)

    monkeypatch.setattr(remote_room, "last_frame", look)
    found = [record for _ in range(3) for _, record, _ in reading.turn("low")]
    assert [number_of(record.message.encode()) for record in found] == [1, 2]
    assert reading.dropped("low") == {}
    reading.die()
    writing.die()


def test_a_machine_that_reorders_stores_looks_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_room, "_SETTLE", 0.001)
    writing = Writing(folder)
    for number in range(5):
        writing.put(writing.intake.low, body(number, 30))
    reading = Reading(writing.stream_folder)
    assert [number_of(record.message.encode()) for _, record, _ in reading.turn("low")] == [0, 1, 2, 3, 4]
    reading.die()
    writing.die()


def test_the_reader_s_own_errors_have_a_type(folder: Path) -> None:
    path = folder / "control"
    path.write_bytes(bytes(4096))
    with pytest.raises(BadSegment, match="control"):
        ControlPage.load(path)
    assert remote_module.RemoteIntake.problem.fget is not None


def test_reader_that_has_come_to_the_end_of_a_dead_process_looks_at_no_folder_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, _ = written(folder)
    reading, found = read_all(writing.stream_folder)
    assert found["audit"]
    looks: list[int] = []
    numbers = remote_module.RemoteJournal.numbers

    def counted(self: remote_module.RemoteJournal) -> Iterator[int]:
        looks.append(1)
        return numbers(self)

    monkeypatch.setattr(remote_module.RemoteJournal, "numbers", counted)
    for _ in range(50):
        reading.turn()
        reading.audits.turn()
    assert looks == []
    reading.die()
