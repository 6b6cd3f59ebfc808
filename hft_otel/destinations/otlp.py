"""OTLP to a Collector: log records, spans of audit events, and metrics, each a destination of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..config import ConfigError, InstrumentConfig, OtlpConfig
from .base import Destination
from .exporters import LogsDestination, MetricsDestination, SenderFactory, SpansDestination

if TYPE_CHECKING:  # the SDK loads when a destination is opened
    from ..otel.sdk import Resource
    from ..otel.transport import Sender

__all__ = ["otlp_destinations"]

PROTOCOLS = ("http/protobuf", "grpc")
SIGNALS = ("logs", "metrics", "traces")
COMPRESSIONS = ("none", "gzip")
LINGER = 0.1
"""Seconds to wait for a fuller request: one of 512 records costs a Collector a tenth of what 512 of one record cost."""


class EncodedLogs(LogsDestination):
    """Log records encoded by ourselves, for a sender that takes bytes."""

    def _make_converter(self, resource: Resource) -> Any:
        from ..otel.encode import LogsEncoder

        return LogsEncoder(resource)


def otlp_destinations(
    config: OtlpConfig,
    resource: Resource,
    name: str = "otlp",
    instruments: Mapping[str, InstrumentConfig] | None = None,
) -> list[Destination]:
    """Return a destination per signal of the configuration, named `otlp.logs`, `otlp.metrics`, `otlp.traces`.

    Raises ConfigError for options that can never work. Nothing is opened, and nothing is loaded, before `open`.
    """
    protocol = config.protocol or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOLS[0]
    _check(config, protocol, name)
    destinations: list[Destination] = []
    for signal in config.signals:
        build = _sender_factory(config, protocol, signal)
        full_name = f"{name}.{signal}"
        destination: Destination
        if signal == "logs":
            destination = EncodedLogs(build, name=full_name, resource=resource, max_batch=config.max_batch)
            destination.linger = LINGER
        elif signal == "traces":
            destination = SpansDestination(
                build, name=full_name, resource=resource, max_batch=config.max_batch
            )
            destination.linger = LINGER
        else:
            destination = MetricsDestination(
                build,
                name=full_name,
                resource=resource,
                prefix=config.prefix,
                interval=config.metric_interval,
                instruments=instruments,
                max_batch=config.max_batch,
            )
        destination.retry_for = config.retry_for
        destinations.append(destination)
    return destinations


def _sender_factory(config: OtlpConfig, protocol: str, signal: str) -> SenderFactory:
    def build() -> Sender:
        from ..otel.transport import OtlpOptions, otlp_sender

        options = OtlpOptions(
            endpoint=config.endpoint,
            grpc=protocol == "grpc",
            headers=config.headers,
            timeout=config.timeout,
            compression=config.compression,
            certificate=config.certificate,
            client_certificate=config.client_certificate,
            client_key=config.client_key,
        )
        return otlp_sender(signal, options)

    return build


def _check(config: OtlpConfig, protocol: str, name: str) -> None:
    path = f"{name}.config"
    if protocol not in PROTOCOLS:
        cause = f"protocol {protocol!r} is not supported"
        raise ConfigError(cause, path=f"{path}.protocol", cure=f"use one of {', '.join(PROTOCOLS)}")
    if config.compression not in COMPRESSIONS:
        cause = f"compression {config.compression!r} is not supported"
        raise ConfigError(cause, path=f"{path}.compression", cure=f"use one of {', '.join(COMPRESSIONS)}")
    for signal in config.signals:
        if signal not in SIGNALS:
            cause = f"{signal!r} is no signal"
            raise ConfigError(cause, path=f"{path}.signals", cure=f"use any of {', '.join(SIGNALS)}")
    for option in ("certificate", "client_certificate", "client_key"):
        file = getattr(config, option)
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigError(
                f"{file} cannot be read", path=f"{path}.{option}", cure="name a readable PEM file"
            )
    if (config.client_key is None) != (config.client_certificate is None):
        cause = "client_key and client_certificate work as a pair"
        raise ConfigError(cause, path=f"{path}.client_key", cure="give both, or neither")
