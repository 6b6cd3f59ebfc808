"""An event that a destination refuses for good is found, kept aside with its reason, and can be sent again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2

from hft_otel.audit import parked as module
from hft_otel.audit.parked import PARKED, Parking, read_parked
from hft_otel.audit.trail import Keeping
from hft_otel.audit.verify import verify
from hft_otel.cli.app import app
from hft_otel.config import JournalConfig, OtlpConfig
from hft_otel.destinations.base import Rejected
from hft_otel.destinations.halving import Delivery, Interrupted
from hft_otel.destinations.otlp import otlp_destinations
from hft_otel.lanes.journal import Journal
from hft_otel.ledger import FlushReport
from hft_otel.notices import Notices
from hft_otel.otel.transport import Outcome, Verdict
from hft_otel.record import LogRecord, LogType
from tests.unit.audit_support import Desk, frame
from tests.unit.core_support import Process, Recorder, audit, core, poll, text
from tests.unit.otlp_stand_in import RESOURCE, Answer, Receiver, log_records, plain

pytest_plugins = ["tests.unit.otlp_fixtures"]

REFUSED = Answer(400, b"no such field")


def partly(rejected: int) -> Answer:
    response = logs_service_pb2.ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = rejected
    response.partial_success.error_message = "mapper_parsing_exception"
    return Answer(200, response.SerializeToString())


def poison(request: Any) -> int:
    return sum("poison" in plain(record.attributes) for record in log_records(request))


ANSWERS: dict[str, Callable[[Any], Answer]] = {
    "400": lambda request: REFUSED if poison(request) else Answer(),
    "partial_success": lambda request: partly(poison(request)),
}


@pytest.fixture
def kept(receiver: Receiver, tmp_path: Path) -> Iterator[Process]:
    """A worker that keeps a trail, over one destination of log records."""
    config = OtlpConfig(endpoint=receiver.endpoint, signals=["logs"])
    with core(tmp_path / "journal", *otlp_destinations(config, RESOURCE)) as made:
        made.log.warning("starts the worker")
        assert made.log.force_flush(30)
        made.worker.keep(Keeping.of(JournalConfig()))
        yield made


def say(made: Process, number: int, *bad: int) -> None:
    for each in range(number):
        made.log.audit("filled", n=each, **({"poison": True} if each in bad else {}))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


@pytest.mark.parametrize("how", ANSWERS)
def test_one_refused_event_is_parked_and_all_others_arrive(
    how: str, kept: Process, receiver: Receiver, tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    receiver.answer = ANSWERS[how]
    say(kept, 300, 77)
    kept.log.force_flush(30)
    arrived = {
        plain(record.attributes)["n"]
        for request in receiver.requests
        if ANSWERS[how](request).status == 200
        for record in log_records(request)
        if "n" in plain(record.attributes)
    }
    assert arrived - {77} == set(range(300)) - {77}
    identity = f"{kept.intake.journal.stream}-77"
    poll(lambda: list(read_parked(folder)))
    [(event, record)] = read_parked(folder)
    assert (event.audit_id, event.destination) == (identity, "otlp.logs")
    assert event.reason == {"400": "http_400"}.get(how, how)
    assert {"400": "no such field"}.get(how, "mapper_parsing_exception") in event.detail
    assert (record.audit_id, record.message, record.context["n"]) == (identity, "filled", 77)
    sums = kept.sums("otlp.logs", LogType.AUDIT)
    assert (sums.delivered, sums.dropped, sums.pending) == (299, {event.reason: 1}, 0)
    kept.stop(20)
    assert [verdict.problems for verdict in verify(folder)] == [[]]

    shown = run("show", folder, "--parked")
    assert shown.exit_code == 1
    for part in ("filled", "otlp.logs", "1 event parked"):
        assert part in shown.stdout
    (told,) = map(json.loads, run("show", folder, "--parked", "--json").stdout.splitlines())
    assert (told["audit_id"], told["reason"]) == (identity, event.reason)
    assert told["event"]["attributes"]["n"] == 77
    assert run("show", folder, "--parked", "--event", "other").exit_code == 0

    receiver.answer = lambda request: Answer()
    receiver.requests.clear()
    again = run("replay", folder, "--parked", "--to", receiver.endpoint)
    assert again.exit_code == 0, again.output
    sent = [plain(r.attributes)["audit.id"] for request in receiver.requests for r in _logs(request)]
    assert sent == [identity]


def _logs(request: Any) -> list[Any]:
    return log_records(request) if isinstance(request, logs_service_pb2.ExportLogsServiceRequest) else []


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40),
    st.sampled_from(["refused", "partial", "both"]),
    st.integers(0, 30),
)
def test_halving_finds_each_refused_event_and_counts_each_refused_text(
    asked: list[tuple[bool, bool]], how: str, calls: int
) -> None:
    """Whatever the order of texts and events, and whichever are refused; also where the connection ends on the way."""
    records = [audit(n) if is_audit else text(n) for n, (is_audit, _) in enumerate(asked)]
    bad = {id(record) for record, (_, is_bad) in zip(records, asked, strict=True) if is_bad}
    got: set[int] = set()
    left = [calls if calls < 29 else 10_000]

    def send(part: Sequence[LogRecord]) -> Outcome:
        if not left[0]:
            return Outcome(Verdict.RETRY, "gone")
        left[0] -= 1
        refused = sum(id(record) in bad for record in part)
        if refused and (how == "refused" or (how == "both" and len(part) > 6)):
            return Outcome(Verdict.REFUSED, "http_400")
        got.update(id(record) for record in part if id(record) not in bad)
        return Outcome(Verdict.DELIVERED, "partial_success", "", None, refused)

    delivery = Delivery(send)
    try:
        rejected = delivery.run(records)
    except Interrupted as stop:
        told = [*map(id, stop.delivered), *(id(each.record) for each in stop.rejected)]
        assert len(told) == len(set(told))  # what was settled is settled once
        assert {each for each in told if _is_audit(records, each)} <= got | bad
        return
    audits = {id(record) for record in records if record.log_type is LogType.AUDIT}
    gave_up = how == "refused" and not got  # nothing of it was taken: all of it is refused
    if not gave_up:
        assert {id(each.record) for each in rejected} & audits == bad & audits
        assert len(rejected) == len(bad)
        assert got >= audits - bad
    assert len(delivery._delivered) + len(rejected) == len(records)


def _is_audit(records: Sequence[LogRecord], identity: int) -> bool:
    return any(id(record) == identity and record.log_type is LogType.AUDIT for record in records)


# --- the place where they are parked


def refuse(desk: Desk, *seqs: int) -> None:
    """Have the destination settle all that it was offered, and refuse some of it."""
    while desk.outbox._queue:
        record = desk.outbox._queue.popleft()
        if int((record.audit_id or "-1").rpartition("-")[2]) in seqs:
            desk.outbox._drop(Rejected(record, "http_400", "why"))
        else:
            desk.outbox.tallies.deliver(LogType.AUDIT)


def parked_in(folder: Path) -> list[str]:
    return [f"{event.audit_id} {record.context['order']}" for event, record in read_parked(folder)]


def write(desk: Desk, number: int) -> None:
    for _ in range(number):
        desk.journal.replenish()
        assert desk.room.put(frame("filled", order=desk.written))
        desk.written += 1
        desk.turn(settle=False)


def parking(desk: Desk) -> Parking:
    desk.reader.parking = Parking(desk.folder, desk.stream)
    return desk.reader.parking


def test_refused_events_of_many_segments_are_parked_with_their_own_bodies(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    parking(desk)
    write(desk, 300)
    refuse(desk, 0, 131, 299)
    desk.turn()
    assert parked_in(tmp_path) == [f"{desk.stream}-{n} {n}" for n in (0, 131, 299)]
    write(desk, 10)
    refuse(desk, 305)
    desk.close()
    assert parked_in(tmp_path)[3:] == [f"{desk.stream}-305 305"]
    assert [verdict.problems for verdict in verify(tmp_path)] == [[]]


def test_events_of_memory_segments_are_parked_too(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("in the way")
    desk = Desk(tmp_path / "j", journal=Journal(tmp_path / "j", 4096, 2))
    desk.reader.parking = Parking(tmp_path / "other", desk.stream)
    write(desk, 100)
    refuse(desk, 3, 90)
    desk.turn()
    assert parked_in(tmp_path / "other") == [f"{desk.stream}-{n} {n}" for n in (3, 90)]


def test_nothing_counts_as_settled_before_it_is_parked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_AFTER", 0.0)
    desk = Desk(tmp_path)
    place = parking(desk)
    desk.trail_folder.parent.mkdir(exist_ok=True)
    write(desk, 5)
    (desk.trail_folder).mkdir(exist_ok=True)
    (desk.trail_folder / PARKED).mkdir()
    refuse(desk, 2)
    desk.turn()
    assert desk.room.active.read_header().settled == 64
    assert not desk.reader.settled
    assert "cannot be parked" in desk.reader.problem == place.problem
    (desk.trail_folder / PARKED).rmdir()
    desk.turn()
    assert parked_in(tmp_path) == [f"{desk.stream}-2 2"]
    assert desk.reader.problem == ""
    assert desk.reader.settled
    desk.close()


def test_half_a_line_of_a_killed_process_is_taken_away_and_a_repeat_shown_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    parking(desk)
    write(desk, 3)
    refuse(desk, 1)
    desk.turn()
    path = desk.trail_folder / PARKED
    path.write_bytes(path.read_bytes() * 2 + b'{"audit_id":"ha')
    assert len(parked_in(tmp_path)) == 1
    parking(desk)
    write(desk, 1)
    refuse(desk, 3)
    desk.turn()
    assert parked_in(tmp_path) == [f"{desk.stream}-{n} {n}" for n in (1, 3)]
    assert path.stat().st_mode & 0o777 == 0o600
    desk.close()


def test_a_full_parking_place_counts_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1500)
    desk = Desk(tmp_path)
    place = parking(desk)
    for _ in range(20):
        write(desk, 1)
        refuse(desk, desk.written - 1)
        desk.turn()
    assert 0 < len(parked_in(tmp_path)) < 20
    assert (desk.trail_folder / PARKED).stat().st_size <= 1500
    assert "is full" in place.problem
    assert desk.outbox.tallies.dropped == {(LogType.AUDIT, "http_400"): 20}
    desk.close()
    assert desk.reader.settled


def test_without_a_place_refused_events_are_counted_only(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    write(desk, 3)
    refuse(desk, 1)
    desk.turn()
    assert desk.outbox.refused == {}
    assert desk.reader.settled
    desk.close()


def test_events_of_another_stream_are_left_to_its_reader(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    parking(desk)
    write(desk, 1)
    other = audit(0)
    desk.outbox._drop(Rejected(other, "http_400"))
    desk.turn()
    assert list(desk.outbox.refused) == ["s-0"]
    desk.close()


def test_the_line_about_a_refusal_says_where_to_look(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    write(desk, 1)
    desk.outbox.tallies.accepted[LogType.AUDIT] += 1
    refuse(desk, 0)
    said: list[str] = []
    sums = list(desk.outbox.tallies.sums("file"))
    notices = Notices(
        lambda: FlushReport([], sums, complete=True), lambda: [desk.outbox], str, out=said.append
    )
    notices.look()
    assert len(said) == 1
    assert "hft-otel audit show --parked" in said[0]
    desk.close()


class Picky(Recorder):
    """Raises for one event."""

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        if any(record.context.get("n") == 2 for record in batch):
            raise ValueError("cannot be 2")
        return super().deliver(batch)


def test_what_makes_a_destination_raise_is_parked_at_the_next_start_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "journal")
    for n in range(5):
        assert desk.room.put(frame("filled", n=n))
    desk.leave()
    picky = Picky("picky")
    with core(tmp_path / "journal", picky) as made:
        made.log.warning("starts the worker")
        poll(lambda: not made.worker._recovered)
        poll(lambda: list(read_parked(tmp_path / "journal")))
        [(event, _)] = read_parked(tmp_path / "journal")
    assert [record.context["n"] for record in picky.got if record.log_type is LogType.AUDIT] == [0, 1, 3, 4]
    assert (event.audit_id, event.reason) == (f"{desk.stream}-2", "destination_raised")
    assert event.detail == "ValueError: cannot be 2"
