"""The SDK's router and a real Collector give one answer: for random rules and records, each backend gets the same.

Many rule sets share one Collector: each has a copy of the pipelines that the compiler makes for it, behind a filter for
the records that are its own. What a pipeline lets through is marked with its backend, and written to one file.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from hft_otel import LogType
from tests.real.otlp_requests import post
from tests.real.routing_cases import RECORDS, Case, random_case
from tests.real.routing_collector import merged, requests
from tests.real.running import Collector
from tests.real.seeds import drawn_seed

RULE_SETS = 20
STARTS = 3  # more rule sets in one Collector make its start long on a busy machine

Arrival = tuple[str, int, int, bool, str]
"""Signal, rule set, place of the record, marked, backend."""


@pytest.mark.slow
@pytest.mark.parametrize("start", range(STARTS))
def test_router_and_collector_agree_for_random_rules_and_records(
    start: int, collector: Callable[..., Collector]
) -> None:
    seed = drawn_seed()
    cases = [
        random_case(number, random.Random(f"rules {seed} {start} {number}")) for number in range(RULE_SETS)
    ]
    otel = collector(merged(cases))
    for case in cases:
        for marked in (True, False):
            for signal, request in requests(case, marked=marked):
                post(otel.endpoint, signal, request)
    otel.stop()

    arrived = Counter(_arrivals(otel))
    expected = Counter(arrival for case in cases for arrival in _expected(case))
    missing, surplus = expected - arrived, arrived - expected
    assert not missing, _described(missing, cases)
    assert not surplus, _described(surplus, cases)
    assert len(expected) > RULE_SETS * RECORDS / 2  # the rules do send something
    for item in (*otel.logs(), *otel.metrics(), *otel.spans()):
        assert "hft.backends" not in str(item)
        assert "hft.audit" not in item["attributes"]


def _arrivals(otel: Collector) -> Iterator[Arrival]:
    for signal, items in (("logs", otel.logs()), ("metrics", otel.metrics()), ("traces", otel.spans())):
        for item in items:
            attributes = item["attributes"]
            number = int(item["resource"]["set"])
            yield signal, number, attributes["place"], attributes["marked"], attributes["to"]


def _expected(case: Case) -> Iterator[Arrival]:
    carries = {
        "logs": {"file", "file-2", "elasticsearch", "datadog", "tempo"},
        "metrics": {"prometheus", "datadog", "tempo"},
        "traces": {"datadog", "jaeger", "tempo"},
    }
    signals = {LogType.TEXT: ("logs",), LogType.AUDIT: ("logs", "traces"), LogType.METRIC: ("metrics",)}
    for place, record in enumerate(case.records):
        for signal in signals[record.log_type]:
            for name in case.behind(place):
                if name in carries[signal]:
                    yield signal, case.number, place, True, name
                    yield signal, case.number, place, False, name


def _described(arrivals: Counter[Arrival], cases: list[Case]) -> str:
    (signal, number, place, marked, backend), times = next(iter(arrivals.items()))
    case = cases[number]
    return (
        f"{len(arrivals)}; the first: {signal} of set {number}, marked {marked}, backend {backend}, {times} times\n"
        f"{case.records[place]}\nrouter: {case.answers[place]}\nrules: {case.config.routing_rules}\n"
        f"backends: {case.config.backends}"
    )
