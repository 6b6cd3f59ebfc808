"""The SDK's router and a real Collector give one answer: for random rules and records, each backend gets the same.

Many rule sets share one Collector: each has a copy of the pipelines that the compiler makes for it, behind a filter for
the records that are its own. What a pipeline lets through is marked with its backend, and written to one file.
"""

from __future__ import annotations

import json
import random
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from hft_otel import ConfigError, LogConfig, LogLevel, LogRecord, LogType
from hft_otel.collector import from_file, render
from hft_otel.collector.profiles import plan, route_table
from hft_otel.collector.source import Source
from hft_otel.otel.convert import severity
from tests.real.collector_process import PipelineCollector, components, validate, without_missing
from tests.real.pipeline_support import API_KEY, backends, best_binary, checked_in, production
from tests.real.processes import run_script
from tests.real.running import Collector, Program, get, wait_until
from tests.real.seeds import drawn_seed

Json = dict[str, Any]

RULE_SETS, RECORDS = 20, 60
STARTS = 3  # more rule sets in one Collector make its start long on a busy machine
KEYS = ("exchange", "symbol", "component")  # context that becomes attributes of measurements too
VALUES: tuple[Any, ...] = (
    "mexc",
    "gate",
    "7",
    7,
    0.5,
    "0.5",
    7.0,
    True,
    "True",
    False,
    "a b",
    'q"$x',
    "1e+20",
    1e20,
    -3,
)
LOGGERS = ("app", "parser.mexc", "parser.gateio", "parser.mexc.public", "arb.engine", "Ä[x]", "a-b", "a\\b")
GLOBS = (
    "parser.*",
    "*",
    "parser.mexc",
    "*.mexc",
    "?rb.*",
    "[ap]*",
    "[!p]*",
    "*[[]x]",
    "a[-x]b",
    "a\\*",
    "parser.*.p*",
    "[z-a]*",
)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
NUMBERS = (10, 11, 20, 21, 25, 31, 30, 40, 45, 50, 55)


class Case(NamedTuple):
    """One rule set, the records that it is asked about, and the router's answers."""

    number: int
    config: LogConfig
    records: list[LogRecord]
    answers: list[tuple[str, ...]]

    def behind(self, place: int) -> list[str]:
        """The backends behind the Collector that get the record at a place."""
        return [
            n for n in self.answers[place] if getattr(self.config.backends[n], "via", "sdk") == "collector"
        ]


def _case(number: int, rng: random.Random) -> Case:
    config = LogConfig.from_dict(_mapping(rng))
    table = route_table(config)
    records = [_record(rng) for _ in range(RECORDS)]
    return Case(number, config, records, [table.names(record) for record in records])


def _mapping(rng: random.Random) -> Json:
    kinds: dict[str, Json] = {
        "console": {},
        "local": {"type": "file", "config": {"file_path": "local.log"}},
        "file": {"config": {"via": "collector", "format": "json"}},
        "file-2": {"type": "file", "config": {"via": "collector", "format": "json", "file_path": "2.jsonl"}},
        "prometheus": {"config": {"via": "collector"}},
        "elasticsearch": {},
        "datadog": {"config": {"api_key": "k"}},
        "jaeger": {
            "type": "otlp",
            "config": {"via": "collector", "endpoint": "http://j:1", "signals": ["traces"]},
        },
        "tempo": {"type": "otlp", "config": {"via": "collector", "endpoint": "http://t:1"}},
    }
    chosen = rng.sample(sorted(kinds), rng.randint(3, 5))
    chosen.append("file") if not set(chosen) - {"console", "local"} else None
    backends = {name: {**kinds[name]} for name in dict.fromkeys(chosen)}
    for backend in backends.values():
        if rng.random() < 0.4:
            backend["min_level"] = rng.choice(LEVELS)
    backends["otlp"] = {"enabled": True}
    rules = [_rule(rng, [*backends]) for _ in range(rng.randint(0, 6))]
    return {"environment": "test", "backends": backends, "routing_rules": rules}


def _rule(rng: random.Random, names: list[str]) -> Json:
    rule: Json = {"backends": rng.sample(names, rng.randint(1, min(3, len(names))))}
    if rng.random() < 0.4:
        rule["log_types"] = rng.sample(["TEXT", "METRIC", "AUDIT"], rng.randint(1, 2))
    low, high = sorted(rng.sample(range(len(LEVELS)), 2))
    if rng.random() < 0.25:
        rule["min_level"] = LEVELS[low]
    if rng.random() < 0.2:
        rule["max_level"] = LEVELS[high]
    if rng.random() < 0.15:
        rule["environments"] = rng.choice([["test"], ["prod"], ["prod", "test"]])
    if rng.random() < 0.3:
        rule["loggers"] = rng.sample(GLOBS, rng.randint(1, 2))
    if rng.random() < 0.3:
        rule["context"] = {
            key: rng.choice([rng.choice(VALUES), rng.sample(VALUES, 5)])
            for key in rng.sample(KEYS, rng.randint(1, 2))
        }
    if rng.random() < 0.4:
        rule["final"] = True
        rule["backends"] = rule["backends"] if rng.random() < 0.8 else []  # drops what matches
    return rule


def _record(rng: random.Random) -> LogRecord:
    context = {key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.6}
    log_type = rng.choice(list(LogType))
    level = LogLevel(rng.choice(NUMBERS))
    return LogRecord(1.0, level, log_type, rng.choice(LOGGERS), message="m", context=context)


# --- what is checked in


@pytest.mark.parametrize("profile", ["dev", "agent", "gateway"])
def test_every_profile_is_valid_for_a_real_collector(profile: str, tmp_path: Path) -> None:
    otelcol = best_binary()
    document, replaced = without_missing(
        yaml.safe_load(checked_in(profile)), components(otelcol), "http://127.0.0.1:1"
    )
    assert validate(otelcol, document, tmp_path, {"DATADOG_API_KEY": API_KEY}) == ""
    if replaced:
        pytest.skip(f"valid, but {otelcol.name} was built without: {', '.join(replaced)}")


@pytest.mark.parametrize(
    "options",
    [
        {"console": {}, "file": {"format": "json", "rotation": False}},
        {"prometheus": {"host": "0.0.0.0", "port": 9000}},
        {
            "a": {
                "type": "otlp",
                "endpoint": "a:1",
                "protocol": "grpc",
                "headers": {"k": "v"},
                "compression": "gzip",
            }
        },
        {
            "b c$": {
                "type": "otlp",
                "endpoint": "https://b:1/x",
                "timeout": 2.5,
                "signals": ["logs", "metrics"],
            }
        },
    ],
    ids=["files", "prometheus", "grpc", "http"],
)
def test_every_option_of_a_backend_is_valid_for_a_real_collector(options: Json, tmp_path: Path) -> None:
    config: Json = {"otlp": {}}
    for name, own in options.items():
        kind = {"type": own["type"]} if "type" in own else {}
        rest = {key: value for key, value in own.items() if key != "type"}
        config[name] = {**kind, "config": {"via": "collector", **rest}}
    rules = [
        {"backends": list(options), "loggers": ["a\\b", 'q"*$'], "context": {'k"$': ["x$y", 1, 0.5, True]}}
    ]
    source = Source(LogConfig.from_dict({"environment": "dev", "backends": config, "routing_rules": rules}))
    for profile in ("dev", "agent", "gateway"):
        with suppress(ConfigError):  # not each of them serves each
            text = render(source, profile, every_type=True)
            env = {"HFT_A_HEADERS_K": "v"}
            assert validate(best_binary(), yaml.safe_load(text), tmp_path, env) == "", profile


def test_audits_of_any_size_that_the_sdk_takes_pass_both_collectors(tmp_path: Path) -> None:
    ids = {f"big-{number}" for number in range(40)}
    with backends() as behind, production(tmp_path, behind) as (agent, gateway):
        mark = {"hft.backends": "elasticsearch"}
        logs = [
            {
                "eventName": "audit.big",
                "timeUnixNano": "1767225600000000000",
                "body": {"stringValue": "big"},
                "attributes": _attributes({"audit.id": each, "text": "x" * 300_000}),
            }
            for each in sorted(ids)
        ]
        scope = {"scope": {"name": "app", "attributes": _attributes(mark)}, "logRecords": logs}
        resource = {"attributes": _attributes({"service.name": "big"})}
        request = {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}
        _post(f"http://{agent.address('HFT_COLLECTOR_AUDIT_HTTP_PORT')}", "logs", request)
        wait_until(
            lambda: set(behind.elastic_audits()), lambda found: found == ids, "40 audits of 300 kB", 20
        )
        assert agent.errors() == gateway.errors() == []
    assert behind.violations() == []


TWO_ROUTES = """
logging:
  environment: dev
  backends:
    otlp: {config: {endpoint: "http://%s", metric_interval: 0.2}}
    prometheus: {config: {via: collector}}
    tempo: {type: otlp, config: {via: collector, endpoint: "http://127.0.0.1:1", signals: [metrics]}}
  routing_rules:
    - {log_types: [METRIC], backends: [prometheus]}
    - {log_types: [METRIC], loggers: [arb], backends: [tempo]}
"""

COUNTING = """
from hft_otel import LogConfig, LoggerFactory

config = LogConfig.from_yaml("logging.yaml")
arb, parser = (LoggerFactory.create_logger(name, config) for name in ("arb", "parser"))
for _ in range(3):
    arb.counter("orders")
for _ in range(4):
    parser.counter("orders")
assert arb.force_flush(20)
print("{}")
"""


def test_one_metric_over_two_routes_is_one_series_in_prometheus(
    tmp_path: Path, running: Callable[[Program], None]
) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text(TWO_ROUTES % "127.0.0.1:1")
    own = {"HFT_COLLECTOR_DATA": str(tmp_path / "data")}
    otel = PipelineCollector(best_binary(), tmp_path / "collector", render(from_file(file, {}), "dev"), own)
    running(otel)
    file.write_text(TWO_ROUTES % otel.address("HFT_COLLECTOR_HTTP_PORT"))
    run_script(COUNTING, cwd=tmp_path)
    url = f"http://{otel.address('HFT_PROMETHEUS_ENDPOINT')}/metrics"
    series = wait_until(
        lambda: [line for line in get(url).splitlines() if line.startswith("hft_orders_total{")]
    )
    assert [line.rpartition(" ")[2] for line in series] == ["7"], series


# --- what is sent


def _requests(case: Case, *, marked: bool) -> Iterator[tuple[str, Json]]:
    """Return the OTLP requests of a case: by signal, with a scope per record."""
    sender = {"telemetry.distro.name": "hft-otel"} if marked else {}
    resource = {"attributes": _attributes({"set": str(case.number), **sender})}
    for signal, group, scopes, types in (
        ("logs", "resourceLogs", "scopeLogs", (LogType.TEXT, LogType.AUDIT)),
        ("metrics", "resourceMetrics", "scopeMetrics", (LogType.METRIC,)),
        ("traces", "resourceSpans", "scopeSpans", (LogType.AUDIT,)),
    ):
        items = []
        for place, record in enumerate(case.records):
            if record.log_type in types:
                mark = {"hft.backends": ",".join(case.behind(place))} if marked and case.behind(place) else {}
                scope = {"name": record.logger_name, "attributes": _attributes(mark)}
                items.append({"scope": scope, **_item(signal, record, place, marked)})
        yield signal, {group: [{"resource": resource, scopes: items}]}


def _item(signal: str, record: LogRecord, place: int, marked: bool) -> Json:
    attributes = _attributes({**record.context, "place": place, "marked": marked})
    if signal == "metrics":
        point = {"attributes": attributes, "timeUnixNano": "1", "asDouble": 1}
        return {"metrics": [{"name": "m", "gauge": {"dataPoints": [point]}}]}
    if signal == "traces":
        ids = {"traceId": f"{place + 1:032x}", "spanId": f"{place + 1:016x}"}
        event = {"name": "audit.m", "timeUnixNano": "1"}
        return {"spans": [{**ids, "name": "audit.m", "kind": 1, "attributes": attributes, "events": [event]}]}
    name = {"eventName": "audit.m"} if record.log_type is LogType.AUDIT else {}
    log = {
        "severityNumber": severity(record.level).value,
        "attributes": attributes,
        "timeUnixNano": "1",
        **name,
    }
    return {"logRecords": [log]}


def _attributes(values: dict[str, Any]) -> list[Json]:
    names: dict[type, str] = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return [{"key": key, "value": {names[type(item)]: item}} for key, item in values.items()]


def _post(endpoint: str, signal: str, request: Json) -> None:
    whole = urllib.request.Request(
        f"{endpoint}/v1/{signal}", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(whole, timeout=60) as answer:
        assert answer.status == 200


# --- the Collector


def _merged(cases: list[Case]) -> Json:
    """Return one configuration with the compiled pipelines of all cases."""
    signals = ("logs", "metrics", "traces")
    rotation = {"max_megabytes": 100_000, "max_backups": 0}
    merged: Json = {
        "receivers": {
            "otlp": {"protocols": {"http": {"endpoint": "${env:OTLP_HTTP}", "max_request_body_size": 10**8}}}
        },
        "processors": {},
        "exporters": {
            f"file/{s}": {"path": f"${{env:FOLDER}}/{s}.jsonl", "rotation": rotation} for s in signals
        },
    }
    pipelines: Json = {}
    for case in cases:
        compiled = plan(Source(case.config), "dev", every_type=True)
        merged["processors"] |= _only(case.number)
        for name, options in compiled.processors.items():
            if name.startswith(("filter/", "transform/unmark", "transform/audit_spans")):
                merged["processors"][_renamed(name, case.number)] = options
        for name, pipeline in compiled.pipelines.items():
            signal, _, target = name.partition("/")
            if target in ("rest", "nowhere") or target.endswith(".stats"):
                continue
            backend = target.removesuffix(".audit")
            merged["processors"][f"transform/{case.number}.to.{backend}"] = _tag(backend)
            kept = [
                p
                for p in pipeline["processors"]
                if p.startswith("filter/") or p in ("transform/audit_spans", "transform/unmark")
            ]
            chain = [_renamed(p, case.number) for p in kept]
            pipelines[f"{signal}/{case.number}.{target}"] = {
                "receivers": ["otlp"],
                "processors": [f"filter/{case.number}", *chain, f"transform/{case.number}.to.{backend}"],
                "exporters": [f"file/{signal}"],
            }
    return {**merged, "service": {"pipelines": pipelines, "telemetry": {"metrics": {"level": "none"}}}}


def _renamed(name: str, number: int) -> str:
    kind, _, rest = name.partition("/")
    return f"{kind}/{number}.{rest}"


def _only(number: int) -> Json:
    condition = [f'resource.attributes["set"] != "{number}"']
    keys = ("log_conditions", "metric_conditions", "trace_conditions")
    return {f"filter/{number}": {"error_mode": "propagate", **dict.fromkeys(keys, condition)}}


def _tag(backend: str) -> Json:
    def set_to(context: str) -> list[str]:
        return [f'set({context}.attributes["to"], "{backend}")']

    return {
        "error_mode": "propagate",
        "log_statements": set_to("log"),
        "metric_statements": set_to("datapoint"),
        "trace_statements": set_to("span"),
    }


# --- the comparison

Arrival = tuple[str, int, int, bool, str]
"""Signal, rule set, place of the record, marked, backend."""


@pytest.mark.slow
@pytest.mark.parametrize("start", range(STARTS))
def test_router_and_collector_agree_for_random_rules_and_records(
    start: int, collector: Callable[..., Collector]
) -> None:
    seed = drawn_seed()
    cases = [_case(number, random.Random(f"rules {seed} {start} {number}")) for number in range(RULE_SETS)]
    otel = collector(_merged(cases))
    for case in cases:
        for marked in (True, False):
            for signal, request in _requests(case, marked=marked):
                _post(otel.endpoint, signal, request)
    otel.stop()

    arrived = Counter(_arrivals(otel))
    expected = Counter(arrival for case in cases for arrival in _expected(case))
    missing, surplus = expected - arrived, arrived - expected
    assert not missing, _described(missing, cases)
    assert not surplus, _described(surplus, cases)
    assert len(expected) > RULE_SETS * RECORDS / 2  # the rules do send something
    for item in (*otel.logs(), *otel.metrics(), *otel.spans()):
        assert "hft.backends" not in str(item)
        assert "hft.audit" not in item["attributes"]


def _arrivals(otel: Collector) -> Iterator[Arrival]:
    for signal, items in (("logs", otel.logs()), ("metrics", otel.metrics()), ("traces", otel.spans())):
        for item in items:
            attributes = item["attributes"]
            number = int(item["resource"]["set"])
            yield signal, number, attributes["place"], attributes["marked"], attributes["to"]


def _expected(case: Case) -> Iterator[Arrival]:
    carries = {
        "logs": {"file", "file-2", "elasticsearch", "datadog", "tempo"},
        "metrics": {"prometheus", "datadog", "tempo"},
        "traces": {"datadog", "jaeger", "tempo"},
    }
    signals = {LogType.TEXT: ("logs",), LogType.AUDIT: ("logs", "traces"), LogType.METRIC: ("metrics",)}
    for place, record in enumerate(case.records):
        for signal in signals[record.log_type]:
            for name in case.behind(place):
                if name in carries[signal]:
                    yield signal, case.number, place, True, name
                    yield signal, case.number, place, False, name


def _described(arrivals: Counter[Arrival], cases: list[Case]) -> str:
    (signal, number, place, marked, backend), times = next(iter(arrivals.items()))
    case = cases[number]
    return (
        f"{len(arrivals)}; the first: {signal} of set {number}, marked {marked}, backend {backend}, {times} times\n"
        f"{case.records[place]}\nrouter: {case.answers[place]}\nrules: {case.config.routing_rules}\n"
        f"backends: {case.config.backends}"
    )
