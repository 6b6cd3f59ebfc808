"""What check and explain share: a configuration from a file, and its route table."""

from __future__ import annotations

from pathlib import Path

from .._validation import Place, with_component
from ..building import backend_infos
from ..config import LogConfig
from ..record import LogLevel, LogRecord, LogType
from ..router import RouteTable

__all__ = ["load", "route_table", "sample"]


def load(file: Path, component: str | None) -> LogConfig:
    """Return the configuration of the file, with one component's overrides where one is named."""
    config = LogConfig.from_yaml(file)
    if component is None:
        return config
    if (
        component not in config.components
    ):  # create_logger gives one that is not named the base; here it is a typo
        raise Place(config.source, ("logging", "components")).unknown(
            "component", component, config.components
        )
    return with_component(config, component)


def route_table(config: LogConfig) -> RouteTable:
    """Return the compiled routes of the configuration; builds no backend."""
    return RouteTable(config.routing_rules, backend_infos(config), config.environment)


def sample(log_type: LogType, level: int, logger: str, context: dict[str, str] | None = None) -> LogRecord:
    """Return a record to ask the table about."""
    return LogRecord(0.0, LogLevel(level), log_type, logger, context=dict(context or {}), time_ns=1)
