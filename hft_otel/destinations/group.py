"""Backends made of several destinations, and backends that stand behind the Collector."""

from __future__ import annotations

from collections.abc import Sequence

from ..interfaces import LogBackend
from ..record import LogRecord, LogType
from .base import Destination

__all__ = ["Group", "ViaCollector"]


class Group(LogBackend):
    """One backend of the configuration with a destination per signal, such as OTLP's logs, metrics and traces."""

    def __init__(self, name: str, parts: Sequence[Destination]) -> None:
        self.name = name
        self.parts = tuple(parts)
        self.accepts: frozenset[LogType] = frozenset().union(*(part.accepts for part in self.parts))

    def should_handle(self, record: LogRecord) -> bool:
        """Say whether one of the parts takes the record."""
        return any(part.should_handle(record) for part in self.parts)

    async def write(self, record: LogRecord) -> None:
        """Deliver one record to the parts that take it."""
        for part in self.parts:
            if part.should_handle(record):
                await part.write(record)

    async def flush(self) -> None:
        """Flush every part."""
        for part in self.parts:
            await part.flush()


class ViaCollector(LogBackend):
    """A backend that the Collector serves: its records leave over OTLP, marked with its name."""

    def __init__(self, name: str, otlp: Group, accepts: frozenset[LogType]) -> None:
        self.name = name
        self.otlp = otlp
        self.accepts = accepts

    def should_handle(self, record: LogRecord) -> bool:
        """Say whether the backend takes the record's type."""
        return record.log_type in self.accepts

    async def write(self, record: LogRecord) -> None:
        """Hand one record to OTLP, marked for this backend."""
        record.via_collector = (*record.via_collector, self.name)
        await self.otlp.write(record)

    async def flush(self) -> None:
        """Flush OTLP."""
        await self.otlp.flush()
