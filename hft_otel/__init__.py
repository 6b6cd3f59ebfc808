"""hft-otel: the OpenTelemetry-native logger for trading systems."""

from .config import (
    DEVELOPMENT_ROUTING_RULES,
    PRODUCTION_ROUTING_RULES,
    AgentConfig,
    BackendConfig,
    ComponentConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    InstrumentConfig,
    JournalConfig,
    LanesConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    StdlibConfig,
    WebhookConfig,
)
from .destinations.console import ConsoleBackend
from .destinations.file import FileBackend
from .destinations.prometheus import PrometheusBackend
from .factory import LoggerFactory
from .interfaces import HFTLoggerInterface, LogBackend
from .ledger import FlushReport
from .logger import HFTLogger
from .performance import PerformanceLogger
from .record import InstrumentKind, LogLevel, LogRecord, LogType
from .router import LogRouter
from .stdlib import bridge_stdlib, unbridge_stdlib

__version__ = "0.1.0"

__all__ = [
    "DEVELOPMENT_ROUTING_RULES",
    "PRODUCTION_ROUTING_RULES",
    "AgentConfig",
    "BackendConfig",
    "ComponentConfig",
    "ConfigError",
    "ConsoleBackend",
    "ConsoleConfig",
    "CustomConfig",
    "DatadogConfig",
    "ElasticsearchConfig",
    "FileBackend",
    "FileConfig",
    "FlushReport",
    "HFTLogger",
    "HFTLoggerInterface",
    "InstrumentConfig",
    "InstrumentKind",
    "JournalConfig",
    "LanesConfig",
    "LogBackend",
    "LogConfig",
    "LogLevel",
    "LogRecord",
    "LogRouter",
    "LogType",
    "LoggerFactory",
    "OtlpConfig",
    "PerformanceLogger",
    "PrometheusBackend",
    "PrometheusConfig",
    "SlackConfig",
    "StdlibConfig",
    "WebhookConfig",
    "bridge_stdlib",
    "unbridge_stdlib",
]
