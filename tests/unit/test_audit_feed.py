"""The way of audit events: each once and in order to everybody, and no file goes before all have settled it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hft_otel import outbox as outbox_module
from hft_otel.audit_feed import AuditReader
from hft_otel.destinations.base import Rejected
from hft_otel.lanes.frames import encode
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.room import Cursor, Room
from hft_otel.lanes.segment import HEADER_SIZE, Segment
from hft_otel.outbox import Outbox
from hft_otel.record import LogLevel, LogRecord, LogType
from tests.unit.core_support import Blocked, Down, Recorder, core, poll

AUDIT = LogType.AUDIT


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_FIRST_BACKOFF", 0.002)
    monkeypatch.setattr(outbox_module, "_MAX_BACKOFF", 0.01)


class Bench:
    """A reader over a room of its own, turned by hand; outboxes without a thread, emptied by hand."""

    def __init__(self, folder: Path, segment_size: int = 512) -> None:
        self.journal = Journal(folder, segment_size, 2)
        self.room = Room("audit", self.journal.supply, lambda: None)
        self.outboxes: list[Outbox] = []
        self.retired: list[Segment] = []
        self.decoded = 0
        start = Cursor(self.room.active)
        self.reader = AuditReader("audit", "s", start, 0, self.decode, self.retire)

    def retire(self, segment: Segment) -> None:
        self.retired.append(segment)
        self.journal.retire(segment)

    def decode(self, body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
        self.decoded += 1
        message = body.decode()
        if message.startswith("unreadable"):
            raise ValueError
        record = LogRecord(1.0, LogLevel.INFO, AUDIT, "x", message, audit_id=audit_id)
        takers = [box for box in self.outboxes if message.startswith("all") or message.startswith(box.name)]
        return record, tuple(takers)

    def outbox(self, name: str, limit: int = 2048) -> Outbox:
        outbox = Outbox(Recorder(name), limit)
        self.outboxes.append(outbox)
        self.reader.add([outbox])
        return outbox

    def write(self, *messages: str) -> None:
        for message in messages:
            self.journal.replenish()
            assert self.room.put(encode(message.encode()))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.reader.turn()
            self.journal.replenish()


def deliver(outbox: Outbox, limit: int | None = None) -> list[LogRecord]:
    """Settle what is queued, as the outbox's thread does."""
    taken = [outbox._queue.popleft() for _ in range(len(outbox._queue) if limit is None else limit)]
    for record in taken:
        outbox.tallies.deliver(record.log_type)
    return taken


def messages(records: Sequence[LogRecord]) -> list[str]:
    return [record.message for record in records]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.journal.close(settled=True)


def test_each_event_reaches_every_destination_once_and_in_order(bench: Bench) -> None:
    a, b = bench.outbox("a"), bench.outbox("b")
    expected = [f"all {number}" for number in range(100)]
    for start in range(0, 100, 7):
        bench.write(*expected[start : start + 7])
        bench.turn()
    assert messages(deliver(a)) == messages(deliver(b)) == expected


def test_an_event_has_the_same_id_at_every_destination_however_late_it_comes_there(bench: Bench) -> None:
    a, b = bench.outbox("a"), bench.outbox("b", limit=3)
    bench.write(*(f"all {number}" for number in range(50)))
    bench.turn()
    ids_at_b = []
    for _ in range(30):
        ids_at_b += [record.audit_id for record in deliver(b)]
        bench.turn()
    assert ids_at_b == [record.audit_id for record in deliver(a)] == [f"s-{number}" for number in range(50)]


def test_who_keeps_up_is_served_without_decoding_again(bench: Bench) -> None:
    for name in "abc":
        bench.outbox(name)
    bench.write(*(f"all {number}" for number in range(20)))
    bench.turn(5)
    assert bench.decoded == 20


def test_an_event_counts_once_as_routed_unrouted_or_unreadable(bench: Bench) -> None:
    bench.outbox("a")
    bench.outbox("b")
    bench.write("all", "a only", "nobody", "unreadable")
    bench.turn(3)
    sums = bench.reader.sums
    assert (sums.routed, sums.unrouted, sums.dropped) == (2, 1, {"unreadable": 1})


def test_an_unreadable_event_takes_a_number_so_that_ids_stay_what_they_are(bench: Bench) -> None:
    a = bench.outbox("a")
    bench.write("all 0", "unreadable", "all 2")
    bench.turn()
    assert [record.audit_id for record in deliver(a)] == ["s-0", "s-2"]


def test_a_segment_goes_only_when_every_destination_has_settled_it(bench: Bench) -> None:
    fast, slow = bench.outbox("fast"), bench.outbox("slow")
    first = bench.room.active
    while bench.room.active is first:
        bench.write("all")
    bench.turn()
    deliver(fast)
    bench.turn(3)
    assert bench.retired == []
    deliver(slow, len(slow._queue) - 2)
    bench.turn(3)
    assert bench.retired == []
    deliver(slow)
    bench.turn(3)
    assert bench.retired == [first]
    assert first.path is not None and not first.path.exists()


def test_the_header_notes_the_slowest_place_and_the_number_of_the_first_event(bench: Bench) -> None:
    fast, slow = bench.outbox("fast"), bench.outbox("slow")
    bench.write("all 1")
    bench.turn()
    place = bench.reader.position[1]
    deliver(slow)
    bench.write("all 2")
    bench.turn()
    deliver(fast)
    bench.turn()
    assert bench.room.active.read_header().settled == place
    assert bench.room.active.read_header().first_seq == 1
    deliver(slow)
    bench.turn()
    assert bench.room.active.read_header().settled == bench.reader.position[1]


def test_without_any_destination_events_are_unrouted_and_their_segments_go(bench: Bench) -> None:
    for number in range(200):
        bench.write(f"nobody {number}")
        bench.turn()
    assert bench.reader.sums.unrouted == 200
    assert len(bench.retired) >= 4
    assert bench.reader.settled


def test_events_for_others_pile_up_nothing_at_a_destination_that_is_down(bench: Bench) -> None:
    down, other = bench.outbox("down"), bench.outbox("other")
    bench.write("down 0")
    for number in range(1000):
        bench.write(f"other {number}")
        bench.turn()
        deliver(other)
    assert len(bench.reader._feeds[down].marks) <= 2
    assert not bench.reader.settled
    deliver(down)
    bench.turn(3)
    assert bench.reader.settled


def test_a_destination_with_a_full_queue_loses_no_audit_event(bench: Bench) -> None:
    small = bench.outbox("small", limit=2)
    expected = [f"all {number}" for number in range(300)]
    got: list[str] = []
    for message in expected:
        bench.write(message)
        bench.turn()
    while len(got) < 300:
        found = messages(deliver(small))
        assert 0 < len(found) <= 2
        got += found
        bench.turn()
    assert got == expected
    assert not small.tallies.dropped and not small.tallies.refused


def test_a_destination_that_joins_later_gets_what_comes_after(bench: Bench) -> None:
    bench.outbox("a")
    bench.write("all 0", "all 1")
    bench.turn()
    late = bench.outbox("late")
    bench.write("all 2")
    bench.turn()
    [record] = deliver(late)
    assert (record.message, record.audit_id) == ("all 2", "s-2")


def test_reading_is_not_settled_while_a_further_segment_waits(tmp_path: Path) -> None:
    """A slice may end exactly where a segment ends; what follows must not be taken for nothing."""
    bench = Bench(tmp_path, segment_size=HEADER_SIZE + 256 * 3)
    for _ in range(257):  # 256 frames of three bytes fill the first segment, and the first slice
        bench.write("n")
    assert bench.room.active.index == 1
    bench.reader.turn()
    assert bench.reader.sums.unrouted == 256
    assert not bench.reader.settled
    bench.reader.turn()
    assert bench.reader.settled
    bench.journal.close(settled=True)


def test_one_turn_is_bounded_however_much_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path, segment_size=64 * 1024)
    a = bench.outbox("a", limit=100_000)
    bench.write(*(f"all {number}" for number in range(2000)))
    assert bench.reader.turn() <= 2 * 256
    bench.turn(20)
    assert len(deliver(a)) == 2000
    bench.journal.close(settled=True)


def test_after_a_restart_events_keep_their_numbers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, segment_size=1024)
    a = bench.outbox("a")
    bench.write(*(f"all {number}" for number in range(10)))
    bench.turn()
    deliver(a, 4)
    bench.reader.turn()  # marks are per slice: none of the ten is known to be settled
    bench.write(*(f"all {number}" for number in range(10, 20)))
    bench.turn()
    deliver(a, 6)
    bench.turn()
    assert bench.room.active.read_header().settled > HEADER_SIZE
    bench.journal.close(settled=False)

    other = Journal(tmp_path, 1024, 1)
    [stream] = list(other.abandoned())
    offset, seq = stream.start
    again = Bench(tmp_path / "again")
    reader = AuditReader(
        "recovered", "s", Cursor(stream.segments[0], offset), seq, again.decode, stream.retire
    )
    b = Outbox(Recorder("b"))
    again.outboxes.append(b)
    reader.add([b])
    reader.turn()
    found = deliver(b)
    assert messages(found) == [f"all {number}" for number in range(10, 20)]
    assert [record.audit_id for record in found] == [f"s-{number}" for number in range(10, 20)]
    reader.turn()
    assert reader.settled
    stream.close(settled=True)
    assert not stream.folder.exists()
    other.close(settled=True)
    again.journal.close(settled=True)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(["all", "a", "b", "nobody", "unreadable"])),
        st.tuples(st.just("turn"), st.just("")),
        st.tuples(st.just("deliver"), st.sampled_from(["a", "b"])),
    ),
    max_size=120,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.integers(1, 6), st.integers(1, 6))
def test_whatever_the_pace_everybody_gets_all_that_is_theirs_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], limit_a: int, limit_b: int
) -> None:
    bench = Bench(tmp_path_factory.mktemp("j"), segment_size=HEADER_SIZE + 40)
    boxes = {"a": bench.outbox("a", limit_a), "b": bench.outbox("b", limit_b)}
    written: list[str] = []
    got: dict[str, list[str]] = {"a": [], "b": []}
    for what, who in steps:
        if what == "write":
            written.append(f"{who} {len(written)}")
            bench.write(written[-1])
        elif what == "turn":
            bench.turn()
        else:
            got[who] += messages(deliver(boxes[who], min(2, len(boxes[who]._queue))))
        unsettled = {path.name for path in bench.journal.stream_folder.glob("*.seg")}
        held = {feed.settled[0].path.name for feed in bench.reader._feeds.values() if feed.settled[0].path}
        assert held <= unsettled
    while not bench.reader.settled:
        bench.turn()
        for name, box in boxes.items():
            got[name] += messages(deliver(box))
    for name, found in got.items():
        assert found == [message for message in written if message.startswith((name, "all"))]
    sums = bench.reader.sums
    assert sums.emitted == len(written)
    assert len(list(bench.journal.stream_folder.glob("*.seg"))) <= 1 + bench.journal.spare
    bench.journal.close(settled=True)


def test_a_lagging_destination_holds_nobody_back_and_catches_up_in_order(tmp_path: Path) -> None:
    down, fine = Down("down"), Recorder("fine")
    with core(tmp_path, down, fine) as made:
        expected = [f"event {number}" for number in range(5000)]
        for message in expected:
            made.log.audit(message)
            if not made.intake.audit.supply:
                time.sleep(0.001)
        poll(lambda: len(fine.got) == 5000)
        assert fine.messages == expected
        assert down.got == []
        down.up = True
        poll(lambda: len(down.got) == 5000)
        assert down.messages == expected
        assert made.log.force_flush(5)
        poll(lambda: len(list(made.intake.journal.stream_folder.glob("*.seg"))) <= 4)


def test_memory_stays_flat_while_one_destination_is_down(tmp_path: Path) -> None:
    """Records in memory are bounded by its queue; all else waits in the journal's files."""

    def alive() -> int:
        gc.collect()
        return sum(type(each) is LogRecord for each in gc.get_objects())

    class Counting(Recorder):
        number = 0

        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            self.number += len(batch)
            return ()

    blocked, fine = Blocked("blocked"), Counting("fine")
    before = alive()
    with core(tmp_path, blocked, fine) as made:
        for number in range(12_000):
            made.log.audit("event", number=number)
            if not made.intake.audit.supply:
                time.sleep(0.001)
        poll(lambda: fine.number == 12_000)
        poll(lambda: made.worker.outboxes[id(fine)].waiting == 0)
        assert alive() - before <= 2048 + 300
        report = made.worker.report()
        assert made.sums("blocked", AUDIT, report).pending == 12_000
        assert not made.sums("blocked", AUDIT, report).dropped


@pytest.mark.parametrize("settle", [True, False])
def test_what_is_not_settled_at_exit_comes_at_the_next_start(tmp_path: Path, settle: bool) -> None:
    down, fine = Down("down"), Recorder("fine")
    with core(tmp_path, down, fine) as made:
        for number in range(300):
            made.log.audit(f"event {number}")
        poll(lambda: len(fine.got) == 300)
        down.up = settle
        made.stop(0.3 if not settle else 5)
        first = [record.audit_id for record in fine.got]
    again = Recorder("down")
    with core(tmp_path, again) as made:
        made.log.audit("new")
        poll(lambda: "new" in again.messages)
        if not settle:
            poll(lambda: len(again.got) == 301)
            recovered = [record for record in again.got if record.message != "new"]
            assert [record.audit_id for record in recovered] == first
            assert [record.message for record in recovered] == [f"event {number}" for number in range(300)]
            assert made.lane("recovered").routed == 300
        made.stop(5)
        assert [record.message for record in again.got].count("new") == 1
    assert list(tmp_path.iterdir()) == []
