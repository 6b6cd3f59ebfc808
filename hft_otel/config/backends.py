"""The configuration of each kind of backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from .._guarded import Guarded
from .fields import Count, Level, OneOf, Port, Seconds, Via

__all__ = [
    "BACKEND_KINDS",
    "BackendConfig",
    "ConsoleConfig",
    "CustomConfig",
    "DatadogConfig",
    "ElasticsearchConfig",
    "FileConfig",
    "OtlpConfig",
    "PrometheusConfig",
    "SlackConfig",
    "WebhookConfig",
]


@dataclass(repr=False)
class BackendConfig(Guarded):
    """What every backend has; `config` holds further options as the YAML file gives them."""

    enabled: bool = True
    min_level: Level = "DEBUG"
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(repr=False)
class ConsoleConfig(BackendConfig):
    """The console: `message | {context}` per line; `through: stdlib` hands records to Python's logging instead."""

    color: bool | None = None
    """None means: where the stream is a terminal and NO_COLOR is not set."""
    stream: Annotated[str, OneOf(("stderr", "stdout"))] = "stderr"
    format: Annotated[str, OneOf(("text", "json"))] = "text"
    through: Annotated[str, OneOf(("direct", "stdlib"))] = "direct"
    via: Via = "sdk"
    """`collector`: the Collector prints it, in its `dev` profile only."""


@dataclass(repr=False)
class FileConfig(BackendConfig):
    """A file of text lines or JSON lines, rotated by size; behind the Collector it holds OTLP as JSON lines."""

    file_path: str = "logs/app.log"
    format: Annotated[str, OneOf(("text", "json"))] = "text"
    rotation: bool = True
    max_size_mb: Annotated[float, Meta(gt=0, le=1e9)] = 100
    backup_count: Annotated[int, Meta(ge=0, le=100_000)] = 10
    via: Via = "sdk"


@dataclass(repr=False)
class PrometheusConfig(BackendConfig):
    """A scrape endpoint, and a push to a Pushgateway where `push_gateway` is set."""

    push_gateway: str | None = None
    job_name: str = "hft_arbitrage"
    prefix: str = "hft_"
    batch_size: Count = 100
    flush_interval: Seconds = 5.0
    scrape: bool = True
    host: str = "127.0.0.1"
    port: Port = 9464
    via: Via = "sdk"


@dataclass(repr=False)
class OtlpConfig(BackendConfig):
    """OTLP to a Collector; what is None here is taken from the standard OTEL_* variables.

    With `via: collector` it is the Collector that sends it on, to Jaeger, Tempo or whatever else takes OTLP.
    """

    endpoint: str | None = None
    """Base URL; for HTTP the signal's path (`/v1/logs`...) is appended."""
    audit_endpoint: str | None = None
    """Where AUDIT goes instead, such as the Collector's port for audits; None: to `endpoint`."""
    protocol: Annotated[str, OneOf(("http/protobuf", "grpc"))] | None = None
    """`http/protobuf` or `grpc`."""
    headers: dict[str, str] = field(default_factory=dict)
    timeout: Seconds = 10.0
    compression: Annotated[str, OneOf(("none", "gzip"))] = "none"
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    signals: list[Annotated[str, OneOf(("logs", "metrics", "traces"))]] = field(
        default_factory=lambda: ["logs", "metrics", "traces"]
    )
    prefix: str = "hft_"
    metric_interval: Seconds = 5.0
    """Seconds between two exports of the metrics."""
    max_batch: Count = 512
    retry_for: Annotated[float, Meta(ge=0, le=31_536_000)] = 300.0
    """Seconds to go on retrying a batch of TEXT or METRIC records; AUDIT is retried without end."""
    via: Via = "sdk"
    audits: list[Annotated[str, OneOf(("logs", "traces"))]] = field(
        default_factory=lambda: ["logs", "traces"]
    )
    """As what AUDIT leaves, of those signals: log records with an event name, spans with a span event, or both."""

    @property
    def audit_signals(self) -> tuple[str, ...]:
        """The signals that audit events leave as; none where they do not leave here."""
        return tuple(
            signal for signal in ("logs", "traces") if signal in self.signals and signal in self.audits
        )


@dataclass(repr=False)
class DatadogConfig(BackendConfig):
    """Datadog, reached through the Collector (`via: collector`)."""

    api_key: str | None = None
    service: str = "hft-arbitrage"
    """Of what comes without a service name; what has one keeps it."""
    tags: list[str] = field(default_factory=list)
    site: str = "datadoghq.com"
    hostname: str | None = None
    """Of what comes without a host name; None: the Collector finds out its own."""
    via: Via = "collector"


@dataclass(repr=False)
class ElasticsearchConfig(BackendConfig):
    """Elasticsearch, reached through the Collector (`via: collector`)."""

    endpoint: str | None = None
    index: str | None = None
    """Index of TEXT; AUDIT goes to the same name with `-audit`. None: OpenTelemetry's data streams."""
    api_key: str | None = None
    via: Via = "collector"


@dataclass(repr=False)
class SlackConfig(BackendConfig):
    """Messages to a Slack incoming webhook."""

    min_level: Level = "CRITICAL"
    webhook_url: str | None = None
    rate_limit_per_minute: Count = 30
    timeout: Seconds = 5.0
    via: Via = "sdk"


@dataclass(repr=False)
class WebhookConfig(BackendConfig):
    """Records as JSON to any HTTP endpoint."""

    url: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    rate_limit_per_minute: Count = 600
    timeout: Seconds = 5.0
    batch_size: Count = 50
    via: Via = "sdk"


@dataclass(repr=False)
class CustomConfig(BackendConfig):
    """A LogBackend or an OpenTelemetry exporter of the user's, named as `package.module:Name`."""

    class_path: str = ""


BACKEND_KINDS: dict[str, type[BackendConfig]] = {
    "console": ConsoleConfig,
    "file": FileConfig,
    "prometheus": PrometheusConfig,
    "otlp": OtlpConfig,
    "datadog": DatadogConfig,
    "elasticsearch": ElasticsearchConfig,
    "slack": SlackConfig,
    "webhook": WebhookConfig,
}
"""The built-in backends by the key, or the `type:`, that they have in the YAML file."""
