"""OTLP to a Collector: log records, spans of audit events, and metrics, each a destination of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ..config import ConfigError, InstrumentConfig, OtlpConfig
from ..record import LogRecord, LogType
from .base import Destination, Rejected
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


class TextLogs(EncodedLogs):
    """The log records that are no audit events, where those have a way of their own."""

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.TEXT})


class AuditLogs(EncodedLogs):
    """Audit events as log records, with a connection of their own: nothing that TEXT meets holds them up."""

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.AUDIT})


class MetricsPerBackend(MetricsDestination):
    """Measurements with a stream for each backend behind the Collector.

    The mark belongs to the stream. Were it that of all the backends that want a measurement, two loggers with other
    routes would make two streams of one metric, which look the same once the mark is gone, and overwrite each other.
    """

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        """Aggregate each measurement once per backend that wants it; it is delivered, or rejected, once."""
        origins: dict[int, LogRecord] = {}
        copies: list[LogRecord] = []
        for record in batch:
            if len(record.via_collector) < 2:
                copies.append(record)
            for name in record.via_collector if len(record.via_collector) > 1 else ():
                copies.append(msgspec.structs.replace(record, via_collector=(name,)))
                origins[id(copies[-1])] = record
        rejected: dict[int, Rejected] = {}
        for each in super().deliver(copies):
            record = origins.get(id(each.record), each.record)
            rejected[id(record)] = Rejected(record, each.reason)
        return list(rejected.values())


def otlp_destinations(
    config: OtlpConfig,
    resource: Resource,
    name: str = "otlp",
    instruments: Mapping[str, InstrumentConfig] | None = None,
) -> list[Destination]:
    """Return a destination per signal of the configuration, named `otlp.logs`, `otlp.metrics`, `otlp.traces`.

    With an `audit_endpoint`, audit events leave `otlp.logs` for `otlp.audit`, and their spans go there too. What `audits`
    leaves out is not there. Raises ConfigError for options that can never work. Nothing is opened, and nothing is
    loaded, before `open`.
    """
    protocol = config.protocol or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOLS[0]
    _check(config, protocol, name)
    destinations: list[Destination] = []
    for signal in config.signals:
        audits = signal == "traces"  # all spans are
        if audits and signal not in config.audits:
            continue
        build = _sender_factory(config, protocol, signal, audits=audits)
        full_name = f"{name}.{signal}"
        destination: Destination
        if signal == "logs":
            apart = config.audit_endpoint or signal not in config.audits
            kind = TextLogs if apart else EncodedLogs
            destination = kind(build, name=full_name, resource=resource, max_batch=config.max_batch)
            destination.linger = LINGER
        elif signal == "traces":
            destination = SpansDestination(
                build, name=full_name, resource=resource, max_batch=config.max_batch
            )
            destination.linger = LINGER
        else:
            destination = MetricsPerBackend(
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
    if config.audit_endpoint and "logs" in config.audit_signals:
        build = _sender_factory(config, protocol, "logs", audits=True)
        audit = AuditLogs(build, name=f"{name}.audit", resource=resource, max_batch=config.max_batch)
        audit.linger = LINGER
        destinations.append(audit)
    return destinations


def _sender_factory(config: OtlpConfig, protocol: str, signal: str, *, audits: bool = False) -> SenderFactory:
    endpoint = (audits and config.audit_endpoint) or config.endpoint

    def build() -> Sender:
        from ..otel.transport import OtlpOptions, otlp_sender

        options = OtlpOptions(
            endpoint=endpoint,
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
