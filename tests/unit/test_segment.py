"""Segments: bytes in are bytes out, the bound is exact, and no damage in a file hurts who reads it."""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel.lanes import segment as segment_module
from hft_otel.lanes.frames import encode
from hft_otel.lanes.room import Cursor
from hft_otel.lanes.segment import HEADER_SIZE, BadSegment, Header, Segment, count_frames, split_frames

SIZE = 8 * 1024


@given(st.lists(st.binary(max_size=700)), st.integers(1, 9))
def test_frames_come_apart_as_they_were_put_together(bodies: list[bytes], limit: int) -> None:
    chunk = b"".join(encode(body) for body in bodies)
    found, taken = split_frames(chunk, limit)
    assert found == bodies[:limit]
    assert taken == len(b"".join(encode(body) for body in bodies[:limit]))


@given(st.lists(st.binary(max_size=300), min_size=1), st.data())
def test_a_chunk_that_ends_inside_a_frame_gives_the_whole_ones(
    bodies: list[bytes], data: st.DataObject
) -> None:
    chunk = b"".join(encode(body) for body in bodies)
    end = data.draw(st.integers(0, len(chunk)))
    found, taken = split_frames(chunk[:end], 1000)
    assert count_frames(chunk[:end]) == (len(found), taken)
    assert found == bodies[: len(found)]
    assert taken == len(b"".join(map(encode, found))) <= end
    assert len(found) == len(bodies) or taken + len(encode(bodies[len(found)])) > end


@given(st.binary(max_size=200))
def test_any_bytes_are_split_without_an_error(chunk: bytes) -> None:
    bodies, taken = split_frames(chunk, 1000)
    assert 0 <= taken <= len(chunk)
    assert sum(map(len, bodies)) <= taken
    assert count_frames(chunk) == (len(bodies), taken)


def test_a_segment_takes_exactly_its_size_and_not_a_byte_more() -> None:
    segment = Segment.anonymous(SIZE)
    segment.unseal()
    segment.write(b"x" * (SIZE - HEADER_SIZE - 1))
    with pytest.raises(ValueError):
        segment.write(b"xx")
    assert segment.committed() == SIZE - 1
    segment.write(b"x")
    with pytest.raises(ValueError):
        segment.write(b"x")
    assert segment.committed() == SIZE


def test_a_sealed_segment_takes_nothing() -> None:
    segment = Segment.anonymous(SIZE)
    with pytest.raises(ValueError):
        segment.write(b"x")
    segment.unseal()
    segment.write(b"x")
    segment.seal()
    with pytest.raises(ValueError):
        segment.write(b"x")


def test_a_file_is_private_allocated_and_begins_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "00000007.seg"
    segment = Segment.create(path, SIZE, 7)
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE
    assert segment.read_header() == Header(7, 0, HEADER_SIZE)
    assert Segment.load(path).index == 7


def test_what_was_written_is_in_the_file_at_once(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "a.seg", SIZE, 0)
    segment.unseal()
    segment.write(encode(b"event"))
    segment.write_header(Header(3, 4, 70))
    copy = Segment.load(tmp_path / "a.seg")
    assert copy.read_header() == Header(3, 4, 70)
    assert Cursor(copy).read(10) == [b"event"]


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Segment.create(tmp_path / "a.seg", SIZE, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_a_file_is_made_leaves_nothing_that_looks_like_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        Segment,
        "write_header",
        lambda *arguments: seen.append([path.name for path in tmp_path.glob("*.seg")]),
    )
    Segment.create(tmp_path / "a.seg", SIZE, 0)
    assert seen == [[]]
    assert (tmp_path / "a.seg").exists()


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * SIZE, b"NOTOURS!" + bytes(SIZE)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.seg"
    path.write_bytes(content)
    with pytest.raises(BadSegment, match=r"a\.seg"):
        Segment.load(path)


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_module, "VERSION", 3)
    Segment.create(tmp_path / "a.seg", SIZE, 0)
    monkeypatch.undo()
    with pytest.raises(BadSegment, match="version 3"):
        Segment.load(tmp_path / "a.seg")


def test_a_settled_offset_outside_the_segment_is_brought_inside(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "a.seg", SIZE, 0)
    segment.write_header(Header(0, 0, 2**40))
    assert segment.read_header().settled == SIZE
    segment.write_header(Header(0, 0, 0))
    assert segment.read_header().settled == HEADER_SIZE


def test_zeroing_clears_every_byte() -> None:
    segment = Segment.anonymous(200 * 1024)
    segment.unseal()
    segment.write(b"x" * (200 * 1024 - HEADER_SIZE))
    segment.zero(segment.size)
    assert segment.memory[:] == bytes(segment.size)


def _written(path: Path, seed: int) -> tuple[list[bytes], int]:
    rng = random.Random(seed)
    segment = Segment.create(path, SIZE, 0)
    segment.unseal()
    bodies = []
    while True:
        body = rng.randbytes(rng.choice([0, 3, 40, 200, 300, 1500]))
        try:
            segment.write(encode(body))
        except ValueError:
            end = segment.committed()
            segment.close()
            return bodies, end
        bodies.append(body)


@given(st.data())
def test_damage_anywhere_never_hurts_the_reader_nor_what_stands_before_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "a.seg"
    bodies, end = _written(path, data.draw(st.integers(0, 10)))
    content = bytearray(path.read_bytes())
    first = data.draw(st.integers(HEADER_SIZE, end - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "noise", "zero"]))
    if kind == "flip":
        content[first] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[max(first, HEADER_SIZE + 1) :]
    else:
        noise = data.draw(st.binary(min_size=1, max_size=400)) if kind == "noise" else bytes(300)
        content[first : first + len(noise)] = noise
    path.write_bytes(content)
    cursor = Cursor(Segment.load(path))
    found: list[bytes] = []
    for _ in range(len(content)):  # each read takes at least a byte, or says that there is nothing
        read = cursor.read(data.draw(st.integers(1, 50)))
        if not read:
            break
        found += read
    else:
        pytest.fail("the reader does not come to an end")
    position, intact = HEADER_SIZE, 0
    for body in bodies:
        position += len(encode(body))
        if position > first:
            break
        intact += 1
    assert found[:intact] == bodies[:intact]


def test_without_a_gil_a_lock_makes_copy_and_advance_one_step() -> None:
    inside: list[int] = []
    locked = segment_module._locked(lambda frame: inside.append(len(frame)))
    locked(b"abc")
    assert inside == [3]
