"""Configuration as data: what the YAML file says, typed; no I/O here."""

from __future__ import annotations

from .backends import (
    BACKEND_KINDS,
    BackendConfig,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    WebhookConfig,
)
from .errors import ConfigError
from .fields import LATENCY, LevelName, OneOf
from .parts import AgentConfig, ComponentConfig, InstrumentConfig, JournalConfig, LanesConfig, StdlibConfig
from .whole import DEVELOPMENT_ENVIRONMENTS, DEVELOPMENT_ROUTING_RULES, PRODUCTION_ROUTING_RULES, LogConfig

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
    "LevelName",
    "LogConfig",
    "OneOf",
    "OtlpConfig",
    "PrometheusConfig",
    "SlackConfig",
    "StdlibConfig",
    "WebhookConfig",
]
