"""Configuration as data: what the YAML file says, typed; no I/O here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "DEVELOPMENT_ROUTING_RULES",
    "PRODUCTION_ROUTING_RULES",
    "BackendConfig",
    "ConfigError",
    "ConsoleConfig",
    "CustomConfig",
    "DatadogConfig",
    "ElasticsearchConfig",
    "FileConfig",
    "LogConfig",
    "OtlpConfig",
    "PrometheusConfig",
    "SlackConfig",
    "WebhookConfig",
]


class ConfigError(ValueError):
    """A configuration that cannot be used; says the file, the path inside it, the cause and the cure."""


@dataclass
class BackendConfig:
    """What every backend has; `config` holds further options as the YAML file gives them."""

    enabled: bool = True
    min_level: str = "DEBUG"
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class ConsoleConfig(BackendConfig):
    """The console: `message | {context}` per line; `through: stdlib` hands records to Python's logging instead."""

    color: bool | None = None
    """None means: where the stream is a terminal and NO_COLOR is not set."""
    stream: str = "stderr"
    format: str = "text"
    through: str = "direct"


@dataclass
class FileConfig(BackendConfig):
    """A file of text lines or JSON lines, rotated by size."""

    file_path: str = "logs/app.log"
    format: str = "text"
    rotation: bool = True
    max_size_mb: float = 100
    backup_count: int = 10
    via: str = "sdk"


@dataclass
class PrometheusConfig(BackendConfig):
    """A scrape endpoint, and a push to a Pushgateway where `push_gateway` is set."""

    push_gateway: str | None = None
    job_name: str = "hft_arbitrage"
    prefix: str = "hft_"
    batch_size: int = 100
    flush_interval: float = 5.0
    scrape: bool = True
    host: str = "127.0.0.1"
    port: int = 9464
    via: str = "sdk"


@dataclass
class OtlpConfig(BackendConfig):
    """OTLP to a Collector; what is None here is taken from the standard OTEL_* variables."""

    endpoint: str | None = None
    """Base URL; for HTTP the signal's path (`/v1/logs`...) is appended."""
    protocol: str | None = None
    """`http/protobuf` or `grpc`."""
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    compression: str = "none"
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    signals: list[str] = field(default_factory=lambda: ["logs", "metrics", "traces"])
    prefix: str = "hft_"
    metric_interval: float = 5.0
    """Seconds between two exports of the metrics."""
    max_batch: int = 512
    retry_for: float = 300.0
    """Seconds to go on retrying a batch of TEXT or METRIC records; AUDIT is retried without end."""


@dataclass
class DatadogConfig(BackendConfig):
    """Datadog, reached through the Collector (`via: collector`)."""

    api_key: str | None = field(default=None, repr=False)
    service: str = "hft-arbitrage"
    tags: list[str] = field(default_factory=list)
    via: str = "collector"


@dataclass
class ElasticsearchConfig(BackendConfig):
    """Elasticsearch, reached through the Collector (`via: collector`)."""

    endpoint: str | None = None
    index: str | None = None
    api_key: str | None = field(default=None, repr=False)
    via: str = "collector"


@dataclass
class SlackConfig(BackendConfig):
    """Messages to a Slack incoming webhook."""

    webhook_url: str | None = field(default=None, repr=False)
    rate_limit_per_minute: int = 30
    timeout: float = 5.0
    via: str = "sdk"


@dataclass
class WebhookConfig(BackendConfig):
    """Records as JSON to any HTTP endpoint."""

    url: str | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    rate_limit_per_minute: int = 600
    timeout: float = 5.0
    batch_size: int = 50
    via: str = "sdk"


@dataclass
class CustomConfig(BackendConfig):
    """A LogBackend or an OpenTelemetry exporter of the user's, named as `package.module:Name`."""

    class_path: str = ""


@dataclass
class JournalConfig:
    """Where audit events are kept until they are delivered."""

    folder: str = "logs/journal"
    segment_kb: int = 1024
    """Size of one preallocated segment, in KiB."""
    spare_segments: int = 4
    """Segments kept ready, so that no audit call ever allocates one."""


@dataclass
class ComponentConfig:
    """What one component has of its own; see `LogConfig.for_component`."""

    min_level: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    backends: dict[str, dict[str, Any]] = field(default_factory=dict)
    routing_rules: list[dict[str, Any]] | None = None


@dataclass
class LogConfig:
    """Complete logging configuration."""

    environment: str = "dev"
    backends: dict[str, BackendConfig] = field(default_factory=dict)
    routing_rules: list[dict[str, Any]] = field(default_factory=list)
    global_context: dict[str, Any] = field(default_factory=dict)
    min_level: str = "DEBUG"
    """The lowest level of TEXT that loggers with this configuration take."""
    isolation: str = "thread"
    components: dict[str, ComponentConfig] = field(default_factory=dict)
    journal: JournalConfig = field(default_factory=JournalConfig)
    redact: list[str] = field(default_factory=list)
    """Further key names whose values are secrets."""
    exit_timeout: float = 2.0
    """Seconds that process exit may spend on delivering what is left."""
    source: str | None = None
    """The file that this came from, for error messages."""
