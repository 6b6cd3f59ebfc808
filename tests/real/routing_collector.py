"""One Collector for many rule sets: its configuration, and the requests that bring it their records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hft_otel import LogRecord, LogType
from hft_otel.collector.profiles import plan
from hft_otel.collector.source import Source
from hft_otel.otel.convert import severity
from tests.real.otlp_requests import as_attributes
from tests.real.routing_cases import Case

Json = dict[str, Any]


def merged(cases: list[Case]) -> Json:
    """Return one configuration with the compiled pipelines of all cases."""
    signals = ("logs", "metrics", "traces")
    rotation = {"max_megabytes": 100_000, "max_backups": 0}
    document: Json = {
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
        document["processors"] |= _only(case.number)
        for name, options in compiled.processors.items():
            if name.startswith(("filter/", "transform/unmark", "transform/audit_spans")):
                document["processors"][_renamed(name, case.number)] = options
        for name, pipeline in compiled.pipelines.items():
            signal, _, target = name.partition("/")
            if target in ("rest", "nowhere") or target.endswith(".stats"):
                continue
            backend = target.removesuffix(".audit")
            document["processors"][f"transform/{case.number}.to.{backend}"] = _tag(backend)
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
    return {**document, "service": {"pipelines": pipelines, "telemetry": {"metrics": {"level": "none"}}}}


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


def requests(case: Case, *, marked: bool) -> Iterator[tuple[str, Json]]:
    """Yield the OTLP requests of a case: by signal, with a scope per record."""
    sender = {"telemetry.distro.name": "hft-otel"} if marked else {}
    resource = {"attributes": as_attributes({"set": str(case.number), **sender})}
    for signal, group, scopes, types in (
        ("logs", "resourceLogs", "scopeLogs", (LogType.TEXT, LogType.AUDIT)),
        ("metrics", "resourceMetrics", "scopeMetrics", (LogType.METRIC,)),
        ("traces", "resourceSpans", "scopeSpans", (LogType.AUDIT,)),
    ):
        items = []
        for place, record in enumerate(case.records):
            if record.log_type in types:
                mark = {"hft.backends": ",".join(case.behind(place))} if marked and case.behind(place) else {}
                scope = {"name": record.logger_name, "attributes": as_attributes(mark)}
                items.append({"scope": scope, **_item(signal, record, place, marked)})
        yield signal, {group: [{"resource": resource, scopes: items}]}


def _item(signal: str, record: LogRecord, place: int, marked: bool) -> Json:
    attributes = as_attributes({**record.context, "place": place, "marked": marked})
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
