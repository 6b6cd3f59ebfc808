"""Configuration as data: what the YAML file says, typed; no I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

from msgspec import Meta

from ._guarded import Guarded
from .record import InstrumentKind

__all__ = [
    "BACKEND_KINDS",
    "DEVELOPMENT_ENVIRONMENTS",
    "DEVELOPMENT_ROUTING_RULES",
    "LATENCY",
    "PRODUCTION_ROUTING_RULES",
    "AgentConfig",
    "BackendConfig",
    "ComponentConfig",
    "ConfigError",
    "ConsoleConfig",
    "CustomConfig",
    "DatadogConfig",
    "ElasticsearchConfig",
    "FileConfig",
    "InstrumentConfig",
    "JournalConfig",
    "LanesConfig",
    "LogConfig",
    "OtlpConfig",
    "PrometheusConfig",
    "SlackConfig",
    "StdlibConfig",
    "WebhookConfig",
]


class ConfigError(ValueError):
    """A configuration that cannot be used; says the file, the path inside it, the cause and the cure."""

    def __init__(
        self,
        cause: str,
        *,
        file: str | None = None,
        path: str = "",
        cure: str = "",
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        self.cause, self.file, self.path, self.cure, self.line, self.column = (
            cause,
            file,
            path,
            cure,
            line,
            column,
        )
        place = ":".join(str(part) for part in (file, line, column) if part)
        head = ": ".join(part for part in (place, path) if part)
        lines = [head, f"  cause: {cause}"] if head else [cause]
        super().__init__("\n".join([*lines, f"  cure: {cure}"] if cure else lines))


class OneOf(NamedTuple):
    """What a text field may say."""

    choices: tuple[str, ...]


class LevelName(NamedTuple):
    """Marks a field that holds the name of a level of Python's logging, or one of some further words."""

    also: tuple[str, ...] = ()


# The ranges stand at the fields, so that the YAML file, Python callers and documentation meet the same ones. Upper
# bounds keep out infinity and what a clock or a socket would refuse.
Level = Annotated[str, LevelName()]
CallSites = Annotated[str, LevelName(("always", "never"))]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Via = Annotated[str, OneOf(("sdk", "collector"))]


LATENCY = "latency"
"""The one name among `instruments` that speaks of `latency()`; patterns do not."""


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


@dataclass(repr=False)
class InstrumentConfig(Guarded):
    """What metrics of one name, or of the names that a pattern matches, are recorded on."""

    kind: Annotated[str, OneOf(tuple(kind.value for kind in InstrumentKind))] | None = None
    """None means a gauge for `metric()`, and a histogram for the name `latency`; `counter()` is always a counter."""
    unit: str = ""
    """In UCUM, such as `ms`, `By`, `1` or `{order}`; Prometheus gets it as the end of the name."""
    buckets: list[float] = field(default_factory=list)
    """Upper bounds of a histogram, rising; none means OpenTelemetry's own, and for `latency` 1 us to 10 s."""
    description: str = ""


@dataclass(repr=False)
class JournalConfig(Guarded):
    """Where audit events are kept until they are delivered."""

    folder: str = "logs/journal"
    segment_kb: Annotated[int, Meta(ge=4, le=1_048_576)] = 512
    """Size of one preallocated segment, in KiB."""
    spare_segments: Annotated[int, Meta(ge=1, le=1_000)] = 4
    """Segments kept ready, so that no audit call ever allocates one."""
    durability: Annotated[str, OneOf(("process", "group", "sync"))] = "process"
    """When the call returns an event is in file-backed memory; on the disk within an interval; on the disk."""
    group_interval_ms: Annotated[float, Meta(gt=0, le=60_000)] = 10.0
    """The interval of `durability: group`, in milliseconds."""
    keep_days: Annotated[float, Meta(ge=0, le=36_500)] = 30.0
    """Days for which a segment is kept after every destination has it; 0 keeps, chains and anchors nothing."""
    keep_mb: Annotated[float, Meta(gt=0, le=1e9)] = 1024.0
    """How much of that there may be in the folder, in MiB; beyond it the oldest goes."""
    anchor_interval: Seconds = 60.0
    """Seconds between two anchors of the chain, each of which proves all that came before it."""


@dataclass(repr=False)
class StdlibConfig(Guarded):
    """Whether, and how, the calls of `logging.getLogger` are taken too; see `hft_otel.bridge_stdlib`."""

    bridge: bool = False
    level: Level | None = None
    """The lowest level to take; where the root logger would let less through, it is lowered for us alone."""
    exclusive: bool = False
    """Whether the handlers of Python's logging get nothing any more."""
    exclude: list[str] = field(default_factory=list)
    """Loggers that are left alone, with all below them."""


@dataclass(repr=False)
class LanesConfig(Guarded):
    """Where records wait for the agent; for `isolation: process`."""

    folder: str | None = None
    """None means: below /dev/shm where that is memory, else in the system's temporary folder."""


@dataclass(repr=False)
class AgentConfig(Guarded):
    """The process that delivers for this one; for `isolation: process`."""

    linger: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    """Seconds that it may go on delivering after the trading process has ended."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    """How much it yields to other processes."""
    cpus: list[Annotated[int, Meta(ge=0, le=100_000)]] = field(default_factory=list)
    """CPUs that it may run on; empty means those of the trading process when that starts it."""


@dataclass(repr=False)
class ComponentConfig(Guarded):
    """What one component has of its own; see `LogConfig.for_component`."""

    min_level: Level | None = None
    context: dict[str, Any] = field(default_factory=dict)
    backends: dict[str, dict[str, Any]] = field(default_factory=dict)
    routing_rules: list[dict[str, Any]] | None = None


@dataclass(repr=False)
class LogConfig(Guarded):
    """Complete logging configuration."""

    environment: str = "dev"
    backends: dict[str, BackendConfig] = field(default_factory=dict)
    routing_rules: list[dict[str, Any]] = field(default_factory=list)
    global_context: dict[str, Any] = field(default_factory=dict)
    min_level: Level = "DEBUG"
    """The lowest level of TEXT that loggers with this configuration take."""
    isolation: Annotated[str, OneOf(("thread", "process"))] | None = None
    """Who delivers: a thread of this process, or a process beside it; None means `effective_isolation`."""
    components: dict[str, ComponentConfig] = field(default_factory=dict)
    journal: JournalConfig = field(default_factory=JournalConfig)
    lanes: LanesConfig = field(default_factory=LanesConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    redact: list[str] = field(default_factory=list)
    """Further key names whose values are secrets."""
    instruments: dict[str, InstrumentConfig] = field(default_factory=dict)
    """By the name that `metric()` is given, or a pattern of `*`, `?` and `[...]`; the first that matches counts."""
    call_site: CallSites = "warning"
    """From which level on text says where it was called: a level, `always` or `never`."""
    stdlib: StdlibConfig = field(default_factory=StdlibConfig)
    exit_timeout: Annotated[float, Meta(ge=0, le=3_600)] = 2.0
    """Seconds that process exit may spend on delivering what is left."""
    source: str | None = None
    """The file that this came from, for error messages."""

    loader: ClassVar[ConfigLoader]
    """What reads files for the methods below: _yaml.py, which stands above this module and sets itself here."""

    @property
    def effective_isolation(self) -> str:
        """What `isolation` says; where it says nothing, a thread in development and a process elsewhere."""
        return self.isolation or ("thread" if self.environment in DEVELOPMENT_ENVIRONMENTS else "process")

    @classmethod
    def from_yaml(cls, yaml_file: str | PathLike[str]) -> LogConfig:
        """Load the `logging:` part of a YAML file; raises ConfigError with the file, the path in it, cause and cure.

        `${VAR}` and `${VAR:-default}` are replaced from the environment, and standard OTEL_* variables fill what the
        file leaves open.
        """
        return cls.loader.load_file(yaml_file)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], source: str = "<dict>") -> LogConfig:
        """Take what a YAML file would hold, with or without its `logging:` key; `source` names it in errors."""
        return cls.loader.load_mapping(mapping, source)

    @classmethod
    def default(cls) -> LogConfig:
        """Load the file that HFT_OTEL_CONFIG names; where it names none, take the default of ENVIRONMENT (dev)."""
        return cls.loader.load_default()

    @classmethod
    def for_component(cls, component_name: str) -> LogConfig:
        """Load the default with what its `components:` say of this one; one that they do not name gets the default."""
        return cls.loader.load_component(component_name)


class ConfigLoader(Protocol):
    """How configuration gets here from outside; see the methods of LogConfig that are called alike."""

    def load_file(self, path: str | PathLike[str]) -> LogConfig:
        """Load a file."""

    def load_mapping(self, mapping: Mapping[str, Any], source: str) -> LogConfig:
        """Take what a file would hold."""

    def load_default(self) -> LogConfig:
        """Load what holds where nothing is said."""

    def load_component(self, name: str) -> LogConfig:
        """Load the default with the overrides of one component."""


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

DEVELOPMENT_ENVIRONMENTS = ("dev", "development", "local", "test")
"""Values of ENVIRONMENT that get the development default; any other gets the production default."""

# No rule names AUDIT, so that it goes to every enabled file, otlp and elasticsearch backend.
DEVELOPMENT_ROUTING_RULES: list[dict[str, Any]] = [
    {"name": "metrics_to_prometheus", "log_types": ["METRIC"], "backends": ["prometheus"]},
    {"name": "errors_to_file_and_console", "min_level": "WARNING", "backends": ["file", "console"]},
    {
        "name": "debug_to_console_dev_only",
        "max_level": "INFO",
        "environments": list(DEVELOPMENT_ENVIRONMENTS),
        "backends": ["console"],
    },
]
PRODUCTION_ROUTING_RULES: list[dict[str, Any]] = [
    {
        "name": "metrics_to_prometheus_and_datadog",
        "log_types": ["METRIC"],
        "backends": ["prometheus", "datadog"],
    },
    {"name": "errors_to_file_and_datadog", "min_level": "WARNING", "backends": ["file", "datadog"]},
]
