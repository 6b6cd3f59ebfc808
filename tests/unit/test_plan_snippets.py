"""The user's plan, block by block, as it was written: `tests/plan_blocks` holds its text unchanged.

What a block leaves undefined is supplied here; the names of this package take the place of the plan's imports. The
backends of 2.1 to 2.3 have a test of their own.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hft_otel
from hft_otel import (
    ConsoleConfig,
    DatadogConfig,
    FileConfig,
    HFTLogger,
    HFTLoggerInterface,
    LogBackend,
    LogConfig,
    LoggerFactory,
    LogLevel,
    LogRecord,
    LogRouter,
    LogType,
    PrometheusConfig,
)
from tests.real.processes import ROOT, run_script

BLOCKS = ROOT / "tests" / "plan_blocks"
RUN = ("3.2", "3.3", "5.1", "5.2", "example_1", "example_2", "example_3")

RECORDER = """
import json
from hft_otel import LogBackend

class Recorder(LogBackend):
    async def write(self, record):
        fields = ("logger_name", "level", "log_type", "message", "context", "metric_name", "metric_value", "metric_tags")
        with open("records.jsonl", "a") as file:
            file.write(json.dumps({name: getattr(record, name) for name in fields}) + "\\n")
"""

CONFIG = """
logging:
  backends:
    recorder: {class: "recorder:Recorder"}
  routing_rules:
    - {name: everything, backends: [recorder]}
  components:
    message_parser: {context: {layer: transport}}
"""

PROGRAM = """
import asyncio, sys, time
from abc import ABC
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import SimpleNamespace as Some

import hft_otel

# what stands in place of the plan's imports
plan = {name: getattr(hft_otel, name) for name in hft_otel.__all__}
plan |= {"ABC": ABC, "time": time, "contextmanager": contextmanager}

def block(name):
    exec(compile(Path(sys.argv[1], f"{name}.txt").read_text(), name, "exec"), plan)

def attempt(call):
    try:
        return asyncio.run(call)
    except ValueError as error:
        return error

# what the blocks leave undefined
class Kind(Enum):
    ORDERBOOK = 1

class Exchange:
    def __init__(self, parser, logger):
        self.parser, self.logger = parser, logger

plan |= {"BaseExchangeMapper": object, "ExchangeEnum": Enum("ExchangeEnum", {"MEXC": "mexc", "GATEIO": "gateio"})}
plan |= {"MexcUnifiedMappings": object, "GateioUnifiedMappings": object}
plan |= {"MexcPublicExchange": Exchange, "GateioPublicExchange": Exchange}
plan |= {"old": "CONNECTING", "new": "CONNECTED", "error": "timed out", "elapsed_ms": 12.5}

# 3.2, with the logger that it makes itself and with one that is handed in
block("3.2")

class Parser(plan["EnhancedBaseMessageParser"]):
    async def _parse(self, msg):
        if msg == "bad":
            raise ValueError("no such symbol")
        return None if msg == "empty" else Some(message_type=Kind.ORDERBOOK)

for parser in (Parser(None, "mexc"), Parser(None, "gateio", hft_otel.LoggerFactory.create_logger("injected"))):
    for message in ("book", "empty", "bad"):
        outcome = attempt(parser.parse_message(message))
    assert str(outcome) == "no such symbol"

# 3.3, over parsers that keep the logger they are given
class Keeps:
    def __init__(self, mapper, logger):
        self.logger = logger

block("3.3")
plan |= {"MexcPublicMessageParser": Keeps, "GateioPublicMessageParser": Keeps}
for exchange in plan["ExchangeEnum"]:
    for config in (None, Some(logging_config=hft_otel.LogConfig.for_component("exchange"))):
        made = plan["ExchangeFactory"].create_public_exchange(exchange, ["BTCUSDT"], config)
        assert made.logger is made.parser.logger
        made.logger.info("created")

# 5.1: the plan leaves `write` out, and these put it in
block("5.1")
written = []

def completed(name):
    async def write(self, record):
        written.append(f"{name}: {record.message}")
    return type(name, (plan[name],), {"write": write})()

backends = [completed(name) for name in ("SlackBackend", "ElasticsearchBackend", "CustomWebhookBackend")]
logger = hft_otel.HFTLogger("third-party", backends, None)
logger.info("nothing")
logger.critical("down")
logger.warning("odd", alert="rejections")
logger.audit("order_sent")
assert logger.force_flush(10)
for line in sorted(written):
    hft_otel.LoggerFactory.create_logger("written").info(line)

# 5.2, twice: as the plan has it, and as the package has it
for name in ("own", "plan"):
    if name == "plan":
        block("5.2")
    performance = plan["PerformanceLogger"](hft_otel.LoggerFactory.create_logger(f"performance.{name}"))
    try:
        with performance.time_operation("submit", exchange="mexc"):
            raise ValueError
    except ValueError:
        pass
    performance.log_trade_execution("o-1", 1.5, exchange="mexc")

# Example 1
def parse_orderbook(self, msg):
    if msg == "bad":
        raise ValueError("no bids")
    return Some(bids=[1, 2, 3])

block("example_1")
plan["MexcPublicMessageParser"]._parse_orderbook = parse_orderbook
mexc = plan["MexcPublicMessageParser"](None, "mexc", hft_otel.LoggerFactory.create_logger("example.1"))
assert attempt(mexc.parse_message("book")).bids == [1, 2, 3]
assert str(attempt(mexc.parse_message("bad"))) == "no bids"

# Example 2
block("example_2")
manager = plan["WebSocketManager"]()
manager.url = "wss://mexc.example"
asyncio.run(manager.connect())
del manager.url  # now it fails
asyncio.run(manager.connect())

# Example 3
async def execute(self, opportunity):
    if opportunity.id == "bad":
        raise ValueError("rejected")
    return Some(profit=12.5)

block("example_3")
plan["ArbitrageEngine"]._execute = execute
engine = plan["ArbitrageEngine"]()
for name in ("good", "bad"):
    chance = Some(id=name, profit_bps=4.5, volume=1000, exchanges=["mexc", "gateio"])
    attempt(engine.execute_arbitrage(chance))

assert engine.logger.force_flush(10)
"""

Record = dict[str, Any]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Run the blocks in a process of its own, over the real factory; return what a backend was handed."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "recorder.py").write_text(RECORDER)
    (folder / "logging.yaml").write_text(CONFIG)
    ended = run_script(PROGRAM, BLOCKS, cwd=folder, HFT_OTEL_CONFIG="logging.yaml")
    assert ended.stderr == ""
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def of(records: list[Record], logger: str, log_type: str = "", *keys: str) -> list[Any]:
    """What a logger's records of a type hold under the keys; in the order of the calls."""
    found = [r for r in records if r["logger_name"] == logger and log_type in ("", r["log_type"])]
    return [tuple(record[key] for key in keys) for record in found]


def measured(records: list[Record], logger: str) -> list[tuple[str, float, dict[str, Any]]]:
    """The measurements of a logger, with durations as 0."""
    found = of(records, logger, "METRIC", "metric_name", "metric_value", "metric_tags")
    return [(name, 0 if name == "latency" else value, tags) for name, value, tags in found]


def block(name: str) -> str:
    """The text of a block of the plan."""
    return (BLOCKS / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("logger", "exchange", "layer"),
    [("parser.mexc", "mexc", {"layer": "transport"}), ("injected", "gateio", {})],
)
def test_block_3_2_logs_latency_and_errors_with_its_persistent_context(
    records: list[Record], logger: str, exchange: str, layer: dict[str, str]
) -> None:
    context = {**layer, "exchange": exchange, "component": "message_parser"}
    kinds = ("ORDERBOOK", "unknown")
    assert measured(records, logger) == [
        ("latency", 0, {"message_type": kind, "operation": "parse_message"}) for kind in kinds
    ]
    assert of(records, logger, "METRIC", "context") == [(context,)] * 2
    (error,) = of(records, logger, "TEXT", "level", "message", "context")
    more = {"message_preview": "bad", "error_type": "ValueError"}
    assert error == (40, "Parse failed: no such symbol", {**context, **more})


def test_block_3_3_hands_each_exchange_a_logger_of_its_name(records: list[Record]) -> None:
    for exchange in ("mexc", "gateio"):
        assert of(records, f"exchange.{exchange}.public", "TEXT", "message") == [("created",)] * 2


def test_block_5_1_backends_get_what_their_should_handle_wants(records: list[Record]) -> None:
    assert of(records, "written", "TEXT", "message") == [
        ("CustomWebhookBackend: odd",),
        ("ElasticsearchBackend: order_sent",),
        ("SlackBackend: down",),
    ]


@pytest.mark.parametrize("whose", ["own", "plan"])
def test_block_5_2_records_durations_and_trades(records: list[Record], whose: str) -> None:
    logger = f"performance.{whose}"
    assert measured(records, logger) == [
        ("latency", 0, {"exchange": "mexc", "operation": "submit"}),
        ("trade_execution_latency", 1.5, {"exchange": "mexc"}),
    ]
    (trade,) = of(records, logger, "AUDIT", "message", "context")
    assert trade == ("trade_executed", {"order_id": "o-1", "latency_ms": 1.5, "exchange": "mexc"})


def test_example_1_parses_measures_and_logs(records: list[Record]) -> None:
    assert of(records, "example.1", "TEXT", "level", "message") == [
        (10, "Parsing message: book"),
        (10, "Parsing message: bad"),
        (40, "Parse failed: no bids"),
    ]
    assert measured(records, "example.1") == [
        ("latency", 0, {"operation": "parse_orderbook"}),
        ("orderbook_depth", 3, {}),
        ("messages_parsed", 1, {"type": "orderbook"}),
        ("latency", 0, {"operation": "parse_orderbook"}),
    ]
    *_, (error,) = of(records, "example.1", "TEXT", "context")
    context = {"exchange": "mexc", "component": "message_parser"}
    assert error == {**context, "message_size": 3, "error_type": "ValueError"}


def test_example_2_logs_as_before_and_measures_and_audits(records: list[Record]) -> None:
    state = [(20, "Connection state: CONNECTING → CONNECTED"), (30, "Connection error: timed out")]
    failed = (40, "Connection failed: 'WebSocketManager' object has no attribute 'url'")
    assert sorted(of(records, "websocket", "TEXT", "level", "message")) == sorted([*state, *state, failed])
    connected = ("latency", 0, {"operation": "websocket_connect"})
    assert measured(records, "websocket") == [connected] * 2
    (audit,) = of(records, "websocket", "AUDIT", "message", "context")
    assert audit == ("connection_established", {"endpoint": "wss://mexc.example"})


def test_example_3_audits_times_and_counts_outcomes(records: list[Record]) -> None:
    audits = of(records, "arbitrage", "AUDIT", "message", "context")
    detected = ("arbitrage_opportunity_detected", {"profit_bps": 4.5, "volume_usd": 1000})
    assert audits == [detected] * 2
    assert measured(records, "arbitrage") == [
        ("arbitrage_profit_usd", 12.5, {}),
        ("arbitrage_success", 1, {}),
        ("latency", 0, {"operation": "arbitrage_execution"}),
        ("arbitrage_failure", 1, {"error_type": "ValueError"}),
        ("latency", 0, {"operation": "arbitrage_execution"}),
    ]
    (error,) = of(records, "arbitrage", "TEXT", "message", "context")
    assert error == ("Arbitrage failed: rejected", {"opportunity_id": "bad", "exchanges": ["mexc", "gateio"]})


# -- by signature --


def methods(name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The class and the definition of each method in a block, of which some have no body."""
    lines = [
        re.sub(r"^(\s+(?:async )?def .*?)(\s*#.*)?$", r"\1: ...", line)
        if "def " in line and line[-1:] != ":"
        else line
        for line in block(name).splitlines()
    ]
    for node in ast.parse("\n".join(lines)).body:
        assert isinstance(node, ast.ClassDef)
        for item in node.body:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.name, item


def test_every_method_of_blocks_1_1_1_2_and_3_1_is_there_and_asynchronous_where_the_plan_has_it_so() -> None:
    found = [(cls, method) for name in ("1.1", "1.2", "3.1") for cls, method in methods(name)]
    names = {f"{cls}.{method.name}" for cls, method in found}
    assert len(names) == 19
    private = {"HFTLogger._dispatch_loop"}  # the plan's way to do it, not what it offers
    for cls, method in found:
        if f"{cls}.{method.name}" in private:
            continue
        ours = getattr(getattr(hft_otel, cls), method.name)
        is_async = isinstance(method, ast.AsyncFunctionDef)
        assert inspect.iscoroutinefunction(ours) is is_async, f"{cls}.{method.name}"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (HFTLogger.__init__, ["name", "backends", "router"]),
        (LoggerFactory.create_logger, ["name", "config"]),
        (LoggerFactory._create_backends, ["config"]),
        (LoggerFactory._create_router, ["config", "backends"]),
        (LogBackend.should_handle, ["record"]),
        (LogBackend.write, ["record"]),
        (LogRouter.get_backends, ["record"]),
        (LogConfig.from_yaml, ["yaml_file"]),
        (LogConfig.for_component, ["component_name"]),
    ],
)
def test_parameters_have_the_plans_names_and_order(method: Any, parameters: list[str]) -> None:
    ours = [name for name in inspect.signature(method).parameters if name != "self"]
    assert ours[: len(parameters)] == parameters
    inspect.signature(method).bind_partial(**dict.fromkeys(parameters))  # takes them by keyword


def test_defaults_of_parameters_are_the_plans() -> None:
    assert inspect.signature(LoggerFactory.create_logger).parameters["config"].default is None


class Kept(LogBackend):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    async def write(self, record: LogRecord) -> None:
        self.records.append(record)


KEYWORD_FORMS = """
import asyncio
from hft_otel import HFTLogger, HFTLoggerInterface, LogBackend

class Kept(LogBackend):
    records = []
    async def write(self, record):
        self.records.append(record)

kept = Kept()

class Router:
    def get_backends(self, record):
        return [kept]

logger = HFTLogger(name="plan", backends=[kept], router=Router())
assert isinstance(logger, HFTLoggerInterface)
assert (logger.name, list(logger.backends), logger.context) == ("plan", [kept], {})
assert isinstance(logger.router, Router)
logger.set_context(exchange="mexc")
for level in ("debug", "info", "warning", "error", "critical"):
    getattr(logger, level)(msg=level, px=1)
logger.metric(name="depth", value=3.0, side="bid")
logger.latency(operation="parse", duration_ms=1.5, kind="book")
logger.audit(event="sent", order_id="o-1")
asyncio.run(logger.flush())
texts = [(r.level.name.lower(), r.message, r.context) for r in kept.records if r.log_type == "TEXT"]
assert sorted(texts) == sorted((n, n, {"exchange": "mexc", "px": 1})
                               for n in ("debug", "info", "warning", "error", "critical")), texts
metrics = [(r.metric_name, r.metric_value, r.metric_tags) for r in kept.records if r.log_type == "METRIC"]
assert metrics == [("depth", 3.0, {"side": "bid"}), ("latency", 1.5, {"kind": "book", "operation": "parse"})], metrics
(audit,) = [r for r in kept.records if r.log_type == "AUDIT"]
assert (audit.message, audit.context) == ("sent", {"exchange": "mexc", "order_id": "o-1"})
assert {type(r.timestamp) for r in kept.records} == {float}
"""


def test_blocks_1_1_and_1_2_hold_with_every_parameter_given_by_keyword(tmp_path: Path) -> None:
    assert run_script(KEYWORD_FORMS, cwd=tmp_path).stderr == ""


def planned_dataclasses() -> dict[str, Any]:
    """The classes of block 4.1, as the plan defines them."""
    names: dict[str, Any] = {
        "dataclass": dataclasses.dataclass,
        "field": dataclasses.field,
        "__name__": __name__,
    }
    later = __future__.annotations.compiler_flag  # the block uses BackendConfig before it defines it
    exec(compile(block("4.1"), "4.1", "exec", flags=later, dont_inherit=True), names)
    return {name: kind for name, kind in names.items() if dataclasses.is_dataclass(kind)}


def test_every_field_of_block_4_1_is_there_in_its_place_with_its_default() -> None:
    planned = planned_dataclasses()
    assert len(planned) == 5
    for name, theirs in planned.items():
        ours = getattr(hft_otel, name)
        assert dataclasses.is_dataclass(ours)
        fields = [entry.name for entry in dataclasses.fields(theirs)]
        assert [entry.name for entry in dataclasses.fields(ours)][: len(fields)] == fields
        for entry in fields:
            assert getattr(ours(), entry) == getattr(theirs(), entry), f"{name}.{entry}"
        values = [getattr(theirs(), entry) for entry in fields]
        assert ours(*values) == ours(**dict(zip(fields, values, strict=True)))
        parents = [base.__name__ for base in theirs.__mro__[1:-1]]
        assert [base.__name__ for base in ours.__mro__ if base.__name__ in planned][1:] == parents


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_default_configuration_of_block_3_1_is_the_plans(
    monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    for name in (
        "HFT_OTEL_CONFIG",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("DATADOG_API_KEY", "abc")
    names = {**vars(hft_otel), "os": __import__("os")}
    exec(compile(block("3.1"), "3.1", "exec"), names)
    theirs = names["LoggerFactory"]._get_default_config()
    ours = LoggerFactory._get_default_config()
    assert ours.environment == environment
    assert theirs.routing_rules == ours.routing_rules
    assert {name: backend for name, backend in ours.backends.items() if name != "otlp"} == theirs.backends
    # Datadog is reached through the Collector, so production has an otlp backend that the plan did not need.
    assert set(ours.backends) - set(theirs.backends) == (set() if environment == "dev" else {"otlp"})


def test_yaml_of_block_4_2_loads_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(
        "DATADOG_API_KEY", raising=False
    )  # datadog is not enabled: its variable need not be set
    config = LogConfig.from_yaml(str(BLOCKS / "4.2.yaml"))
    console, file, prometheus, datadog = config.backends.values()
    assert config.environment == "dev"
    assert list(config.backends) == ["console", "file", "prometheus", "datadog"]
    assert isinstance(console, ConsoleConfig)
    assert (console.enabled, console.min_level, console.color) == (True, "DEBUG", True)
    assert isinstance(file, FileConfig)
    assert (file.min_level, file.file_path, file.format) == ("WARNING", "logs/hft.log", "text")
    assert (file.rotation, file.max_size_mb) == (True, 100)
    assert isinstance(prometheus, PrometheusConfig)
    assert (prometheus.push_gateway, prometheus.job_name) == ("localhost:9091", "hft_arbitrage")
    assert (prometheus.prefix, prometheus.batch_size, prometheus.flush_interval) == ("hft_", 50, 3.0)
    assert isinstance(datadog, DatadogConfig)
    assert (datadog.enabled, datadog.service, datadog.tags) == (
        False,
        "hft-arbitrage",
        ["env:dev", "version:1.0"],
    )
    rules = ["metrics_to_prometheus", "errors_to_file_and_console", "debug_to_console_dev_only"]
    assert [rule["name"] for rule in config.routing_rules] == rules
    assert config.global_context == {"service": "hft-arbitrage", "version": "1.0.0"}


@pytest.mark.parametrize("name", RUN)
def test_blocks_are_kept_as_text_and_hold_no_import(name: str) -> None:
    assert not re.search(r"^\s*(import|from) ", block(name), re.MULTILINE)


def test_backends_of_blocks_2_1_to_2_3_have_a_test_of_their_own() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_plan_block*.py"))
    for backend in ("FileBackend", "PrometheusBackend", "ConsoleBackend"):
        assert f"class {backend}(LogBackend):" in text


CUSTOM = """
import asyncio, json
from hft_otel import LogConfig, LoggerFactory

logger = LoggerFactory.create_logger("desk", LogConfig.from_dict({
    "backends": {"pager": {"class": "trading_system.custom_backend:PagerBackend", "config": {"file_path": "pages"}}},
    "routing_rules": [{"name": "all", "backends": ["pager"]}],
}))
logger.info("fine")
logger.error("One leg is filled", alert="open_leg")
logger.critical("Trading paused")
logger.audit("paused")
assert logger.force_flush(10)
print(json.dumps([json.loads(line)["message"] for line in open("pages")]))
"""


def test_new_backend_takes_less_than_fifty_lines_and_works(tmp_path: Path) -> None:
    source = (ROOT / "examples" / "trading_system" / "custom_backend.py").read_text()
    assert len(source.splitlines()) < 50
    ended = run_script(CUSTOM, cwd=tmp_path)
    assert json.loads(ended.stdout) == ["One leg is filled", "Trading paused"]


def test_interface_is_what_the_factory_returns_and_components_are_handed() -> None:
    assert issubclass(HFTLogger, HFTLoggerInterface)
    assert [level.name for level in LogLevel][:5] == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    assert [kind.value for kind in LogType] == ["TEXT", "METRIC", "AUDIT"]
    assert not inspect.iscoroutinefunction(LogBackend.should_handle)
    kept = Kept()
    record = LogRecord(
        1.5, LogLevel.INFO, LogType.METRIC, "x", context={"symbol": "A"}, metric_tags={"symbol": "B"}
    )
    assert kept.should_handle(record) is True
    asyncio.run(kept.write(record))
    assert (kept.records[0].symbol, kept.records[0].exchange) == ("B", None)
