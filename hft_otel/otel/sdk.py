"""The only place that imports unstable names of the OpenTelemetry SDK, and the shortcuts that lean on its insides.

Importing it loads the SDK (about 150 ms), so destinations do that when they are opened. The signals logs and their
exporters still live in underscore modules upstream; everything here is held by `tests/unit/test_convert.py` and
`test_instruments.py`, which compare each shortcut with what the SDK's own way builds.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from time import time_ns
from typing import Any

from opentelemetry._logs import LogRecord as OtelLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, attach, detach, set_value
from opentelemetry.metrics import CallbackOptions, NoOpMeter, Observation
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes
from opentelemetry.sdk.metrics._internal.measurement import Measurement
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

__all__ = [
    "CallbackOptions",
    "Event",
    "InstrumentationScope",
    "LogRecordExportResult",
    "LogRecordExporter",
    "MeterProvider",
    "MetricExportResult",
    "MetricExporter",
    "MetricReader",
    "MetricsData",
    "NoOpMeter",
    "Observation",
    "OtelLogRecord",
    "PeriodicExportingMetricReader",
    "ReadableLogRecord",
    "ReadableSpan",
    "Resource",
    "SeverityNumber",
    "SpanContext",
    "SpanExportResult",
    "SpanExporter",
    "SpanKind",
    "TraceFlags",
    "counted_metric_exporter",
    "exporting",
    "has_no_room_for",
    "log_record",
    "make_resource",
    "prometheus_family",
    "prometheus_reader",
    "set_gauge",
]

DISTRIBUTION = "hft-otel"

EXPORTER_LOGGERS = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.common._internal",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http._common",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.metrics._internal",
    "opentelemetry.sdk.metrics._internal.export",
)
"""Loggers that speak of a failed export, which our own report already names, once and rate limited."""

_here = threading.local()


class _NotOurs(logging.Filter):
    """Drops what is logged on a thread that is inside `exporting`; leaves every other record alone."""

    installed = False

    def install(self) -> None:
        for name in EXPORTER_LOGGERS:
            logging.getLogger(name).addFilter(self)  # does nothing where it is already
        self.installed = True

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_here, "exporting", 0)


_NOT_OURS = _NotOurs()


@contextmanager
def exporting() -> Iterator[None]:
    """Export without echoes: no spans of instrumented HTTP clients, no log lines of the exporters themselves."""
    if not _NOT_OURS.installed:
        _NOT_OURS.install()
    _here.exporting = getattr(_here, "exporting", 0) + 1
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        detach(token)
        _here.exporting -= 1


class _HashedOnce(Resource):
    """A resource whose hash is computed once: the encoders hash it per record, which costs 4 us of JSON each time."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


_RESOURCE_KEYS = {
    "service": "service.name",
    "version": "service.version",
    "environment": "deployment.environment.name",
}


def make_resource(attributes: Mapping[str, Any]) -> Resource:
    """Return the resource of this process.

    `attributes` may use the configuration's words (`service`, `version`, `environment`) or full attribute names; what
    it leaves open is taken from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, then from the process.
    """
    given = {_RESOURCE_KEYS.get(key, key): value for key, value in attributes.items() if value is not None}
    detected = Resource.create({})  # reads OTEL_*; makes service.instance.id
    try:
        own_version = version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source tree
        own_version = "0"
    process: dict[str, Any] = {
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        "telemetry.distro.name": DISTRIBUTION,
        "telemetry.distro.version": own_version,
    }
    return _HashedOnce({**process, **detected.attributes, **given}, detected.schema_url)


_NO_CONTEXT = Context()
_NO_FLAGS = TraceFlags(0)


def log_record(
    *,
    timestamp: int,
    observed: int,
    severity: SeverityNumber,
    severity_text: str,
    body: str,
    attributes: Mapping[str, Any],
    event_name: str | None,
    trace: tuple[int, int, int] | None,
    resource: Resource,
    scope: InstrumentationScope,
) -> ReadableLogRecord:
    """Build a log record in 1.2 us instead of 3.0: the constructors look up the current context, which is not ours."""
    record = OtelLogRecord.__new__(OtelLogRecord)
    record.__dict__ = {
        "timestamp": timestamp,
        "observed_timestamp": observed,
        "context": _NO_CONTEXT,
        "trace_id": trace[0] if trace else 0,
        "span_id": trace[1] if trace else 0,
        "trace_flags": TraceFlags(trace[2]) if trace else _NO_FLAGS,
        "severity_text": severity_text,
        "severity_number": severity,
        "body": body,
        "attributes": attributes,
        "event_name": event_name,
        "exception": None,
    }
    readable = ReadableLogRecord.__new__(ReadableLogRecord)
    readable.__dict__.update(log_record=record, resource=resource, instrumentation_scope=scope, limits=None)
    return readable


def set_gauge(gauge: Any, value: float, attributes: Mapping[str, Any]) -> None:
    """Set a gauge to NaN or an infinity, which `Gauge.set` refuses although OTLP and Prometheus have both."""
    gauge._measurement_consumer.consume_measurement(
        Measurement(value, time_ns(), gauge, _NO_CONTEXT, dict(attributes))
    )


def has_no_room_for(instrument: Any) -> Callable[[Mapping[str, Any]], bool]:
    """Return what says whether attributes would be one series too many for an instrument, in 0.2 us where not.

    The SDK keeps 2,000 sets of attributes per instrument (with delta temporality per collection), and folds any
    further one into a series of its own without a word. Not for use from several threads at a time.
    """
    storages = instrument._measurement_consumer._reader_storages.values()
    kept = [each for storage in storages for each in storage._get_or_init_view_instrument_match(instrument)]

    def is_full(attributes: Mapping[str, Any]) -> bool:
        for each in kept:
            series = each._attributes_aggregation
            if len(series) >= each._cardinality_limit and _hash_attributes(attributes) not in series:
                return True
        return False

    return is_full


class _CountedMetricExporter(MetricExporter):
    """Stands before an exporter of metrics, so that what became of each export is known."""

    def __init__(self, exporter: MetricExporter, export: Callable[[MetricsData], bool]) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._export = export

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        return MetricExportResult.SUCCESS if self._export(metrics_data) else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis)


def counted_metric_exporter(
    exporter: MetricExporter, export: Callable[[MetricsData], bool]
) -> MetricExporter:
    """Return an exporter with the preferences of `exporter` that exports by calling `export`."""
    return _CountedMetricExporter(exporter, export)


def prometheus_reader(registry: Any) -> MetricReader:
    """Return a reader that answers the scrapes of `registry`, without the labels of the instrumentation scope."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader

    return PrometheusMetricReader(scope_info_enabled=False, registry=registry)


def prometheus_family(name: str, unit: str) -> str:
    """Return the name that the Prometheus exporter gives to the metric family, without its suffix per sample."""
    from opentelemetry.exporter.prometheus._mapping import map_unit, sanitize_full_name

    family = sanitize_full_name(name)
    suffix = map_unit(unit)
    return family if not suffix or family.endswith("_" + suffix) else f"{family}_{suffix}"
