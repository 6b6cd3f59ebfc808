"""The two sums: what they say, and that they add up at any time."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from hft_otel.ledger import SELF_METRICS, DestinationSums, FlushReport, LaneSums, Tallies, observations
from hft_otel.record import LogType

COUNTS = st.integers(0, 10**6)
REASONS = st.dictionaries(st.sampled_from(["room_full", "queue_full", "shutdown"]), st.integers(1, 99))


@given(COUNTS, COUNTS, REASONS, COUNTS)
def test_emitted_is_routed_unrouted_dropped_and_pending(
    routed: int, unrouted: int, dropped: dict[str, int], pending: int
) -> None:
    sums = LaneSums("low", "TEXT", routed, unrouted, dropped, pending)
    assert sums.emitted == routed + unrouted + sum(dropped.values()) + pending


@given(COUNTS, REASONS, COUNTS)
def test_accepted_is_delivered_dropped_and_pending(
    delivered: int, dropped: dict[str, int], rest: int
) -> None:
    sums = DestinationSums("file", "TEXT", delivered + sum(dropped.values()) + rest, delivered, dropped)
    assert sums.accepted == sums.delivered + sum(sums.dropped.values()) + sums.pending
    assert sums.pending == rest


class TestTallies:
    def test_sums_come_per_type_with_both_kinds_of_drops(self) -> None:
        tallies = Tallies()
        tallies.accepted.update({LogType.TEXT: 6, LogType.AUDIT: 1})
        tallies.refused[LogType.TEXT, "queue_full"] += 1
        tallies.drop(LogType.TEXT, "http_400")
        tallies.decline(LogType.TEXT)
        tallies.deliver(LogType.TEXT, 2)
        assert list(tallies.sums("file")) == [
            DestinationSums("file", "TEXT", 5, 2, {"http_400": 1, "queue_full": 1}),
            DestinationSums("file", "AUDIT", 1, 0, {}),
        ]

    def test_expected_is_what_settled_comes_to(self) -> None:
        tallies = Tallies()
        tallies.accepted.update({LogType.TEXT: 6, LogType.METRIC: 2})
        tallies.refused[LogType.TEXT, "queue_full"] += 2
        tallies.drop(LogType.TEXT, "x")
        tallies.decline(LogType.TEXT)
        tallies.deliver(LogType.TEXT, 2)
        tallies.deliver(LogType.METRIC, 2)
        assert tallies.expected() == dict(tallies.settled) == {LogType.TEXT: 4, LogType.METRIC: 2}

    def test_pending_is_never_negative_while_other_threads_count(self) -> None:
        tallies = Tallies()
        done = threading.Event()

        def count() -> None:
            while not done.is_set():
                for log_type in LogType:
                    tallies.accepted[log_type] += 4
                    tallies.refused[log_type, "queue_full"] += 1
                    tallies.deliver(log_type)
                    tallies.drop(log_type, "raised")
                    tallies.decline(log_type)

        thread = threading.Thread(target=count)
        thread.start()
        try:
            for _ in range(2000):
                for sums in tallies.sums("x"):
                    assert sums.pending >= 0
        finally:
            done.set()
            thread.join()
        assert all(sums.pending == 0 for sums in tallies.sums("x"))


def report(complete: bool = True, newly_dropped: int = 0) -> FlushReport:
    lanes = [LaneSums("low", "TEXT", 5, 1, {"room_full": 2}, 1)]
    destinations = [
        DestinationSums("file", "TEXT", 5, 3, {"disk_full": 1}),
        DestinationSums("prometheus", "METRIC", 2, 2, exports_succeeded=3, exports_failed=1),
    ]
    return FlushReport(lanes, destinations, complete, newly_dropped)


class TestFlushReport:
    def test_is_true_only_when_complete_and_nothing_was_lost_since_the_last(self) -> None:
        assert report()
        assert not report(complete=False)
        assert not report(newly_dropped=1)

    def test_adds_up_over_lanes_and_destinations(self) -> None:
        made = report()
        assert (made.emitted, made.delivered, made.dropped, made.pending) == (9, 5, 3, 2)

    def test_of_nothing_is_true(self) -> None:
        nothing = FlushReport.nothing()
        assert nothing
        assert nothing.emitted == nothing.pending == nothing.dropped == 0
        assert str(nothing) == "delivered"

    def test_text_states_both_sums_and_the_reasons(self) -> None:
        assert str(report(complete=False)).splitlines() == [
            "NOT ALL DELIVERED",
            "low TEXT: emitted 9 = routed 5 + unrouted 1 + dropped 2 (room_full 2) + pending 1",
            "file TEXT: accepted 5 = delivered 3 + dropped 1 (disk_full 1) + pending 1",
            "prometheus METRIC: accepted 2 = delivered 2 + dropped 0 + pending 0",
        ]
        assert str(report()).startswith("delivered\n")


def test_every_observation_belongs_to_a_declared_metric_and_the_sums_can_be_read_from_them() -> None:
    seen = list(observations(report()))
    assert {name for name, _, _ in seen} <= {metric.name for metric in SELF_METRICS}
    keyed = {(name, frozenset(where.items())): value for name, value, where in seen}
    assert len(keyed) == len(seen)

    def value(name: str, **where: str) -> float:
        return keyed[name, frozenset(where.items())]

    assert value("telemetry.emitted", lane="low", type="TEXT") == 9
    assert value("telemetry.unrouted", lane="low", type="TEXT") == 1
    assert value("telemetry.dropped", place="low", type="TEXT", reason="room_full") == 2
    assert value("telemetry.dropped", place="file", type="TEXT", reason="disk_full") == 1
    assert value("telemetry.pending", place="file", type="TEXT") == 1
    assert value("telemetry.accepted", destination="file", type="TEXT") == 5
    assert value("telemetry.exports", destination="prometheus", outcome="failed") == 1
    assert ("telemetry.exports", frozenset({"destination": "file", "outcome": "failed"}.items())) not in keyed


def test_what_is_declared_a_counter_never_goes_down() -> None:
    tallies = Tallies()

    def counters() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        kinds = {metric.name: metric.kind for metric in SELF_METRICS}
        now = observations(FlushReport([], list(tallies.sums("file")), complete=True))
        return {
            (name, frozenset(where.items())): value for name, value, where in now if kinds[name] == "counter"
        }

    tallies.accepted[LogType.TEXT] += 3
    before = counters()
    for settle in (tallies.decline, tallies.deliver, lambda log_type: tallies.drop(log_type, "raised")):
        settle(LogType.TEXT)
        after = counters()
        assert all(after[key] >= value for key, value in before.items())
        before = after
