"""Every bad input of a hard life, through the factory into a file and a real Collector, in one process.

No call raises, every call is counted, and what can be kept is kept at the Collector.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.real.conftest import binary
from tests.real.processes import otlp, run_script, write_config
from tests.real.running import Collector

THREADS, EACH, INTERRUPTED = (
    32,
    40,
    1_000,
)  # fewer at a time than a destination's queue holds: this is not about load

PROGRAM = f"""
import dataclasses, datetime, decimal, enum, json, math, os, signal, sys, threading, uuid
from hft_otel import LogConfig, LoggerFactory

logger = LoggerFactory.create_logger("bad", LogConfig.from_yaml("logging.yaml"))
calls = {{"TEXT": 0, "METRIC": 0, "AUDIT": 0}}


class Broken:
    def __repr__(self): raise RuntimeError("repr")
    def __str__(self): raise RuntimeError("str")
    def __hash__(self): return 7
    def __eq__(self, other): raise RuntimeError("eq")
    def __bool__(self): raise RuntimeError("bool")
    def __float__(self): raise RuntimeError("float")
    def __format__(self, spec): raise RuntimeError("format")

class BrokenDict(dict):
    def items(self): raise RuntimeError("items")
    def __iter__(self): raise RuntimeError("iter")

class BrokenError(Exception):
    def __str__(self): raise RuntimeError("str")
    __repr__ = __str__

class Colour(enum.Enum):
    RED = "red"

class Text(str):
    def __str__(self): raise RuntimeError("str")

@dataclasses.dataclass
class Order:
    id: str
    price: decimal.Decimal

loop = {{}}
loop["self"] = loop
ring = []
ring.append(ring)
deep = leaf = []
for _ in range(100_000):
    leaf.append([])
    leaf = leaf[0]

values = {{
    "none": None, "nan": math.nan, "inf": math.inf, "big": 2**100, "huge": 10**10_000, "negative": -(2**63) - 1,
    "surrogate": "a\\ud800b", "nul": "a\\x00b", "long": "x" * 10_000_000, "bytes": bytes(range(256)), "empty": "",
    "many_bytes": b"y" * 10_000_000, "decimal": decimal.Decimal("1.10"), "decimal_nan": decimal.Decimal("sNaN"),
    "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "delta": datetime.timedelta(seconds=1),
    "uuid": uuid.UUID(int=5), "enum": Colour.RED, "order": Order("o-1", decimal.Decimal("2.5")), "class": Order,
    "set": {{1, 2}}, "frozen": frozenset({{"a"}}), "tuple": (1, (2, (3,))), "nested": {{"a": [1, {{"b": None}}]}},
    "loop": loop, "ring": ring, "deep": deep, "wide": list(range(100_000)), "broken": Broken(),
    "broken_in_list": [Broken(), 1], "broken_dict": BrokenDict(a=1), "text": Text("subclass"), "function": print,
    "complex": 1 + 2j, "range": range(3), "iterator": iter([1]), "lock": threading.Lock(), "keys": {{1: 2, None: 3, (4,): 5}},
    "same_keys": {{"1": "a", 1: "b"}}, "memory": memoryview(b"abc"), "ellipsis": ..., "module": sys, "broken_error": BrokenError(),
}}


def text(method, *args, **context):
    assert getattr(logger, method)(*args, **context) is None
    calls["TEXT"] += 1


# values, in text, audit events, tags, scopes and bound context
for name, value in values.items():
    text("info", "value", case=name, value=value)
    text("warning", "value %s", value, case=f"arg {{name}}")
    text("error", value, case=f"message {{name}}")
    calls["AUDIT"] += 2
    logger.audit("value", case=name, value=value)
    logger.audit(value, case=f"event {{name}}")
    calls["METRIC"] += 3
    logger.counter("tagged", 1, case=name, value=value)
    logger.metric("valued", value, case=name)
    logger.latency(value, 1.0)
    with logger.scoped(value=value):
        text("info", "scoped", case=f"scoped {{name}}")
    child = logger.bind(value=value)
    calls["TEXT"] += 1
    child.info("bound", case=f"bound {{name}}")

assert logger.force_flush(60) is not None

# keys and words
for number, key in enumerate(("", " ", "a.b", "\\ud800", "\\x00", "k" * 100_000, "self", "msg", "name", "value", "level",
                              "event", "args", "audit.id", "exception.type", "service.name", "case ")):
    text("info", "key", case=f"key {{number}}", **{{key: 1}})
    calls["AUDIT"] += 1
    logger.audit("key", case=f"key {{number}}", **{{key: 1}})
    calls["METRIC"] += 1
    logger.counter("keyed", 1, **{{key: 1}})

# calls that are wrong
for args in ((), ("%d", "x"), ("%s %s", 1), ("no args", 1, 2), ("%(a)s", {{"b": 1}}), ("%", 1), ("%c", -1), (None,), (b"bytes",), (5,)):
    text("info", *args, case=f"args {{args!r}}")
for word in ("exc_info", "stack_info", "stacklevel", "extra"):
    for value in (None, True, 5, "x", Broken(), BrokenError(), (), (1, 2, 3), {{"a": 1}}):
        text("error", "reserved", case="reserved", **{{word: value}})
for level in (None, "LOUD", -5, 10**9, 25, "error", Broken(), 2.5):
    calls["TEXT"] += type(level) is not int or level > 0  # -5 is below min_level
    logger.log(level, "level", case="level")
try:
    raise BrokenError
except BrokenError:
    text("exception", "broken exception", case="exception")
def recurse(): recurse()
try:
    recurse()
except RecursionError:
    text("exception", "recursion", case="recursion")
first, second = ValueError("first"), ValueError("second")
first.__cause__, second.__cause__ = second, first
text("error", "circular", case="circular", exc_info=first)
text("error", "group", case="group", exc_info=ExceptionGroup("all", [ValueError(1), ExceptionGroup("in", [KeyError("k")])]))
def log_at_the_end_of_the_stack(depth=0):
    try:
        log_at_the_end_of_the_stack(depth + 1)
    except RecursionError:
        text("info", "end of the stack", case="end of the stack")  # where even calling it fails, Python itself raises
        logger.counter("end")
        calls["METRIC"] += 1
        raise
sys.setrecursionlimit(300)
try:
    log_at_the_end_of_the_stack()
except RecursionError:
    pass
sys.setrecursionlimit(1000)

# measurements that are none
for value in (math.nan, math.inf, -math.inf, -1, "7", "x", True, decimal.Decimal("2.5"), 1.5, decimal.Decimal("sNaN"), 2**2000):
    calls["METRIC"] += 3
    logger.metric("gauge", value)
    logger.counter("counter", value)
    logger.latency("histogram", value)
for name in ("", "\\ud800", "x" * 10_000, None, 5, "a b/c-d", "counter"):
    calls["METRIC"] += 2
    logger.metric(name, 1)
    logger.counter(name, 1)
for missing in (logger.metric, logger.counter, logger.latency):
    calls["METRIC"] += 2
    missing()
    missing("only_a_name")
calls["METRIC"] += 2
logger.counter("tagged", 1, tags="no mapping")
logger.counter("tagged", 1, tags={{1: 2, None: None}})
calls["AUDIT"] += 1
logger.audit()

assert logger.force_flush(60) is not None

# from a signal handler, which may interrupt a call
def on_signal(number, frame):
    text("warning", "signal", case="signal")
    calls["AUDIT"] += 1
    logger.audit("signal", case="signal")
signal.signal(signal.SIGALRM, on_signal)
for number in range({INTERRUPTED}):
    if number % 10 == 0:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 70))  # hits one of the calls that follow
    text("info", "interrupted", case="interrupted")
signal.setitimer(signal.ITIMER_REAL, 0)
assert logger.force_flush(60) is not None

# from many threads, at once
def shout(thread):
    for number in range({EACH}):
        logger.info("thread", case="threads", thread=thread, number=number, value=values["broken_in_list"])
        logger.audit("thread", case="threads", thread=thread, number=number)
        logger.counter("threads")
threads = [threading.Thread(target=shout, args=(n,)) for n in range({THREADS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
for kind in calls:
    calls[kind] += {THREADS * EACH}

# after close
report = logger.close(60)
closed = 0
for call in (lambda: logger.info("late"), lambda: logger.audit("late"), lambda: logger.counter("late"),
             lambda: logger.exception("late"), lambda: logger.log(20, "late %s", Broken()), lambda: logger.set_context(a=1),
             lambda: logger.close(), lambda: logger.bind(b=Broken()).warning("late", x=Broken())):
    call()
report = logger.force_flush(30)
print(json.dumps({{
    "calls": calls, "complete": report.complete, "report": str(report),
    "lanes": [dataclasses.asdict(lane) | {{"emitted": lane.emitted}} for lane in report.lanes],
    "destinations": [dataclasses.asdict(s) | {{"pending": s.pending}} for s in report.destinations],
    "cases": list(values),
}}))
"""


class Outcome(NamedTuple):
    """What the program said, what its file has, and what the Collector has."""

    told: dict[str, Any]
    lines: list[dict[str, Any]]
    logs: list[dict[str, Any]]
    spans: list[dict[str, Any]]
    metrics: list[dict[str, Any]]

    def case(self, name: str, *, audit: bool = False) -> dict[str, Any]:
        """The attributes of the one record of a case at the Collector."""
        (found,) = (
            record["attributes"]
            for record in self.logs
            if record["attributes"].get("case") == name and bool(record["event_name"]) is audit
        )
        return dict(found)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Run the program against a Collector."""
    folder: Path = tmp_path_factory.mktemp("bad")
    collector = Collector(binary("otelcol-hft-test"), folder / "collector")
    collector.start()
    try:
        file = {"enabled": True, "config": {"file_path": "all.jsonl", "format": "json", "rotation": False}}
        write_config(folder, {"file": file, "otlp": otlp(collector.endpoint)}, exit_timeout=10.0)
        ended = run_script(PROGRAM, cwd=folder)
    finally:
        collector.stop()
    assert "Traceback" not in ended.stderr, ended.stderr
    lines = [json.loads(line) for line in (folder / "all.jsonl").read_text().splitlines()]
    yield Outcome(ended.told, lines, collector.logs(), collector.spans(), collector.metrics())


def test_no_call_raises_and_each_is_counted(outcome: Outcome) -> None:
    told = outcome.told
    emitted: Counter[str] = Counter()
    closed = 0
    for lane in told["lanes"]:
        emitted[lane["type"]] += lane["emitted"]
        late = lane["dropped"].get("logger_closed", 0)
        emitted[lane["type"]] -= late
        closed += late
    assert dict(emitted) == told["calls"], told["report"]
    assert closed == 6


def test_both_sums_add_up_and_nothing_is_pending(outcome: Outcome) -> None:
    told = outcome.told
    assert told["complete"], told["report"]
    for lane in told["lanes"]:
        assert lane["pending"] == 0
        lost = sum(lane["dropped"].values())
        assert lane["emitted"] == lane["routed"] + lane["unrouted"] + lost
    for sums in told["destinations"]:
        assert sums["pending"] == 0
        assert sums["accepted"] == sums["delivered"] + sum(sums["dropped"].values())


def test_nothing_is_dropped_but_what_no_destination_could_take(outcome: Outcome) -> None:
    reasons = {reason for lane in outcome.told["lanes"] for reason in lane["dropped"]}
    assert reasons <= {"logger_closed", "capture_failed"}, outcome.told["report"]
    dropped = {(s["destination"], s["type"]): set(s["dropped"]) for s in outcome.told["destinations"]}
    assert dropped.pop(("otlp.metrics", "METRIC")) == {
        "not_a_number",
        "not_finite",
        "negative_counter",
        "negative_histogram",
        "invalid_name",
        "kind_conflict",
    }
    assert set().union(*dropped.values()) == set(), outcome.told["report"]


def test_collector_and_file_have_every_record_that_was_delivered(outcome: Outcome) -> None:
    delivered = {(s["destination"], s["type"]): s["delivered"] for s in outcome.told["destinations"]}
    events = [record for record in outcome.logs if record["event_name"]]
    assert len(events) == delivered["otlp.logs", "AUDIT"]
    assert len(outcome.logs) - len(events) == delivered["otlp.logs", "TEXT"]
    assert len(outcome.spans) == delivered["otlp.traces", "AUDIT"]
    in_file = Counter("event_name" in line for line in outcome.lines)
    assert in_file[True] == delivered["file", "AUDIT"]
    assert in_file[False] == delivered["file", "TEXT"]


def test_every_value_arrives_in_text_audit_event_argument_scope_and_bound_context(outcome: Outcome) -> None:
    texts = Counter(r["attributes"].get("case") for r in outcome.logs if not r["event_name"])
    audits = Counter(r["attributes"].get("case") for r in outcome.logs if r["event_name"])
    for name in outcome.told["cases"]:
        for case in (name, f"arg {name}", f"message {name}", f"scoped {name}", f"bound {name}"):
            assert texts[case] == 1, case
        for case in (name, f"event {name}"):
            assert audits[case] == 1, case


@pytest.mark.parametrize("audit", [False, True])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inf", float("inf")),
        ("big", str(2**100)),
        ("negative", str(-(2**63) - 1)),
        ("nul", "a\x00b"),
        ("bytes", bytes(range(256))),
        ("decimal", "1.10"),
        ("when", "2026-01-02T03:04:05+00:00"),
        ("uuid", "00000000-0000-0000-0000-000000000005"),
        ("enum", "red"),
        ("order", {"id": "o-1", "price": "2.5"}),
        ("tuple", [1, [2, [3]]]),
        ("text", "subclass"),
        ("complex", "(1+2j)"),
        ("range", "range(0, 3)"),
        ("memory", b"abc"),
    ],
)
def test_value_keeps_its_defined_form(outcome: Outcome, name: str, expected: object, audit: bool) -> None:
    assert outcome.case(name, audit=audit)["value"] == expected


def test_value_that_cannot_be_kept_whole_is_marked(outcome: Outcome) -> None:
    assert outcome.case("nan")["value"] != outcome.case("nan")["value"]
    long = outcome.case("long")["value"]
    assert long.startswith("xxxx")
    assert "characters cut" in long
    assert len(long) < 100_000
    assert len(outcome.case("many_bytes")["value"]) < 100_000
    assert "bits" in outcome.case("huge")["value"]
    assert "repr raised RuntimeError" in outcome.case("broken")["value"]
    assert outcome.case("broken_in_list")["value"][1] == 1
    assert "surrogate" not in outcome.case("surrogate")["value"]
    assert outcome.case("surrogate")["value"].startswith("a")
    assert len(outcome.case("wide")["value"]) >= 1000
    for name in ("loop", "ring", "deep"):
        assert outcome.case(name)["value"]


def test_wrong_arguments_leave_the_message_readable(outcome: Outcome) -> None:
    bodies = {r["attributes"].get("case", ""): r["body"] for r in outcome.logs}
    assert bodies["args ('%d', 'x')"].startswith("%d")
    assert "x" in bodies["args ('%d', 'x')"]
    assert bodies["args ('no args', 1, 2)"].startswith("no args")
    assert bodies["args (5,)"] == "5"
    assert bodies["args (None,)"] == "None"


def test_broken_circular_and_grouped_exceptions_are_captured(outcome: Outcome) -> None:
    assert outcome.case("exception")["exception.type"] == "BrokenError"
    assert outcome.case("recursion")["exception.type"] == "RecursionError"
    assert len(outcome.case("recursion")["exception.stacktrace"]) < 100_000
    assert outcome.case("circular")["exception.message"] == "first"
    assert "KeyError: 'k'" in outcome.case("group")["exception.stacktrace"]


def test_records_of_threads_a_signal_handler_are_all_there(outcome: Outcome) -> None:
    everyone = Counter((t, n) for t in range(THREADS) for n in range(EACH))
    for is_event in (False, True):
        mine = [r["attributes"] for r in outcome.logs if bool(r["event_name"]) is is_event]
        assert Counter((a["thread"], a["number"]) for a in mine if a.get("case") == "threads") == everyone
        assert sum(a.get("case") == "signal" for a in mine) > 0
    interrupted = [r for r in outcome.logs if r["body"] == "interrupted"]
    assert Counter(r["attributes"].get("case") for r in interrupted) == {"interrupted": INTERRUPTED}, (
        outcome.told["report"]
    )


def test_good_measurements_are_kept_beside_the_bad_ones(outcome: Outcome) -> None:
    newest = {(p["name"], str(p["attributes"])): p for p in outcome.metrics}
    assert newest["hft.threads", "{}"]["value"] == THREADS * EACH
    counted = 7 + 1 + 2.5 + 1.5 + 1  # "7", True, Decimal and float, and once by another loop
    assert newest["hft.counter", "{}"]["value"] == counted, [
        p for p in outcome.metrics if p["name"] == "hft.counter"
    ]
    histogram = newest["hft.latency", "{'operation': 'histogram'}"]
    assert histogram["count"] == 4
    assert histogram["sum"] == pytest.approx((7 + 1 + 2.5 + 1.5) / 1000)
