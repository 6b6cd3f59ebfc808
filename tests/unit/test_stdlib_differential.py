"""The same random call to a logger of Python's logging, to ours, to ours with a handler, and over the bridge."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hft_otel.bridge import Bridge
from hft_otel.lanes.capture import plain_context
from hft_otel.record import LogRecord
from tests.unit.core_support import Process


class Side(Enum):
    BUY = "buy"


class Lazy:
    def __str__(self) -> str:
        return "lazily made"


class Capturing(logging.Handler):
    """What logging would have printed."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Call(NamedTuple):
    method: str
    level: int
    msg: Any
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    error: BaseException | None
    trace: TracebackType | None

    def make(self, logger: Any) -> None:
        if self.error is None:
            self.log(logger)
            return
        try:
            raise self.error.with_traceback(self.trace)
        except type(self.error):
            self.log(logger)

    def log(self, logger: Any) -> None:
        if self.method == "log":
            logger.log(self.level, self.msg, *self.args, **self.keywords)
        else:
            getattr(logger, self.method)(self.msg, *self.args, **self.keywords)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ATOMS = st.one_of(
    TEXT, st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.none(), st.binary(max_size=8)
)
OBJECTS = st.sampled_from(
    [Side.BUY, Decimal("1.50"), Lazy(), [1, "a"], {"k": 1}, (1, 2), {1}, ValueError("v"), 10**30]
)
ARGUMENTS = st.one_of(ATOMS, OBJECTS)
FORMS = st.sampled_from(["%s", "%r", "%5s|", "%-7s|", "%%", "%.3s"])


@st.composite
def formatted(draw: st.DrawFn) -> tuple[Any, tuple[Any, ...]]:
    parts, args = [], []
    for form in draw(st.lists(FORMS, max_size=4)):
        parts.append(draw(TEXT).replace("%", "%%") + form)
        if form != "%%":
            args.append(draw(ARGUMENTS))
    if not args:  # then logging formats nothing at all
        return draw(st.one_of(TEXT, st.sampled_from([Lazy(), None, 7, Side.BUY, ValueError("m")]))), ()
    return "".join(parts), tuple(args)


def by_name(values: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    return " ".join(f"%({key})s" for key in values), (values,)


KEYS = st.text("abcxyz_", min_size=1, max_size=6)
MESSAGES = st.one_of(
    formatted(), st.dictionaries(KEYS, ARGUMENTS, min_size=1, max_size=3).map(by_name)
).filter(lambda pair: not (len(pair[1]) == 1 and isinstance(pair[1][0], dict) and "%(" not in pair[0]))
EXTRA = st.dictionaries(
    st.text("klmno", min_size=1, max_size=6), st.one_of(TEXT, st.integers(0, 99), st.booleans()), max_size=3
)


def raised(depth: int, chained: bool, note: str) -> BaseException:
    try:
        try:
            if depth:
                raise KeyError(depth)
            raise ExceptionGroup("both", [ValueError("a"), TypeError("b")])
        except Exception as inner:
            raise RuntimeError(note) from (inner if chained else None)
    except RuntimeError as error:
        if note:
            error.add_note(note)
        return error


@st.composite
def calls(draw: st.DrawFn) -> Call:
    msg, args = draw(MESSAGES)
    method = draw(st.sampled_from(["debug", "info", "warning", "error", "critical", "exception", "log"]))
    keywords: dict[str, Any] = {}
    if extra := draw(EXTRA):
        keywords["extra"] = extra
    error = None
    if draw(st.booleans()):
        error = raised(
            draw(st.integers(0, 1)), draw(st.booleans()), draw(st.sampled_from(["", "a note", "two\nlines"]))
        )
        keywords["exc_info"] = draw(
            st.sampled_from([True, False, error, (type(error), error, error.__traceback__)])
        )
    if draw(st.booleans()):
        keywords["stacklevel"] = draw(st.integers(1, 2))
    return Call(
        method,
        draw(st.sampled_from([10, 20, 25, 30, 45])),
        msg,
        args,
        keywords,
        error,
        error and error.__traceback__,
    )


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("journal"))
    process.logger("start")
    yield process
    process.close()


FORMATTER = logging.Formatter()


def expected(record: logging.LogRecord) -> tuple[Any, ...]:
    own = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    exception = None
    if record.exc_info and record.exc_info[1] is not None:
        exception = FORMATTER.formatException(record.exc_info)  # type: ignore[arg-type]
    extra = {key: value for key, value in vars(record).items() if key not in own}
    return record.getMessage(), record.levelno, exception, plain_context(extra, 65_536)


def found(record: LogRecord) -> tuple[Any, ...]:
    return record.message, int(record.level), record.exception and record.exception.stacktrace, record.context


@settings(suppress_health_check=list(HealthCheck))
@given(call=calls())
def test_every_call_is_the_same_on_every_way(process: Process, call: Call) -> None:
    plain, capturing = logging.Logger("differential"), Capturing()
    plain.addHandler(capturing)
    call.make(plain)
    want = expected(capturing.records[0])

    ours, watched = process.logger("differential"), process.logger("differential")
    heard = Capturing()
    watched.addHandler(heard)
    bridged = logging.Logger("differential")
    bridged.addHandler(logging.NullHandler())
    process.backend.got.clear()
    call.make(ours)
    call.make(watched)
    with Bridge(process.logger("stdlib")) as bridge:
        bridge.install()
        call.make(bridged)
    records = process.records()
    assert [found(record) for record in records] == [want] * 3
    assert expected(heard.records[0]) == want
    sites = {record.call_site and record.call_site.function.rpartition(".")[2] for record in records[1:]}
    if capturing.records[0].levelno >= logging.WARNING:
        assert sites == {capturing.records[0].funcName}
