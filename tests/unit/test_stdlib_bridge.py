"""The bridge: what is logged through Python's logging arrives, once, as it was; logging itself stays as it is."""

from __future__ import annotations

import io
import logging
import logging.config
import logging.handlers
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from hft_otel import HFTLogger
from hft_otel.bridge import Bridge, Taker, installed
from hft_otel.lanes import capture
from hft_otel.stdlib import BridgeHandler
from tests.unit.core_support import Process, run_python

pytest_plugins = ["tests.unit.core_fixtures"]


@pytest.fixture
def bridge(process: Process) -> Iterator[Bridge]:
    root = logging.root.level
    logging.root.setLevel(logging.DEBUG)
    with Bridge(process.logger("stdlib", context={"service": "arb"})) as bridge:
        bridge.install()
        yield bridge
    logging.root.setLevel(root)


@pytest.fixture
def log(request: pytest.FixtureRequest) -> logging.Logger:
    return logging.getLogger(f"third.party.{request.node.name}")


class Side(Enum):
    BUY = 1


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_a_record_arrives_with_all_that_it_carries(
    process: Process, bridge: Bridge, log: logging.Logger
) -> None:
    own = process.logger("own")
    with own.scoped(correlation_id="c1"):
        log.warning("order %s at %.1f", "filled", 1.5, extra={"symbol": "BTC", "px": Decimal("1.5")})
    record = process.only()
    assert (record.logger_name, record.level, record.message) == (log.name, 30, "order filled at 1.5")
    assert record.context == {"service": "arb", "correlation_id": "c1", "symbol": "BTC", "px": "1.5"}
    assert record.call_site is not None
    assert record.call_site.function == "test_a_record_arrives_with_all_that_it_carries"
    assert Path(record.call_site.file) == Path(__file__)


def test_the_caller_formats_only_what_would_print_otherwise_after_packing(
    process: Process, bridge: Bridge, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    formatted: list[Any] = []
    from hft_otel import taken

    monkeypatch.setattr(taken, "formatted", lambda msg, args: formatted.append(msg) or str(msg % args))
    log.info("%s %d %.2f %s %s", "a", 1, 1.5, None, b"x")
    assert formatted == []
    log.info("%s %s", Side.BUY, Decimal("1.50"))
    assert formatted == ["%s %s"]
    assert [record.message for record in process.records()] == ["a 1 1.50 None b'x'", "Side.BUY 1.50"]


def test_exceptions_and_stacks_read_as_logging_prints_them(
    process: Process, bridge: Bridge, log: logging.Logger
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None
    except ValueError:
        log.exception("failed", stack_info=True)
    log.removeHandler(handler)
    record = process.only()
    assert record.exception is not None
    assert record.stack is not None
    assert f"failed\n{record.exception.stacktrace}\n{record.stack}\n" == stream.getvalue()


def test_bad_arguments_and_failing_texts_raise_nothing_and_are_kept(
    process: Process, bridge: Bridge, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.info("%d", "x")
    log.info("%s %s", 1)  # noqa: PLE1206  (the mistake is the point)
    log.info("%s", Broken())
    log.info(Broken())
    log.info(
        "big", extra={"broken": Broken(), "side": Side.BUY, "n": 10**40, "s": "\udc80", "big": "x" * 10**6}
    )
    messages = [record.message for record in process.records()]
    assert len(messages) == 5
    assert all(
        text in message for text, message in zip(("%d x", "%s %s 1", "%s", "Broken"), messages, strict=False)
    )
    last = process.backend.got[-1]
    assert last.context["side"] == 1
    assert last.context["n"] == str(10**40)
    assert process.dropped() == {}


def test_the_users_handlers_get_what_they_got_before(
    process: Process, bridge: Bridge, log: logging.Logger
) -> None:
    handler = Kept()
    logging.root.addHandler(handler)
    try:
        log.info("once")
        log.propagate = False
        log.info("not propagated")
    finally:
        logging.root.removeHandler(handler)
        log.propagate = True
    assert [record.getMessage() for record in handler.records] == ["once"]
    assert [record.message for record in process.records()] == ["once", "not propagated"]


def test_levels_and_filters_of_the_loggers_count(
    process: Process, bridge: Bridge, log: logging.Logger
) -> None:
    log.setLevel(logging.ERROR)
    log.warning("too low")
    log.addFilter(lambda record: "drop" not in record.msg)
    log.error("dropped")
    log.error("kept")
    log.filters.clear()
    log.setLevel(logging.NOTSET)
    assert process.only().message == "kept"


def test_our_own_loggers_are_not_taken_twice(process: Process, bridge: Bridge) -> None:
    own = process.logger("own")
    own.warning("short way")
    own.addHandler(Kept())
    own.warning("long way")
    assert [record.message for record in process.records()] == ["short way", "long way"]


@pytest.mark.parametrize("name", ["hft-otel-file", "OtelBatchLogRecordProcessor"])
def test_what_exporting_threads_log_is_left_out(
    process: Process, bridge: Bridge, log: logging.Logger, name: str
) -> None:
    thread = threading.Thread(target=log.warning, args=("from an exporter",), name=name)
    thread.start()
    thread.join()
    logging.getLogger("urllib3.connectionpool").warning("from the application")
    log.warning("handed on by the console", extra={"hft_otel": True})
    assert process.only().message == "from the application"


def test_a_backend_that_logs_for_each_record_makes_no_loop(tmp_path: Path) -> None:
    done = run_python(
        tmp_path,
        "-c",
        """
import logging, time
from hft_otel import LogBackend, LogConfig, bridge_stdlib
logging.root.setLevel("DEBUG")
class Chatty(LogBackend):
    count = 0
    async def write(self, record):
        Chatty.count += 1
        logging.getLogger("chatty").warning("written: %s", record.message)
config = LogConfig.from_dict({"backends": {"chatty": {"class": "__main__:Chatty"}}, "routing_rules": [{"backends": ["chatty"]}]})
with bridge_stdlib(config):
    logging.getLogger("app").warning("one")
    from hft_otel import LoggerFactory
    log = LoggerFactory.create_logger("x", config)
    for _ in range(5):
        assert log.force_flush(10)
        time.sleep(0.05)
    print(Chatty.count)
""",
    )
    assert done.stdout.strip() == "1", done.stderr


def test_excluded_loggers_are_left_alone_with_all_below(process: Process) -> None:
    with Bridge(process.logger("stdlib"), exclude=["noisy", "a.b"]) as bridge:
        bridge.install()
        for name in ("noisy", "noisy.sub", "noisyless", "a", "a.b.c"):
            logging.getLogger(name).warning("x")
    assert [record.logger_name for record in process.records()] == ["noisyless", "a"]


def test_install_and_uninstall_leave_logging_as_it_was(process: Process) -> None:
    def everything() -> Any:
        root = logging.root
        return (
            logging.Logger.callHandlers,
            root.level,
            list(root.handlers),
            list(root.filters),
            root.manager.disable,
            logging.lastResort,
            logging.getLogRecordFactory(),
            logging.getLoggerClass(),
            list(logging.root.manager.loggerDict),
        )

    before = everything()
    bridge = Bridge(process.logger("stdlib"), level=logging.DEBUG)
    for _ in range(2):
        bridge.install()
        assert installed() is bridge
        assert logging.root.level == logging.DEBUG
        other = Bridge(process.logger("stdlib"))
        other.install()
        assert installed() is other
        assert logging.root.level == before[1]
        bridge.uninstall()
        assert installed() is other
        other.uninstall()
        assert installed() is None
        assert everything() == before
    bridge.install()
    bridge.uninstall()
    bridge.uninstall()
    assert everything() == before


def test_a_lowered_level_is_for_us_alone(process: Process, log: logging.Logger) -> None:
    handler = Kept()
    own_level = logging.getLogger("with.a.level")
    own_level.setLevel(logging.INFO)
    logging.root.addHandler(handler)
    before = logging.root.level
    assert before == logging.WARNING
    try:
        with Bridge(process.logger("stdlib"), level=logging.INFO) as bridge:
            bridge.install()
            log.debug("too low for all")
            log.info("for us")
            log.warning("for all")
            own_level.info("for all")
            logging.root.setLevel(logging.ERROR)  # a level of somebody's own counts, and stays
            log.warning("too low now")
        assert logging.root.level == logging.ERROR
    finally:
        logging.root.setLevel(before)
        logging.root.removeHandler(handler)
        own_level.setLevel(logging.NOTSET)
    assert [record.getMessage() for record in handler.records] == ["for all", "for all"]
    assert [record.message for record in process.records()] == ["for us", "for all", "for all"]


def test_exclusive_keeps_the_records_from_the_handlers(process: Process, log: logging.Logger) -> None:
    handler = Kept()
    log.addHandler(handler)
    with Bridge(process.logger("stdlib"), exclusive=True) as bridge:
        bridge.install()
        log.warning("ours")
    log.warning("theirs")
    log.removeHandler(handler)
    assert [record.getMessage() for record in handler.records] == ["theirs"]
    assert process.only().message == "ours"


@pytest.mark.parametrize("prints", [True, False])
def test_what_the_console_prints_the_last_resort_does_not(
    process: Process, log: logging.Logger, monkeypatch: pytest.MonkeyPatch, prints: bool
) -> None:
    last = Kept()
    monkeypatch.setattr(logging, "lastResort", last)
    monkeypatch.setattr(logging.root, "handlers", [])
    with Bridge(process.logger("stdlib"), prints=prints) as bridge:
        bridge.install()
        log.warning("once")
    assert len(last.records) == (0 if prints else 1)
    assert process.only().message == "once"


def test_another_tool_in_the_same_place_stays_in_place(
    process: Process, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., None] = logging.Logger.callHandlers
    seen: list[str] = []
    bridge = Bridge(process.logger("stdlib"))
    bridge.install()
    ours = logging.Logger.callHandlers

    def theirs(logger: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record.getMessage())
        ours(logger, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", theirs)
    log.warning("one")
    bridge.uninstall()
    assert logging.Logger.callHandlers is theirs
    log.warning("two")
    bridge.install()
    log.warning("three")
    bridge.uninstall()
    monkeypatch.undo()
    assert logging.Logger.callHandlers is ours
    bridge.install()
    bridge.uninstall()
    assert logging.Logger.callHandlers is original
    assert seen == ["one", "two", "three"]
    assert [record.message for record in process.records()] == ["one", "three"]


def test_basic_config_and_dict_config_work_as_ever(
    process: Process, bridge: Bridge, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    stream = io.StringIO()
    logging.basicConfig(stream=stream, format="%(message)s")
    log.warning("basic")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "root": {"level": "INFO", "handlers": []},
        }
    )
    log.info("after dictConfig")
    assert stream.getvalue() == "basic\n"
    assert [record.message for record in process.records()] == ["basic", "after dictConfig"]


def test_warnings_that_logging_captures_come_too(process: Process, bridge: Bridge) -> None:
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old name", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
    record = process.only()
    assert record.logger_name == "py.warnings"
    assert "UserWarning: old name" in record.message


def test_a_queue_between_changes_nothing(process: Process, bridge: Bridge, log: logging.Logger) -> None:
    waiting: queue.Queue[Any] = queue.Queue()
    handler = logging.handlers.QueueHandler(waiting)
    kept = Kept()
    log.addHandler(handler)
    listener = logging.handlers.QueueListener(waiting, kept)
    listener.start()
    log.warning("order %s", Side.BUY)
    listener.stop()
    log.removeHandler(handler)
    assert [record.getMessage() for record in kept.records] == ["order Side.BUY"]
    assert process.only().message == "order Side.BUY"


def test_a_tight_loop_on_many_threads_loses_nothing_uncounted(process: Process, bridge: Bridge) -> None:
    logs = [logging.getLogger(f"many.{number}") for number in range(4)]
    for each in logs:
        each.propagate = False
        each.addHandler(logging.NullHandler())
    threads = [
        threading.Thread(target=lambda each=each: [each.warning("n %d", n) for n in range(1000)])
        for each in logs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrived = len(process.records())
    assert arrived + sum(process.dropped().values()) == 4000
    assert arrived > 1000


def test_a_record_that_somebody_has_made_strange_is_counted(process: Process) -> None:
    taker = Taker(process.logger("like"))
    for change in (
        {"name": None},
        {"levelno": "40"},
        {"created": None},
        {"args": 7, "msg": "%d"},
        {"exc_info": "no"},
        {"lineno": "x"},
        {"threadName": 5},
        {5: 6},
    ):
        record = logging.makeLogRecord({"name": "odd", "msg": "m", "levelno": 40, "pathname": "p"})
        record.__dict__.update(change)  # type: ignore[arg-type]
        taker.take(record)
    process.flush()
    assert process.emitted() == 8


def test_many_names_do_not_fill_the_memory(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hft_otel.bridge._MAX_NAMES", 3)
    taker = Taker(process.logger("like"))
    for number in range(10):
        taker.take(logging.makeLogRecord({"name": f"n{number}", "msg": "m", "levelno": 30}))
    assert len(taker._takers) <= 3
    assert len(process.records()) == 10


# -- by configuration --


HEAD = """
import logging, logging.config, sys
from pathlib import Path
from hft_otel import LogConfig, LoggerFactory, bridge_stdlib, unbridge_stdlib
def lines():
    log.force_flush(10)
    return [line.split(" ", 2)[2] for line in Path("out.log").read_text().splitlines()]
def config(**more):
    return LogConfig.from_dict({"backends": {"file": {"config": {"file_path": "out.log"}}},
        "routing_rules": [{"backends": ["file"]}], "journal": {"folder": "journal"}, **more})
"""


def test_the_yaml_installs_it(tmp_path: Path) -> None:
    done = run_python(
        tmp_path,
        "-c",
        HEAD
        + """
log = LoggerFactory.create_logger("x", config(stdlib={"bridge": True, "level": "INFO", "exclude": ["noisy"]}))
logging.getLogger("lib").info("taken %d", 1)
logging.getLogger("lib").debug("too low")
logging.getLogger("noisy").error("excluded")
assert lines() == ["INFO lib: taken 1 | {}"], lines()
unbridge_stdlib()
assert logging.root.level == 30
logging.getLogger("lib").error("after")
LoggerFactory.create_logger("y", config(stdlib={"bridge": True, "level": "INFO", "exclude": ["noisy"]}))
assert len(lines()) == 1
unbridge_stdlib()
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "excluded\nafter\n"


def test_bridge_stdlib_takes_a_configuration_and_ends_with_its_block(tmp_path: Path) -> None:
    done = run_python(
        tmp_path,
        "-c",
        HEAD
        + """
log = LoggerFactory.create_logger("x", config())
with bridge_stdlib(config(), level="DEBUG", exclusive=True):
    logging.getLogger("lib").debug("taken")
    log.info("ours")
    assert sorted(lines()) == ["DEBUG lib: taken | {}", "INFO x: ours | {}"], lines()
logging.getLogger("lib").error("after")
assert len(lines()) == 2
try:
    bridge_stdlib(config(), level="LOUD")
except ValueError as error:
    assert "level" in str(error) and "LOUD" in str(error), error
else:
    raise AssertionError
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "after\n"


def test_a_dict_config_may_name_our_handler(tmp_path: Path) -> None:
    (tmp_path / "logging.yaml").write_text(
        "logging:\n  backends: {file: {config: {file_path: out.log}}}\n"
        "  routing_rules: [{backends: [file]}]\n  journal: {folder: journal}\n"
    )
    done = run_python(
        tmp_path,
        "-c",
        HEAD
        + """
logging.config.dictConfig({
    "version": 1,
    "handlers": {"otel": {"class": "hft_otel.stdlib.BridgeHandler", "level": "INFO", "config": "logging.yaml"}},
    "root": {"level": "DEBUG", "handlers": ["otel"]},
})
log = LoggerFactory.create_logger("x", LogConfig.from_yaml("logging.yaml"))
logging.getLogger("lib").info("taken %s", 1, extra={"k": 1})
logging.getLogger("lib").debug("too low")
with bridge_stdlib(LogConfig.from_yaml("logging.yaml")):
    logging.getLogger("lib").warning("once")
assert lines() == ["INFO lib: taken 1 | {'k': 1}", "WARNING lib: once | {}"], lines()
logging.config.dictConfig({"version": 1, "root": {"handlers": []}})
logging.getLogger("lib").error("not taken")
assert len(lines()) == 2
""",
    )
    assert done.returncode == 0, done.stderr


def test_the_handler_filters_and_has_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = object.__new__(BridgeHandler)
    logging.Handler.__init__(handler)
    taken: list[logging.LogRecord] = []

    class Taking:
        take = staticmethod(taken.append)

    handler._taker = Taking()  # type: ignore[assignment]
    assert handler.lock is None
    handler.addFilter(lambda record: record.levelno > 20)
    assert not handler.handle(logging.makeLogRecord({"levelno": 20}))
    assert handler.handle(logging.makeLogRecord({"levelno": 30}))
    assert [record.levelno for record in taken] == [30]
    handler.close()


def test_limits_of_a_record_hold_on_the_bridge_too(
    process: Process, bridge: Bridge, log: logging.Logger
) -> None:
    log.info("x" * (1 << 20), extra={f"k{number}": "v" * 1000 for number in range(500)})
    record = process.only()
    assert len(record.message) < 1 << 18
    assert capture.MAX_ITEMS
    assert isinstance(process.logger("own"), HFTLogger)
