"""PerformanceLogger: durations in milliseconds of whatever runs, also when it fails, sync and async."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from hft_otel.performance import PerformanceLogger
from hft_otel.record import InstrumentKind, LogType
from tests.unit.core_support import Process

pytest_plugins = ["tests.unit.core_fixtures"]


@pytest.fixture
def performance(process: Process) -> PerformanceLogger:
    return PerformanceLogger(process.logger("perf"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, in seconds, as a list of one; nothing sleeps."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_block_is_timed_in_milliseconds_with_its_tags(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    with performance.time_operation("parse", exchange="mexc", symbol=None, tags={"type": "book"}):
        clock[0] += 0.25
    record = process.only(LogType.METRIC)
    assert (record.metric_name, record.metric_value, record.unit) == ("latency", 250.0, "ms")
    assert record.instrument is InstrumentKind.HISTOGRAM
    assert record.metric_tags == {"operation": "parse", "exchange": "mexc", "type": "book"}


def test_a_block_that_raises_is_timed_and_its_exception_goes_on(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    with pytest.raises(KeyError), performance.time_operation("parse"):
        clock[0] += 0.001
        raise KeyError
    assert process.only(LogType.METRIC).metric_value == pytest.approx(1.0)


def test_an_async_block_is_timed(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    async def work() -> None:
        async with performance.time_operation("fetch"):
            await asyncio.sleep(0)
            clock[0] += 2

    asyncio.run(work())
    assert process.only(LogType.METRIC).metric_value == 2000.0


def test_a_decorated_function_is_timed_at_every_call(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    @performance.time_operation("price", desk="a")
    def price(depth: int, *, step: float) -> int:
        """Return a price."""
        clock[0] += step
        return price(depth - 1, step=step) + 1 if depth else 0

    assert price(2, step=0.5) == 2
    assert price.__name__ == "price"
    assert price.__doc__ == "Return a price."
    values = [record.metric_value for record in process.records(LogType.METRIC)]
    assert values == [500.0, 1000.0, 1500.0]  # inner calls end first, and none disturbs the other


def test_a_decorated_coroutine_function_is_timed_from_first_to_last_step(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    @performance.time_operation("fetch")
    async def fetch(fail: bool) -> str:
        await asyncio.sleep(0)
        clock[0] += 0.1
        if fail:
            raise ValueError
        return "book"

    async def both() -> list[str | BaseException]:
        return await asyncio.gather(fetch(False), fetch(True), return_exceptions=True)

    first, second = asyncio.run(both())
    assert first == "book"
    assert isinstance(second, ValueError)
    assert len(process.records(LogType.METRIC)) == 2


def test_a_decorated_generator_is_timed_over_its_whole_iteration(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    @performance.time_operation("scan")
    def scan(depth: int) -> Generator[int, int, str]:
        """Return what is sent."""
        clock[0] += 0.25
        sent = yield depth
        clock[0] += 0.25
        try:
            yield sent
        except KeyError:
            clock[0] += 0.5
            yield -1
        return "done"

    assert inspect.isgeneratorfunction(scan)
    assert (scan.__name__, scan.__doc__) == ("scan", "Return what is sent.")
    scan(0)  # never begun
    assert list(scan(3)) == [3, None]
    steps = scan(1)
    assert (next(steps), steps.send(7), steps.throw(KeyError())) == (1, 7, -1)
    with pytest.raises(StopIteration, match="done"):
        next(steps)
    left = scan(1)
    next(left)
    left.close()
    values = [record.metric_value for record in process.records(LogType.METRIC)]
    assert values == [500.0, 1000.0, 250.0]


def test_a_decorated_async_generator_is_timed_over_its_whole_iteration(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    closed: list[str] = []

    @performance.time_operation("stream")
    async def stream(name: str, fail: bool = False) -> AsyncGenerator[Any, Any]:
        """Give back what is sent."""
        try:
            await asyncio.sleep(0)
            clock[0] += 0.25
            sent = yield name
            clock[0] += 0.25
            try:
                yield sent
            except KeyError:
                clock[0] += 0.5
                yield "caught"
            if fail:
                raise ValueError(name)
        finally:
            closed.append(name)

    assert inspect.isasyncgenfunction(stream)
    assert (stream.__name__, stream.__doc__) == ("stream", "Give back what is sent.")

    async def main() -> None:
        assert [step async for step in stream("all")] == ["all", None]
        steps = stream("sent")
        assert [await anext(steps), await steps.asend(7), await steps.athrow(KeyError())] == [
            "sent",
            7,
            "caught",
        ]
        assert await anext(steps, "end") == "end"
        left = stream("left")
        await asyncio.create_task(left.asend(None))
        await left.aclose()  # in another task than it was begun
        with pytest.raises(ValueError, match="fails"):
            assert [step async for step in stream("fails", fail=True)]
        with pytest.raises(LookupError):
            thrown = stream("thrown")
            await anext(thrown)
            await thrown.athrow(LookupError())

    asyncio.run(main())
    assert closed == ["all", "sent", "left", "fails", "thrown"]
    values = [record.metric_value for record in process.records(LogType.METRIC)]
    assert values == [500.0, 1000.0, 250.0, 500.0, 250.0]


def test_one_timer_may_be_entered_inside_itself_and_by_many_tasks(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    timer = performance.time_operation("shared")
    with timer:
        clock[0] += 0.25
        with timer:
            clock[0] += 0.5

    async def work(begun: asyncio.Event, end: asyncio.Event) -> None:
        async with timer:
            begun.set()
            await end.wait()

    async def main() -> None:
        events = [(asyncio.Event(), asyncio.Event()) for _ in range(3)]
        tasks = []
        for begun, end in events:
            tasks.append(asyncio.create_task(work(begun, end)))
            await begun.wait()
            clock[0] += 1
        for position in (1, 0, 2):
            events[position][1].set()
            await tasks[position]

    asyncio.run(main())
    values = [record.metric_value for record in process.records(LogType.METRIC)]
    assert values == [500.0, 750.0, 2000.0, 3000.0, 1000.0]


def test_a_timer_that_is_left_too_often_or_out_of_turn_raises_nothing(
    process: Process, performance: PerformanceLogger, clock: list[float]
) -> None:
    first, second = performance.time_operation("first"), performance.time_operation("second")
    first.__enter__()
    clock[0] += 1
    second.__enter__()
    clock[0] += 1
    for timer in (first, second, second, first):
        timer.__exit__(None, None, None)
    found = [
        (record.metric_tags["operation"], record.metric_value) for record in process.records(LogType.METRIC)
    ]
    assert found == [("first", 2000.0), ("second", 1000.0)]


def test_the_operation_may_come_by_keyword_or_be_a_tag_beside_it(
    process: Process, performance: PerformanceLogger
) -> None:
    with performance.time_operation(operation="by keyword"):
        pass
    with performance.time_operation():
        pass
    with performance.time_operation("mine", self=1, name="n", logger="l"):
        pass
    found = [record.metric_tags for record in process.records(LogType.METRIC)]
    assert found == [
        {"operation": "by keyword"},
        {"operation": ""},
        {"operation": "mine", "self": 1, "name": "n", "logger": "l"},
    ]


def test_a_trade_is_an_audit_event_and_a_metric_with_few_tags(
    process: Process, performance: PerformanceLogger
) -> None:
    performance.log_trade_execution("o-1", 12.5, exchange="mexc", symbol=None, size=3, self="me", event="x")
    process.flush()
    [audit] = process.backend.of(LogType.AUDIT)
    [metric] = process.backend.of(LogType.METRIC)
    assert audit.message == "trade_executed"
    assert audit.context == {
        "order_id": "o-1",
        "latency_ms": 12.5,
        "exchange": "mexc",
        "symbol": None,
        "size": 3,
        "self": "me",
        "event": "x",
    }
    assert (metric.metric_name, metric.metric_value) == ("trade_execution_latency", 12.5)
    assert metric.metric_tags == {"exchange": "mexc"}


def test_a_trade_by_keyword(process: Process, performance: PerformanceLogger) -> None:
    performance.log_trade_execution(latency_ms=1.5, order_id="o-2")
    process.flush()
    assert [record.context for record in process.backend.of(LogType.AUDIT)] == [
        {"order_id": "o-2", "latency_ms": 1.5}
    ]
    assert [record.metric_tags for record in process.backend.of(LogType.METRIC)] == [{}]
