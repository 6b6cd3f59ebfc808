"""The example's measuring proxy."""

from __future__ import annotations

import asyncio
import inspect
import statistics
from time import sleep

import pytest

from examples.trading_system.measured_logger import (
    KINDS,
    CallStats,
    MeasuredLogger,
    Reservoir,
    clock_ns,
    percentile,
)
from hft_otel import HFTLoggerInterface
from tests.unit.test_examples_support import Call, RecordingLogger


def measured() -> tuple[MeasuredLogger, RecordingLogger]:
    wrapped = RecordingLogger()
    return MeasuredLogger(wrapped, CallStats()), wrapped


@pytest.mark.parametrize(
    ("method", "kind", "args"),
    [
        ("debug", "DEBUG", ("m %s", 1)),
        ("info", "INFO", ("m",)),
        ("warning", "WARNING", ("m",)),
        ("error", "ERROR", ("m",)),
        ("exception", "ERROR", ("m",)),
        ("critical", "CRITICAL", ("m",)),
        ("log", "DEBUG", (5, "m")),
        ("log", "WARNING", (35, "m")),
        ("metric", "METRIC", ("m", 1.5)),
        ("counter", "COUNTER", ("m",)),
        ("latency", "LATENCY", ("m", 1.5)),
        ("audit", "AUDIT", ("m",)),
    ],
)
def test_call_is_passed_on_unchanged_and_counted(method: str, kind: str, args: tuple[object, ...]) -> None:
    logger, wrapped = measured()
    keywords = {"self": 1, "name": 2, "msg": 3, "level": 4, "tags": {"a": "b"}}
    getattr(logger, method)(*args, **keywords)
    assert wrapped.calls == [Call(method, args, keywords, keywords)]
    assert {name: count for name, count in logger.stats.counts.items() if count} == {kind: 1}
    assert logger.stats.total == 1


def test_children_count_into_the_same_statistics() -> None:
    logger, wrapped = measured()
    child = logger.bind(exchange="x")
    child.info("one")
    child.bind(symbol="y").info("two")
    assert logger.stats.counts["INFO"] == 2
    assert wrapped.calls[1].context == {"exchange": "x", "symbol": "y"}
    assert logger.context == {}


def test_scope_context_and_flush_are_those_of_the_wrapped_logger() -> None:
    logger, wrapped = measured()
    with logger.scoped(correlation_id="c"):
        logger.audit("e")
    logger.set_context(a=1)
    assert wrapped.calls[0].context == {"correlation_id": "c"}
    assert logger.context == wrapped.context == {"a": 1}
    assert asyncio.run(logger.flush()) is True
    assert logger.force_flush(1.0) is True
    assert logger.close(1.0) is True


def test_anything_else_is_looked_up_in_the_wrapped_logger() -> None:
    logger, wrapped = measured()
    assert logger.calls is wrapped.calls
    with pytest.raises(AttributeError):
        _ = logger.nothing_like_it
    with pytest.raises(AttributeError):
        _ = MeasuredLogger.__new__(MeasuredLogger).wrapped


def test_every_method_of_the_interface_is_there() -> None:
    for name, _ in inspect.getmembers(HFTLoggerInterface):
        if not name.startswith("_"):
            assert name in vars(MeasuredLogger), name


def test_cost_is_that_of_the_call() -> None:
    class Slow(RecordingLogger):
        def info(self, /, *args: object, **context: object) -> None:
            sleep(0.002)

    logger = MeasuredLogger(Slow(), CallStats())
    logger.info("x")
    [cost] = logger.stats.samples_ns()["INFO"]
    assert 2_000_000 <= cost < 200_000_000


def test_last_event_is_the_latest_notable_call_with_its_text() -> None:
    logger, _ = measured()
    logger.info("not notable")
    assert logger.stats.last_event == ""
    logger.warning("gap of %d", 3)
    assert logger.stats.last_event == "WARNING gap of 3"
    logger.error("%d", "wrong")
    assert logger.stats.last_event == "ERROR %d"
    logger.audit("order_rejected", reason="r")
    assert logger.stats.last_event == "AUDIT order_rejected"


def test_reservoir_is_bounded_and_uniform() -> None:
    middles = []
    for seed in range(30):
        reservoir = Reservoir(size=200, seed=seed)
        for value in range(20_000):
            reservoir.add(value)
        assert len(reservoir.samples) == 200
        assert reservoir.count == 20_000
        middles.append(statistics.fmean(reservoir.samples))
    assert statistics.fmean(middles) == pytest.approx(10_000, rel=0.05)


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile(list(range(1, 101)), 1.0) == 100


def test_clock_costs_something_and_little() -> None:
    assert 0 < clock_ns() < 100_000


def test_kinds_are_those_of_the_statistics() -> None:
    assert tuple(CallStats().counts) == KINDS
