"""The way out of another process's lanes: given back when settled, or under pressure, and then accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_otel.lane_feed import UNCONFIRMED, oldest_unread
from hft_otel.lanes.frames import encode
from hft_otel.lanes.intake import Intake, Pipeline
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.remote import RemoteIntake
from hft_otel.lanes.shared import SharedLanes, Sizes
from hft_otel.logger import HFTLogger
from hft_otel.record import LogRecord, LogType
from hft_otel.redaction import Redactor
from hft_otel.worker import Worker
from tests.unit.core_support import Blocked, Recorder, poll
from tests.unit.lanes_support import Reading, Writing, body, is_unconfirmed, number_of

SMALL = Sizes(segment=4096, low=8, high=4, metric=4)


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    made = Writing(tmp_path)
    yield made
    made.die()


def free(writing: Writing, room: str = "low") -> int:
    return len(writing.lanes.supplies[room])


def fill(writing: Writing, segments: int, first: int = 0) -> int:
    """Write until so many segments are full; return the next number."""
    room, number = writing.intake.low, first
    end = room.position[0] + segments
    while room.position[0] < end:
        assert writing.put(room, body(number, 250))
        number += 1
    return number


def test_a_segment_is_given_back_only_when_every_destination_has_settled_it(writing: Writing) -> None:
    reading = Reading(writing.stream_folder, ("fast", "slow"))
    fill(writing, 1)
    while reading.turn("low"):
        pass
    assert free(writing) == 2
    reading.deliver("fast")
    reading.turn("low")
    assert free(writing) == 2
    reading.deliver("slow", 3)
    reading.turn("low")
    assert free(writing) == 2
    reading.deliver("slow")
    reading.turn("low")
    assert free(writing) == 3
    reading.die()


def test_a_killed_reader_s_successor_reads_what_was_not_settled_and_little_more(writing: Writing) -> None:
    reading = Reading(writing.stream_folder)
    for number in range(8):
        writing.put(writing.intake.low, body(number, 60))
    writing.intake.publish()
    first = reading.turn("low")
    reading.deliver()
    reading.turn("low")
    for number in range(8, 12):
        writing.put(writing.intake.low, body(number, 60))
    writing.intake.publish()
    second = reading.turn("low")
    reading.die()
    again = Reading(writing.stream_folder)
    third = again.turn("low")
    assert [number_of(record.message.encode()) for _, record, _ in first] == list(range(8))
    assert [record.uid for _, record, _ in third] == [record.uid for _, record, _ in second]
    assert len({record.uid for _, record, _ in first + second}) == 12
    again.die()


def test_measurements_are_given_back_when_they_are_read(writing: Writing) -> None:
    reading = Reading(writing.stream_folder)
    room = writing.intake.metric
    for number in range(4):  # three to a segment
        writing.put(room, body(number, 300))
    assert free(writing, "metric") == 0
    while reading.turn("metric"):
        pass
    assert free(writing, "metric") == 1
    assert all(record.uid is None for record in reading.deliver())
    reading.die()


def test_under_pressure_the_oldest_goes_back_and_a_successor_counts_it(writing: Writing) -> None:
    reading = Reading(writing.stream_folder)
    written = fill(writing, 3)
    assert free(writing) == 0
    while reading.turn("low"):
        pass
    assert free(writing) > 0
    released = reading.intake.low.released
    assert 0 < released < written
    assert writing.put(writing.intake.low, body(written, 250))
    reading.die()
    again = Reading(writing.stream_folder)
    assert again.dropped("low") == {"agent_killed": released}
    found = [number_of(record.message.encode()) for _ in range(9) for _, record, _ in again.turn("low")]
    assert min(found) == released  # all that is not accounted for
    again.die()
    last = Reading(writing.stream_folder)
    assert "agent_killed" not in last.dropped("low")  # counted once
    last.die()


def test_what_was_given_back_under_pressure_and_then_delivered_is_not_counted(writing: Writing) -> None:
    reading = Reading(writing.stream_folder)
    fill(writing, 3)
    while reading.turn("low"):
        pass
    assert reading.intake.low.released
    reading.deliver()
    reading.turn("low")
    assert reading.intake.low.released == 0
    reading.die()


def test_the_writer_s_drops_are_known_after_its_death(writing: Writing) -> None:
    for number in range(30):
        writing.put(writing.intake.low, body(number, 250))
    writing.put(writing.intake.high, body(0, 5000))
    writing.intake.metric.drop("something new")
    for _ in writing.intake.audit.failed:  # as a caller at the end of its stack counts
        break
    writing.intake.publish()
    refused = writing.intake.low.drops["room_full"].value
    writing.die()
    reading = Reading(writing.stream_folder)
    assert refused > 0
    assert reading.dropped("low") == {"room_full": refused}
    assert reading.dropped("high") == {"too_large": 1}
    assert reading.dropped("metric") == {"other": 1}
    assert reading.dropped("audit") == {"capture_failed": 1}
    reading.die()


class TestTheLastFrame:
    def test_without_a_zero_byte_is_read_at_once(self, writing: Writing) -> None:
        reading = Reading(writing.stream_folder)
        writing.put(writing.intake.low, body(1, 60))
        assert len(reading.turn("low")) == 1
        reading.die()

    def test_with_a_zero_byte_waits_for_the_next_one(self, writing: Writing) -> None:
        reading = Reading(writing.stream_folder)
        reading.intake.ask = lambda: None
        writing.put(writing.intake.low, body(1, 60, b"\0"))
        assert reading.turn("low") == []
        writing.put(writing.intake.low, body(2, 60, b"\0"))
        assert len(reading.turn("low")) == 1
        reading.die()

    def test_is_asked_for_after_a_while_and_not_over_and_over(
        self, writing: Writing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from hft_otel.lanes import remote_room

        now = [100.0]
        monkeypatch.setattr(remote_room.time, "monotonic", lambda: now[0])
        asked: list[float] = []
        reading = Reading(writing.stream_folder)
        reading.intake.ask = lambda: asked.append(now[0])
        writing.put(writing.intake.low, body(1, 60, b"\0"))
        for _ in range(100):
            assert reading.turn("low") == []
            now[0] += 0.01
        assert len(asked) == 2
        reading.intake.ask = writing.intake.publish
        now[0] += 1
        reading.turn("low")
        assert len(reading.turn("low")) == 1
        reading.die()

    def test_an_answer_that_fails_is_asked_for_again(self, writing: Writing) -> None:
        reading = Reading(writing.stream_folder)

        def fail() -> None:
            raise OSError("gone")

        reading.intake.ask = fail
        writing.put(writing.intake.low, body(1, 60, b"\0"))
        poll(lambda: reading.intake.low._asked_at or reading.turn("low"))
        reading.die()

    def test_counts_as_whole_after_a_moment_where_nobody_can_be_asked(self, writing: Writing) -> None:
        reading = Reading(writing.stream_folder)
        writing.put(writing.intake.low, body(1, 60, b"\0"))
        assert reading.turn("low") == []
        poll(lambda: reading.turn("low"))
        reading.die()

    def test_of_a_dead_process_is_marked_when_it_cannot_be_proven(self, writing: Writing) -> None:
        for number in (1, 2):
            writing.put(writing.intake.low, body(number, 60, b"\0"))
        writing.put(writing.intake.high, body(3, 60))
        reading = Reading(writing.stream_folder)
        reading.intake.writer_gone()
        found = [record for _, record, _ in reading.turn()]
        assert sorted((record.message[1:2], is_unconfirmed(record)) for record in found) == [
            ("1", False),
            ("2", True),
            ("3", False),
        ]
        reading.die()

    @pytest.mark.parametrize("missing", ["end", "beginning", "all but the tag"])
    def test_of_a_dead_process_that_is_torn_is_counted(self, writing: Writing, missing: str) -> None:
        room = writing.intake.low
        writing.put(room, body(1, 60))
        writing.put(room, body(2, 60))
        end = room.active.committed()
        start = end - len(encode(body(2, 60)))
        first, last = {
            "end": (end - 9, end),
            "beginning": (start, start + 8),
            "all but the tag": (start + 1, end),
        }[missing]
        room.active.memory[first:last] = bytes(last - first)
        reading = Reading(writing.stream_folder)
        reading.intake.writer_gone()
        assert [number_of(record.message.encode()) for _, record, _ in reading.turn("low")] == [1]
        reading.deliver()
        reading.turn("low")
        assert reading.dropped("low") == {"torn": 1}
        assert reading.lanes["low"].settled
        reading.die()


def test_an_audit_event_in_flight_is_not_read_until_its_checksum_holds(writing: Writing) -> None:
    """Its middle is what comes last; nothing is behind it, and it may well be that nothing ever is."""
    writing.audit(body(1, 60))
    writing.audit(body(2, 200))
    memory, end = writing.intake.audit.active.memory, writing.intake.audit.active.committed()
    middle = memory[end - 100 : end - 60]
    memory[end - 100 : end - 60] = bytes(40)
    reading = Reading(writing.stream_folder)
    for _ in range(5):
        reading.audits.turn()
    assert [number_of(record.message.encode()) for record in reading.deliver()] == [1]
    memory[end - 100 : end - 60] = middle
    reading.audits.turn()
    assert [number_of(record.message.encode()) for record in reading.deliver()] == [2]
    assert reading.dropped("audit") == {}
    reading.die()


def test_ids_go_on_counting_for_a_successor_after_segments_are_gone(writing: Writing) -> None:
    reading = Reading(writing.stream_folder)
    ids: dict[str, int] = {}
    for start in range(0, 200, 20):
        for number in range(start, start + 20):
            assert writing.audit(body(number, 150))
        while reading.audits.turn():
            pass
        for record in reading.deliver():
            assert ids.setdefault(record.audit_id or "", number_of(record.message.encode())) is not None
            assert ids[record.audit_id or ""] == number_of(record.message.encode())
        reading.audits.turn()
        reading.die()
        reading = Reading(writing.stream_folder)
    assert not (writing.journal.stream_folder / "00000000.seg").exists()
    assert sorted(ids.values()) == list(range(200))
    assert [int(audit_id.rsplit("-", 1)[1]) for audit_id in ids] == list(range(200))
    reading.die()


def test_a_frame_longer_than_a_look_is_read_whole(tmp_path: Path) -> None:
    writing = Writing(tmp_path, Sizes(segment=200 * 1024, low=2, high=2, metric=2))
    reading = Reading(writing.stream_folder)
    for number, size in enumerate([10, 90_000, 20, 70_000]):
        assert writing.put(writing.intake.low, body(number, size))
    writing.intake.publish()
    found = [len(record.message) for _ in range(8) for _, record, _ in reading.turn("low")]
    assert found == [len(body(0, 10)), 90_000, 20, 70_000]
    reading.die()
    writing.die()


def test_the_oldest_unread_record_says_when_it_was_written(writing: Writing) -> None:
    reading = Reading(writing.stream_folder)
    cursor = reading.lanes["low"].cursor
    assert oldest_unread(cursor) is None
    now = 1_700_000_000_123_456_789
    writing.put(writing.intake.low, encode((now, "x")))
    writing.put(writing.intake.low, encode((now + 5, "x")))
    assert oldest_unread(cursor) == now
    reading.die()


# -- the worker over it --


class ToAll:
    def __init__(self, *backends: Any) -> None:
        self._backends = backends

    def get_backends(self, record: LogRecord) -> list[Any]:
        return list(self._backends)


class Both:
    """A trading process's intake and logger, and the agent's worker over its files."""

    def __init__(self, folder: Path, *backends: Any) -> None:
        self.lanes = SharedLanes(folder / "lanes", SMALL)
        self.intake = Intake(Journal(folder / "journal", 16 * 1024, 3, self.lanes), SMALL, self.lanes)
        self.log = HFTLogger("x", [], intake=self.intake)
        self.backends = backends
        self.begin()

    def begin(self) -> None:
        self.remote = RemoteIntake(self.lanes.stream_folder)
        self.remote.ask = self.intake.publish
        self.worker = Worker(self.remote)
        self.intake.announce(1)
        self.worker.add(self.pipeline(0))
        self.worker.start()

    def pipeline(self, number: int) -> Pipeline:
        return Pipeline(number, ToAll(*self.backends), self.backends, Redactor())

    def flush(self, timeout: float = 10.0) -> Any:
        self.intake.publish()
        return self.worker.flush(timeout, tuple(room.position for room in self.intake.rooms))

    def end(self) -> None:
        self.lanes.close(remove=False)
        self.intake.journal.leave()
        self.remote.writer_gone()
        poll(lambda: self.worker.settled)
        assert self.worker.stop(5).complete
        self.remote.close(remove=True)
        assert not self.lanes.stream_folder.exists()
        assert not self.intake.journal.stream_folder.exists()


def test_a_worker_delivers_all_types_of_another_process_and_answers_its_flush(tmp_path: Path) -> None:
    recorder = Recorder()
    both = Both(tmp_path, recorder)
    for number in range(300):
        both.log.info("low", n=number, px=0.0)
        if number % 10 == 0:
            both.log.error("high", n=number)
            both.log.metric("m", number)
            both.log.audit("event", n=number)
            both.intake.journal.replenish()
            assert both.flush()
    assert both.flush()
    kinds = [record.log_type for record in recorder.got]
    assert (kinds.count(LogType.TEXT), kinds.count(LogType.METRIC), kinds.count(LogType.AUDIT)) == (
        330,
        30,
        30,
    )
    uids = [record.uid for record in recorder.got if record.log_type is LogType.TEXT]
    assert len(set(uids)) == 330 and all(uid and uid.startswith(both.lanes.stream) for uid in uids)
    assert both.worker.lag == 0.0
    both.end()


def test_a_destination_that_blocks_keeps_text_in_the_lanes_for_a_successor(tmp_path: Path) -> None:
    blocked = Blocked()
    both = Both(tmp_path, blocked)
    for number in range(20):
        both.log.info("x", n=number)
    assert blocked.entered.wait(5)
    poll(lambda: both.worker.report().lanes[3].routed == 20)
    both.worker._stopping = True  # as after a kill: nothing is settled any more
    both.worker._thread.join(5)
    both.remote.close(remove=False)
    blocked.go.set()
    recorder = Recorder()
    both.backends = (recorder,)
    both.begin()
    assert both.flush()
    assert [record.context["n"] for record in recorder.got] == list(range(20))
    both.end()


def test_a_record_of_a_pipeline_that_is_not_known_yet_waits(tmp_path: Path) -> None:
    recorder = Recorder()
    both = Both(tmp_path, recorder)
    both.intake.announce(2)
    other = HFTLogger("other", [], intake=both.intake)
    assert other._pipeline.number == 1
    other.info("early")
    other.audit("early")
    assert not both.flush(0.2).complete
    assert recorder.got == []
    both.worker.add(both.pipeline(1))
    assert both.flush()
    assert sorted(record.log_type for record in recorder.got) == [LogType.AUDIT, LogType.TEXT]
    assert both.worker.report().dropped == 0
    both.end()


def test_a_worker_adopts_what_a_dead_process_left(tmp_path: Path) -> None:
    dead = Writing(tmp_path / "dead", Sizes(segment=4096, low=4, high=4, metric=4), segment_size=16 * 1024)
    log = HFTLogger("dead", [], intake=dead.intake)
    for number in range(10):
        log.info("left", n=number)
        log.warning("left", n=number)
        log.metric("left", number)
        log.audit("left", n=number)
    dead.intake.low.drop("room_full")
    dead.die()
    recorder = Recorder()
    both = Both(tmp_path / "own", recorder)
    both.worker.adopt(RemoteIntake(dead.stream_folder))
    both.log.info("mine", n=0)
    poll(lambda: both.worker.settled or both.intake.publish())
    assert both.flush().complete
    assert len(recorder.got) == 41
    kinds = {sums.type: sums for sums in both.worker.report().lanes if sums.lane == "recovered"}
    assert {kind: sums.routed for kind, sums in kinds.items()} == {"TEXT": 20, "METRIC": 10, "AUDIT": 10}
    assert kinds["TEXT"].dropped == {"room_full": 1}
    assert not dead.stream_folder.exists()
    assert not dead.journal.stream_folder.exists()
    marked = [record for record in recorder.got if UNCONFIRMED in record.context]
    assert len(marked) <= 2
    both.end()


def test_full_queues_pile_up_nothing_however_much_they_refuse(writing: Writing) -> None:
    reading = Reading(writing.stream_folder, limit=10)
    room, lane = writing.intake.low, reading.lanes["low"]
    number = 0
    for number in range(200):
        assert writing.put(room, body(number, 250))
        writing.intake.publish()
        for _, record, each in lane.read():
            each.sums.routed += 1
            for box in reading.boxes.values():
                box.tallies.accepted[record.log_type] += 1
                if not box.offer([record]):
                    box.tallies.refused[record.log_type, "queue_full"] += 1
        lane.settle(reading.boxes.values())
    assert lane.sums.routed == 200
    assert len(lane._places) <= 10
    reading.deliver()
    lane.settle(reading.boxes.values())
    assert lane.settled
    assert reading.intake.low.released == 0
    reading.die()
