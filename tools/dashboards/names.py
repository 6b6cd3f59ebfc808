"""The names in Prometheus of all that dashboards and rules speak of; each stands here, and nowhere else, once.

What the library names is taken from the library. What the example trading system calls its metrics, and what the
Collector calls its own, is listed below: tests hold the first against the example's source, and all of it against a
real Prometheus.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from hft_otel.config import LATENCY, InstrumentConfig, LogConfig, PrometheusConfig
from hft_otel.ledger import SELF_METRICS
from hft_otel.otel.instruments import CONTEXT_ATTRIBUTES, LATENCY_BUCKETS
from hft_otel.otel.sdk import prometheus_family
from hft_otel.record import InstrumentKind, LogType

PREFIX = PrometheusConfig().prefix


def family(name: str, kind: str = InstrumentKind.GAUGE, unit: str = "") -> str:
    """Return what the Collector's Prometheus exporter calls a metric of a logger; one of its families, for latency."""
    full_name = prometheus_family(PREFIX + name, unit)
    return f"{full_name}_total" if kind == InstrumentKind.COUNTER else full_name


def _counter(name: str) -> str:
    return family(name, InstrumentKind.COUNTER)


# --- the library ------------------------------------------------------------------------------------------------------

_SELF = {metric.name: family(metric.name, metric.kind, metric.unit) for metric in SELF_METRICS}

EMITTED = _SELF["telemetry.emitted"]
ROUTED = _SELF["telemetry.routed"]
UNROUTED = _SELF["telemetry.unrouted"]
DROPPED = _SELF["telemetry.dropped"]
ACCEPTED = _SELF["telemetry.accepted"]
DELIVERED = _SELF["telemetry.delivered"]
EXPORTS = _SELF["telemetry.exports"]
PENDING = _SELF["telemetry.pending"]
DISPLACED = _SELF["telemetry.displaced"]

LATENCY_SECONDS = family(LATENCY, InstrumentKind.HISTOGRAM, "s")
LATENCY_BUCKET, LATENCY_COUNT = f"{LATENCY_SECONDS}_bucket", f"{LATENCY_SECONDS}_count"

EXCHANGE, SYMBOL, COMPONENT = CONTEXT_ATTRIBUTES
AUDIT, TEXT = LogType.AUDIT.value, LogType.TEXT.value


def bucket(seconds: float) -> str:
    """Return the label `le` of a bucket of the latency, which has to be one of its bounds."""
    if seconds not in LATENCY_BUCKETS:
        raise ValueError(f"{seconds} s is no bound of {LATENCY_BUCKET}: {LATENCY_BUCKETS}")
    return f"{seconds:g}"


# --- the example trading system ---------------------------------------------------------------------------------------

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "logging.yaml"
_CONFIGURED = LogConfig.from_yaml(EXAMPLE).instruments


def measured(name: str) -> str:
    """Return the family of a `metric()` of the example, whose kind and unit its logging.yaml states."""
    said = next(
        (said for pattern, said in _CONFIGURED.items() if fnmatchcase(name, pattern)), InstrumentConfig()
    )
    return family(name, said.kind or InstrumentKind.GAUGE, said.unit)


MESSAGES = _counter("messages_parsed")
PARSE_FAILURES = _counter("parse_failures")
SEQUENCE_GAPS = _counter("book_sequence_gaps")
DISCONNECTS = _counter("websocket_disconnects")
EXECUTIONS = _counter("arbitrage_executions")
FAILURES = measured("arbitrage_failure")
REJECTIONS = _counter("orders_rejected")
PROFIT = measured("arbitrage_profit_usd")
EDGE = measured("arbitrage_edge_bps")
DEPTH = measured("orderbook_depth")

PARSE_MESSAGE, ORDER_ROUND_TRIP = "parse_message", "order_round_trip"
"""Operations that have an objective for their latency."""

# --- the Collector's own, without suffixes, as its endpoint on port 8888 gives them -----------------------------------

SIGNALS = {"logs": "log_records", "metrics": "metric_points", "traces": "spans"}
"""What the items of each signal are called."""


def received(signal: str, outcome: str) -> str:
    """Items that receivers took: `accepted`, `refused` (the sender is told to come again) or `failed`."""
    return f"otelcol_receiver_{outcome}_{SIGNALS[signal]}"


def exported(signal: str, outcome: str) -> str:
    """Items that exporters handled: `sent`, `send_failed` or `enqueue_failed`."""
    return f"otelcol_exporter_{outcome}_{SIGNALS[signal]}"


QUEUE_SIZE = "otelcol_exporter_queue_size"
QUEUE_CAPACITY = "otelcol_exporter_queue_capacity"
IN_FLIGHT = "otelcol_exporter_in_flight_requests"
MEMORY = "otelcol_process_memory_rss"
CPU = "otelcol_process_cpu_seconds"
UPTIME = "otelcol_process_uptime"
ELASTICSEARCH_DOCS = "otelcol_elasticsearch_docs_processed"
CONFLICT = "version_conflict_engine_exception"
"""Label error_type of a document that Elasticsearch has already; its outcome is failed_client, as of a bad one."""

# --- what prometheus.yml calls its jobs -------------------------------------------------------------------------------

COLLECTOR_JOB, TELEMETRY_JOB, PROCESS_JOB = "otelcol", "telemetry", "process"
VIA = "via"
"""Label of a trading process's metrics: `collector` where they came through it, `process` where they were scraped."""
