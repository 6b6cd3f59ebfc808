"""The worker: from the rooms to the destinations, each record once, in order, and counted on both sides."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hft_otel import outbox as outbox_module
from hft_otel.destinations.base import Rejected, RetryLater
from hft_otel.destinations.group import Group, ViaCollector
from hft_otel.interfaces import LogBackend
from hft_otel.lanes.intake import Sizes
from hft_otel.logger import HFTLogger
from hft_otel.record import LogRecord, LogType
from hft_otel.router import LogRouter
from tests.unit.core_support import Blocked, Down, Recorder, core, poll

TEXT, METRIC, AUDIT = LogType.TEXT, LogType.METRIC, LogType.AUDIT


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_FIRST_BACKOFF", 0.002)
    monkeypatch.setattr(outbox_module, "_MAX_BACKOFF", 0.01)


def check_sums(report: Any) -> None:
    for lane in report.lanes:
        assert lane.pending >= 0
        assert lane.emitted == lane.routed + lane.unrouted + sum(lane.dropped.values()) + lane.pending
    for sums in report.destinations:
        assert sums.pending >= 0
        assert sums.accepted == sums.delivered + sum(sums.dropped.values()) + sums.pending


def test_every_call_reaches_every_backend_that_takes_it(tmp_path: Path) -> None:
    everything, only_text = Recorder("everything"), Recorder("only_text", accepts=frozenset({TEXT}))
    with core(tmp_path, everything, only_text) as made:
        made.log.info("t")
        made.log.error("e")
        made.log.metric("m", 1)
        made.log.audit("a")
        assert made.log.force_flush()
        assert sorted(record.log_type for record in everything.got) == [AUDIT, METRIC, TEXT, TEXT]
        assert only_text.messages == ["t", "e"]


def test_text_of_both_rooms_arrives_in_the_order_of_its_time(tmp_path: Path) -> None:
    blocked, recorder = Blocked("blocked"), Recorder("recorder")
    with core(tmp_path, recorder, blocked) as made:
        expected = []
        for number in range(500):
            (made.log.warning if number % 3 else made.log.info)(str(number))
            expected.append(str(number))
        poll(lambda: len(recorder.got) == 500)
        # two rooms are read a slice at a time, so across them the order holds within a slice and in each room always
        for levels in ({20}, {30}):
            found = [record.message for record in recorder.got if record.level in levels]
            assert found == [number for number in expected if (int(number) % 3 == 0) == (levels == {20})]


def test_a_min_level_of_a_backend_holds_without_any_rules(tmp_path: Path) -> None:
    """`HFTLogger(name, backends, router)` as in the plan, with a router that knows nothing of levels."""
    recorder = Recorder(min_level=30)
    with core(tmp_path, recorder) as made:
        made.log.info("no")
        made.log.warning("yes")
        made.log.audit("audit has no level")
        assert made.log.force_flush()
        assert sorted(recorder.messages) == ["audit has no level", "yes"]


class TestADestinationInTrouble:
    def test_that_blocks_leaves_the_caller_and_the_others_alone(self, tmp_path: Path) -> None:
        blocked, fine = Blocked(), Recorder("fine")
        with core(tmp_path, blocked, fine) as made:
            made.log.info("first")
            assert blocked.entered.wait(5)
            slowest = 0.0
            for number in range(6000):
                started = time.perf_counter()
                made.log.info("x", number=number)
                slowest = max(slowest, time.perf_counter() - started)
                if number % 200 == 0:
                    poll(lambda number=number: len(fine.got) > number - 1500)
            poll(lambda: len(fine.got) == 6001)
            assert slowest < 1
            report = made.worker.report()
            check_sums(report)
            assert not made.lane("low", report).dropped
            assert made.sums("fine", report=report).dropped == {}
            dropped = made.sums("blocked", report=report)
            assert dropped.dropped["queue_full"] == dropped.accepted - dropped.pending
            assert 0 < dropped.pending <= 2048

    def test_that_raises_leaves_the_others_alone(self, tmp_path: Path) -> None:
        class Raising(LogBackend):
            async def write(self, record: LogRecord) -> None:
                raise SystemExit("no")

        fine = Recorder("fine")
        with core(tmp_path, Raising(), fine) as made:
            for number in range(300):
                made.log.info(str(number))
            report = made.log.force_flush(5)
            assert not report and report.complete
            assert fine.messages == [str(number) for number in range(300)]
            assert made.sums("Raising").dropped == {"raised": 300}

    def test_that_is_slow_but_makes_progress_leaves_the_others_alone(self, tmp_path: Path) -> None:
        """It may drop its own records; it must not make the rooms full, which would be everybody's loss."""
        turn = threading.Semaphore(0)

        class Slow(Recorder):
            def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
                turn.acquire(timeout=0.05)  # progress is always recent
                return super().deliver(batch)

        slow, fine = Slow("slow", max_batch=1), Recorder("fine")
        with core(tmp_path, slow, fine, sizes=Sizes(segment=16 * 1024, low=16)) as made:
            for number in range(6000):
                made.log.info("x", number=number)
                if number % 50 == 0:
                    time.sleep(0.002)
            poll(lambda: len(fine.got) == 6000, within=20)
            report = made.worker.report()
            assert not made.lane("low", report).dropped
            assert made.sums("slow", report=report).dropped["queue_full"] > 1000
            turn.release(10_000)

    def test_that_was_quiet_gets_its_time_when_a_burst_comes(self, tmp_path: Path) -> None:
        """Its last progress is long ago, but that is no reason to think that it is stuck."""
        blocked = Blocked()
        with core(tmp_path, blocked) as made:
            outbox = made.worker.outboxes[id(blocked)]
            outbox.last_progress = time.monotonic() - 60
            for number in range(2600):
                made.log.info(str(number))
            assert blocked.entered.wait(5)
            poll(lambda: outbox.waiting == outbox.limit)
            blocked.go.set()
            assert made.log.force_flush(5)
            assert blocked.messages == [str(number) for number in range(2600)]

    def test_an_audit_event_is_never_dropped_for_a_full_queue(self, tmp_path: Path) -> None:
        blocked = Blocked(max_batch=100)
        with core(tmp_path, blocked) as made:
            for number in range(3000):
                made.log.info("filler")
                if number % 10 == 0:
                    made.log.audit(str(number))
            poll(lambda: made.sums("blocked").dropped.get("queue_full", 0) > 0, within=20)
            blocked.go.set()
            poll(lambda: made.sums("blocked", AUDIT).delivered == 300)
            assert made.sums("blocked", AUDIT).dropped == {}
            found = [record.message for record in blocked.got if record.log_type is AUDIT]
            assert found == [str(number) for number in range(0, 3000, 10)]


class TestARouterOfTheUsers:
    def test_needs_only_get_backends(self, tmp_path: Path) -> None:
        a, b = Recorder("a"), Recorder("b")

        class Router:
            def get_backends(self, record: LogRecord) -> list[LogBackend]:
                return [a] if record.message == "a" else [a, b]

        with core(tmp_path, a, b, router=Router()) as made:
            for message in ("a", "b", "a"):
                made.log.debug(message)
            made.log.metric("m", 1)
            made.log.audit("b")
            assert made.log.force_flush()
            assert sorted(b.messages) == ["", "b", "b"]
            assert sorted(a.messages) == ["", "a", "a", "b", "b"]

    def test_that_raises_is_counted_and_the_worker_goes_on(self, tmp_path: Path) -> None:
        recorder = Recorder()

        class Router:
            def get_backends(self, record: LogRecord) -> list[LogBackend]:
                if record.message == "bad":
                    raise ValueError
                return [recorder]

        with core(tmp_path, recorder, router=Router()) as made:
            made.log.info("bad")
            made.log.info("good")
            report = made.log.force_flush()
            assert report.complete and not report
            assert recorder.messages == ["good"]
            assert made.lane("low", report).dropped == {"router_failed": 1}

    def test_that_raises_for_an_audit_event_loses_nothing(self, tmp_path: Path) -> None:
        recorder, other = Recorder(), Recorder("other", accepts=frozenset({TEXT}))

        class Router:
            def get_backends(self, record: LogRecord) -> list[LogBackend]:
                raise ValueError

        with core(tmp_path, recorder, other, router=Router()) as made:
            made.log.audit("kept")
            assert made.log.force_flush()
            assert recorder.messages == ["kept"]

    def test_that_names_a_backend_nobody_handed_over_is_counted(self, tmp_path: Path) -> None:
        recorder = Recorder()

        class Router:
            def get_backends(self, record: LogRecord) -> list[LogBackend]:
                return [recorder if record.message == "good" else Recorder("stranger")]

        with core(tmp_path, recorder, router=Router()) as made:
            for _ in range(20):
                made.log.info("bad")
            made.log.info("good")
            report = made.log.force_flush()
            assert made.lane("low", report).dropped == {"router_failed": 20}
            assert recorder.messages == ["good"]
            gc.collect()
            assert sum(type(each) is Recorder and each.name == "stranger" for each in gc.get_objects()) == 0


def test_a_record_for_backends_behind_the_collector_leaves_once_with_their_names(tmp_path: Path) -> None:
    logs = Recorder("otlp logs")
    otlp = Group("otlp", [logs])
    datadog, elastic = (ViaCollector(name, otlp, frozenset(LogType)) for name in ("datadog", "elastic"))
    backends = {"otlp": otlp, "datadog": datadog, "elastic": elastic}
    rules = [{"backends": ["datadog", "elastic"]}, {"min_level": "ERROR", "backends": ["otlp"]}]
    with core(tmp_path, *backends.values(), router=LogRouter(rules, backends)) as made:
        made.log.info("i")
        made.log.error("e")
        made.log.audit("a")
        assert made.log.force_flush()
        assert sorted((record.message, record.via_collector) for record in logs.got) == [
            ("a", ("datadog", "elastic")),
            ("e", ("datadog", "elastic")),
            ("i", ("datadog", "elastic")),
        ]


def test_a_second_logger_shares_the_worker_and_a_name_is_never_used_twice(tmp_path: Path) -> None:
    first, second = Recorder("file"), Recorder("file")
    with core(tmp_path, first) as made:
        other = HFTLogger("other", [second], intake=made.intake)
        made.log.info("one")
        other.info("two")
        other.audit("three")
        report = other.force_flush()
        assert report
        assert first.messages == ["one"] and sorted(second.messages) == ["three", "two"]
        assert [(sums.destination, sums.type) for sums in report.destinations] == [
            ("file", "TEXT"),
            ("file 2", "TEXT"),
            ("file 2", "AUDIT"),
        ]


def test_a_backend_shared_by_two_loggers_has_one_outbox(tmp_path: Path) -> None:
    shared = Recorder()
    with core(tmp_path, shared) as made:
        other = HFTLogger("other", [shared], intake=made.intake)
        made.log.info("one")
        other.info("two")
        assert other.force_flush()
        assert len(made.worker.outboxes) == 1
        assert shared.messages == ["one", "two"]


def test_a_full_room_is_counted_and_read_on_as_soon_as_there_is_space(tmp_path: Path) -> None:
    recorder = Recorder()
    with core(tmp_path, recorder, sizes=Sizes(segment=4096, low=2, high=2, metric=2)) as made:
        with made.worker._lock:  # the worker stands still
            for number in range(1000):
                made.log.info(str(number))
        report = made.log.force_flush()
        dropped = made.lane("low", report).dropped["room_full"]
        assert 0 < dropped < 1000
        assert recorder.messages == [str(number) for number in range(1000 - dropped)]
        assert made.lane("low", report).emitted == 1000


def test_rooms_do_not_displace_each_other(tmp_path: Path) -> None:
    recorder = Recorder()
    with core(tmp_path, recorder, sizes=Sizes(segment=4096, low=2, high=2, metric=2)) as made:
        with made.worker._lock:
            for _ in range(1000):
                made.log.info("flood")
            made.log.warning("w")
            made.log.metric("m", 1)
            made.log.audit("a")
        report = made.log.force_flush()
        assert [lane.lane for lane in report.lanes if lane.dropped] == ["low"]
        assert {"w", "a"} < set(recorder.messages)


def test_the_worker_outlives_a_bug_of_ours_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    with core(tmp_path, recorder) as made:
        turn = made.worker._turn

        def failing() -> Any:
            monkeypatch.setattr(made.worker, "_turn", turn)
            raise RuntimeError("bug")

        monkeypatch.setattr(made.worker, "_turn", failing)
        poll(lambda: made.worker.problem == "RuntimeError: bug")
        made.log.info("after")
        assert made.log.force_flush()
        assert recorder.messages == ["after"]


class TestStop:
    def test_delivers_and_closes_everything_and_leaves_no_file(self, tmp_path: Path) -> None:
        recorder = Recorder()
        with core(tmp_path, recorder) as made:
            for number in range(3000):
                made.log.info(str(number))
            made.log.audit("a")
            report = made.stop(5)
            assert report.complete and not report.pending
            assert len(recorder.got) == 3001
            assert recorder.closed_with is not None
            assert list(tmp_path.iterdir()) == []
            assert not made.worker._thread.is_alive()

    def test_ends_in_time_with_a_blocked_destination_and_says_what_is_left(self, tmp_path: Path) -> None:
        blocked, fine = Blocked(), Recorder("fine")
        with core(tmp_path, blocked, fine) as made:
            made.log.info("t")
            made.log.audit("a")
            assert blocked.entered.wait(5)
            started = time.monotonic()
            report = made.stop(0.5)
            assert time.monotonic() - started < 1
            assert not report.complete
            left = made.sums("blocked", report=report).pending + made.sums("blocked", AUDIT, report).pending
            assert left == 2
            assert (
                made.sums("fine", report=report).delivered == made.sums("fine", AUDIT, report).delivered == 1
            )
            assert fine.closed_with is not None
            assert len(list(tmp_path.iterdir())) == 1  # the audit event stays for the next start

    def test_ends_while_other_threads_go_on_logging(self, tmp_path: Path) -> None:
        recorder = Recorder()
        done = threading.Event()
        with core(tmp_path, recorder) as made:

            def flood() -> None:
                while not done.wait(0.0002):
                    made.log.info("x")

            threads = [threading.Thread(target=flood) for _ in range(2)]
            for thread in threads:
                thread.start()
            poll(lambda: recorder.got)
            started = time.monotonic()
            report = made.stop(3)
            took = time.monotonic() - started
            done.set()
            for thread in threads:
                thread.join()
            assert took < 2.9
            assert report.complete
            assert not made.sums("recorder", report=report).dropped
            check_sums(made.worker.report())
            assert made.lane("low").dropped["after_shutdown"] > 0
            assert made.sums("recorder").delivered == made.lane("low").routed

    def test_later_calls_are_counted_and_a_later_flush_does_not_wait(self, tmp_path: Path) -> None:
        recorder = Recorder()
        with core(tmp_path, recorder) as made:
            made.log.info("t")
            assert made.log.force_flush()
            made.stop()
            assert made.log.force_flush(30)  # nothing was lost, nothing waits
            made.log.info("late")
            made.log.audit("late")
            started = time.monotonic()
            report = made.log.force_flush(30)
            assert time.monotonic() - started < 5
            assert not report
            assert made.lane("low", report).dropped == {"after_shutdown": 1}
            assert not made.lane("audit", report).dropped  # it waits for the next start


def test_the_counters_can_be_read_as_metrics_while_it_runs(tmp_path: Path) -> None:
    recorder = Recorder()
    with core(tmp_path, recorder) as made:
        made.log.info("t")
        assert made.log.force_flush()
        assert recorder.telemetry is not None
        seen = {(name, *sorted(where.values())): value for name, value, where in recorder.telemetry()}
        assert seen["telemetry.delivered", "TEXT", "recorder"] == 1
        assert seen["telemetry.emitted", "TEXT", "low"] == 1


RULES: list[dict[str, Any]] = [
    {"log_types": ["TEXT"], "backends": ["a"]},
    {"min_level": "WARNING", "backends": ["b"]},
    {"log_types": ["METRIC"], "backends": ["b"]},
    {"log_types": ["AUDIT"], "backends": ["a", "b"]},
    {"loggers": ["core"], "min_level": "ERROR", "backends": ["a"], "final": True},
]
CALLS = st.lists(st.sampled_from(["debug", "info", "warning", "error", "metric", "audit"]), max_size=60)
BEHAVIOURS = st.lists(st.sampled_from(["ok", "ok", "retry", "reject", "raise", "partial"]), max_size=12)


class Moody(Recorder):
    """Behaves as the script says, then well; keeps what it counts as delivered."""

    def __init__(self, name: str, moods: list[str], max_batch: int) -> None:
        super().__init__(name, max_batch=max_batch)
        self.moods = moods

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        mood = self.moods.pop() if self.moods else "ok"
        if mood == "raise":
            raise ValueError(mood)
        if mood == "retry":
            raise RetryLater("busy", after=0)
        if mood == "partial":
            self.got.append(batch[0])
            raise RetryLater("busy", delivered=1, after=0)
        if mood == "reject":
            self.got += batch[1:]
            return [Rejected(batch[0], "rejected")]
        return super().deliver(batch)


@settings(
    max_examples=settings.default.max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    CALLS,
    st.lists(st.sampled_from(range(len(RULES))), unique=True),
    BEHAVIOURS,
    BEHAVIOURS,
    st.integers(1, 5),
)
def test_both_sums_hold_at_any_time_and_everything_ends_somewhere(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[str],
    chosen: list[int],
    moods_a: list[str],
    moods_b: list[str],
    max_batch: int,
) -> None:
    a, b = Moody("a", moods_a, max_batch), Moody("b", moods_b, 3)
    router = LogRouter([RULES[number] for number in sorted(chosen)], {"a": a, "b": b})
    with core(tmp_path_factory.mktemp("journal"), a, b, router=router) as made:
        for number, call in enumerate(calls):
            if call == "metric":
                made.log.metric(str(number), number)
            else:
                getattr(made.log, call)(str(number))
            if number % 10 == 0:
                check_sums(made.worker.report())
        report = made.log.force_flush(10)
        check_sums(report)
        assert report.complete and report.pending == 0
        sent = [record for each in (a, b) for record in each.got]
        for destination in (a, b):
            for kind in LogType:
                numbers = [
                    int(record.message or record.metric_name)
                    for record in destination.got
                    if record.log_type is kind
                ]
                assert len(numbers) == len(set(numbers)), "nothing comes twice"
                for low in (False, True):  # text of the two rooms has an order of its own
                    part = [number for number in numbers if (calls[number] in ("debug", "info")) == low]
                    assert part == sorted(part)
                sums = made.sums(destination.name, kind, report)
                assert sums.delivered == len(numbers)
        assert report.delivered == len(sent)
        levels = {"debug": 10, "info": 20, "warning": 30, "error": 40}
        captured = [
            call
            for call in calls
            if call == "audit"
            or (call == "metric" and not made.log._metrics_off)
            or made.log.isEnabledFor(levels.get(call, 0))
        ]
        assert report.emitted == len(captured)


def test_a_destination_that_is_down_for_a_while_gets_all_of_it_in_order(tmp_path: Path) -> None:
    down = Down()
    with core(tmp_path, down) as made:
        for number in range(500):
            made.log.info(str(number))
        poll(lambda: down.tries > 3)
        assert not made.log.force_flush(0.05)
        down.up = True
        assert made.log.force_flush(5)
        assert down.messages == [str(number) for number in range(500)]
