"""One file says where everything goes: another rule in logging.yaml, and SDK and Collector do otherwise, without code.

The same programs run against two files, the Collector's configuration rendered anew from each: one logs with hft-otel,
whose records come marked; the other is OpenTelemetry's plain SDK, for which the Collector applies the compiled rules.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.real.collector_process import PipelineCollector, validate
from tests.real.conftest import binary
from tests.real.pipeline_support import (
    audit_ids,
    backends,
    best_binary,
    checked_in,
    collector,
    file_logs,
    needs,
    programs,
    rendered,
    texts,
)
from tests.real.processes import run_script
from tests.real.running import Prometheus

pytestmark = pytest.mark.slow

BEFORE: list[dict[str, Any]] = [
    {"name": "warnings", "min_level": "WARNING", "backends": ["file"]},
    {"name": "metrics", "log_types": ["METRIC"], "backends": ["prometheus"]},
]
AFTER: list[dict[str, Any]] = [
    {"name": "no_noise", "loggers": ["noisy*"], "log_types": ["TEXT"], "backends": [], "final": True},
    {"name": "mexc", "min_level": "ERROR", "context": {"exchange": "mexc"}, "backends": ["file"]},
    {"name": "risk", "log_types": ["TEXT"], "loggers": ["risk.*"], "backends": ["file"]},
    {
        "name": "metrics",
        "log_types": ["METRIC"],
        "context": {"exchange": "mexc"},
        "backends": ["prometheus"],
    },
]

OURS = """
import json
from hft_otel import LogConfig, LoggerFactory
from hft_otel.lifecycle import end_now

config = LogConfig.from_yaml("logging.yaml")
for name in ("engine", "risk.limits", "noisy.feed"):
    logger = LoggerFactory.create_logger(name, config)
    for exchange in ("mexc", "gateio"):
        for level in ("debug", "info", "warning", "error"):
            getattr(logger, level)(f"{name} {exchange} {level}", exchange=exchange)
        # A rule's context is the logger's context: of tags of a measurement it does not speak.
        logger.bind(exchange=exchange).counter(f"orders.{exchange}")
    logger.audit("sent", logger=name)
report = logger.force_flush(30)
end_now()
print(json.dumps({"flushed": bool(report), "lanes": {s.lane: s.emitted for s in report.lanes},
                  "routed": {s.lane: s.routed for s in report.lanes}}))
"""

THEIRS = """
import sys
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

endpoint = sys.argv[1]
provider = LoggerProvider(shutdown_on_exit=False)
provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs")))
levels = {"debug": SeverityNumber.DEBUG, "info": SeverityNumber.INFO, "warning": SeverityNumber.WARN,
          "error": SeverityNumber.ERROR}
for name in ("engine", "risk.limits", "noisy.feed"):
    for exchange in ("mexc", "gateio"):
        for level, number in levels.items():
            provider.get_logger(name).emit(LogRecord(timestamp=1_700_000_000_000_000_000, severity_number=number,
                body=f"{name} {exchange} {level}", attributes={"exchange": exchange}))
provider.shutdown()
exporter = OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics")
meters = MeterProvider([PeriodicExportingMetricReader(exporter, 60_000)], shutdown_on_exit=False)
for exchange in ("mexc", "gateio"):
    meters.get_meter("engine").create_counter(f"hft.theirs.{exchange}").add(1, {"exchange": exchange})
meters.shutdown()
"""

LOGGERS, EXCHANGES = ("engine", "risk.limits", "noisy.feed"), ("mexc", "gateio")
EXPECTED_BEFORE = {
    f"{name} {at} {level}" for name in LOGGERS for at in EXCHANGES for level in ("warning", "error")
}
EXPECTED_AFTER = {
    "engine mexc error",
    *(f"risk.limits {at} {level}" for at in EXCHANGES for level in ("debug", "info", "warning", "error")),
}


METRICS = re.compile(r"hft_(orders|theirs)_.+_total")


class Outcome(NamedTuple):
    told: dict[str, Any]
    texts: list[str]
    audits: int
    metrics: set[str]


def configuration(folder: Path, rules: list[dict[str, Any]], otel: PipelineCollector | None = None) -> Path:
    """The logging.yaml: backends behind the Collector, and these rules."""
    port, audit = (
        ("4318", "4328")
        if otel is None
        else (
            str(otel.ports["HFT_COLLECTOR_HTTP_PORT"]),
            str(otel.ports["HFT_COLLECTOR_AUDIT_HTTP_PORT"]),
        )
    )
    addresses = {"endpoint": f"http://127.0.0.1:{port}", "audit_endpoint": f"http://127.0.0.1:{audit}"}
    document = {
        "environment": "dev",
        "journal": {"folder": str(folder / "journal")},
        "backends": {
            "otlp": {"config": {**addresses, "metric_interval": 0.5}},
            "file": {
                "config": {"via": "collector", "file_path": "${HFT_LOGS:-logs}/hft.jsonl", "format": "json"}
            },
            "prometheus": {"config": {"via": "collector"}},
        },
        "routing_rules": rules,
        "global_context": {"service": "rules", "version": "1"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "logging.yaml"
    path.write_text(yaml.safe_dump({"logging": document}, sort_keys=False))
    return path


def play(folder: Path, rules: list[dict[str, Any]], program: str) -> Outcome:
    """Render the Collector's configuration from the file, run one of the programs, and see what is where."""
    with backends() as behind, programs() as start:
        config = rendered(configuration(folder / "render", rules), "dev")
        otel = start(collector(folder / "collector", config, behind))
        prometheus = start(
            Prometheus(binary("prometheus"), folder / "prometheus", [otel.address("HFT_PROMETHEUS_ENDPOINT")])
        )
        configuration(folder / "system", rules, otel)
        endpoint = f"http://127.0.0.1:{otel.ports['HFT_COLLECTOR_HTTP_PORT']}"
        arguments = () if program == OURS else (endpoint,)
        ended = run_script(program, *arguments, cwd=folder / "system")
        told = ended.told if program == OURS else {}
        prometheus.wait_for('{__name__=~"hft_(orders|theirs)_.+"}')
        time.sleep(1.0)  # some scrapes more: what should not be there would be there by then
        # All names ever seen: a scrape that was late on a busy machine makes series vanish for a moment.
        names = {name for name in prometheus.api("label/__name__/values") if METRICS.fullmatch(name)}
        otel.stop()
        logs = folder / "collector" / "logs"
        found = file_logs(logs / "hft.jsonl")
        return Outcome(told, texts(found), len(audit_ids(file_logs(logs / "hft.audit.jsonl"))), names)


def twice(folder: Path, program: str) -> tuple[Outcome, Outcome]:
    """What became of the same program before and after the rules were changed."""
    return play(folder / "before", BEFORE, program), play(folder / "after", AFTER, program)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome]:
    """Of a program that logs with hft-otel."""
    return twice(tmp_path_factory.mktemp("ours"), OURS)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome]:
    """Of a program with OpenTelemetry's plain SDK."""
    return twice(tmp_path_factory.mktemp("theirs"), THEIRS)


@pytest.fixture(params=["ours", "theirs"])
def both(request: pytest.FixtureRequest) -> tuple[Outcome, Outcome]:
    found: tuple[Outcome, Outcome] = request.getfixturevalue(request.param)
    return found


def test_changed_rule_changes_what_is_in_the_file(both: tuple[Outcome, Outcome]) -> None:
    before, after = both
    assert sorted(before.texts) == sorted(EXPECTED_BEFORE)
    assert sorted(after.texts) == sorted(EXPECTED_AFTER)


def test_changed_rule_changes_what_is_in_prometheus(both: tuple[Outcome, Outcome]) -> None:
    kind = "orders" if both[0].told else "theirs"
    assert [run.metrics for run in both] == [
        {f"hft_{kind}_mexc_total", f"hft_{kind}_gateio_total"},
        {f"hft_{kind}_mexc_total"},
    ]


def test_changed_rule_changes_what_leaves_the_program(ours: tuple[Outcome, Outcome]) -> None:
    before, after = (run.told for run in ours)
    assert before["flushed"] and after["flushed"]
    assert (before["routed"]["low"], before["routed"]["high"]) == (0, len(EXPECTED_BEFORE))
    assert (after["routed"]["low"], after["routed"]["high"]) == (4, 5)
    assert (before["routed"]["metric"], after["routed"]["metric"]) == (6, 3)


def test_audits_that_no_rule_names_are_kept_with_both(ours: tuple[Outcome, Outcome]) -> None:
    assert [run.audits for run in ours] == [3, 3]


def check(profile: str, folder: Path) -> list[str]:
    """Hold a checked-in configuration valid; what had to be replaced for that."""
    otel = best_binary()
    made = PipelineCollector(otel, folder / "c", checked_in(profile), sink="http://127.0.0.1:1")
    started = time.monotonic()
    said = validate(otel, made.document, folder, {"DATADOG_API_KEY": "a" * 32, "HFT_LOGS": str(folder)})
    print(f"validate {profile}: {time.monotonic() - started:.2f} s, {len(made.replaced)} components replaced")
    assert said == ""
    return made.replaced


@pytest.mark.parametrize("profile", ["dev", "agent"])
def test_checked_in_configuration_is_valid(profile: str, tmp_path: Path) -> None:
    assert check(profile, tmp_path) == []


@needs("datadog", "elasticsearch")
def test_checked_in_gateway_is_valid(tmp_path: Path) -> None:
    assert check("gateway", tmp_path) == []


def test_checked_in_gateway_is_valid_but_for_what_this_collector_lacks(tmp_path: Path) -> None:
    lacking = {line.partition(" ")[0].partition("/")[0] for line in check("gateway", tmp_path)}
    assert lacking <= {"datadog", "elasticsearch"}
