"""Rooms and cursors: what is read is what was written, in order, once, within exact bounds, from any thread."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hft_otel.lanes.frames import encode
from hft_otel.lanes.room import NO_FRAME, Ahead, Cursor, Room, Tally
from hft_otel.lanes.segment import HEADER_SIZE, Segment
from tests.unit.lanes_support import unread

SIZE = 1024 + HEADER_SIZE


def make_room(segments: int = 3, size: int = SIZE, on_change: Callable[[], object] = lambda: None) -> Room:
    return Room("test", deque(Segment.anonymous(size) for _ in range(segments)), on_change)


def recycle(room: Room, cursor: Cursor) -> None:
    """Give segments that are read back to the room, as the worker does."""
    while (done := cursor.step()) is not None:
        done.zero(done.size)
        done.next = None
        room.supply.append(done)


def read_all(room: Room, cursor: Cursor, limit: int = 64) -> list[bytes]:
    found: list[bytes] = []
    while True:
        bodies = cursor.read(limit)
        found += bodies
        if not bodies:
            before = cursor.position
            recycle(room, cursor)
            if cursor.position == before:
                return found


class RoomMachine(RuleBasedStateMachine):
    """Writers, readers and recycling in any order, against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.room = make_room(4)
        self.cursor = Cursor(self.room.active)
        self.accepted: list[bytes] = []
        self.refused = 0
        self.read: list[bytes] = []
        self.ahead = Ahead()
        self.number = 0

    def body(self, size: int) -> bytes:
        self.number += 1
        return (b"%d|" % self.number).ljust(size, b".")[:size] if size > 8 else b""

    @rule(size=st.one_of(st.integers(0, 1100), st.integers(900, 1040)), fast=st.booleans())
    def write(self, size: int, fast: bool) -> None:
        body = self.body(size)
        frame = encode(body)
        if fast:
            try:
                self.room.write(frame)
            except ValueError:
                pass
            else:
                self.accepted.append(body)
                return
        if self.room.put(frame):
            self.accepted.append(body)
        else:
            self.refused += 1

    @rule(limit=st.integers(1, 40))
    def read_some(self, limit: int) -> None:
        self.read += self.cursor.read(limit)

    @rule()
    def step(self) -> None:
        recycle(self.room, self.cursor)

    @precondition(lambda self: self.cursor.position < self.room.position)
    @rule()
    def catch_up(self) -> None:
        self.read += read_all(self.room, self.cursor)
        assert self.read == self.accepted
        assert self.cursor.position == self.room.position

    @invariant()
    def in_order_once_and_counted(self) -> None:
        assert self.read == self.accepted[: len(self.read)]
        place = (self.cursor.segment, self.cursor.offset, len(self.read))
        assert self.ahead.count(lambda: place) == len(self.accepted) - len(self.read)
        assert sum(tally.value for tally in self.room.drops.values()) == self.refused
        assert self.cursor.position <= self.room.position

    @invariant()
    def never_more_memory_than_was_given(self) -> None:
        count, segment = 1, self.cursor.segment
        while segment.next is not None:
            segment = segment.next
            count += 1
        assert count + len(self.room.supply) == 4


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(max_examples=settings.default.max_examples // 4, stateful_step_count=40)


def test_a_full_room_counts_each_further_record_and_takes_more_once_read() -> None:
    woken: list[int] = []
    room = make_room(2, on_change=lambda: woken.append(1))
    cursor = Cursor(room.active)
    frame = encode(b"x" * 509)  # 512 with its tag: two to a segment, to the byte
    assert [room.put(frame) for _ in range(7)] == [True] * 4 + [False] * 3
    assert {reason: tally.value for reason, tally in room.drops.items()} == {"room_full": 3}
    assert woken
    assert len(read_all(room, cursor)) == 4
    assert room.put(frame)


def test_the_longest_frame_fits_and_one_byte_more_is_counted_as_too_large() -> None:
    room = make_room()
    assert room.put(b"\xc5" + (1021).to_bytes(2, "big") + b"x" * 1021)
    assert not room.put(b"x" * 1025)
    assert {reason: tally.value for reason, tally in room.drops.items()} == {"too_large": 1}


def test_a_record_after_shutdown_is_counted_as_such() -> None:
    room = make_room()
    room.shut()
    with pytest.raises(ValueError):
        room.write(b"x")
    assert not room.put(encode(b"x"))
    assert {reason: tally.value for reason, tally in room.drops.items()} == {"after_shutdown": 1}


def test_a_frame_longer_than_a_chunk_is_read_whole() -> None:
    room = make_room(2, 200 * 1024)
    cursor = Cursor(room.active)
    bodies = [b"a", b"b" * 100_000, b"c", b"d" * 70_000]
    for body in bodies:
        assert room.put(encode(body))
    assert read_all(room, cursor) == bodies


def test_a_cursor_stops_at_the_end_it_is_given() -> None:
    room = make_room()
    for body in (b"1", b"2", b"3"):
        room.put(encode(body))
    assert Cursor(room.active).read(10, HEADER_SIZE + 6) == [b"1", b"2"]


def test_what_is_no_frame_is_handed_on_once_and_reading_goes_on_behind_it() -> None:
    room = make_room()
    cursor = Cursor(room.active)
    room.put(encode(b"before"))
    room.write(b"\x07 no frame")
    for _ in range(2):  # until it is in the next segment
        room.put(encode(b"y" * 600))
    found = read_all(room, cursor)
    assert found[:2] == [b"before", NO_FRAME]
    assert found[2:] in ([b"y" * 600], [b"y" * 600] * 2)


def test_a_tally_is_exact_from_many_threads() -> None:
    tally = Tally()
    run_threads(8, lambda number: [tally.add() for _ in range(5000)])
    assert tally.value == 40_000


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let threads take the GIL from each other as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_threads(count: int, work: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("impatient")
def test_many_threads_and_a_reader_lose_double_and_reorder_nothing() -> None:
    """Tiny segments, so that writers race for the next one all the time, and each is soon used again."""
    room = make_room(5)
    cursor = Cursor(room.active)
    each, writers = 600, 16
    kept: list[list[int]] = [[] for _ in range(writers)]
    running = [True]

    def write(thread: int) -> None:
        rng = random.Random(thread)
        for number in range(each):
            frame = encode((b"%d:%d" % (thread, number)).ljust(rng.randrange(10, 90)))
            try:
                room.write(frame)
            except ValueError:
                if not room.put(frame):
                    continue
            kept[thread].append(number)

    found: list[bytes] = []

    def read() -> None:
        while running[0]:
            found.extend(read_all(room, cursor, 7))

    reader = threading.Thread(target=read)
    reader.start()
    run_threads(writers, write)
    running[0] = False
    reader.join()
    found += read_all(room, cursor)
    seen: list[list[int]] = [[] for _ in range(writers)]
    for body in found:
        thread, number = body.split(b":")
        seen[int(thread)].append(int(number))
    assert seen == kept
    dropped = sum(tally.value for tally in room.drops.values())
    assert len(found) + dropped == each * writers


def test_a_flush_never_aims_behind_what_was_written() -> None:
    """The position is one look at one object, so it cannot pair one segment with the offset in another."""
    room = make_room(3)
    frame = encode(b"x" * 400)
    positions = []
    for _ in range(6):
        room.put(frame)
        positions.append(room.position)
    assert positions == sorted(set(positions))
    assert positions[-1][0] == 2


def test_a_signal_handler_that_writes_in_the_middle_of_a_change_of_segment_loses_nothing() -> None:
    """Every call inside `_advance` is one where a handler may run; each of them is tried."""
    for interrupted_at in range(12):
        room = make_room(12)
        cursor = Cursor(room.active)
        calls = [0]

        def handler(room: Room = room, calls: list[int] = calls, at: int = interrupted_at) -> None:
            calls[0] += 1
            if calls[0] == at + 1:
                for number in range(3):
                    assert room.put(encode(b"handler%d" % number + b"-" * 500))

        def profile(
            frame: object, event: str, argument: object, handler: Callable[[], None] = handler
        ) -> None:
            if event in ("call", "c_call", "c_return"):
                sys.setprofile(None)
                try:
                    handler()
                finally:
                    sys.setprofile(profile)

        assert room.put(encode(b"main0" + b"-" * 900))
        sys.setprofile(profile)
        try:
            assert room.put(encode(b"main1" + b"-" * 900))
        finally:
            sys.setprofile(None)
        assert room.put(encode(b"main2" + b"-" * 900))
        names = [body.rstrip(b"-") for body in read_all(room, cursor)]
        assert [name for name in names if name.startswith(b"main")] == [b"main0", b"main1", b"main2"]
        assert [name for name in names if name.startswith(b"handler")] in (
            [b"handler0", b"handler1", b"handler2"],
            [],
        )
        assert (b"handler0" in names) == (calls[0] > interrupted_at)
        assert not room.drops


def test_a_write_that_was_looked_up_before_the_change_of_segment_fails_and_goes_to_the_next() -> None:
    room = make_room()
    cursor = Cursor(room.active)
    stale = room.write
    for _ in range(2):
        room.put(encode(b"x" * 600))  # the second leaves space in the first segment
    with pytest.raises(ValueError):
        stale(encode(b"late"))
    before = room.active
    assert room._advance(stale)  # another thread, which has failed with the same one, skips no segment
    assert room.active is before
    assert len(read_all(room, cursor)) == 2


def test_a_reader_that_sees_the_next_segment_knows_that_nothing_more_comes_in_this_one() -> None:
    room = make_room()
    first = room.active
    seen: list[bool] = []

    def profile(frame: object, event: str, argument: object) -> None:
        if first.next is not None:
            seen.append(first.committed() == first.size)

    room.put(encode(b"x" * 600))
    sys.setprofile(profile)
    try:
        room.put(encode(b"y" * 600))
    finally:
        sys.setprofile(None)
    assert seen
    assert all(seen)


def test_after_a_fork_nothing_is_written_to_what_belongs_to_the_parent() -> None:
    room = make_room()
    stale = room.write
    room.drop("room_full")
    began: list[bytes] = []
    room.leave(began.append)
    with pytest.raises(ValueError):
        stale(b"x")
    assert room.put(b"first")
    assert began == [b"first"]
    assert room.drops == {}


def test_a_signal_handler_during_any_write_is_counted_exactly() -> None:
    room = make_room(6)
    cursor = Cursor(room.active)
    found: list[bytes] = []
    fired = [0]
    given = [0]

    def handler(number: int, frame: object) -> None:
        fired[0] += 1
        kept = room.put(encode(b"signal" + b"." * 200))
        given[0] += kept  # not in one: a handler that interrupts `put` would have its own count undone

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    kept = 0
    try:
        number = 0
        while fired[0] < 40:
            number += 1
            kept += room.put(encode(b"%d" % number + b"." * 200))
            if number % 10 == 0:
                found += read_all(room, cursor)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found += read_all(room, cursor)
    numbers = [int(body.rstrip(b".")) for body in found if not body.startswith(b"signal")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == kept
    assert len(found) - len(numbers) == given[0]
    assert len(found) + sum(tally.value for tally in room.drops.values()) == number + fired[0]


@given(
    st.lists(st.sampled_from([b"", b"short", b"l" * 300, b"longer than a chunk" * 2000])), st.integers(0, 9)
)
@settings(max_examples=40, deadline=None)
def test_as_many_are_unread_as_are_still_to_be_read(bodies: list[bytes], read: int) -> None:
    room = make_room(segments=12, size=100_000)
    kept = [body for body in bodies if room.put(encode(body))]
    cursor = Cursor(room.first)
    for _ in range(min(read, len(kept))):
        while not cursor.read(1):
            assert cursor.step() is not None
    assert unread(cursor) == max(len(kept) - read, 0)
    assert len(read_all(room, cursor)) == max(len(kept) - read, 0)
    assert unread(cursor) == 0


@pytest.mark.parametrize("call", ["unseal", "take_turn", "seal", "lead_to"])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_the_middle_of_a_segment_change_cuts_nothing_off(
    monkeypatch: pytest.MonkeyPatch, call: str, times: int
) -> None:
    room = make_room(segments=4)
    cursor = Cursor(room.first)
    plain = getattr(Segment, call)
    left = times

    def interrupted(self: Segment, *args: object) -> None:
        nonlocal left
        if left:
            left -= 1
            raise KeyboardInterrupt
        plain(self, *args)

    kept = []
    with monkeypatch.context() as patched:
        patched.setattr(Segment, call, interrupted)
        for number in range(25):  # of 100 bytes, in segments of 1,024
            try:
                if room.put(encode(b"%100d" % number)):
                    kept.append(number)
            except KeyboardInterrupt:
                continue
    assert left == 0
    assert len(kept) >= 25 - times
    assert room.position  # as a flush asks; from here on all is in order
    assert [int(body) for body in read_all(room, cursor)] == kept
    assert len(room.supply) == 3  # no segment was lost


def test_the_rest_of_a_damaged_segment_counts_as_one_unread() -> None:
    room = make_room()
    assert room.put(encode(b"whole"))
    room.active.write(b"\x01 no frame")
    cursor = Cursor(room.first)
    assert unread(cursor) == 2
    assert read_all(room, cursor) == [b"whole", NO_FRAME]


def test_counting_ahead_ends_with_what_was_known_once_the_reader_has_closed_its_segments() -> None:
    room, ahead = make_room(), Ahead()
    for number in range(3):
        room.put(encode(str(number).encode()))
    here = (room.active, HEADER_SIZE, 0)
    assert ahead.count(lambda: here) == 3
    room.active.close()
    assert ahead.count(lambda: here) == 3


def test_a_signal_handler_that_counts_inside_of_a_count_gets_an_answer() -> None:
    room, ahead = make_room(), Ahead()
    for number in range(3):
        room.put(encode(str(number).encode()))
    inside: list[int] = []

    def place() -> tuple[Segment, int, int]:
        if not inside:
            inside.append(-1)  # not once more in here
            inside.append(ahead.count(place))
        return room.active, HEADER_SIZE, 0

    assert ahead.count(place) == 3
    assert inside == [-1, 0]  # nothing was known yet
    assert ahead.count(place) == 3
