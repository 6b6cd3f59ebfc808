"""The logger: stdlib's call forms, levels and gates, lifecycle; what each call becomes as a record."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hft_otel.interfaces import HFTLoggerInterface, LogBackend
from hft_otel.lanes import intake as intake_module
from hft_otel.lanes.intake import Intake, Sizes, process_intake
from hft_otel.lanes.journal import Journal
from hft_otel.ledger import FlushReport
from hft_otel.logger import HFTLogger
from hft_otel.record import InstrumentKind, LogLevel, LogRecord, LogType
from hft_otel.redaction import Redactor
from tests.unit.core_support import SMALL, Process, Recorder, poll
from tests.unit.endless import Endless

pytest_plugins = ["tests.unit.core_fixtures"]


@pytest.fixture
def log(process: Process) -> HFTLogger:
    return process.logger("parser.mexc")


@pytest.mark.parametrize("level", list(LogLevel)[:5])
def test_each_level_has_its_method(process: Process, log: HFTLogger, level: LogLevel) -> None:
    before = time.time_ns()
    getattr(log, level.name.lower())("order %s", "filled", symbol="BTC")
    record = process.only()
    assert (record.level, record.message, record.context) == (level, "order filled", {"symbol": "BTC"})
    assert (record.log_type, record.logger_name) == (LogType.TEXT, "parser.mexc")
    assert before <= record.time_ns <= time.time_ns()


def test_each_kind_of_measurement_has_its_method(process: Process, log: HFTLogger) -> None:
    log.metric("depth", 5, side="bid")
    log.counter("messages", tags={"type": "book"})
    log.counter("messages", 3)
    log.latency("parse", 1.5)
    found = [
        (record.metric_name, record.metric_value, record.metric_tags, record.instrument)
        for record in process.records(LogType.METRIC)
    ]
    assert found == [
        ("depth", 5, {"side": "bid"}, InstrumentKind.GAUGE),
        ("messages", 1, {"type": "book"}, InstrumentKind.COUNTER),
        ("messages", 3, {}, InstrumentKind.COUNTER),
        ("latency", 1.5, {"operation": "parse"}, InstrumentKind.HISTOGRAM),
    ]


def test_an_exception_comes_with_type_message_and_frames(process: Process, log: HFTLogger) -> None:
    error = ValueError("bad order")
    try:
        raise error
    except ValueError:
        log.exception("failed %s", 1, k=1)
        log.error("failed", exc_info=True)
        log.info("failed", exc_info=error)
        log.warning("failed", exc_info=(ValueError, error, error.__traceback__))
        log.error("not this time", exc_info=False)
    log.error("nothing to tell", exc_info=True)
    log.exception("nothing to tell")
    for record in process.records():
        if record.message.startswith("failed"):
            assert record.exception is not None
            assert record.exception[:2] == ("ValueError", "bad order")
            assert "    raise error\n" in record.exception.stacktrace
        else:
            assert record.exception is None
    assert len(process.backend.got) == 7


def test_stack_info_shows_where_the_call_was(process: Process, log: HFTLogger) -> None:
    log.info("here", stack_info=True)
    stack = process.only().stack
    assert stack is not None
    assert stack.startswith("Stack (most recent call last):\n")
    assert stack.rstrip().endswith('log.info("here", stack_info=True)')


def test_log_takes_numbers_and_names(process: Process, log: HFTLogger) -> None:
    log.log(25, "between")
    log.log("warning", "by name")
    log.log(logging.ERROR, "with %s", "arguments")
    log.log(logging.DEBUG, "in %(form)s", {"form": "mapping"})
    found = {record.message: record.level for record in process.records()}
    assert found == {"between": 25, "by name": 30, "with arguments": 40, "in mapping": 10}


class Gated:
    """A router that knows what its backends want."""

    def __init__(self, backend: LogBackend, level: int, metrics: bool) -> None:
        self.backend, self.level, self.metrics = backend, level, metrics

    def get_backends(self, record: LogRecord) -> Sequence[LogBackend]:
        return [self.backend]

    def threshold(self, logger_name: str) -> int:
        return self.level if logger_name == "gated" else 0

    def wants(self, log_type: LogType, logger_name: str) -> bool:
        return self.metrics


def test_what_no_route_wants_is_not_even_captured(process: Process) -> None:
    router = Gated(process.backend, 30, metrics=False)
    log = HFTLogger("gated", [process.backend], router, intake=process.intake)
    log.info("no")
    log.log(29, "no")
    log.metric("no", 1)
    log.counter("no")
    log.latency("no", 1)
    log.warning("yes")
    log.log(30, "yes")
    log.audit("yes")
    process.flush()
    assert [record.message for record in process.backend.got].count("yes") == 3
    assert process.emitted() == 3
    assert (log.isEnabledFor(29), log.isEnabledFor(30), log.getEffectiveLevel()) == (False, True, 30)


def test_the_logger_s_own_level_only_narrows(process: Process) -> None:
    log = HFTLogger(
        "gated", [process.backend], Gated(process.backend, 30, metrics=True), intake=process.intake
    )
    log.setLevel("error")
    assert log.getEffectiveLevel() == 40
    log.setLevel(10)
    assert log.getEffectiveLevel() == 30
    log.setLevel("nonsense")
    assert log.getEffectiveLevel() == 30
    assert log.bind(k=1).getEffectiveLevel() == 30
    assert repr(log) == "<HFTLogger gated (WARNING)>"


def test_the_plan_s_constructor_takes_a_list_a_mapping_and_a_router(process: Process) -> None:
    first, second = Recorder(), Recorder()
    HFTLogger("list", [first, second], intake=process.intake).info("to both")
    HFTLogger("mapping", {"a": first, "b": second}, intake=process.intake).info("to both")
    HFTLogger("router", [first, second], Gated(second, 0, metrics=True), intake=process.intake).info(
        "to the second"
    )
    process.flush()
    assert first.messages == ["to both"] * 2
    assert second.messages == ["to both"] * 2 + ["to the second"]


def test_every_method_documents_itself_as_its_interface_does() -> None:
    for name in ("debug", "info", "warning", "error", "critical", "metric", "counter", "latency"):
        method, promised = getattr(HFTLogger, name), getattr(HFTLoggerInterface, name)
        assert method.__name__ == name
        assert method.__doc__ == promised.__doc__, name


def test_flush_answers_with_and_without_a_loop(process: Process, log: HFTLogger) -> None:
    log.info("before the loop")

    async def main() -> FlushReport:
        log.info("in the loop")
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        report = await log.flush()
        ticking.cancel()
        assert ticks > 1  # the loop went on
        return report

    assert asyncio.run(main())
    log.info("after the loop")
    report = log.force_flush(5)
    assert report
    assert report.emitted == report.delivered == 3


@pytest.mark.parametrize("timeout", [None, "5", 5, "soon", float("nan"), float("inf"), object()])
def test_flush_takes_any_timeout(process: Process, log: HFTLogger, timeout: Any) -> None:
    assert log.force_flush(timeout)
    assert asyncio.run(log.flush(timeout))
    assert log.close(timeout)


def test_a_logger_without_anyone_to_drain_it_keeps_what_it_can(tmp_path: Path) -> None:
    process = Process(tmp_path, Sizes(16 * 1024, 2, 2, 2), started=False)
    log = process.logger()
    for number in range(2000):
        log.info("text", n=number)
    assert log.force_flush(0.1)
    assert not asyncio.run(log.flush(0.1)).lanes
    assert 0 < process.intake.low.drops["room_full"].value < 2000
    log.close()
    process.intake.journal.close(settled=True)


def test_a_call_that_finds_its_room_full_is_counted_once_and_not_captured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[object] = []
    fit = HFTLogger._fit
    monkeypatch.setattr(HFTLogger, "_fit", lambda self, *told: fitted.append(told) or fit(self, *told))
    process = Process(tmp_path, Sizes(16 * 1024, 2, 2, 2), started=False)
    log = process.logger()
    low, high = process.intake.low, process.intake.high
    while "room_full" not in low.drops or "room_full" not in high.drops:
        log.info("text", n=1)
        log.warning("text", n=1)
    before = low.drops["room_full"].value, high.drops["room_full"].value
    for number in range(10):
        log.info("text", n=number)
        log.warning("text", n=number)
    assert (low.drops["room_full"].value, high.drops["room_full"].value) == (before[0] + 10, before[1] + 10)
    assert fitted == []
    log.info("x" * 20_000)  # longer than a segment: that is what fitting is for
    assert len(fitted) == 1
    log.close()
    process.intake.journal.close(settled=True)


def test_the_process_has_one_intake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "_process", None)
    monkeypatch.setattr(intake_module, "_default_drain", None)
    first = process_intake(str(tmp_path / "journal"), 16 * 1024, 1)
    assert process_intake("elsewhere") is first
    assert HFTLogger("any", [])._intake is first
    assert not Path("elsewhere").exists()
    first.journal.close(settled=True)


def test_a_drain_that_cannot_start_says_so_at_start_up_and_never_later(tmp_path: Path) -> None:
    intake = Intake(Journal(tmp_path, 16 * 1024, 1), SMALL)

    def fails(intake: Intake) -> Any:
        raise RuntimeError("can't start new thread")

    intake.start_drain = fails
    with pytest.raises(RuntimeError, match="thread"):
        HFTLogger("any", [], intake=intake)
    intake.start_drain = None
    log = HFTLogger("any", [], intake=intake)
    intake.start_drain = fails
    intake.after_fork()
    log.info("in a child that can have no thread")
    log.audit("nor this")
    assert intake.low.position > (0, 64)
    assert intake.audit.position > (0, 64)
    intake.journal.close(settled=True)


def test_a_drain_starts_once_however_many_ask(tmp_path: Path) -> None:
    process = Process(tmp_path)
    started: list[int] = []
    start = process.intake.start_drain
    assert start is not None

    def slowly(intake: Intake) -> Any:
        started.append(threading.get_ident())
        assert intake.ensure_drain() is None  # as from a signal handler that comes meanwhile
        time.sleep(0.01)
        return start(intake)

    process.intake.start_drain = slowly
    process.intake.after_fork()
    process.intake.pipelines.append(
        intake_module.Pipeline(0, Gated(process.backend, 0, True), (process.backend,), Redactor())
    )
    log = HFTLogger("many", pipeline=process.intake.pipelines[0], intake=process.intake)
    threads = [threading.Thread(target=log.info, args=("text",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    poll(lambda: process.intake.drain is not None)
    assert len(process.records()) == 8
    assert len(started) == 1
    process.close()


def test_a_value_without_an_end_is_cut_in_every_kind_of_call(process: Process, log: HFTLogger) -> None:
    log.info("text", v=Endless())
    log.info("text %s", "x", v=Endless())
    log.metric("depth", 1, v=Endless())
    log.audit("event", v=Endless())
    log.bind(v=Endless()).info("bound")
    with log.scoped(v=Endless()):
        log.audit("scoped")
    assert [record.message for record in process.records(LogType.TEXT)] == ["text", "text x", "bound"]
    assert len(process.records(LogType.METRIC)) == 1
    events = process.records(LogType.AUDIT)
    assert [record.message for record in events] == ["event", "scoped"]
    assert 100 < len(events[0].context["v"]) <= 1001


def test_an_audit_event_that_is_too_much_to_look_at_keeps_its_beginning(
    process: Process, log: HFTLogger
) -> None:
    log.audit("book", levels=[str(number) for number in range(200_000)], api_key="hunter2")
    (event,) = process.records(LogType.AUDIT)
    assert event.context["levels"][:3] == ["0", "1", "2"]
    assert event.context["api_key"] == "***"


@pytest.mark.parametrize("event", ["password=hunter2", "login api_key: hunter2", ValueError("token=hunter2")])
def test_a_secret_in_an_event_s_name_does_not_reach_the_journal(
    process: Process, log: HFTLogger, event: Any
) -> None:
    log.audit(event)
    log.audit(event, value=object())
    assert process.intake.journal.stream_folder.is_dir()
    for file in process.intake.journal.stream_folder.iterdir():
        assert b"hunter2" not in file.read_bytes()
    assert all(record.message.endswith("***") for record in process.records(LogType.AUDIT))


def test_closing_tells_what_was_delivered(process: Process, log: HFTLogger) -> None:
    log.info("text")
    report = log.close()
    assert report
    assert report.delivered == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda log: log.info("x", symbol="BTC"),
        lambda log: log.info("%s", 1),
        lambda log: log.info("x", odd=object()),
        lambda log: log.metric("x", 1),
        lambda log: log.metric("x", object()),
        lambda log: log.audit("x"),
        lambda log: log.audit("x", odd=object()),
        lambda log: log.exception("x"),
    ],
    ids=range(8),
)
def test_a_segment_that_is_full_is_followed_by_the_next_for_every_kind_of_call(
    tmp_path: Path, call: Callable[[HFTLogger], None]
) -> None:
    process = Process(tmp_path, Sizes(4096, 8, 8, 8), segment_size=4096, spare=8, started=False)
    log = process.logger()
    count = 0
    while not any(room.position[0] for room in process.intake.rooms):
        call(log)
        count += 1
    assert all(not room.drops for room in process.intake.rooms)
    process.intake.drain = process._start(process.intake)  # reading begins where writing began
    process.flush()
    assert len(process.backend.got) == count
    process.close()
