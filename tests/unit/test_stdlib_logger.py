"""The logger as a `logging.Logger`: handlers, filters, levels, children, and what cannot be told from logging's own."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import unittest
from pathlib import Path
from typing import Any

import pytest

from hft_otel import HFTLogger, HFTLoggerInterface
from hft_otel.listeners import observe, unobserve
from tests.unit.core_support import ROOT, Process, run_python

pytest_plugins = ["tests.unit.core_fixtures"]


@pytest.fixture
def log(process: Process) -> HFTLogger:
    return process.logger("exchange.mexc")


class Kept(logging.Handler):
    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


def test_it_is_both_a_logger_of_pythons_and_ours(log: HFTLogger) -> None:
    assert isinstance(log, logging.Logger)
    assert isinstance(log, HFTLoggerInterface)
    assert log.manager is logging.root.manager
    assert log.root is logging.root
    assert log.level == logging.NOTSET
    assert log.name == "exchange.mexc"
    assert logging.getLogger("exchange.mexc") is not log


# -- handlers --


def test_a_handler_gets_the_record_as_logging_would_make_it_and_the_lane_gets_it_too(
    process: Process, log: HFTLogger
) -> None:
    handler = Kept()
    log.addHandler(handler)
    log.set_context(venue="mexc")
    with log.scoped(correlation_id="c1"):
        log.info("order %s", "filled", symbol="BTC", extra={"px": 1.5})
    [record] = handler.records
    assert (record.name, record.levelname, record.getMessage()) == ("exchange.mexc", "INFO", "order filled")
    assert (record.msg, record.args) == ("order %s", ("filled",))
    assert (record.filename, record.funcName) == (
        "test_stdlib_logger.py",
        "test_a_handler_gets_the_record_as_logging_would_make_it_and_the_lane_gets_it_too",
    )
    text = logging.Formatter("%(message)s %(symbol)s %(px)s %(venue)s %(correlation_id)s").format(record)
    assert text == "order filled BTC 1.5 mexc c1"
    taken = process.only()
    assert (taken.message, taken.level) == ("order filled", logging.INFO)
    assert taken.context == {"symbol": "BTC", "px": 1.5, "venue": "mexc", "correlation_id": "c1"}


def test_a_handler_wants_its_own_level_and_sees_what_no_route_wants(process: Process) -> None:
    class Warnings:
        backends: tuple[Any, ...] = ()

        def get_backends(self, record: Any) -> Any:
            return [process.backend]

        def threshold(self, name: str) -> int:
            return logging.WARNING

    log = HFTLogger("x", [process.backend], Warnings(), intake=process.intake)
    assert not log.isEnabledFor(logging.INFO)
    every, errors = Kept(), Kept(logging.ERROR)
    log.handlers = [every]
    log.handlers += [errors]
    assert log.isEnabledFor(logging.INFO)
    log.info("info")
    log.warning("warning")
    log.error("error")
    assert every.messages == ["info", "warning", "error"]
    assert errors.messages == ["error"]
    assert [record.message for record in process.records()] == ["warning", "error"]


def test_without_handlers_and_filters_again_no_record_is_made(
    process: Process, log: HFTLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, keep = Kept(), logging.Filter()
    log.addHandler(handler)
    log.addHandler(handler)
    log.addFilter(keep)
    assert log.handlers == [handler]
    log.removeHandler(handler)
    log.removeFilter(keep)
    made: list[Any] = []
    monkeypatch.setattr(log, "makeRecord", lambda *args: made.append(args))
    log.info("quick")
    assert made == []
    assert process.only().message == "quick"


@pytest.mark.parametrize(
    "change",
    [
        lambda handlers, handler: handlers.append(handler),
        lambda handlers, handler: handlers.insert(0, handler),
        lambda handlers, handler: handlers.extend([handler]),
        lambda handlers, handler: handlers.__setitem__(slice(None), [handler]),
    ],
)
@pytest.mark.parametrize(
    "undo",
    [
        lambda handlers: handlers.clear(),
        lambda handlers: handlers.pop(),
        lambda handlers: handlers.__delitem__(0),
    ],
)
def test_the_list_of_handlers_may_be_changed_by_hand(log: HFTLogger, change: Any, undo: Any) -> None:
    handler = Kept()
    change(log.handlers, handler)
    assert log.hasHandlers()
    log.info("heard")
    undo(log.handlers)
    assert not log.hasHandlers()
    log.info("not heard")
    assert handler.messages == ["heard"]


def test_a_handler_or_filter_that_raises_hurts_nobody(
    process: Process, log: HFTLogger, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise OSError("no such socket")

    kept = Kept()
    log.addHandler(Broken())
    log.addHandler(kept)
    log.addFilter(lambda record: 1 / 0)
    log.info("kept")
    assert kept.messages == ["kept"]
    assert process.only().message == "kept"
    said = capsys.readouterr().err
    assert "no such socket" in said
    assert "ZeroDivisionError" in said


def test_a_call_that_cannot_become_a_record_is_counted(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = process.logger("broken")
    log.addHandler(Kept())

    def make_record(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(log, "makeRecord", make_record)
    log.info("one")
    log.warning("two")
    log.log(25, "three")
    log.exception("four")
    process.flush()
    assert process.dropped() == {"capture_failed": 4}


def test_a_logger_with_a_strange_name_has_a_parent(process: Process) -> None:
    log = process.logger(5)  # type: ignore[arg-type]
    log.propagate = True
    assert log.parent is logging.root


# -- filters --


def test_a_filter_may_change_or_drop_a_record(process: Process, log: HFTLogger) -> None:
    handler = Kept()
    log.addHandler(handler)

    def filtered(record: logging.LogRecord) -> bool:
        record.msg = record.msg.replace("fill", "FILL")
        record.seen = True
        return "secret" not in record.getMessage().lower()

    log.addFilter(filtered)
    log.info("fill %d", 1)
    log.info("secret")
    assert handler.messages == ["FILL 1"]
    record = process.only()
    assert (record.message, record.context) == ("FILL 1", {"seen": True})


def test_filters_of_a_logger_do_not_touch_another(process: Process, log: HFTLogger) -> None:
    log.addFilter(lambda record: False)
    process.logger("other").info("goes")
    log.info("stays")
    assert process.only().message == "goes"


# -- propagation, parents, children --


def test_records_do_not_reach_the_root_unless_that_is_asked_for(process: Process, log: HFTLogger) -> None:
    root, parent = Kept(), Kept()
    logging.root.addHandler(root)
    logging.getLogger("exchange").addHandler(parent)
    try:
        log.warning("only ours")
        assert log.propagate is False
        assert log.parent is logging.getLogger("exchange")
        assert process.logger("elsewhere").parent is logging.root
        log.propagate = True
        assert log.hasHandlers()
        log.warning("theirs as well")
        log.propagate = False
        log.warning("only ours again")
    finally:
        logging.root.removeHandler(root)
        logging.getLogger("exchange").removeHandler(parent)
    assert root.messages == parent.messages == ["theirs as well"]
    assert len(process.records()) == 3


def test_a_child_has_its_parents_context_level_and_handlers(process: Process, log: HFTLogger) -> None:
    log.set_context(venue="mexc")
    child = log.getChild("book")
    assert child is log.getChild("book")
    assert isinstance(child, HFTLogger)
    assert (child.name, child.parent, child.propagate) == ("exchange.mexc.book", log, True)
    assert log.getChildren() == {child}
    assert child.bind(k=1).getChild("x") is not child.getChild("x")
    handler = Kept()
    log.addHandler(handler)
    child.info("depth")
    log.setLevel("ERROR")
    assert child.getEffectiveLevel() == logging.ERROR
    child.info("not now")
    child.setLevel("INFO")
    child.info("its own level")
    child.propagate = False
    child.info("for itself")
    assert handler.messages == ["depth", "its own level"]
    found = [(record.logger_name, record.message, record.context) for record in process.records()]
    assert found == [
        ("exchange.mexc.book", said, {"venue": "mexc"}) for said in ("depth", "its own level", "for itself")
    ]


def test_a_bound_child_shares_handlers_and_filters(log: HFTLogger) -> None:
    child = log.bind(order="42")
    handler = Kept()
    log.addHandler(handler)
    child.info("filled")
    [record] = handler.records
    assert record.order == "42"  # type: ignore[attr-defined]


def test_loggers_made_by_loggings_manager_behave_as_its_own() -> None:
    script = """
import io, logging, pickle
from hft_otel import HFTLogger
logging.setLoggerClass(HFTLogger)
stream = io.StringIO()
logging.basicConfig(stream=stream, format="%(levelname)s:%(name)s:%(message)s", level="INFO")
one, two = logging.getLogger("one"), logging.getLogger("one.two")
assert type(two) is HFTLogger and two.parent is one and one.parent is logging.root and two.propagate
two.info("taken %s", 1)
two.debug("not taken")
one.setLevel("ERROR")
two.info("not now")
logging.root.setLevel("DEBUG")
assert two.getEffectiveLevel() == 40
one.setLevel(0)
two.debug("now")
assert pickle.loads(pickle.dumps(two)) is two
assert one.getChild("two") is two
assert stream.getvalue() == "INFO:one.two:taken 1\\nDEBUG:one.two:now\\n", stream.getvalue()
logging.root.handlers.clear()
two.warning("the last resort")
"""
    done = run_python(ROOT, "-c", script)
    assert done.returncode == 0, done.stderr
    assert "the last resort\n" in done.stderr


# -- levels and gates --


def test_every_way_to_switch_off_works_at_once(process: Process, log: HFTLogger) -> None:
    handler = Kept()
    for observed in (False, True):
        if observed:
            log.addHandler(handler)
        logging.disable(logging.WARNING)
        try:
            log.warning("disabled")
            log.log(logging.WARNING, "disabled")
            assert not log.isEnabledFor(logging.WARNING)
            log.error("yes")
        finally:
            logging.disable(logging.NOTSET)
        log.disabled = True
        log.critical("disabled")
        log.handle(logging.makeLogRecord({"msg": "disabled", "levelno": 50}))
        assert log.disabled
        assert not log.isEnabledFor(logging.CRITICAL)
        log.disabled = False
        log.level = logging.ERROR
        log.warning("level")
        log.setLevel(logging.NOTSET)
        log.warning("yes")
    assert handler.messages == ["yes", "yes"]
    assert [record.message for record in process.records()] == ["yes"] * 4


def test_measurements_and_audit_events_go_on_where_text_is_off(process: Process, log: HFTLogger) -> None:
    log.disabled = True
    log.metric("depth", 1)
    log.audit("event")
    process.flush()
    assert len(process.backend.got) == 2


def test_custom_levels_have_their_names_also_when_these_come_late(process: Process, log: HFTLogger) -> None:
    log.log(27, "before it has a name")
    assert process.only().level.name == "Level 27"
    logging.addLevelName(27, "NOTICE")
    logging.addLevelName(28, "Hint")
    try:
        log.log("Hint", "in the case that it has")
        assert process.only().level == 28
        log.log(27, "by number")
        log.log("NOTICE", "by name")
        log.setLevel("NOTICE")
        log.info("too low")
        found = [(record.level.name, record.message) for record in process.records()]
    finally:
        for number, name in ((27, "NOTICE"), (28, "Hint")):
            logging._levelToName.pop(number)
            logging._nameToLevel.pop(name)
    assert found == [("NOTICE", "by number"), ("NOTICE", "by name")]


def test_a_method_for_a_level_of_ones_own_calls_log_as_with_logging(process: Process, log: HFTLogger) -> None:
    def trace(self: Any, msg: str, *args: Any, **keywords: Any) -> None:
        if self.isEnabledFor(15):
            self._log(15, msg, args, **keywords)

    handler = Kept()
    for _ in range(2):
        trace(log, "tick %d", 1, extra={"k": 1}, symbol="BTC")
        log.addHandler(handler)
    assert [(record.message, record.context) for record in process.records()] == [
        ("tick 1", {"k": 1, "symbol": "BTC"})
    ] * 2
    assert handler.records[0].funcName == "trace"


def test_the_old_names_work(process: Process, log: HFTLogger) -> None:
    log.warn("warn")
    log.fatal("fatal")
    assert [int(record.level) for record in process.records()] == [30, 50]


# -- call forms --


@pytest.mark.parametrize("observed", [False, True])
def test_extra_keys_that_logging_forbids_are_kept_with_a_prefix(
    process: Process, log: HFTLogger, observed: bool
) -> None:
    handler = Kept()
    if observed:
        log.addHandler(handler)
    log.info("x", extra={"message": "m", "name": "n", "ok": 1, "asctime": 2}, args=3, name="keyword")
    assert process.only().context == {
        "extra.message": "m",
        "extra.name": "n",
        "extra.asctime": 2,
        "ok": 1,
        "args": 3,
        "name": "keyword",
    }
    if observed:
        assert handler.records[0].name == "exchange.mexc"


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize(
    ("call", "body"),
    [
        (lambda log: log.info("%(a)s and %(b)d", {"a": 1, "b": 2}), "1 and 2"),
        (lambda log: log.info(msg="by keyword"), "by keyword"),
        (lambda log: log.info(ValueError("an object")), "an object"),
        (lambda log: log.info("%s", object), "<class 'object'>"),
        (lambda log: log.info("100 %"), "100 %"),
        (lambda log: log.info(None), "None"),
        (lambda log: log.info("%s %s", "one"), None),  # noqa: PLE1206  (the mistake is the point)
        (lambda log: log.log(20, "%5.2f|%x", 1.5, 255), " 1.50|ff"),
    ],
)
def test_every_form_of_a_message(
    process: Process, log: HFTLogger, call: Any, body: str | None, observed: bool
) -> None:
    if observed:
        log.addFilter(logging.Filter())
    call(log)
    message = process.only().message
    if body is None:
        assert message.startswith("%s %s")
        assert "one" in message
    else:
        assert message == body


@pytest.mark.parametrize("observed", [False, True])
def test_stack_and_exception_are_those_of_the_call(process: Process, log: HFTLogger, observed: bool) -> None:
    if observed:
        log.addHandler(Kept())
    try:
        raise KeyError("no such order")
    except KeyError as error:
        log.error("a", exc_info=True)
        log.exception("b")
        log.error("c", exc_info=error)
        log.error("d", exc_info=(KeyError, error, error.__traceback__))
        expected = logging.Formatter().formatException((KeyError, error, error.__traceback__))
    log.error("e", exc_info=False)
    log.error("f", stack_info=True)
    *failed, plain, stacked = process.records()
    assert [record.exception and record.exception.stacktrace for record in failed] == [expected] * 4
    assert plain.exception is None
    assert plain.stack is None
    assert stacked.stack is not None
    assert stacked.stack.splitlines()[-1].strip() == 'log.error("f", stack_info=True)'


def test_an_exit_in_a_repr_leaves_as_it_would_with_logging(process: Process, log: HFTLogger) -> None:
    class Exits:
        def __str__(self) -> str:
            raise SystemExit(3)

    handler = logging.StreamHandler(io.StringIO())
    plain = logging.Logger("plain")
    plain.addHandler(handler)
    for logger in (plain, log):
        with pytest.raises(SystemExit):
            logger.warning("%s", Exits())
    log.info("it goes on")
    assert process.only().message == "it goes on"


# -- call-sites --


def only_site(process: Process) -> tuple[str, str] | None:
    site = process.only().call_site
    return site and (Path(site.file).name, site.function.rpartition(".")[2])


def test_warnings_say_where_they_were_called_and_lower_levels_do_not(
    process: Process, log: HFTLogger
) -> None:
    def here(level: str, *args: Any, **keywords: Any) -> None:
        getattr(log, level)("text", *args, **keywords)

    mine = ("test_stdlib_logger.py", "here")
    for level, site in (
        ("debug", None),
        ("info", None),
        ("warning", mine),
        ("critical", mine),
        ("exception", mine),
    ):
        here(level)
        assert only_site(process) == site, level
    here("warning", stacklevel=2)
    assert only_site(process) == (
        "test_stdlib_logger.py",
        "test_warnings_say_where_they_were_called_and_lower_levels_do_not",
    )
    here("error", exc_info=ValueError(), symbol="BTC")
    assert only_site(process) == mine
    log.warning("%s", 1)
    assert only_site(process) is not None
    log.log(35, "x")
    assert only_site(process) is not None
    logging.LoggerAdapter(log, {"k": 1}).warning("adapted")
    assert only_site(process) == (
        "test_stdlib_logger.py",
        "test_warnings_say_where_they_were_called_and_lower_levels_do_not",
    )


@pytest.mark.parametrize(("setting", "sites"), [("always", 3), ("never", 0), ("error", 1), ("INFO", 2)])
def test_the_switch_for_call_sites(tmp_path: Path, setting: str, sites: int) -> None:
    script = """
import json, sys
from hft_otel import LogBackend, LogConfig, LoggerFactory
found = []
class Kept(LogBackend):
    async def write(self, record):
        found.append(record.call_site)
config = LogConfig.from_dict({"call_site": sys.argv[1], "backends": {"kept": {"class": "__main__:Kept"}},
    "routing_rules": [{"backends": ["kept"]}]})
log = LoggerFactory.create_logger("x", config)
log.debug("d")
log.info("i %s", 1)
log.error("e")
assert log.force_flush(10)
assert len(found) == 3
assert all(site.file == "<string>" and site.function == "<module>" for site in found if site)
print(sum(site is not None for site in found))
"""
    done = run_python(tmp_path, "-c", script, setting)
    assert done.stdout.strip() == str(sites), done.stderr


# -- what others do with loggers --


def test_an_adapter_adds_its_extra(process: Process, log: HFTLogger) -> None:
    adapter = logging.LoggerAdapter(log, {"connection": 7})
    adapter.info("open %s", "now")
    adapter.exception("closed", exc_info=ValueError("x"))
    adapter.setLevel("ERROR")
    assert adapter.getEffectiveLevel() == 40
    assert not adapter.isEnabledFor(30)
    adapter.warning("no")
    assert adapter.name == "exchange.mexc"
    first, second = process.records()
    assert (first.message, first.context) == ("open now", {"connection": 7})
    assert second.exception is not None


def test_assert_logs_works(log: HFTLogger) -> None:
    case = unittest.TestCase()
    with case.assertLogs(log, "INFO") as found:
        log.info("order %s", 1)
        log.debug("too low")
    assert found.output == ["INFO:exchange.mexc:order 1"]
    with pytest.raises(AssertionError), case.assertLogs(log):
        pass
    assert log.propagate is False
    assert log.handlers == []


def test_observers_hear_every_logger_there_is_and_will_be(process: Process, log: HFTLogger) -> None:
    kept = Kept(logging.INFO)
    observe(kept)
    try:
        log.info("one")
        log.debug("too low")
        process.logger("later").bind(k=1).warning("two")
    finally:
        unobserve(kept)
    log.info("three")
    assert kept.messages == ["one", "two"]


def test_a_record_from_elsewhere_is_handled(process: Process, log: HFTLogger) -> None:
    record = logging.makeLogRecord(
        {
            "name": "remote",
            "msg": "order %s",
            "args": ("filled",),
            "levelno": 40,
            "created": 1700000000.25,
            "exc_text": "Traceback (most recent call last):\nKeyError: 'x'",
            "symbol": "BTC",
        }
    )
    log.handle(record)
    taken = process.only()
    assert (taken.message, taken.context, taken.level) == ("order filled", {"symbol": "BTC"}, 40)
    assert taken.time_ns == 1_700_000_000_250_000_000
    assert taken.exception is not None
    assert taken.exception == ("KeyError", "'x'", record.exc_text)


def test_copies_are_the_logger_itself_and_one_with_live_backends_cannot_be_pickled(log: HFTLogger) -> None:
    assert copy.copy(log) is log
    assert copy.deepcopy({"log": log})["log"] is log
    with pytest.raises(pickle.PicklingError, match="LoggerFactory"):
        pickle.dumps(log)


def test_an_unpickled_logger_works_here_and_in_another_process(tmp_path: Path) -> None:
    script = """
import pickle, sys
from pathlib import Path
log = pickle.loads(Path(sys.argv[1]).read_bytes())
log.info("from there")
log.debug("too low")
assert log.context == {"venue": "mexc", "px": "1.5"}
again = pickle.loads(pickle.dumps(log))
assert again._pipeline is log._pipeline
again.warning("once more")
assert log.force_flush(10)
"""
    make = f"""
import pickle, sys
from decimal import Decimal
from pathlib import Path
from hft_otel import LogConfig, LoggerFactory
log = LoggerFactory.create_logger("pickled", LogConfig.from_dict({config_dict(tmp_path)!r}))
log.set_context(venue="mexc", px=Decimal("1.5"))
log.setLevel("INFO")
Path(sys.argv[1]).write_bytes(pickle.dumps(log))
"""
    for code in (make, script):
        done = run_python(tmp_path, "-c", code, str(tmp_path / "log.pickle"))
        assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out.log").read_text().splitlines()
    assert [line.split(" pickled: ")[1] for line in lines] == [
        "from there | {'venue': 'mexc', 'px': '1.5'}",
        "once more | {'venue': 'mexc', 'px': '1.5'}",
    ]


def config_dict(folder: Path) -> dict[str, Any]:
    return {
        "backends": {"file": {"config": {"file_path": str(folder / "out.log")}}},
        "routing_rules": [{"backends": ["file"]}],
        "journal": {"folder": str(folder / "journal")},
    }
