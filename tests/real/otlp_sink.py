"""A stand-in that takes OTLP over HTTP: it has the place of an exporter that the Collector at hand was built without.

What it proves ends at the exporter: what it is handed, how often, and what a backend's failures do to the queue before
it. How Elasticsearch's or Datadog's own exporter writes it is proven only where that exporter is.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.real.elasticsearch_bulk import Failure
from tests.real.stand_in import Answer, Request, Reset, StandIn

TYPES: dict[str, Any] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
MARK = "hft.backends"
PROTOBUF = (("Content-Type", "application/x-protobuf"),)


class OtlpSink(StandIn):
    """Keeps what it takes by the first part of the path, which is the exporter in whose place it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.received: dict[tuple[str, str], list[Any]] = {}
        """Requests by exporter and signal, in order."""
        self.failures: list[tuple[str, Failure]] = []

    def fail_next(self, exporter: str, *failures: Failure) -> None:
        """Let the next requests of the exporters whose name begins so fail, one each."""
        with self.lock:
            self.failures.extend((exporter, failure) for failure in failures)

    def _next_failure(self, exporter: str) -> Failure:
        with self.lock:
            for entry in self.failures:
                if exporter.startswith(entry[0]):
                    self.failures.remove(entry)
                    return entry[1]
        return Failure()

    def handle(self, request: Request) -> Answer:
        exporter, _, path = request.path.strip("/").partition("/")
        signal = path.removeprefix("v1/")
        if signal not in TYPES:
            self.violation(f"{request.method} {request.path} is not answered here")
            return Answer(404)
        parsed = TYPES[signal].FromString(request.body)
        failure = self._next_failure(exporter)
        time.sleep(failure.seconds)
        if failure.stored or not (failure.status or failure.reset):
            self._keep(exporter, signal, parsed)
        if failure.reset:
            raise Reset
        return Answer(failure.status or 200, b"", PROTOBUF)

    def _keep(self, exporter: str, signal: str, parsed: Any) -> None:
        marks = [scope.scope for scope in _scopes(parsed) if MARK in _keys(scope.scope.attributes)]
        if marks:
            self.violation(f"{exporter} {signal}: the mark {MARK} should end at the Collector")
        with self.lock:
            self.received.setdefault((exporter, signal), []).append(parsed)

    def exporters(self) -> set[str]:
        """Which exporters have sent something."""
        with self.lock:
            return {exporter for exporter, _ in self.received}

    def logs(self, exporter: str = "") -> list[Any]:
        """LogRecords that an exporter, or any whose name begins so, has sent."""
        return [r for scope in self._all(exporter, "logs") for r in scope.log_records]

    def spans(self, exporter: str = "") -> list[Any]:
        """Likewise spans."""
        return [s for scope in self._all(exporter, "traces") for s in scope.spans]

    def metrics(self, exporter: str = "") -> list[Any]:
        """Likewise metrics."""
        return [m for scope in self._all(exporter, "metrics") for m in scope.metrics]

    def audits(self, exporter: str = "") -> Counter[str]:
        """How often each audit.id has come, as the one event after the other that a log is."""
        records = (r for r in self.logs(exporter) if r.event_name.startswith("audit."))
        return Counter(text_of(record, "audit.id") for record in records)

    def texts(self, exporter: str = "") -> list[str]:
        """Bodies of the records that are no audit."""
        return [r.body.string_value for r in self.logs(exporter) if not r.event_name]

    def _all(self, exporter: str, signal: str) -> list[Any]:
        with self.lock:
            chosen = {key: found for key, found in self.received.items() if key[1] == signal}
        return [
            scope
            for (name, _), requests in chosen.items()
            if name.startswith(exporter)
            for request in requests
            for scope in _scopes(request)
        ]


def _scopes(request: Any) -> list[Any]:
    """The scopes of a request, each with its items."""
    (resources,) = (value for _, value in request.ListFields()) if request.ListFields() else ((),)
    return [
        scope
        for resource in resources
        for name in ("scope_logs", "scope_metrics", "scope_spans")
        if hasattr(resource, name)
        for scope in getattr(resource, name)
    ]


def _keys(attributes: Any) -> set[str]:
    return {pair.key for pair in attributes}


def text_of(item: Any, key: str) -> str:
    """An attribute that is text, or "" where there is none."""
    return next((pair.value.string_value for pair in item.attributes if pair.key == key), "")
