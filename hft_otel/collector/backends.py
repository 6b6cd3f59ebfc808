"""Backends -> exporters of the Collector: one small function per kind, and the table of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..config import (
    BackendConfig,
    ConsoleConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    OtlpConfig,
    PrometheusConfig,
)
from ..record import ANCHOR_EVENT
from .expressions import quote
from .queues import audit_queue, bulk_queue
from .source import Source, variable

__all__ = ["KINDS", "Built", "Exporter", "component_name"]

KEY = "DATADOG_API_KEY"
NEVER_ROTATED = 1_000_000
"""Megabytes; the exporter writes unbuffered, and appends after a restart, only where it rotates."""


@dataclass
class Exporter:
    """One exporter, with what stands before it in its pipelines: processors of its own by name."""

    name: str
    options: dict[str, Any]
    comment: str = ""
    processors: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Built:
    """What a backend needs: the signals that it takes, an exporter, and one of its own for audits where that pays."""

    signals: tuple[str, ...]
    bulk: Exporter
    audit: Exporter | None = None
    connector: str = ""
    """A connector beside the exporter of spans; what it makes of them are metrics for the same exporter."""


def component_name(kind: str, backend: str, suffix: str = "") -> str:
    """Return `kind`, `kind/backend` or `kind/backend.suffix`, of characters that the Collector takes."""
    safe = re.sub(r"[^\w.-]", "_", backend)
    if kind == safe:
        return f"{kind}/{suffix}" if suffix else kind
    return f"{kind}/{safe}.{suffix}" if suffix else f"{kind}/{safe}"


def _console(source: Source, name: str, backend: ConsoleConfig) -> Built:
    return Built(("logs",), Exporter(component_name("debug", name), {"verbosity": "normal"}))


def _file(source: Source, name: str, backend: FileConfig) -> Built:
    path = source.text(name, "file_path", backend.file_path)
    if backend.format == "text":
        source.warnings.append(f"backends.{name}: the Collector writes OTLP as JSON lines, not format: text")
    rotates = backend.rotation and backend.backup_count > 0
    size = max(round(backend.max_size_mb), 1) if rotates else NEVER_ROTATED
    backups = backend.backup_count if rotates else 0
    return Built(
        ("logs",),
        Exporter(component_name("file", name), _rotated(path, size, backups)),
        Exporter(
            component_name("file", name, "audit"),
            _rotated(_beside(path), size, 0),
            "max_backups 0 keeps every file: any other number deletes old audits. No queue: what is acknowledged "
            "stands in the file.",
        ),
    )


def _rotated(path: str, megabytes: int, backups: int) -> dict[str, Any]:
    rotation = {"max_megabytes": megabytes, "max_backups": backups}
    return {"path": path, "create_directory": True, "rotation": rotation}


def _beside(path: str) -> str:
    """Return the name of the file for audits: app.jsonl has app.audit.jsonl beside it."""
    name = re.search(r"([^/}]*?)(\.\w+)?$", path)
    assert name is not None
    return f"{path[: name.end(1)]}.audit{name[2] or ''}"


def _prometheus(source: Source, name: str, backend: PrometheusConfig) -> Built:
    if source.is_variable(name, "host") or source.is_variable(name, "port"):
        endpoint = f"{source.text(name, 'host', backend.host)}:{source.text(name, 'port', backend.port)}"
    else:
        endpoint = source.endpoint(name, "endpoint", f"{backend.host}:{backend.port or 9464}")
    options = {
        "endpoint": endpoint,
        "translation_strategy": "UnderscoreEscapingWithSuffixes",
        "without_scope_info": True,
        "enable_open_metrics": True,
        "metric_expiration": "1h",
    }
    comment = (
        "hft.latency in s is scraped as hft_latency_seconds. Exemplars need OpenMetrics; a series that is quiet for "
        "less than metric_expiration stays."
    )
    return Built(("metrics",), Exporter(component_name("prometheus", name), options, comment))


def _elasticsearch(source: Source, name: str, backend: ElasticsearchConfig) -> Built:
    endpoint = source.endpoint(name, "endpoint", backend.endpoint or "http://127.0.0.1:9200")
    common: dict[str, Any] = {"endpoints": [endpoint]}
    if backend.api_key:
        common["api_key"] = source.secret(name, "api_key", "ELASTICSEARCH_API_KEY")
    index = source.text(name, "index", backend.index) if backend.index else ""
    document_id = 'log.attributes["elasticsearch.document_id"]'
    anchor = 'Concat([log.attributes["audit.head"], log.attributes["audit.kept_from"]], "-")'
    statements = [
        f'set({document_id}, log.attributes["audit.id"]) where log.attributes["audit.id"] != nil',
        f"set({document_id}, {anchor}) where log.event_name == {quote(ANCHOR_EVENT)}",
    ]
    if not index:
        statements.append('set(log.attributes["data_stream.dataset"], "audit")')
    statuses = [429, 500, 502, 503, 504]
    for_ever = {"max_retries": 1_000_000, "initial_interval": "1s", "max_interval": "30s"}
    audit = Exporter(
        component_name("elasticsearch", name, "audit"),
        {
            **common,
            **({"logs_index": f"{index}-audit"} if index else {}),
            "logs_dynamic_id": {"enabled": True},
            "suppress_conflict_errors": True,
            "timeout": "0s",
            "retry": {**for_ever, "retry_on_status": statuses, "retry_on_document_status": statuses},
            "sending_queue": audit_queue(),
        },
        "_id is the audit.id, so that sending again changes nothing (409 is fine). A document that fails inside a "
        "200 is retried too: by default it would be logged and lost. No timeout: it is one for all tries together, "
        "after which, 90 s by default, the audits would be dropped.",
        {
            component_name("transform", name, "audit"): {
                "error_mode": "propagate",
                "log_statements": statements,
            }
        },
    )
    bulk = {**common, **({"logs_index": index} if index else {}), "sending_queue": bulk_queue()}
    return Built(("logs",), Exporter(component_name("elasticsearch", name), bulk), audit)


def _datadog(source: Source, name: str, backend: DatadogConfig) -> Built:
    site = source.text(name, "site", backend.site)
    named = "${" in site

    def intake(signal: str, host: str) -> str:
        url = f"https://{host}.{site}"
        return url if named else f"${{env:{variable(name, signal)}_ENDPOINT:-{url}}}"

    key = (
        source.secret(name, "api_key", KEY)
        if backend.api_key or source.is_variable(name, "api_key")
        else f"${{env:{KEY}}}"
    )
    options: dict[str, Any] = {
        **({"hostname": source.text(name, "hostname", backend.hostname)} if backend.hostname else {}),
        "api": {"key": key, "site": site},
        "metrics": {"endpoint": intake("metrics", "api")},
        "logs": {"endpoint": intake("logs", "http-intake.logs")},
        "traces": {"endpoint": intake("traces", "trace.agent")},
        "host_metadata": {"enabled": False},
        "retry_on_failure": {"max_elapsed_time": "10m"},
        "sending_queue": bulk_queue(),
    }
    exporter = Exporter(
        component_name("datadog", name),
        options,
        "Best effort, also for audits: what it gave up on is in its own metrics only. No host metadata: it would "
        "describe the Collector's machine, not the traders'.",
        {component_name("transform", name): _datadog_tags(source, name, backend)},
    )
    return Built(("logs", "metrics", "traces"), exporter, None, component_name("datadog", name, "connector"))


def _datadog_tags(source: Source, name: str, backend: DatadogConfig) -> dict[str, Any]:
    service = quote(backend.service)
    service = f'"{source.text(name, "service", "")}"' if source.is_variable(name, "service") else service
    path = 'resource.attributes["service.name"]'
    common = [f'set({path}, {service}) where {path} == nil or HasPrefix({path}, "unknown_service")']
    pairs = [tag.partition(":") for tag in backend.tags]
    tags = [quote(",".join(backend.tags))] if backend.tags else []

    def each(context: str) -> list[str]:
        return [f"set({context}.attributes[{quote(key)}], {quote(value)})" for key, _, value in pairs]

    return {
        "error_mode": "propagate",
        "log_statements": [*common, *(f'set(log.attributes["ddtags"], {tag})' for tag in tags)],
        "metric_statements": [*common, *each("datapoint")],
        "trace_statements": [*common, *each("span")],
    }


def _otlp(source: Source, name: str, backend: OtlpConfig) -> Built:
    grpc = backend.protocol == "grpc"
    kind = "otlp_grpc" if grpc else "otlp_http"
    endpoint = source.endpoint(name, "endpoint", backend.endpoint)
    files = {"certificate": "ca_file", "client_certificate": "cert_file", "client_key": "key_file"}
    tls = {
        key: source.text(name, option, value)
        for option, key in files.items()
        if (value := getattr(backend, option))
    }
    if grpc:  # for HTTP the URL says it
        plain = not tls and not str(backend.endpoint).startswith("https://")
        tls = {"insecure": f"${{env:{variable(name, 'insecure')}:-{str(plain).lower()}}}", **tls}
    headers = {key: source.secret(name, f"headers.{key}") for key in backend.headers}
    common: dict[str, Any] = {
        "endpoint": endpoint,
        "compression": backend.compression,
        "timeout": f"{backend.timeout:g}s",
        **({"tls": tls} if tls else {}),
        **({"headers": headers} if headers else {}),
    }
    bulk = {
        **common,
        "retry_on_failure": {"max_elapsed_time": f"{max(backend.retry_for, 1):g}s"},
        "sending_queue": bulk_queue(),
    }
    audit = {**common, "retry_on_failure": {"max_elapsed_time": "0s"}, "sending_queue": audit_queue()}
    return Built(
        tuple(backend.signals),
        Exporter(component_name(kind, name), bulk),
        Exporter(component_name(kind, name, "audit"), audit),
    )


KINDS: dict[type[BackendConfig], Callable[[Source, str, Any], Built]] = {
    ConsoleConfig: _console,
    DatadogConfig: _datadog,
    ElasticsearchConfig: _elasticsearch,
    FileConfig: _file,
    OtlpConfig: _otlp,
    PrometheusConfig: _prometheus,
}
