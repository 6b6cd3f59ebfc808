"""What waits in the journal takes disk, and no memory: whoever has read a segment gives its pages back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hft_otel.lanes import room
from hft_otel.lanes.segment import HEADER_SIZE, Segment, count_frames, split_frames
from tests.unit.audit_support import SECOND, Desk, frame

SIZE = 64 * 1024
EVENTS = 1_500


def resident(folder: Path) -> int:
    """Bytes of the files below a folder that are mapped and in this process's memory."""
    total, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, *rest = line.split(maxsplit=5)
        if not head.endswith(":"):  # a mapping begins: addresses, ..., the file's name
            is_ours = len(rest) == 5 and rest[4].startswith(str(folder))
        elif head == "Rss:" and is_ours:
            total += int(rest[0]) * 1024
    return total


def mapped(folder: Path) -> int:
    """How many maps there are of files below a folder."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_events_that_wait_are_not_in_memory_and_are_all_read_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, segment_size=SIZE)
    desk.outbox.limit = 100
    for number in range(EVENTS):
        if number % 50 == 0:
            desk.journal.replenish()
            desk.turn(settle=False)
        assert desk.room.put(frame("filled", SECOND + number, order=number, note="x" * 500))
    desk.turn(settle=False)
    files = list((tmp_path / desk.stream).glob("*.seg"))
    assert len(files) > 10
    assert resident(tmp_path) <= 4 * SIZE  # two that are ready, the one in use, and where the destination is
    assert mapped(tmp_path) <= 4
    while len(desk.got) < EVENTS:
        before = len(desk.got)
        desk.turn()
        assert len(desk.got) > before
        assert resident(tmp_path) <= 5 * SIZE
        assert mapped(tmp_path) <= 5
    assert [record.context["order"] for record in desk.got] == list(range(EVENTS))
    desk.close()


def test_a_reader_that_is_far_behind_counts_what_waits_once_and_holds_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0

    def split(chunk: bytes, limit: int) -> tuple[list[bytes], int]:
        nonlocal seen
        bodies, taken = split_frames(chunk, limit)
        seen += len(bodies)
        return bodies, taken

    def count(chunk: bytes) -> tuple[int, int]:
        nonlocal seen
        number, taken = count_frames(chunk)
        seen += number
        return number, taken

    monkeypatch.setattr(room, "split_frames", split)
    monkeypatch.setattr(room, "count_frames", count)
    desk = Desk(tmp_path, segment_size=SIZE)
    for number in range(EVENTS):
        if number % 50 == 0:
            desk.journal.replenish()
            assert desk.reader.pending() == number
        assert desk.room.put(frame("filled", SECOND + number, order=number, note="x" * 500))
    for _ in range(100):
        assert desk.reader.total().emitted == EVENTS
    assert seen == EVENTS
    assert resident(tmp_path) <= 4 * SIZE
    assert mapped(tmp_path) <= 4
    while desk.reader.pending():
        before = desk.reader.pending()
        desk.turn()
        assert desk.reader.pending() < before
        assert desk.reader.total().emitted == EVENTS
    while len(desk.got) < EVENTS:  # what is counted is then delivered
        desk.turn()
    assert desk.room.put(frame("late"))
    assert desk.reader.pending() == 1  # where the probe was, the segment is gone
    desk.turn()
    assert desk.reader.pending() == 0
    desk.close()


def test_a_segment_that_is_set_aside_holds_no_map_and_is_read_and_marked_as_before(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "0.seg", SIZE, 0)
    segment.unseal()
    segment.write(b"\xc4\x01x")
    segment.seal()
    write = segment.write
    segment.set_aside()
    assert mapped(tmp_path) == 1  # by who still has its `write`, and is refused
    with pytest.raises(ValueError, match="out of range"):
        write(b"\xc4\x01y")
    del write
    assert mapped(tmp_path) == 0
    with pytest.raises(ValueError, match="full"):
        segment.write(b"\xc4\x01y")
    segment.seal()
    assert segment.committed() == SIZE
    assert mapped(tmp_path) == 0  # neither needed a look at it
    assert segment.memory[64:68] == b"\xc4\x01x\0"
    assert mapped(tmp_path) == 1
    segment.set_aside()
    segment.note_settled(67)
    segment.set_aside()
    assert segment.read_header().settled == 67
    segment.set_aside()
    segment.close(unlink=True)
    assert mapped(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        assert segment.memory[64]


def test_a_segment_whose_file_was_removed_is_not_let_go_of(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "0.seg", SIZE, 0)
    segment.unseal()
    segment.write(b"\xc4\x01x")
    (tmp_path / "0.seg").unlink()
    segment.set_aside()
    assert segment.memory[64:67] == b"\xc4\x01x"
    segment.close()


@pytest.mark.parametrize("size", [0, HEADER_SIZE + 10])
def test_a_segment_that_was_cut_while_it_waited_is_an_error_of_the_disk(tmp_path: Path, size: int) -> None:
    segment = Segment.create(tmp_path / "0.seg", SIZE, 0)
    segment.set_aside()
    os.truncate(tmp_path / "0.seg", size)
    with pytest.raises(OSError, match=r"shorter|cut short"):
        assert segment.memory[64]
    segment.close()


def test_memory_that_is_no_file_stays() -> None:
    segment = Segment.anonymous(4096)
    segment.unseal()
    segment.write(b"\xc4\x01x")
    segment.set_aside()
    assert segment.memory[64:67] == b"\xc4\x01x"
    segment.close()
