"""Bad input: every call returns, raises nothing and is counted; what can be kept is kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider

from hft_otel.lanes.intake import Sizes
from hft_otel.logger import HFTLogger
from hft_otel.otel.instruments import Instruments
from hft_otel.record import LogType
from tests.unit.core_support import SMALL, Process, python

pytest_plugins = ["tests.unit.core_fixtures"]


@pytest.fixture
def log(process: Process) -> HFTLogger:
    return process.logger("bad")


class Side(enum.Enum):
    BUY = "buy"


@dataclasses.dataclass(frozen=True)
class Symbol:
    base: str
    quote: str


class Pair(msgspec.Struct, frozen=True):
    base: str
    quote: str


@dataclasses.dataclass
class Node:
    next: Any = None


def raising(name: str, error: type[BaseException] = ValueError) -> object:
    def raises(self: object, *arguments: object) -> object:
        raise error(name)

    return type("Broken", (), {name: raises, "__repr__": raises, "__str__": raises})()


def itself() -> Any:
    node = Node()
    node.next = node
    return node


def in_itself(width: int = 1) -> list[Any]:
    value: list[Any] = []
    value += [value] * width
    return value


class Text(str):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __len__ = __getitem__ = encode = __str__  # type: ignore[assignment]


VALUES: dict[str, Callable[[], Any]] = {
    "broken repr": lambda: raising("__repr__"),
    "repr out of memory": lambda: raising("__repr__", MemoryError),
    "repr recursion": lambda: raising("__repr__", RecursionError),
    "repr stops iteration": lambda: raising("__repr__", StopAsyncIteration),
    "repr timeout": lambda: raising("__repr__", TimeoutError),
    "nan": lambda: math.nan,
    "inf": lambda: -math.inf,
    "2**100": lambda: 2**100,
    "10**5000": lambda: 10**5000,
    "surrogate": lambda: "a\udc80b",
    "10 MB": lambda: "x" * 10_000_000,
    "10 MB of bytes": lambda: b"x" * 10_000_000,
    "a million numbers": lambda: list(range(1_000_000)),
    "a hundred thousand keys": lambda: dict.fromkeys(map(str, range(100_000))),
    "decimal": lambda: decimal.Decimal("1.1"),
    "enum": lambda: Side.BUY,
    "datetime": lambda: dt.datetime.now(dt.UTC),
    "naive datetime": lambda: dt.datetime(2026, 1, 1),
    "uuid": uuid.uuid4,
    "dataclass": lambda: Symbol("BTC", "USDT"),
    "struct": lambda: Pair("BTC", "USDT"),
    "holds itself": itself,
    "list in itself": in_itself,
    "fifty times in itself": lambda: in_itself(50),
    "str subclass": lambda: Text("text"),
    "int subclass": lambda: type("Int", (int,), {"__repr__": lambda self: 1 / 0})(3),
    "bool-less": lambda: raising("__bool__"),
    "nested keys": lambda: {1: {None: {("a", 1): {2.5: b"x"}}}},
    "tuple keys": lambda: {("mexc", "BTCUSDT"): 1},
    "dataclass keys": lambda: {Symbol("BTC", "USDT"): {Symbol("ETH", "USDT"): [1]}},
    "struct keys": lambda: {Pair("BTC", "USDT"): 1, "plain": 2},
    "set": lambda: {1, 2},
    "complex": lambda: 1j,
    "class": lambda: Side,
    "function": lambda: raising,
    "generator": lambda: (number for number in range(3)),
    "lock": threading.Lock,
    "exception": lambda: ValueError("x"),
    "memoryview": lambda: memoryview(b"abc"),
    "extension": lambda: msgspec.msgpack.Ext(5, b"x"),
    "logger": lambda: __import__("logging").getLogger("x"),
    "not implemented": lambda: NotImplemented,
    "none": lambda: None,
}


@pytest.mark.parametrize("kind", VALUES)
def test_any_value_anywhere_in_a_text_call_is_kept_with_the_rest(
    process: Process, log: HFTLogger, kind: str
) -> None:
    value = VALUES[kind]()
    start = time.perf_counter()
    log.info("as context", k=value, other=1)
    log.info(value, other=2)
    log.warning("as %s", value, other=3)
    log.error("as extra", extra={"k": value}, other=4)
    log.info("nested", k=[{"deep": value}], other=5)
    log.info("as reserved", extra=value, stacklevel=value, other=6)
    assert time.perf_counter() - start < 5
    records = process.records()
    assert sorted(record.context["other"] for record in records) == [1, 2, 3, 4, 5, 6]
    assert process.dropped() == {}
    for record in records:
        record.message.encode()
        assert len(str(record.context)) < 200_000
    assert {record.message for record in records} >= {"as context", "as extra", "nested", "as reserved"}


@pytest.mark.parametrize("kind", VALUES)
def test_any_value_anywhere_in_a_measurement_is_kept(process: Process, log: HFTLogger, kind: str) -> None:
    value = VALUES[kind]()
    log.metric("depth", value)
    log.metric("depth", 1, k=value)
    log.metric("depth", 1, tags={"k": value})
    log.counter("count", value)
    log.counter("count", tags=value)
    log.latency("parse", value, k=value)
    log.metric(value, 1)
    log.latency(value, 1)
    records = process.records(LogType.METRIC)
    assert process.dropped() == {}
    assert [record.metric_name for record in records[:6]] == ["depth"] * 3 + ["count"] * 2 + ["latency"]
    assert len(records) == 8
    for record in records:
        record.metric_name.encode()
        assert len(record.metric_name) < 400
        assert {type(tag) for tag in record.metric_tags} <= {str}


@pytest.mark.parametrize("kind", VALUES)
def test_any_value_anywhere_in_an_audit_event_is_kept(process: Process, log: HFTLogger, kind: str) -> None:
    value = VALUES[kind]()
    log.audit("trade", k=value, order=1)
    log.audit(value, order=2)
    log.audit("trade", nested={"deep": [value]}, order=3)
    records = process.records(LogType.AUDIT)
    assert [record.context["order"] for record in records] == [1, 2, 3]
    assert process.dropped() == {}


@pytest.mark.parametrize("kind", VALUES)
def test_any_value_in_the_lasting_context_leaves_the_logger_working(
    process: Process, log: HFTLogger, kind: str
) -> None:
    value = VALUES[kind]()
    log.set_context(k=value)
    log.context["direct"] = value
    bound = log.bind(bound=value)
    with bound.scoped(scope=value):
        bound.info("hello", other=1)
        bound.metric("depth", 1)
        bound.audit("trade")
    [record] = process.records()
    assert record.context["other"] == 1
    assert {"k", "direct", "bound", "scope"} <= set(record.context)
    assert len(process.backend.of(LogType.METRIC)) == len(process.backend.of(LogType.AUDIT)) == 1
    assert process.dropped() == {}


NAMES = [
    "msg",
    "name",
    "value",
    "event",
    "level",
    "self",
    "tags",
    "operation",
    "duration_ms",
    "args",
    "context",
    "kind",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_a_positional_fills_already_is_context(
    process: Process, log: HFTLogger, name: str
) -> None:
    log.info("text", **{name: "mine"})
    log.log(20, "text", **{name: "mine"})
    log.bind(**{name: "mine"}).info("text")
    log.audit("event", **{name: "mine"})
    with log.scoped(**{name: "mine"}):
        log.info("text")
    records = [*process.records(), *process.backend.of(LogType.AUDIT)]
    assert [record.context for record in records] == [{name: "mine"}] * 5
    if name != "tags":
        log.metric("depth", 1, **{name: "mine"})
        log.counter("count", 1, **{name: "mine"})
        assert [record.metric_tags for record in process.records(LogType.METRIC)] == [{name: "mine"}] * 2


def test_keyword_forms_of_the_plan_s_parameters_work(process: Process, log: HFTLogger) -> None:
    log.info(msg="by keyword", k=1)
    log.log(level=30, msg="warned")
    log.log(level="ERROR", msg="erred")
    log.metric(name="depth", value=5, side="bid")
    log.metric("depth", value=6)
    log.counter(name="count")
    log.counter("count", value=3)
    log.latency(operation="parse", duration_ms=1.5, k="v")
    log.latency("parse", duration_ms=2.5)
    log.audit(event="trade", order=1)
    texts = {record.message: (record.level.name, record.context) for record in process.records()}
    assert texts == {"by keyword": ("INFO", {"k": 1}), "warned": ("WARNING", {}), "erred": ("ERROR", {})}
    metrics = process.backend.of(LogType.METRIC)
    assert [(record.metric_name, record.metric_value, record.metric_tags) for record in metrics] == [
        ("depth", 5, {"side": "bid"}),
        ("depth", 6, {}),
        ("count", 1, {}),
        ("count", 3, {}),
        ("latency", 1.5, {"k": "v", "operation": "parse"}),
        ("latency", 2.5, {"operation": "parse"}),
    ]
    [audit] = process.backend.of(LogType.AUDIT)
    assert (audit.message, audit.context) == ("trade", {"order": 1})


def test_a_counter_adds_one_only_where_no_value_is_given(process: Process, log: HFTLogger) -> None:
    log.counter("given", None)
    log.counter("given", value=None)
    log.counter("given", None, value="a tag")
    log.counter("not given")
    log.counter("not given", k=object())  # packed the guarded way
    log.counter("given", None, k=object())
    log.counter("given", msgspec.msgpack.Ext(7, b"mine"))
    found = [(r.metric_name, r.metric_value) for r in process.records(LogType.METRIC)]
    assert found[:6] == [("given", None)] * 3 + [("not given", 1)] * 2 + [("given", None)]
    assert found[6][1] != 1
    instruments = Instruments(MeterProvider(shutdown_on_exit=False), "hft_")
    reasons = [instruments.record(record) for record in process.backend.of(LogType.METRIC)]
    assert reasons == ["not_a_number"] * 3 + [None] * 2 + ["not_a_number"] * 2


def test_calls_with_nothing_at_all_are_counted(process: Process, log: HFTLogger) -> None:
    for call in (log.debug, log.info, log.warning, log.error, log.critical, log.exception, log.log):
        call()
    log.metric()
    log.counter()
    log.latency()
    log.audit()
    process.flush()
    assert process.emitted() == 11
    assert len(process.backend.got) == 11


@pytest.mark.parametrize("word", ["exc_info", "stack_info", "stacklevel", "extra"])
@pytest.mark.parametrize(
    "value", [False, None, 0, "", 1, True, "text", [], {}, (), (1,), (None, None, None), ValueError("x")]
)
def test_reserved_words_take_anything(process: Process, log: HFTLogger, word: str, value: Any) -> None:
    log.info("text", k=1, **{word: value})
    record = process.only()
    assert record.message == "text"
    assert record.context["k"] == 1
    assert word not in record.context or word == "extra"


@pytest.mark.parametrize(
    ("template", "args"),
    [
        ("%s %s", (1,)),
        ("%s", (1, 2)),
        ("%d", ("x",)),
        ("%d", (None,)),
        ("100%", (1,)),
        ("%(a)s", (1,)),
        ("%(a)s", ({"b": 1},)),
        ("no place", (1, 2)),
        ("%999999999d", (1,)),
        ("%*d", (10**9, 1)),
        ("%c", (-1,)),
        (5, (1,)),
        (None, (1, 2)),
        (b"%d", (1,)),
    ],
)
def test_wrong_arguments_keep_template_and_arguments(
    process: Process, log: HFTLogger, template: Any, args: Any
) -> None:
    log.info(template, *args, k=1)
    record = process.only()
    assert record.context["k"] == 1
    if template != b"%d":
        assert str(template) in record.message
        for arg in args:
            assert str(arg) in record.message
    assert len(record.message) < 1000


@pytest.mark.parametrize(
    ("template", "args"),
    [
        ("%s %d %.2f %r", ("a", 1, 2.5, "b")),
        ("%(a)s-%(b)d", ({"a": 1, "b": 2},)),
        ("%s", ({"a": 1},)),
        ("%s", ({},)),
        ("%s and %s", ([1, 2], (3,))),
        ("%s", (None,)),
        ("%s", (decimal.Decimal("1.10"),)),
        ("%s", (Side.BUY,)),
        ("%s", (dt.timedelta(1),)),
        ("%d", (True,)),
        ("%d", (2**100,)),
        ("%x", (2**64,)),
        ("%5.1f%%", (99.5,)),
        ("%s", (b"x",)),
    ],
    ids=str,
)
def test_right_arguments_read_as_in_python_s_logging(
    process: Process, log: HFTLogger, template: str, args: Any
) -> None:
    log.info(template, *args)
    values = args[0] if len(args) == 1 and isinstance(args[0], dict) and args[0] else args
    assert process.only().message == template % values


@pytest.mark.parametrize(
    "level",
    [10.5, None, "NOSUCH", "warning", 10**30, [], math.nan, object()],
    ids=lambda level: type(level).__name__,
)
def test_any_level_is_taken(process: Process, log: HFTLogger, level: Any) -> None:
    log.log(level, "text", k=1)
    assert process.only().context["k"] == 1


@pytest.mark.parametrize("level", [-5, 0, True, 5])
def test_a_level_below_every_backend_s_is_counted(process: Process, log: HFTLogger, level: Any) -> None:
    log.log(level, "text")
    assert process.records() == []
    assert process.emitted() == 1
    assert process.dropped() == {}


@pytest.mark.parametrize("name", ["a\udc80b", "", "x" * 100_000, 5, None, "\0", "\N{MONEY BAG}"], ids=ascii)
def test_any_logger_name_works(process: Process, name: Any) -> None:
    log = process.logger(name)
    log.info("text")
    log.metric("depth", 1)
    log.audit("event")
    [record] = process.records()
    record.logger_name.encode()
    assert len(record.logger_name) < 400
    assert len(process.backend.got) == 3


def test_a_message_of_ten_megabytes_is_cut_and_marked(process: Process, log: HFTLogger) -> None:
    log.info("x" * 10_000_000, k="y" * 10_000_000, other=1)
    record = process.only()
    assert record.message.endswith("characters cut]")
    assert record.context["k"].endswith("characters cut]")
    assert record.context["other"] == 1


def test_a_thousand_long_values_leave_at_least_the_message(process: Process, log: HFTLogger) -> None:
    log.info("many", **{f"k{number}": "x" * 10_000 for number in range(2000)})
    log.audit("many", **{f"k{number}": "x" * 10_000 for number in range(2000)})
    log.metric("many", 1, **{f"k{number}": "x" * 10_000 for number in range(100)})
    log.exception("many", **{f"k{number}": "x" * 10_000 for number in range(2000)})
    assert [record.message for record in process.records()] == ["many", "many"]
    assert [record.message for record in process.backend.of(LogType.AUDIT)] == ["many"]
    assert process.emitted() == 4


def test_a_context_too_large_for_any_record_does_not_silence_the_logger(
    process: Process, log: HFTLogger
) -> None:
    log.set_context(**{f"k{number}": "x" * 10_000 for number in range(200)})
    log.info("text", k=1)
    log.audit("event", k=1)
    log.metric("depth", 1)
    assert [record.message for record in process.records()] == ["text"]
    assert len(process.backend.got) == 3


def test_none_tags_are_left_out(process: Process, log: HFTLogger) -> None:
    log.metric("depth", 1, exchange=None, symbol="BTC", tags={"a": None, "b": 2})
    log.metric("depth", 1, tags=None)
    log.metric("depth", 1, tags=5)
    found = [record.metric_tags for record in process.records(LogType.METRIC)]
    assert found == [{"b": 2, "symbol": "BTC"}, {}, {"tags": 5}]


def test_a_secret_leaves_by_no_way(process: Process, log: HFTLogger) -> None:
    log.set_context(api_key="hush")
    with log.scoped(token="hush"):
        log.info("api_key=hush %s", "secret=hush", password="hush", deep={"signature": ["hush"]})
        log.info("text", extra={"api_key": "hush"}, k=object(), secret="hush")
        log.metric("depth", 1, api_key="hush", tags={"secret": "hush"})
        log.audit("trade", api_key="hush", deep={"secret": "hush"}, odd=object())
        try:
            raise ValueError("api_key=hush")
        except ValueError:
            log.exception("failed", private_key="hush")
    process.flush()
    for record in process.backend.got:
        assert "hush" not in str(record).replace('ValueError("api_key=hush")', "").replace(
            "'hush'", "hush"
        ) or ("hush" not in json.dumps([record.message, str(record.context), str(record.metric_tags)]))
        assert "hush" not in str(record.context) + str(record.metric_tags) + record.message
        assert "hush" not in (record.exception.message if record.exception else "")
    assert len(process.backend.got) == 5


def test_near_the_end_of_the_stack_every_call_returns_and_is_counted(
    request: pytest.FixtureRequest, process: Process, log: HFTLogger
) -> None:
    """At whatever depth a call can still be entered, it raises nothing."""

    def nothing(*args: object, **keywords: object) -> None:
        return None

    def at_depth(depth: int, call: Callable[..., None], *args: Any, **keywords: Any) -> None:
        if depth:
            at_depth(depth - 1, call, *args, **keywords)
        else:
            call(*args, **keywords)

    def deepest(call: Callable[..., None], *args: Any, **keywords: Any) -> int:
        depth = sys.getrecursionlimit() - 150
        while True:
            try:
                at_depth(depth, call, *args, **keywords)
            except RecursionError:
                return depth - 1
            depth += 1

    tracer = sys.gettrace()
    sys.settrace(None)  # one that measures coverage needs stack of its own
    request.addfinalizer(lambda: sys.settrace(tracer))
    limit = deepest(nothing, "text", k=1)
    called = 0
    for call, args in (
        (log.info, ("text",)),
        (log.info, ("text %s", 1)),
        (log.info, (object(),)),
        (log.warning, ("text",)),
        (log.metric, ("depth", 1)),
        (log.metric, ("depth", object())),
        (log.audit, ("event",)),
        (log.audit, (object(),)),
        (log.log, (20, "text")),
        (log.exception, ("text",)),
    ):
        for depth in range(limit - 60, limit + 1):
            at_depth(depth, call, *args, k=1)
            called += 1
    process.flush()
    assert process.emitted() == called
    assert set(process.dropped()) <= {"capture_failed"}


def test_a_repr_that_logs_does_not_end_in_a_circle(process: Process, log: HFTLogger) -> None:
    class Chatty:
        def __repr__(self) -> str:
            log.info("repr of", me=self)
            return "chatty"

    log.info("once", me=Chatty())
    process.flush()
    assert process.emitted() == len(process.backend.got) + sum(process.dropped().values())
    assert "once" in [record.message for record in process.backend.got]


def test_a_signal_handler_may_log_at_any_moment(process: Process, log: HFTLogger) -> None:
    fired = [0]

    def handler(number: int, frame: object) -> None:
        fired[0] += 1
        log.info("from the handler", n=fired[0])
        log.info("arguments %s", fired[0])
        log.audit("from the handler", n=fired[0])
        log.metric("signals", fired[0], odd=object())

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    calls = 0
    try:
        while fired[0] < 100:
            calls += 1
            log.info("from the loop", n=calls)
            log.info("guarded", n=calls, odd=object())
            log.audit("from the loop", n=calls)
            if calls % 50 == 0:
                process.worker.flush(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    process.flush()
    report = process.worker.report()
    assert report.emitted == 3 * calls + 4 * fired[0]
    for message in ("from the loop", "guarded"):  # handlers may interrupt each other
        numbers = [
            record.context["n"] for record in process.backend.of(LogType.TEXT) if record.message == message
        ]
        assert numbers == sorted(set(numbers))
    delivered = len(process.backend.got)
    assert delivered + report.dropped == report.emitted


def test_sixty_four_threads_are_counted_exactly_and_keep_their_order(tmp_path: Path) -> None:
    process = Process(tmp_path, Sizes(64 * 1024, 64, 64, 64), spare=8)
    log = process.logger("threads")
    threads, each = 64, 75
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(thread: int) -> None:
        rng = random.Random(thread)
        for n in range(each):
            log.info("low", thread=thread, n=n, pad="x" * rng.randrange(200))
            log.warning("high %s", thread, thread=thread, n=n)
            log.metric("m", n, thread=thread)
            log.audit("a", thread=thread, n=n)

    try:
        running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    process.flush()
    report = process.worker.report()
    assert report.emitted == 4 * threads * each
    assert len(process.backend.got) + report.dropped == report.emitted
    for messages in ({"low"}, {f"high {thread}" for thread in range(threads)}, {"a"}):
        for thread in range(threads):
            numbers = [
                record.context["n"]
                for record in process.backend.got
                if record.message in messages and record.context["thread"] == thread
            ]
            assert numbers == sorted(set(numbers))
    for thread in range(threads):
        metrics = [
            record.metric_value
            for record in process.backend.of(LogType.METRIC)
            if record.metric_tags["thread"] == thread
        ]
        assert metrics == sorted(set(metrics))
    ids = [record.audit_id for record in process.backend.of(LogType.AUDIT)]
    assert len(set(ids)) == len(ids)
    process.close()


def in_child(function: Callable[[], object]) -> Any:
    """Run a function in a forked child and return what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = json.dumps(function())
        except BaseException as error:
            answer = json.dumps(repr(error))
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


@pytest.mark.no_cover  # measuring coverage has locks of its own, which a forked child inherits
def test_a_forked_child_has_rooms_journal_and_counts_of_its_own(process: Process, log: HFTLogger) -> None:
    log.info("before", n=0)
    log.audit("before", n=0)
    process.flush()

    def child() -> list[Any]:
        process.backend.got.clear()
        log.info("in the child", n=1)
        log.warning("in the child %s", 1)
        log.metric("depth", 1)
        log.audit("in the child", n=2)
        report = log.force_flush(5)
        got = sorted(record.message for record in process.backend.got)
        stopped = process.worker.stop(5)
        return [bool(report), got, report.emitted, bool(stopped), process.intake.journal.stream]

    ok, got, emitted, stopped, stream = in_child(child)
    assert ok
    assert stopped
    assert got == ["", "in the child", "in the child", "in the child 1"]
    assert emitted == 4
    assert stream != process.intake.journal.stream
    log.info("after", n=3)
    assert [record.context["n"] for record in process.records()] == [0, 3]
    assert [path.name for path in process.intake.journal.folder.iterdir()] == [process.intake.journal.stream]


@pytest.mark.no_cover  # measuring coverage has locks of its own, which a forked child inherits
def test_a_child_that_never_logs_makes_nothing(process: Process, log: HFTLogger) -> None:
    log.audit("before")
    process.flush()
    folder = process.intake.journal.folder
    before = sorted(folder.rglob("*"))

    def child() -> list[Any]:
        descriptors = [str(path.resolve()) for path in Path("/proc/self/fd").iterdir()]
        return [
            threading.active_count(),
            [name for name in descriptors if name.startswith(str(folder)) and name.endswith("lock")],
        ]

    assert in_child(child) == [1, []]  # nor does it hold the parent's lock when that is gone
    assert sorted(folder.rglob("*")) == before


BUSY_PARENT = """
import signal, sys, threading
from pathlib import Path
from tests.unit.core_support import Process
from tests.unit.test_bad_input import in_child

process = Process(Path(sys.argv[1]))
log = process.logger("busy")
running = True

def work():
    while running:
        log.info("busy", pad="x" * 500)
        log.audit("busy")

def child():
    signal.alarm(20)
    process.backend.got.clear()
    log.info("child")
    log.audit("child")
    log.force_flush(5)
    process.worker.stop(5)
    return sum(record.message == "child" for record in process.backend.got)

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
try:
    print([in_child(child) for _ in range(5)])
finally:
    running = False
    for thread in threads:
        thread.join()
    process.close()
"""


def test_a_child_of_a_busy_parent_is_never_stuck(tmp_path: Path) -> None:
    program = python(BUSY_PARENT, tmp_path, measured=False)
    said, complaint = program.communicate(timeout=100)
    assert said == "[2, 2, 2, 2, 2]\n", complaint


@pytest.mark.no_cover  # measuring coverage has locks of its own, which a forked child inherits
def test_an_audit_in_a_child_that_is_killed_is_delivered_at_the_next_start(tmp_path: Path) -> None:
    process = Process(tmp_path, started=False)
    log = process.logger("parent")
    child = os.fork()
    if not child:
        log.audit("from the child")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    process.intake.journal.close(settled=True)
    following = Process(tmp_path)
    following.logger("next")
    assert following.only(LogType.AUDIT).message == "from the child"
    following.close()


def _log_in_child(folder: str, connection: Any) -> None:
    process = Process(Path(folder))
    process.logger("spawned").info("hello %s", "there")
    connection.send([record.message for record in process.records()])
    process.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_of_multiprocessing_logs(
    process: Process, log: HFTLogger, tmp_path: Path, method: str
) -> None:
    log.info("before")
    process.flush()
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_log_in_child, args=(str(tmp_path / "child"), sender))
    child.start()
    assert receiver.poll(30)
    assert receiver.recv() == ["hello there"]
    child.join(10)
    assert child.exitcode == 0


def test_use_after_close_is_counted(process: Process, log: HFTLogger) -> None:
    log.info("before")
    child = log.bind(k=1)
    assert log.close()
    closed = log.bind(k=2)
    for logger in (log, closed):
        logger.info("after")
        logger.info("after %s", 1)
        logger.info("after", odd=object())
        logger.warning("after")
        logger.metric("after", 1)
        logger.metric("after", object())
        logger.audit("after")
        logger.audit(object())
        logger.set_context(a=1)
        with logger.scoped(a=1):
            logger.info("after")
    child.info("still open")
    assert sorted(record.message for record in process.records()) == ["before", "still open"]
    assert process.dropped() == {"logger_closed": 18}
    log.close()
    assert process.emitted() == 20


def test_use_after_the_worker_has_stopped_is_counted(tmp_path: Path) -> None:
    process = Process(tmp_path)
    log = process.logger("late")
    log.info("before")
    report = process.stop(5)
    assert report is not None
    assert report.complete
    log.info("after")
    log.info("after", odd=object())
    log.error("after %s", 1)
    log.metric("after", 1)
    log.audit("after")  # is kept for the next start
    assert process.dropped() == {"after_shutdown": 4}
    assert process.emitted() == 5
    assert [record.message for record in process.backend.got] == ["before"]
    assert not log.force_flush(0.05)


def test_a_bad_span_costs_no_record(process: Process, log: HFTLogger) -> None:
    from opentelemetry import context as otel_context
    from opentelemetry import trace
    from opentelemetry.trace import SpanContext, TraceFlags

    for span in (
        raising("get_span_context"),
        5,
        trace.NonRecordingSpan(None),  # type: ignore[arg-type]
        trace.NonRecordingSpan(SpanContext(2**200, 2**100, False, TraceFlags(1))),
        trace.NonRecordingSpan((1, 2)),  # type: ignore[arg-type]
    ):
        token = otel_context.attach(trace.set_span_in_context(span))  # type: ignore[arg-type]
        try:
            log.info("text")
            log.audit("event")
            log.metric("depth", 1)
            with log.scoped(k=1):
                log.info("text", odd=object())
        finally:
            otel_context.detach(token)
    assert [record.trace for record in process.records()] == [None] * 10
    assert len(process.backend.got) == 20


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters()) | st.integers() | st.tuples(st.text()), inner)
    ),
    max_leaves=10,
)


@settings(
    max_examples=settings.default.max_examples // 4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), anything, st.dictionaries(st.text(st.characters()), anything, max_size=4)
        )
    )
)
def test_whatever_is_said_is_counted_and_kept(
    process: Process, log: HFTLogger, calls: list[tuple[int, Any, dict[str, Any]]]
) -> None:
    before, kept = process.emitted(), len(process.backend.got)
    for method, first, keywords in calls:
        [log.info, log.error, log.exception, log.audit, log.metric, log.latency][method](first, **keywords)
    process.flush()
    assert process.emitted() - before == len(calls)
    assert len(process.backend.got) - kept == len(calls)


def test_nothing_is_written_to_stderr_whatever_comes() -> None:
    script = """
import tempfile, pathlib, warnings
from tests.unit.test_bad_input import VALUES, Process
process = Process(pathlib.Path(tempfile.mkdtemp()))
log = process.logger("quiet")
for make in VALUES.values():
    value = make()
    log.info(value, k=value); log.metric("m", value); log.audit("a", k=value); log.warning("%s", value)
process.flush(); process.close()
"""
    child = python(script)
    _, complaint = child.communicate(timeout=60)
    assert complaint == ""
    assert child.returncode == 0


assert SMALL.segment == 64 * 1024  # what the sizes above are chosen for
