"""The outbox: order, retries, bisection, and what becomes of every record."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hft_otel import outbox as module
from hft_otel.destinations.base import Destination, Rejected, RetryLater
from hft_otel.outbox import FlushTicket, Outbox
from hft_otel.record import LogRecord, LogType
from tests.unit.core_support import Blocked, Down, Recorder, audit, metric, poll, text

TEXT, METRIC, AUDIT = LogType.TEXT, LogType.METRIC, LogType.AUDIT


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_BACKOFF", 0.002)
    monkeypatch.setattr(module, "_MAX_BACKOFF", 0.02)
    monkeypatch.setattr(module, "_TICK", 0.01)


@contextmanager
def running(destination: Destination, limit: int = 2048) -> Iterator[Outbox]:
    outbox = Outbox(destination, limit)
    outbox.start()
    try:
        yield outbox
    finally:
        if isinstance(destination, Blocked):
            destination.go.set()
        outbox.close(time.monotonic() + 0.2)
        assert outbox.closed.wait(10)


def send(outbox: Outbox, *records: LogRecord) -> None:
    """What the worker does: count, then queue."""
    for record in records:
        outbox.tallies.accepted[record.log_type] += 1
    assert outbox.offer(records) == len(records)


def ticket_for(outbox: Outbox, timeout: float = 5.0) -> FlushTicket:
    ticket = FlushTicket(time.monotonic() + timeout)
    ticket.waiting = {outbox: outbox.tallies.expected()}
    ticket.started = True
    outbox.flush(ticket)
    return ticket


def test_records_leave_in_the_order_in_which_they_came() -> None:
    recorder = Recorder(max_batch=3)
    with running(recorder) as outbox:
        send(outbox, *map(text, range(10)))
        poll(lambda: len(recorder.got) == 10)
    assert recorder.messages == [str(number) for number in range(10)]
    assert outbox.tallies.delivered == {TEXT: 10}


def test_a_batch_never_exceeds_max_batch() -> None:
    sizes: list[int] = []

    class Measuring(Recorder):
        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            sizes.append(len(batch))
            return super().deliver(batch)

    recorder = Measuring(max_batch=4)
    with running(recorder) as outbox:
        send(outbox, *map(text, range(11)))
        poll(lambda: len(recorder.got) == 11)
    assert max(sizes) == 4


def test_a_full_queue_takes_only_what_fits() -> None:
    blocked = Blocked(max_batch=1)
    with running(blocked, limit=3) as outbox:
        assert outbox.offer([text(number) for number in range(5)]) == 3
        assert outbox.space == 0
        assert outbox.offer([text(9)]) == 0


def test_retry_later_never_redelivers_the_prefix() -> None:
    class Prefix(Recorder):
        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            self.got += batch[:2]
            if len(batch) > 2:
                raise RetryLater("busy", delivered=2)
            return ()

    recorder = Prefix()
    with running(recorder) as outbox:
        send(outbox, *map(text, range(7)))
        poll(lambda: outbox.tallies.delivered[TEXT] == 7)
    assert recorder.messages == [str(number) for number in range(7)]


@pytest.mark.parametrize("delivered", [-3, 0, 99])
def test_a_count_of_delivered_records_that_makes_no_sense_keeps_the_sums_right(delivered: int) -> None:
    class Odd(Recorder):
        asked = False

        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            if not self.asked:
                self.asked = True
                raise RetryLater("busy", delivered=delivered)
            return super().deliver(batch)

    with running(Odd()) as outbox:
        send(outbox, text(), text())
        poll(lambda: outbox.tallies.delivered[TEXT] == 2)
        assert outbox.waiting == 0


def test_bisection_finds_the_one_record_that_raises() -> None:
    class Picky(Recorder):
        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            if any(record.message == "5" for record in batch):
                raise ValueError("five")
            return super().deliver(batch)

    recorder = Picky()
    with running(recorder) as outbox:
        send(outbox, *map(text, range(16)))
        poll(lambda: outbox.tallies.settled[TEXT] == 16)
    assert recorder.messages == [str(number) for number in range(16) if number != 5]
    assert outbox.tallies.dropped == {(TEXT, "destination_raised"): 1}


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("x")])
def test_nothing_that_a_destination_raises_ends_its_thread(error: BaseException) -> None:
    class Raising(Recorder):
        angry = True

        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            if self.angry:
                self.angry = False
                raise error
            return super().deliver(batch)

        def idle(self) -> None:
            raise error

        def force_flush(self, timeout: float) -> bool:
            raise error

        def close(self, timeout: float) -> None:
            raise error

    recorder = Raising()
    with running(recorder) as outbox:
        send(outbox, text(1))
        poll(lambda: outbox.tallies.dropped[TEXT, "destination_raised"] == 1)
        send(outbox, text(2))
        poll(lambda: recorder.messages == ["2"])
        ticket = ticket_for(outbox)
        poll(lambda: ticket.done)
        assert not ticket.pushed


def test_an_error_without_a_usable_str_is_still_a_problem_with_a_name() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise ValueError

    class Raising(Recorder):
        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            raise BrokenError

    with running(Raising()) as outbox:
        send(outbox, text())
        poll(lambda: outbox.problem == "BrokenError")


def test_a_deliver_that_forgets_to_return_has_delivered_once() -> None:
    class Forgetful(Recorder):
        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            self.got += batch
            return None  # type: ignore[return-value]  # on purpose

    recorder = Forgetful()
    with running(recorder) as outbox:
        send(outbox, *map(text, range(4)))
        poll(lambda: outbox.tallies.delivered[TEXT] == 4)
    assert len(recorder.got) == 4


def test_rejected_records_count_with_their_reason() -> None:
    class Rejecting(Recorder):
        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            return [Rejected(record, "too_long") for record in batch if record.log_type is METRIC]

    with running(Rejecting()) as outbox:
        send(outbox, text(), metric(), audit())
        poll(lambda: sum(outbox.tallies.settled.values()) == 3)
    assert outbox.tallies.delivered == {TEXT: 1, AUDIT: 1}
    assert outbox.tallies.dropped == {(METRIC, "too_long"): 1}


def test_text_and_metrics_are_given_up_after_retry_for_and_audit_never_is() -> None:
    down = Down(retry_for=0.02)
    with running(down) as outbox:
        send(outbox, text(1), audit(2), metric(3), audit(4))
        poll(lambda: outbox.tallies.dropped == {(TEXT, "unavailable"): 1, (METRIC, "unavailable"): 1})
        tries = down.tries
        poll(lambda: down.tries > tries + 3)
        assert outbox.waiting == 2
        down.up = True
        poll(lambda: outbox.tallies.delivered == {AUDIT: 2})
    assert down.messages == ["2", "4"]


def test_a_problem_is_known_while_it_lasts() -> None:
    down = Down()
    with running(down) as outbox:
        send(outbox, text())
        poll(lambda: outbox.problem == "nobody is there")
        down.up = True
        poll(lambda: outbox.problem == "")


def test_the_wait_between_tries_grows_and_is_never_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 1.0)
    waits: list[float] = []
    outbox = Outbox(Down())
    monkeypatch.setattr(outbox._closing, "wait", lambda seconds: waits.append(seconds) or time.sleep(seconds))
    for _ in range(6):
        outbox._pause(None)
    assert outbox._backoff == module._MAX_BACKOFF
    assert waits[0] <= module._FIRST_BACKOFF
    assert max(waits) > 4 * module._FIRST_BACKOFF


def test_open_is_tried_again_less_and_less_often_and_nothing_is_lost_meanwhile() -> None:
    class Locked(Recorder):
        opens = 0

        def open(self) -> None:
            self.opens += 1
            if self.opens < 5:
                raise PermissionError("no")

    recorder = Locked()
    with running(recorder) as outbox:
        poll(lambda: "PermissionError: no" in outbox.problem)
        send(outbox, text(1))
        poll(lambda: recorder.messages == ["1"])
    assert recorder.opens == 5


def test_a_destination_that_never_opened_is_not_closed() -> None:
    class Locked(Recorder):
        def open(self) -> None:
            raise RetryLater("locked", after=0.002)

    recorder = Locked()
    with running(recorder) as outbox:
        send(outbox, text(), audit())
        poll(lambda: outbox.problem == "locked")
    assert recorder.closed_with is None
    assert outbox.tallies.dropped == {(TEXT, "shutdown"): 1}


def test_should_handle_of_the_destination_declines_or_drops() -> None:
    class Choosy(Recorder):
        def should_handle(self, record: LogRecord) -> bool:
            if record.message == "3":
                raise SystemExit
            return record.message != "1"

    recorder = Choosy()
    with running(recorder) as outbox:
        send(outbox, *map(text, range(5)))
        poll(lambda: outbox.tallies.settled[TEXT] == 5)
    assert recorder.messages == ["0", "2", "4"]
    assert outbox.tallies.declined == {TEXT: 1}
    assert outbox.tallies.dropped == {(TEXT, "should_handle_raised"): 1}
    [sums] = outbox.tallies.sums("choosy")
    assert (sums.accepted, sums.delivered, sums.pending) == (4, 3, 0)


@pytest.mark.parametrize("out_of_time", [False, True])
def test_a_declined_audit_event_is_not_settled_before_one_that_is_being_retried(out_of_time: bool) -> None:
    """Else the journal would let go of the first, and a kill would lose it."""

    class Choosy(Down):
        def should_handle(self, record: LogRecord) -> bool:
            return record.message != "2"

    down = Choosy()
    with running(down) as outbox:
        send(outbox, audit(1), audit(2), text(2))
        poll(lambda: down.tries > 2)
        assert outbox.tallies.settled[AUDIT] == 0
        if not out_of_time:
            down.up = True
            poll(lambda: outbox.tallies.settled[AUDIT] == 2)
    assert outbox.tallies.settled[AUDIT] == (0 if out_of_time else 2)
    assert outbox.tallies.declined[TEXT] == 1


def test_closing_delivers_what_is_queued_and_then_closes_the_destination() -> None:
    blocked = Blocked()
    outbox = Outbox(blocked)
    outbox.start()
    send(outbox, text(1))
    assert blocked.entered.wait(5)
    send(outbox, text(2), text(3))
    outbox.close(time.monotonic() + 10)
    blocked.go.set()
    assert outbox.closed.wait(5)
    assert blocked.messages == ["1", "2", "3"]
    assert blocked.closed_with is not None and blocked.closed_with > 5


def test_what_is_left_at_the_deadline_is_dropped_as_shutdown_but_audit_stays_pending() -> None:
    down = Down()
    with running(down) as outbox:
        send(outbox, text(), metric(), audit())
        poll(lambda: down.tries)
        started = time.monotonic()
        outbox.close(started + 0.1)
        assert outbox.closed.wait(5)
        assert time.monotonic() - started < 1
    assert outbox.tallies.dropped == {(TEXT, "shutdown"): 1, (METRIC, "shutdown"): 1}
    assert {sums.type: sums.pending for sums in outbox.tallies.sums("down")} == {TEXT: 0, METRIC: 0, AUDIT: 1}


def test_periodic_work_goes_on_while_a_batch_is_retried() -> None:
    class Periodic(Down):
        idles = 0

        def idle(self) -> None:
            self.idles += 1

        def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
            self.tries += 1
            raise RetryLater("down", after=30)

    down = Periodic()
    with running(down) as outbox:
        send(outbox, text())
        poll(lambda: down.tries == 1)
        idles = down.idles
        poll(lambda: down.idles > idles + 2)
        assert down.tries == 1


def test_linger_waits_for_a_fuller_batch_but_not_when_somebody_flushes() -> None:
    recorder = Recorder(linger=20.0)
    with running(recorder) as outbox:
        poll(lambda: outbox._opened)
        ticket = ticket_for(outbox)
        poll(lambda: ticket.done)
        blocked_until = threading.Event()
        recorder.idle = blocked_until.wait  # type: ignore[method-assign]  # holds the thread until both are queued
        ticket = ticket_for(outbox)
        send(outbox, text())
        ticket_2 = ticket_for(outbox)
        blocked_until.set()
        poll(lambda: ticket_2.done, within=5)
        assert recorder.messages == ["0"]


class TestFlush:
    def test_is_answered_when_all_that_was_accepted_is_settled(self) -> None:
        blocked = Blocked()
        with running(blocked) as outbox:
            send(outbox, text())
            assert blocked.entered.wait(5)
            ticket = ticket_for(outbox)
            assert not ticket.done
            blocked.go.set()
            poll(lambda: ticket.done)
            assert ticket.pushed

    def test_is_not_answered_early_because_later_records_were_refused(self) -> None:
        blocked = Blocked(max_batch=2)
        with running(blocked, limit=2) as outbox:
            send(outbox, text(1), text(2))
            assert blocked.entered.wait(5)
            ticket = ticket_for(outbox)
            for _ in range(5):  # what the worker does with what does not fit
                outbox.tallies.accepted[TEXT] += 1
                outbox.tallies.refused[TEXT, "queue_full"] += 1
            second = ticket_for(outbox)
            poll(lambda: outbox._tickets == [ticket, second])
            assert not blocked.go.wait(0.05)
            assert not ticket.done and not second.done
            blocked.go.set()
            poll(lambda: ticket.done and second.done)
            assert blocked.messages == ["1", "2"]

    def test_is_answered_false_when_its_time_is_up(self) -> None:
        down = Down()
        with running(down) as outbox:
            send(outbox, text())
            ticket = ticket_for(outbox, 0.02)
            poll(lambda: outbox._tickets == [])
            assert not ticket.done

    def test_that_comes_during_a_retry_is_answered_after_it(self) -> None:
        down = Down()
        with running(down) as outbox:
            send(outbox, text())
            poll(lambda: down.tries > 1)
            tickets = [ticket_for(outbox) for _ in range(20)]
            down.up = True
            poll(lambda: all(ticket.done for ticket in tickets))
            assert all(ticket.pushed for ticket in tickets)

    def test_reports_what_the_destination_could_not_push(self) -> None:
        recorder = Recorder()
        recorder.force_flush = lambda timeout: False  # type: ignore[method-assign]
        with running(recorder) as outbox:
            send(outbox, text())
            ticket = ticket_for(outbox)
            poll(lambda: ticket.done)
            assert not ticket.pushed

    def test_gives_the_destination_what_is_left_of_its_time(self) -> None:
        given: list[float] = []
        recorder = Recorder()
        recorder.force_flush = lambda timeout: given.append(timeout) is None  # type: ignore[method-assign]
        with running(recorder) as outbox:
            ticket = ticket_for(outbox, 3.0)
            poll(lambda: ticket.done)
        assert 0 < given[0] <= 3.0


def test_work_after_a_quiet_time_gets_the_whole_patience() -> None:
    blocked = Blocked()
    with running(blocked) as outbox:
        outbox.last_progress = time.monotonic() - 60
        send(outbox, text())
        assert time.monotonic() - outbox.last_progress < 30
        outbox.last_progress = 1.0
        send(outbox, text())  # more of the same is no progress
        assert outbox.last_progress == 1.0


FATES = st.sampled_from(["ok", "ok", "ok", "poison", "reject", "decline", "retry", "raise_in_filter"])
KINDS = st.sampled_from([text, metric, audit])


class Scripted(Recorder):
    """Does with each record what its fate says."""

    def __init__(self, fates: Sequence[str], max_batch: int) -> None:
        super().__init__("scripted", max_batch=max_batch)
        self.fates = fates
        self.retries = {number for number, fate in enumerate(fates) if fate == "retry"}

    def fate(self, record: LogRecord) -> str:
        return self.fates[int(record.message)]

    def should_handle(self, record: LogRecord) -> bool:
        if self.fate(record) == "raise_in_filter":
            raise ValueError
        return self.fate(record) != "decline"

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        fates = list(map(self.fate, batch))
        if "poison" in fates:
            raise ValueError("poison")
        for place, record in enumerate(batch):
            if int(record.message) in self.retries:
                self.retries.remove(int(record.message))
                done = min(place, fates.index("reject")) if "reject" in fates else place
                self.got += batch[:done]
                raise RetryLater("again", delivered=done, after=0)
        self.got += [record for record in batch if self.fate(record) != "reject"]
        return [Rejected(record, "no") for record in batch if self.fate(record) == "reject"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(KINDS, FATES), max_size=40), st.integers(1, 9), st.integers(1, 12))
def test_whatever_a_destination_does_the_sums_add_up_and_nothing_comes_twice(
    stream: list[tuple[object, str]], max_batch: int, chunk: int
) -> None:
    records = [make(number) for number, (make, _) in enumerate(stream)]  # type: ignore[operator]
    destination = Scripted([fate for _, fate in stream], max_batch)
    with running(destination) as outbox:
        for start in range(0, len(records), chunk):
            send(outbox, *records[start : start + chunk])
            assert all(sums.pending >= 0 for sums in outbox.tallies.sums("scripted"))
        ticket = ticket_for(outbox)
        poll(lambda: ticket.done)
    fates = Counter((record.log_type, fate) for record, (_, fate) in zip(records, stream, strict=True))
    kept = [record for record, (_, fate) in zip(records, stream, strict=True) if fate in ("ok", "retry")]
    assert destination.messages == [record.message for record in kept]
    for sums in outbox.tallies.sums("scripted"):
        kind = LogType(sums.type)
        assert sums.pending == 0
        assert sums.delivered == fates[kind, "ok"] + fates[kind, "retry"]
        assert sums.dropped == {
            reason: fates[kind, fate]
            for fate, reason in (
                ("poison", "destination_raised"),
                ("reject", "no"),
                ("raise_in_filter", "should_handle_raised"),
            )
            if fates[kind, fate]
        }
        assert outbox.tallies.declined[kind] == fates[kind, "decline"]
