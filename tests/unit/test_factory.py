"""The factory: one configuration, live once; and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hft_otel import factory as module
from hft_otel.building import backend_infos, located
from hft_otel.config import (
    BackendConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    InstrumentConfig,
    JournalConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    WebhookConfig,
)
from hft_otel.destinations.group import Group, ViaCollector
from hft_otel.factory import LoggerFactory
from hft_otel.interfaces import HFTLoggerInterface, LogBackend
from hft_otel.lanes import intake as intake_module
from hft_otel.ledger import DestinationSums, FlushReport
from hft_otel.record import LogLevel, LogRecord, LogType
from hft_otel.stdlib import bridge_stdlib
from hft_otel.worker import Worker
from tests.unit.core_support import run_python

create = LoggerFactory.create_logger


class Mine(LogBackend):
    """A backend of the user's."""

    made = 0

    def __init__(self, config: dict[str, Any]) -> None:
        type(self).made += 1
        self.config = config

    async def write(self, record: LogRecord) -> None:
        return None


class Demanding(Mine):
    """One that wants what it is not given."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.key = config["key"]


class NoBackend:
    """Not what `class:` may name."""


class Stuck(Mine):
    """A backend that delivers nothing."""

    async def write(self, record: LogRecord) -> None:
        await asyncio.Event().wait()


class Failing(Mine):
    """A backend whose constructor raises."""

    def __init__(self, config: dict[str, Any]) -> None:
        raise RuntimeError("no licence")


class Process:
    """What this test's loggers share, instead of what the process's share."""

    def __init__(self) -> None:
        self.ends: list[Callable[[], None]] = []

    @property
    def worker(self) -> Worker:
        intake = intake_module._process
        assert intake is not None and isinstance(intake.drain, Worker)
        return intake.drain

    def end(self) -> None:
        for end in self.ends:
            end()
        self.ends = []


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Process]:
    made = Process()
    monkeypatch.setattr(intake_module, "_process", None)
    monkeypatch.setattr(intake_module, "_default_drain", None)
    monkeypatch.setattr(module.os, "register_at_fork", lambda **calls: None)
    monkeypatch.setattr(module, "_process", module._Process())
    monkeypatch.setattr(module, "at_end", made.ends.append)
    monkeypatch.chdir(tmp_path)
    for name in (
        "HFT_OTEL_CONFIG",
        "ENVIRONMENT",
        *(name for name in os.environ if name.startswith("OTEL_")),
    ):
        monkeypatch.delenv(name, raising=False)
    Mine.made = 0
    yield made
    made.end()


def config(**changes: Any) -> LogConfig:
    made = LogConfig(
        backends={"file": FileConfig(file_path="out.log", format="json")},
        routing_rules=[{"backends": ["file"]}],
        journal=JournalConfig(folder="journal", segment_kb=64, spare_segments=1),
    )
    return replace(made, **changes)


def lines(path: str = "out.log") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def custom(name: str, **options: Any) -> CustomConfig:
    return CustomConfig(class_path=f"{__name__}:{name}", config=options)


def test_a_logger_is_what_components_are_handed() -> None:
    logger = create("exchange.mexc", config())
    assert isinstance(logger, HFTLoggerInterface)
    logger.info("hello", symbol="BTC")
    assert logger.force_flush()
    [line] = lines()
    assert "hello" in line.values() and "exchange.mexc" in line.values()


def test_equal_configurations_share_backends_rules_and_counters(process: Process) -> None:
    one, two = create("one", config()), create("two", config())
    one.info("1")
    two.info("2")
    report = two.force_flush()
    assert len(process.worker.outboxes) == 1
    assert len(intake_module._process.pipelines) == 1  # type: ignore[union-attr]
    assert report.delivered == 2


def test_configurations_with_the_same_backend_and_other_rules_share_the_backend(process: Process) -> None:
    one = create("one", config())
    two = create("two", config(routing_rules=[{"min_level": "ERROR", "backends": ["file"]}]))
    for logger in (one, two):
        logger.info("i")
        logger.error("e")
    assert two.force_flush()
    assert len(process.worker.outboxes) == 1
    assert len(lines()) == 3


def test_configurations_with_instruments_in_another_order_are_not_equal() -> None:
    rules = [{"backends": ["prometheus"]}]
    backends = {"prometheus": PrometheusConfig(port=0)}
    orders = {"*": InstrumentConfig("counter"), "x": InstrumentConfig("histogram")}
    for instruments in (orders, dict(reversed(orders.items()))):
        create("x", config(backends=backends, routing_rules=rules, instruments=instruments))
    assert len(intake_module._process.pipelines) == 2  # type: ignore[union-attr]


def test_the_configuration_is_a_snapshot() -> None:
    given = config()
    logger = create("one", given)
    given.routing_rules.clear()
    given.backends.clear()
    logger.info("kept")
    assert logger.force_flush()
    assert len(lines()) == 1


def test_building_a_logger_writes_no_file_before_something_is_logged() -> None:
    backends = LoggerFactory._create_backends(config())
    assert list(backends) == ["file"]
    assert not Path("out.log").exists()


def test_a_later_change_of_the_folder_moves_no_file(
    process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LogConfig(
        backends={"file": FileConfig(file_path="some.log"), "otlp": OtlpConfig(certificate="ca.pem")}
    )
    made = located(config)
    assert made.backends["file"] == FileConfig(file_path=str(Path.cwd() / "some.log"))
    assert made.backends["otlp"] == OtlpConfig(certificate=str(Path.cwd() / "ca.pem"))
    assert config.backends["file"] == FileConfig(file_path="some.log")
    collectors = LogConfig(backends={"file": FileConfig(file_path="some.log", via="collector")})
    assert located(collectors) == collectors
    config = LogConfig(
        backends={"file": FileConfig(file_path="some.log")}, routing_rules=[{"backends": ["file"]}]
    )
    logger = create("one", config)
    here, there = Path.cwd(), tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    again = create("two", config)
    logger.warning("first")
    again.warning("second")  # shares the first one's file, as equal configurations do
    assert again.force_flush()
    assert len((here / "some.log").read_text().splitlines()) == 2
    assert not list(there.iterdir())


def test_a_disabled_backend_is_not_built() -> None:
    backends = {"file": FileConfig(file_path="out.log"), "mine": replace(custom("Failing"), enabled=False)}
    assert list(LoggerFactory._create_backends(config(backends=backends))) == ["file"]


def test_global_context_and_min_level_of_the_configuration_hold() -> None:
    logger = create("x", config(global_context={"desk": "arb"}, min_level="WARNING"))
    logger.info("no")
    logger.warning("yes")
    logger.audit("always")
    assert logger.force_flush()
    found = lines()
    assert len(found) == 2
    assert all("arb" in json.dumps(line) for line in found)


def test_secrets_named_by_the_configuration_are_redacted() -> None:
    logger = create("x", config(redact=["wallet"]))
    logger.info("x", wallet="hunter2")
    assert logger.force_flush()
    assert "hunter2" not in Path("out.log").read_text()


def test_warnings_of_the_configuration_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with_idle = config(backends={**config().backends, "console": ConsoleConfig()})
    create("one", with_idle)
    create("two", with_idle)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "console" in warnings[0]


class TestWithoutAConfiguration:
    def test_the_default_of_development_counts(self) -> None:
        logger = create("x")
        logger.warning("w")
        logger.force_flush()
        assert Path("logs/dev.log").exists()

    def test_the_file_that_the_environment_names_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("logging.yaml").write_text(
            "logging:\n"
            "  journal: {folder: journal}\n"
            "  backends: {file: {config: {file_path: named.log}}}\n"
            "  routing_rules: [{backends: [file]}]\n"
        )
        monkeypatch.setenv("HFT_OTEL_CONFIG", "logging.yaml")
        logger = create("x")
        logger.info("i")
        assert logger.force_flush()
        assert Path("named.log").exists()


class TestAnError:
    def refused(self, **changes: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            create("x", config(**changes))
        return str(caught.value)

    def test_the_same_file_with_other_options(self) -> None:
        create("x", config())
        said = self.refused(backends={"file": FileConfig(file_path="out.log", format="text")})
        assert said.startswith("logging.backends.file.config.file_path\n  cause: ")
        assert "out.log is in use" in said and "options" in said
        assert "another file_path" in said and "restart the kernel" in said

    @pytest.mark.parametrize(
        "wrong", [{}, {"backends": {}}, "logging.yaml", Path("logging.yaml"), 5, LogConfig]
    )
    def test_a_configuration_that_is_none(self, wrong: Any) -> None:
        for make in (lambda: create("x", wrong), lambda: bridge_stdlib(wrong)):
            with pytest.raises(ConfigError, match=r"expected a LogConfig[^$]*from_yaml[^$]*from_dict"):
                make()

    @pytest.mark.parametrize(
        ("backend", "where"),
        [
            (CustomConfig(class_path="no_such_module:X"), ".class"),
            (CustomConfig(class_path=f"{__name__}:NoBackend"), ".class"),
            (CustomConfig(class_path=f"{__name__}:Demanding"), ".class"),
            (OtlpConfig(via="collector"), ".via"),
            (DatadogConfig(api_key="k", via="sdk"), ""),
        ],
        ids=["no module", "no backend", "not buildable", "no way to the Collector", "no destination"],
    )
    def test_says_where_it_is_in_which_file(self, backend: BackendConfig, where: str) -> None:
        made = config(
            backends={"mine": backend}, routing_rules=[{"backends": ["mine"]}], source="logging.yaml"
        )
        with pytest.raises(ConfigError) as caught:
            LoggerFactory._create_backends(made)
        assert (caught.value.file, caught.value.path) == ("logging.yaml", f"logging.backends.mine{where}")
        assert caught.value.cause and caught.value.cure
        if where == ".class" and "Demanding" not in repr(backend):  # an agent is to build it
            with pytest.raises(ConfigError) as caught:
                module._process._builder.check(made)
            assert (caught.value.file, caught.value.path) == ("logging.yaml", "logging.backends.mine.class")

    def test_the_same_file_by_another_name_for_it(self, tmp_path: Path) -> None:
        create("x", config())
        (tmp_path / "link").symlink_to(tmp_path)
        for path in ("./out.log", str(tmp_path / "out.log"), "link/out.log"):
            assert "out.log" in self.refused(backends={"file": FileConfig(file_path=path, format="text")})

    def test_the_same_port_with_other_options(self) -> None:
        rules = [{"backends": ["prometheus"]}]
        first = PrometheusConfig(port=19464)
        LoggerFactory._create_backends(config(backends={"prometheus": first}, routing_rules=rules))
        other = {"prometheus": PrometheusConfig(port=19464, prefix="x_")}
        with pytest.raises(ConfigError, match="19464"):
            LoggerFactory._create_backends(config(backends=other, routing_rules=rules))
        free = {"prometheus": PrometheusConfig(port=0, prefix="x_")}
        LoggerFactory._create_backends(config(backends=free, routing_rules=rules))

    def test_a_configuration_that_failed_claims_nothing(self) -> None:
        self.refused(
            backends={"file": FileConfig(file_path="out.log", format="text"), "mine": custom("Failing")},
            routing_rules=[{"backends": ["file", "mine"]}],
        )
        create("x", config()).info("i")

    @pytest.mark.parametrize(
        ("key", "value"), [("folder", "elsewhere"), ("segment_kb", 128), ("spare_segments", 2)]
    )
    def test_a_second_journal_in_one_process(self, key: str, value: Any) -> None:
        create("x", config()).audit("a")
        other: dict[str, Any] = {key: value}
        second = replace(config().journal, **other)
        said = self.refused(journal=second, source="second.yaml")
        assert said.startswith(f"second.yaml: logging.journal.{key}\n")
        assert f"{key} {getattr(config().journal, key)} already, and this asks for {value}" in said
        assert "the same journal" in said
        assert not Path("elsewhere").exists()

    def test_the_same_journal_by_another_name_is_none(self, tmp_path: Path) -> None:
        create("x", config())
        same = replace(config().journal, folder=str(tmp_path / "journal"))
        create("x", config(journal=same, min_level="ERROR"))
        os.chdir("/")
        create("x", config(min_level="WARNING", backends={"file": FileConfig(file_path=str(tmp_path / "b"))}))

    def test_what_cannot_be_copied(self) -> None:
        said = self.refused(backends={"mine": custom("Mine", lock=threading.Lock())})
        assert "cannot pickle '_thread.lock' object" in said and "plain data" in said

    def test_an_unknown_backend(self) -> None:
        assert "backends.strange" in self.refused(
            backends={"strange": BackendConfig()}, routing_rules=[{"backends": ["strange"]}]
        )

    def test_a_rule_that_names_a_backend_that_is_not_there(self) -> None:
        said = self.refused(routing_rules=[{"backends": ["fiel"]}])
        assert "fiel" in said and "did you mean" in said and "file" in said

    @pytest.mark.parametrize(
        "backend", [DatadogConfig(api_key="k"), ElasticsearchConfig(endpoint="http://e:9200")]
    )
    def test_a_backend_behind_the_collector_without_otlp(self, backend: BackendConfig) -> None:
        said = self.refused(backends={"datadog": backend}, routing_rules=[{"backends": ["datadog"]}])
        assert "otlp" in said

    def test_an_isolation_that_is_none(self) -> None:
        assert "isolation" in self.refused(isolation="fibre")

    def test_a_level_that_is_none(self) -> None:
        assert "min_level" in self.refused(min_level="LOUD")

    @pytest.mark.parametrize(
        ("class_path", "said"),
        [
            ("nowhere_to_be_found:X", "nowhere_to_be_found"),
            (f"{__name__}:Absent", "Absent"),
            (f"{__name__}:NoBackend", "LogBackend"),
            (f"{__name__}:Failing", "no licence"),
            ("no colon", "no colon"),
        ],
    )
    def test_a_class_that_cannot_be_used(self, class_path: str, said: str) -> None:
        backends = {"mine": CustomConfig(class_path=class_path)}
        assert said in self.refused(backends=backends, routing_rules=[{"backends": ["mine"]}])


class TestABackendOfTheUsers:
    def test_is_built_once_with_its_config(self) -> None:
        backends = {"mine": custom("Mine", key=1)}
        rules = [{"backends": ["mine"]}]
        logger = create("x", config(backends=backends, routing_rules=rules))
        create("y", config(backends=backends, routing_rules=rules))
        logger.info("i")
        assert logger.force_flush().delivered == 1
        assert Mine.made == 1

    def test_is_shared_by_equal_configurations_that_hold_objects(self) -> None:
        class Session:
            def __init__(self, desk: str) -> None:
                self.desk = desk

        rules = [{"backends": ["mine"]}]
        for desk in ("arb", "arb", "fx"):
            backends = {"mine": custom("Mine", session=Session(desk), limits={1: Session(desk)})}
            create("x", config(backends=backends, routing_rules=rules))
        assert Mine.made == 2

    def test_has_the_min_level_that_the_configuration_says(self) -> None:
        backends = {"mine": replace(custom("Mine"), min_level="ERROR")}
        logger = create("x", config(backends=backends, routing_rules=[{"backends": ["mine"]}]))
        logger.info("i")
        logger.error("e")
        assert logger.force_flush().delivered == 1

    def test_may_be_an_exporter_of_opentelemetry(self) -> None:
        backends = {
            "memory": CustomConfig(class_path="opentelemetry.sdk._logs.export:InMemoryLogRecordExporter")
        }
        logger = create("x", config(backends=backends, routing_rules=[{"backends": ["memory"]}]))
        logger.info("i")
        assert logger.force_flush().delivered == 1


def test_every_built_in_backend_can_be_built() -> None:
    backends: dict[str, BackendConfig] = {
        "console": ConsoleConfig(min_level="ERROR"),
        "file": FileConfig(file_path="out.log"),
        "prometheus": PrometheusConfig(port=0),
        "otlp": OtlpConfig(endpoint="http://127.0.0.1:1"),
        "datadog": DatadogConfig(api_key="k"),
        "elasticsearch": ElasticsearchConfig(endpoint="http://127.0.0.1:1"),
        "slack": SlackConfig(webhook_url="http://127.0.0.1:1"),
        "webhook": WebhookConfig(url="http://127.0.0.1:1"),
    }
    given = config(backends=backends, routing_rules=[{"backends": list(backends)}])
    made = LoggerFactory._create_backends(given)
    assert list(made) == list(backends)
    assert isinstance(made["otlp"], Group)
    for name in ("datadog", "elasticsearch"):
        behind = made[name]
        assert isinstance(behind, ViaCollector) and behind.otlp is made["otlp"]
    assert made["console"].min_level == LogLevel.ERROR  # type: ignore[attr-defined]
    router = LoggerFactory._create_router(given, made)
    audit = LogRecord(1.0, LogLevel.INFO, LogType.AUDIT, "x")
    assert made["file"] in router.get_backends(audit)


def test_infos_say_what_each_backend_takes_and_keeps() -> None:
    backends = {
        "file": FileConfig(min_level="ERROR"),
        "console": ConsoleConfig(),
        "off": FileConfig(enabled=False),
    }
    infos = {info.name: info for info in backend_infos(config(backends=backends))}
    assert set(infos) == {"file", "console"}
    assert infos["file"].keeps_audit and infos["file"].min_level == 40
    assert infos["console"].accepts == {LogType.TEXT} and not infos["console"].keeps_audit


class TestTheEnd:
    def test_is_silent_when_all_is_delivered(
        self, process: Process, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logger = create("x", config())
        logger.info("i")
        process.end()
        assert len(lines()) == 1
        assert capsys.readouterr().err == ""

    def test_has_the_longest_exit_timeout_that_was_configured(
        self, process: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create("x", config(exit_timeout=0.1))
        create("y", config(exit_timeout=0.7))
        given: list[float] = []
        stop = process.worker.stop
        monkeypatch.setattr(process.worker, "stop", lambda timeout: given.append(timeout) or stop(timeout))
        process.end()
        assert given == [0.7]

    def test_says_per_destination_what_is_left_and_what_the_journal_keeps(self) -> None:
        sums = [
            DestinationSums("otlp", "TEXT", 9, 2, {"shutdown": 4, "http_400": 1}),
            DestinationSums("otlp", "AUDIT", 3, 1),
            DestinationSums("file", "TEXT", 9, 9),
        ]
        begin = "exit after at most 2 s with records not delivered: otlp TEXT 6, otlp AUDIT 2; "
        assert module._last_words(FlushReport([], sums, complete=False), 2.0, "") == (
            begin + "2 audit deliveries stay in the journal for the next start"
        )
        assert module._last_words(FlushReport([], sums, complete=False), 2.0, "/x: No space left") == (
            begin + "of 2 audit deliveries, those that the journal has in memory are lost: /x: No space left"
        )

    def test_does_not_claim_that_plain_memory_outlives_it(
        self, process: Process, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("in_the_way").write_text("")
        journal = JournalConfig(folder="in_the_way/journal", segment_kb=64, spare_segments=1)
        backends = {"mine": custom("Stuck")}
        rules = [{"log_types": ["AUDIT"], "backends": ["mine"]}]
        logger = create(
            "x", config(backends=backends, routing_rules=rules, journal=journal, exit_timeout=0.2)
        )
        logger.audit("order_sent")
        process.end()
        said = capsys.readouterr().err
        assert "that the journal has in memory are lost: " in said
        assert "in_the_way" in said
        assert "next start" not in said


def test_a_forked_child_builds_its_own_from_the_configurations(process: Process) -> None:
    """What happens in the child, without the fork; with one: test_lifecycle.py."""
    logger = create("x", config())
    logger.info("parent")
    assert logger.force_flush()
    parents = process.worker
    module._process._begin_child()
    intake = intake_module._process
    assert intake is not None
    parent_rooms = [room.active for room in intake.rooms]
    intake.after_fork()
    logger.info("child")
    assert logger.force_flush()
    assert process.worker is not parents
    assert [room.active for room in intake.rooms] != parent_rooms
    assert len(lines()) == 2


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_lanes_are_as_large_as_the_configuration_says(tmp_path: Path, isolation: str) -> None:
    (tmp_path / "logging.yaml").write_text(
        f"logging: {{isolation: {isolation}, lanes: {{folder: lanes, low_mb: 4, high_mb: 0.25, metric_mb: 0.5}},"
        " backends: {file: {config: {file_path: out.log}}}}"
    )
    done = run_python(tmp_path, "-c", SIZES)
    assert done.stdout.split() == ["64", "4", "8"], done.stderr


SIZES = """
from hft_otel import LogConfig, LoggerFactory

log = LoggerFactory.create_logger("x", LogConfig.from_yaml("logging.yaml"))
lanes = log._intake
print(*(len(room.supply) + 1 for room in (lanes.low, lanes.high, lanes.metric)))
"""
