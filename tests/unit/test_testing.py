"""Telemetry in memory, as users test their own code with it."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hft_otel import ConfigError, FileConfig, LogConfig, LoggerFactory, PerformanceLogger, bridge_stdlib
from hft_otel.bridge import installed
from hft_otel.testing import FakeClock, Telemetry
from tests.unit.core_support import Process, run_python


@pytest.fixture
def telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    with Telemetry() as telemetry:
        yield telemetry
    assert list(tmp_path.iterdir()) == []


def config(**more: Any) -> LogConfig:
    backends = {"file": FileConfig(file_path="out.log")}
    return LogConfig(backends=backends, routing_rules=[{"backends": ["file"]}], **more)  # type: ignore[arg-type]


def test_records_are_plain_dicts_that_compare(telemetry: Telemetry) -> None:
    log = LoggerFactory.create_logger("arb", config(global_context={"service": "arb"}))
    log.info("order %s", "filled", symbol="BTC", px=Decimal("1.5"))
    log.audit("order_filled", order_id="42")
    log.latency("parse", 0.25, symbol="BTC")
    log.counter("messages", tags={"type": "book"})
    start = 1_700_000_000_000_000_000
    text, audit, latency, counter = telemetry.records
    assert text == {
        "type": "TEXT",
        "logger": "arb",
        "timestamp": start,
        "body": "order filled",
        "severity_text": "INFO",
        "severity_number": 9,
        "stacktrace": None,
        "attributes": {"service": "arb", "symbol": "BTC", "px": "1.5"},
        "trace_id": None,
        "span_id": None,
        "event_name": None,
        "metric": None,
    }
    assert (audit["event_name"], audit["body"]) == ("audit.order_filled", "order_filled")
    assert audit["attributes"] == {"service": "arb", "order_id": "42", "audit.id": "audit-1"}
    assert latency["metric"] == {"name": "latency", "value": 0.25, "unit": "ms", "instrument": "histogram"}
    assert latency["attributes"] == {"symbol": "BTC", "operation": "parse"}
    assert counter["metric"]["value"] == 1
    assert [record["timestamp"] for record in telemetry.records] == [start + n * 1_000_000 for n in range(4)]
    assert telemetry.logs == [text]
    assert telemetry.audits == [audit]
    assert telemetry.metrics == [latency, counter]
    telemetry.clear()
    assert telemetry.records == []


def test_the_clock_and_the_ids_are_the_tests_own(telemetry: Telemetry) -> None:
    log = LoggerFactory.create_logger("x", config())
    assert isinstance(telemetry.clock, FakeClock)
    telemetry.clock.advance(60)
    with telemetry.span("outer"):
        log.info("one")
        with telemetry.span("inner"):
            log.warning("two")
    with telemetry.span("next"):
        log.info("three")
    found = [(record["trace_id"], record["span_id"]) for record in telemetry.logs]
    assert found == [(f"{trace:032x}", f"{span:016x}") for trace, span in ((1, 1), (1, 2), (2, 3))]
    assert telemetry.logs[0]["timestamp"] == 1_700_000_060_000_000_000


def test_levels_context_and_redaction_of_the_configuration_count(telemetry: Telemetry) -> None:
    log = LoggerFactory.create_logger("x", config(min_level="WARNING", redact=["account"]))
    log.info("not captured")
    assert not log.isEnabledFor(logging.INFO)  # type: ignore[attr-defined]
    log.bind(venue="mexc").error("x", account="007", password="p")
    [record] = telemetry.logs
    assert record["attributes"] == {"venue": "mexc", "account": "***", "password": "***"}
    with pytest.raises(ConfigError):
        LoggerFactory.create_logger("x", LogConfig(environment=""))


def test_exceptions_and_call_sites_are_there_to_look_at(tmp_path: Path) -> None:
    with Telemetry(call_site="warning") as telemetry:
        log = LoggerFactory.create_logger("x", config())
        try:
            raise ValueError("bad px")
        except ValueError:
            log.exception("failed")
        [record] = telemetry.logs
    attributes = record["attributes"]
    assert (attributes["exception.type"], attributes["exception.message"]) == ("ValueError", "bad px")
    assert "exception.stacktrace" not in attributes
    assert record["stacktrace"].endswith("ValueError: bad px")
    assert attributes["code.file.path"] == __file__
    assert attributes["code.function.name"].startswith("test_exceptions_and_call_sites")


def test_loggers_that_are_there_already_are_taken_over_and_given_back(tmp_path: Path) -> None:
    process = Process(tmp_path)
    log = process.logger("module", context={"venue": "mexc"})
    closed = process.logger("closed")
    closed.close()
    child = log.bind(k=1)
    log.info("before")
    with Telemetry() as telemetry:
        log.info("during")
        child.metric("depth", 1)
        log.audit("event")
        assert log.force_flush(1)
        log.close()
        assert [record["body"] for record in telemetry.records] == ["during", None, "event"]
        assert telemetry.logs[0]["attributes"] == {"venue": "mexc"}
    log.info("after")
    assert [record.message for record in process.records()] == ["before", "after"]
    assert len(telemetry.records) == 3
    process.close()


def test_more_than_the_rooms_hold_is_read_as_it_comes(telemetry: Telemetry) -> None:
    log = LoggerFactory.create_logger("x", config())

    def many(name: str) -> None:
        for number in range(3000):
            log.info("record", name=name, number=number, padding="x" * 500)

    threads = [threading.Thread(target=many, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = log.force_flush()
    dropped = sum(sum(lane.dropped.values()) for lane in report.lanes)
    assert len(telemetry.logs) + dropped == 6000
    for number in range(6000):
        log.audit("event", number=number, padding="x" * 500)
    assert len(telemetry.audits) == 6000


def test_flush_reports_what_was_read(telemetry: Telemetry) -> None:
    log = LoggerFactory.create_logger("x", config())
    log.info("one")
    log.metric("depth", 1)
    report = asyncio.run(_flushed(log))
    assert report
    assert report.emitted == report.delivered == 2


async def _flushed(log: Any) -> Any:
    return await log.flush()


def test_the_bridge_leads_here_too(telemetry: Telemetry) -> None:
    with bridge_stdlib(config(), level="INFO"):
        logging.getLogger("third.party").info("taken", extra={"k": 1})
    logging.getLogger("third.party").warning("not taken")
    [record] = telemetry.logs
    assert (record["logger"], record["body"], record["attributes"]) == ("third.party", "taken", {"k": 1})


def test_a_bridge_of_the_configuration_ends_with_the_test() -> None:
    by_config = config()
    by_config.stdlib.bridge = True
    with Telemetry() as telemetry:
        LoggerFactory.create_logger("x", by_config)
        LoggerFactory.create_logger("y", by_config)
        logging.getLogger("third.party").warning("taken")
        assert [record["body"] for record in telemetry.logs] == ["taken"]
    assert installed() is None


def test_the_rest_of_the_package_works_on_it(telemetry: Telemetry) -> None:
    log = LoggerFactory.create_logger("x", config())
    with PerformanceLogger(log).time_operation("arbitrage", venue="mexc"):
        pass
    assert telemetry.metrics[0]["attributes"] == {"venue": "mexc", "operation": "arbitrage"}
    again = pickle.loads(pickle.dumps(log))
    again.info("unpickled")
    log.getChild("sub").info("child")  # type: ignore[attr-defined]
    assert [record["logger"] for record in telemetry.logs] == ["x", "x.sub"]
    assert LoggerFactory._create_backends(config()) == {}


PLUGIN_TESTS = """
import logging
import pytest
from hft_otel import LogConfig, LoggerFactory

def make():
    return LoggerFactory.create_logger("desk", LogConfig.from_dict(
        {"backends": {"file": {"config": {"file_path": "out.log"}}}, "routing_rules": [{"backends": ["file"]}]}))

def test_fixture(hft_telemetry):
    make().info("order filled", symbol="BTC")
    assert [record["body"] for record in hft_telemetry.logs] == ["order filled"]

def test_fixture_is_fresh(hft_telemetry):
    assert hft_telemetry.records == []

def test_caplog(caplog, hft_telemetry):
    log = make()
    with caplog.at_level(logging.INFO):
        log.info("order %s", "filled", extra={"symbol": "BTC"})
        log.debug("too low for caplog")
    assert caplog.record_tuples == [("desk", logging.INFO, "order filled")]
    assert caplog.records[0].symbol == "BTC"
    assert [record["body"] for record in hft_telemetry.logs] == ["order filled", "too low for caplog"]

def test_caplog_once_where_records_propagate(caplog, hft_telemetry):
    log = make()
    log.propagate = True
    log.warning("once")
    assert caplog.messages == ["once"]

def test_report(caplog, hft_telemetry):
    make().error("seen in the report")
    assert False
"""


def test_the_pytest_plugin_gives_the_fixture_and_lets_caplog_hear(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(PLUGIN_TESTS)
    done = run_python(tmp_path, "-m", "pytest", "-p", "_hft_otel_pytest", "-p", "no:cacheprovider", "-q", ".")
    assert "1 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert "seen in the report" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"test_theirs.py", "__pycache__"}
