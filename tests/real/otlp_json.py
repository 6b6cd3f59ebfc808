"""OTLP in its JSON form (the Collector's file exporter writes it) as plain Python dicts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]

TEMPORALITY = {0: "unspecified", 1: "delta", 2: "cumulative"}
METRIC_TYPES = {
    "gauge": "gauge",
    "sum": "sum",
    "histogram": "histogram",
    "exponentialHistogram": "exponential_histogram",
    "summary": "summary",
}


def logs(requests: Iterable[Json]) -> Iterator[Json]:
    """One dict per LogRecord; times in nanoseconds, ids in hex, "" where there is none."""
    return (
        {
            "time_ns": int(record.get("timeUnixNano", 0)),
            "observed_ns": int(record.get("observedTimeUnixNano", 0)),
            "severity_number": record.get("severityNumber", 0),
            "severity_text": record.get("severityText", ""),
            "body": value(record.get("body", {})),
            "event_name": record.get("eventName", ""),
            "attributes": attributes(record),
            "dropped_attributes": record.get("droppedAttributesCount", 0),
            "trace_id": record.get("traceId", ""),
            "span_id": record.get("spanId", ""),
            "flags": record.get("flags", 0),
            **owner,
        }
        for owner, record in _items(requests, "resourceLogs", "scopeLogs", "logRecords")
    )


def count_logs(requests: Iterable[Json]) -> int:
    """How many LogRecords there are, without a look into them."""
    return sum(1 for _ in _items(requests, "resourceLogs", "scopeLogs", "logRecords"))


def spans(requests: Iterable[Json]) -> Iterator[Json]:
    """One dict per span, with its events; times in nanoseconds, ids in hex."""
    return (
        {
            "name": span.get("name", ""),
            "trace_id": span.get("traceId", ""),
            "span_id": span.get("spanId", ""),
            "parent_span_id": span.get("parentSpanId", ""),
            "kind": span.get("kind", 0),
            "start_ns": int(span.get("startTimeUnixNano", 0)),
            "end_ns": int(span.get("endTimeUnixNano", 0)),
            "attributes": attributes(span),
            "events": [
                {
                    "name": event.get("name", ""),
                    "time_ns": int(event.get("timeUnixNano", 0)),
                    "attributes": attributes(event),
                    "dropped_attributes": event.get("droppedAttributesCount", 0),
                }
                for event in span.get("events", [])
            ],
            "links": [
                {
                    "trace_id": link.get("traceId", ""),
                    "span_id": link.get("spanId", ""),
                    "attributes": attributes(link),
                }
                for link in span.get("links", [])
            ],
            "status": span.get("status", {}).get("code", 0),
            "status_message": span.get("status", {}).get("message", ""),
            "dropped_attributes": span.get("droppedAttributesCount", 0),
            "dropped_events": span.get("droppedEventsCount", 0),
            **owner,
        }
        for owner, span in _items(requests, "resourceSpans", "scopeSpans", "spans")
    )


def metrics(requests: Iterable[Json]) -> Iterator[Json]:
    """One dict per data point: `value` for gauges and sums; count, sum, min, max, bounds, buckets for histograms."""
    return (
        {
            "name": metric["name"],
            "description": metric.get("description", ""),
            "unit": metric.get("unit", ""),
            "type": METRIC_TYPES[kind],
            "monotonic": metric[kind].get("isMonotonic", False),
            "temporality": TEMPORALITY[metric[kind].get("aggregationTemporality", 0)],
            "attributes": attributes(point),
            "start_ns": int(point.get("startTimeUnixNano", 0)),
            "time_ns": int(point.get("timeUnixNano", 0)),
            **_point(point),
            **owner,
        }
        for owner, metric in _items(requests, "resourceMetrics", "scopeMetrics", "metrics")
        for kind in METRIC_TYPES
        if kind in metric
        for point in metric[kind].get("dataPoints", [])
    )


def _point(point: Json) -> Json:
    plain: Json = {"exemplars": [_exemplar(e) for e in point.get("exemplars", [])]}
    if "asInt" in point or "asDouble" in point:
        return plain | {"value": _number(point)}
    plain |= {name: float(point[name]) for name in ("sum", "min", "max") if name in point}
    plain["count"] = int(point.get("count", 0))
    if "bucketCounts" in point:
        plain["buckets"] = [int(n) for n in point["bucketCounts"]]
        plain["bounds"] = [float(b) for b in point.get("explicitBounds", [])]
    for name in ("scale", "zeroCount", "positive", "negative", "quantileValues"):
        if name in point:
            plain[name] = point[name]
    return plain


def _exemplar(exemplar: Json) -> Json:
    return {
        "value": _number(exemplar),
        "time_ns": int(exemplar.get("timeUnixNano", 0)),
        "trace_id": exemplar.get("traceId", ""),
        "span_id": exemplar.get("spanId", ""),
        "attributes": attributes(exemplar, "filteredAttributes"),
    }


def _number(point: Json) -> int | float:
    return int(point["asInt"]) if "asInt" in point else float(point["asDouble"])


def _items(requests: Iterable[Json], resources: str, scopes: str, items: str) -> Iterator[tuple[Json, Json]]:
    for request in requests:
        for of_resource in request.get(resources, []):
            resource = attributes(of_resource.get("resource", {}))
            for of_scope in of_resource.get(scopes, []):
                scope = of_scope.get("scope", {})
                owner = {
                    "resource": resource,
                    "scope": scope.get("name", ""),
                    "scope_version": scope.get("version", ""),
                    "scope_attributes": attributes(scope),
                }
                for item in of_scope.get(items, []):
                    yield owner, item


def attributes(item: Json, key: str = "attributes") -> Json:
    """A list of key and value pairs as a dict."""
    return {pair["key"]: value(pair.get("value", {})) for pair in item.get(key, [])}


def value(any_value: Json) -> Any:
    """An OTLP AnyValue as str, bool, int, float, bytes, list, dict, or None where it is empty."""
    for kind, content in any_value.items():
        match kind:
            case "intValue":
                return int(content)  # 64 bits travel as a string
            case "doubleValue":
                return float(content)  # NaN and the infinities travel as strings
            case "bytesValue":
                return base64.b64decode(content)
            case "arrayValue":
                return [value(v) for v in content.get("values", [])]
            case "kvlistValue":
                return attributes(content, "values")
            case _:
                return content
    return None
