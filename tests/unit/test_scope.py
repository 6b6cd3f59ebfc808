"""Context and scope: what is bound, scoped and said, and the caller's span, arrive together and in that order."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hft_otel.logger import HFTLogger
from hft_otel.otel import current
from hft_otel.record import LogType, TraceIds
from tests.unit.core_support import Process

pytest_plugins = ["tests.unit.core_fixtures"]


@pytest.fixture
def log(process: Process) -> HFTLogger:
    return process.logger("scope", context={"service": "hft", "k": "global"})


@pytest.fixture
def spans() -> tuple[trace.Tracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter


def test_the_call_wins_over_the_scope_over_the_bound_over_the_global_context(
    process: Process, log: HFTLogger
) -> None:
    log.info("global")
    log.set_context(k="set")
    log.info("set")
    child = log.bind(k="bound", b=1)
    child.info("bound")
    with child.scoped(k="scoped"):
        child.info("scoped")
        child.info("call", k="call")
    log.info("set again")
    found = {record.message: record.context for record in process.records()}
    assert found == {
        "global": {"service": "hft", "k": "global"},
        "set": {"service": "hft", "k": "set"},
        "bound": {"service": "hft", "k": "bound", "b": 1},
        "scoped": {"service": "hft", "k": "scoped", "b": 1},
        "call": {"service": "hft", "k": "call", "b": 1},
        "set again": {"service": "hft", "k": "set"},
    }


def test_the_scope_is_on_every_kind_of_record_and_ends_with_its_block(
    process: Process, log: HFTLogger
) -> None:
    with log.scoped(correlation_id="c1"):
        log.info("text")
        log.info("text %s", 1)
        log.info("text", odd=object())
        log.log(25, "text")
        log.metric("depth", 1)
        log.metric("depth", object())
        log.audit("event")
        log.audit("event", odd=object())
    log.info("after")
    process.flush()
    *inside, after = sorted(process.backend.got, key=lambda record: record.message == "after")
    assert len(inside) == 8
    assert all(record.context["correlation_id"] == "c1" for record in inside)
    assert "correlation_id" not in after.context


def test_scopes_nest_and_an_exception_ends_them(process: Process, log: HFTLogger) -> None:
    with pytest.raises(KeyError), log.scoped(a=1, b=1):
        with log.scoped(b=2):
            log.info("inner")
        log.info("outer")
        raise KeyError
    log.info("after")
    found = {record.message: {key: record.context.get(key) for key in "ab"} for record in process.records()}
    assert found == {"inner": {"a": 1, "b": 2}, "outer": {"a": 1, "b": 1}, "after": {"a": None, "b": None}}


def test_the_scope_goes_into_tasks_and_to_thread_and_stays_apart_between_them(
    process: Process, log: HFTLogger
) -> None:
    async def order(number: int) -> None:
        with log.scoped(order=number):
            await asyncio.sleep(0)
            log.info("task", n=number)
            await asyncio.create_task(part(number))
            await asyncio.to_thread(log.info, "thread", n=number)
            asyncio.get_running_loop().call_soon(lambda: log.info("soon", n=number))
            await asyncio.sleep(0.001)

    async def part(number: int) -> None:
        log.info("part", n=number)

    async def main() -> None:
        await asyncio.gather(*map(order, range(5)))

    asyncio.run(main())
    records = process.records()
    assert len(records) == 20
    assert all(record.context["order"] == record.context["n"] for record in records)


def test_a_scope_may_be_entered_again_and_inside_itself(process: Process, log: HFTLogger) -> None:
    scope = log.scoped(k="scoped")
    for number in range(2):
        with scope:
            log.info(f"first {number}")
            with scope:
                log.info(f"inner {number}")
            log.info(f"second {number}")
        log.info(f"after {number}")
    found = {record.message: record.context["k"] for record in process.records()}
    assert len(found) == 8
    assert found == {text: "global" if "after" in text else "scoped" for text in found}


def test_tasks_that_share_a_scope_leave_it_each_for_itself(process: Process, log: HFTLogger) -> None:
    scope = log.scoped(k="scoped")

    async def work(turns: int) -> None:
        async with scope:
            for _ in range(turns):
                await asyncio.sleep(0)
            log.info("inside")
        log.info("after")

    async def main() -> None:
        await asyncio.gather(*map(work, (3, 1, 2, 0)))
        log.info("after")

    asyncio.run(main())
    found = sorted((record.message, record.context["k"]) for record in process.records())
    assert found == [("after", "global")] * 5 + [("inside", "scoped")] * 4


def test_a_scope_adds_to_the_one_it_is_entered_in(process: Process, log: HFTLogger) -> None:
    scope = log.scoped(b=2, k="inner")
    decorated = scope(lambda: log.info("decorated"))
    with log.scoped(a=1, k="outer"):
        with scope:
            log.info("inside")
        decorated()
        log.info("outer")
    picked = {record.message: {key: record.context.get(key) for key in "abk"} for record in process.records()}
    both = {"a": 1, "b": 2, "k": "inner"}
    assert picked == {"inside": both, "decorated": both, "outer": {"a": 1, "b": None, "k": "outer"}}


def test_a_scope_that_was_made_in_another_leaves_that_one_behind(process: Process, log: HFTLogger) -> None:
    with log.scoped(request=1, k="first"):
        scope = log.scoped(desk="a")
    with scope:
        log.info("alone")
    with log.scoped(request=2), scope:
        log.info("second")
    found = {record.message: record.context for record in process.records()}
    assert found == {
        "alone": {"service": "hft", "k": "global", "desk": "a"},
        "second": {"service": "hft", "k": "global", "request": 2, "desk": "a"},
    }


def test_a_generator_that_another_task_closes_raises_and_prints_nothing(
    process: Process, log: HFTLogger, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def steps() -> AsyncGenerator[int]:
        with log.scoped(k="generator"):
            yield 1

    async def main() -> None:
        with log.scoped(k="main"):
            generator = steps()
            await asyncio.create_task(anext(generator))
            await generator.aclose()
            log.info("inside")
        log.info("after")

    asyncio.run(main())
    found = {record.message: record.context["k"] for record in process.records()}
    assert found == {"inside": "main", "after": "global"}
    assert [record for record in caplog.records if record.name != log.name] == []
    assert capfd.readouterr() == ("", "")


def test_an_exit_too_many_or_while_another_context_is_attached_does_no_harm(
    process: Process, log: HFTLogger, caplog: pytest.LogCaptureFixture
) -> None:
    scope = log.scoped(k="scoped")
    with scope:
        otel_context.attach(otel_context.Context())  # and never detached
    log.info("after")
    with log.scoped(k="outer"):
        scope.__exit__(None, None, None)
        log.info("outer")
    found = {record.message: record.context["k"] for record in process.records()}
    assert found == {"after": "global", "outer": "outer"}
    assert [record for record in caplog.records if record.name != log.name] == []


def test_another_thread_starts_without_the_scope(process: Process, log: HFTLogger) -> None:
    with log.scoped(k="mine"):
        thread = threading.Thread(target=contextvars.Context().run, args=(log.info, "thread"))
        thread.start()
        thread.join()
    assert process.only().context["k"] == "global"


def test_the_span_s_ids_are_on_text_and_audit(process: Process, log: HFTLogger, spans: Any) -> None:
    tracer, _ = spans
    with tracer.start_as_current_span("order") as span:
        log.info("fast")
        log.info("with %s", "arguments")
        log.info("guarded", odd=object())
        log.audit("fast")
        log.audit("guarded", odd=object())
        with log.scoped(a=1):
            log.info("scoped")
    log.info("outside")
    log.audit("outside")
    ids = span.get_span_context()
    expected = TraceIds(ids.trace_id, ids.span_id, int(ids.trace_flags))
    for record in [*process.records(), *process.backend.of(LogType.AUDIT)]:
        assert record.trace == (None if record.message == "outside" else expected), record.message


def test_a_remote_parent_counts_and_an_invalid_span_does_not(process: Process, log: HFTLogger) -> None:
    remote = trace.SpanContext(0xABC << 100, 7, is_remote=True, trace_flags=trace.TraceFlags(1))
    for context in (remote, trace.INVALID_SPAN_CONTEXT):
        token = otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(context)))
        log.info("text")
        otel_context.detach(token)
    assert [record.trace for record in process.records()] == [TraceIds(0xABC << 100, 7, 1), None]


class ForeignSpan(trace.NonRecordingSpan):
    """Keeps its context elsewhere."""

    _context = ("something", "else")  # type: ignore[assignment]

    def __init__(self, context: trace.SpanContext) -> None:
        self.mine = context

    def get_span_context(self) -> trace.SpanContext:
        return self.mine


def test_a_span_of_another_make_is_asked(process: Process, log: HFTLogger) -> None:
    context = trace.SpanContext(5, 6, is_remote=False)
    token = otel_context.attach(trace.set_span_in_context(ForeignSpan(context)))
    log.info("text")
    otel_context.detach(token)
    assert process.only().trace == TraceIds(5, 6, 0)


def test_the_scope_shows_on_the_span_that_records(log: HFTLogger, spans: Any) -> None:
    tracer, exporter = spans
    with tracer.start_as_current_span("order"), log.scoped(correlation_id="c1", n=2, odd=[1], api_key="hush"):
        pass
    [span] = exporter.get_finished_spans()
    assert span.attributes == {"correlation_id": "c1", "n": 2, "odd": "[1]", "api_key": "***"}


def test_a_span_that_refuses_attributes_does_not_stop_the_scope(process: Process, log: HFTLogger) -> None:
    class Refusing(ForeignSpan):
        def is_recording(self) -> bool:
            raise RuntimeError("no")

    token = otel_context.attach(trace.set_span_in_context(Refusing(trace.SpanContext(5, 6, is_remote=False))))
    with log.scoped(a=1):
        log.info("text")
    otel_context.detach(token)
    assert process.only().context["a"] == 1


def test_without_the_private_names_everything_still_works(
    process: Process, log: HFTLogger, spans: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer, _ = spans
    with monkeypatch.context() as patch:
        patch.delattr(otel_context, "_RUNTIME_CONTEXT")
        reader = current._reader()
    with monkeypatch.context() as patch:
        patch.setattr(trace.propagation, "_SPAN_KEY", object())
        span_reader = current._span_reader()
    assert reader is otel_context.get_current
    assert span_reader is trace.get_current_span
    module = importlib.import_module("hft_otel.logger")
    monkeypatch.setattr(module, "current_context", reader)
    monkeypatch.setattr(current, "_span_of", span_reader)
    with tracer.start_as_current_span("order") as span, log.scoped(a=1):
        log.info("text")
    record = process.only()
    assert record.context["a"] == 1
    assert record.trace is not None
    assert record.trace.span_id == span.get_span_context().span_id


def test_the_context_dict_may_be_changed_in_every_way(process: Process, log: HFTLogger) -> None:
    context = log.context
    context.clear()
    context["a"] = 1
    context.update(b=2, c=3)
    context |= {"d": 4}
    del context["a"]
    assert context.pop("b") == 2
    assert context.setdefault("e", 5) == 5
    assert context.popitem() == ("e", 5)
    log.info("text")
    assert process.only().context == {"c": 3, "d": 4} == log.context


def test_what_was_logged_is_not_changed_by_what_happens_to_it_later(process: Process, log: HFTLogger) -> None:
    book = {"bids": [1, 2]}
    log.info("text", book=book)
    log.audit("event", book=book)
    log.metric("depth", 1, book=book)
    log.set_context(bound=book)
    book["bids"].append(3)
    log.info("later")
    assert [record.context.get("book", record.context.get("bound")) for record in process.records()] == [
        {"bids": [1, 2]}
    ] * 2
    assert process.backend.of(LogType.AUDIT)[0].context["book"] == {"bids": [1, 2]}


def test_threads_that_set_context_at_once_raise_nothing(log: HFTLogger) -> None:
    raised: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(200):
                log.set_context(**{f"k{thread}-{n % 20}": n})
                log.context.pop(f"k{thread}-{(n + 7) % 20}", None)
                log.bind(x=n).info("text")
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
