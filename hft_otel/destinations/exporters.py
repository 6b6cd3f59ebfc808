"""Any OpenTelemetry exporter as a destination: of log records, of spans, or of metrics."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from ..config import ConfigError, InstrumentConfig
from ..record import LogRecord, LogType
from .base import Destination, Rejected, RetryLater
from .halving import Delivery, Interrupted
from .pump import Pump, bounded

if TYPE_CHECKING:  # the SDK loads when a destination is opened
    from ..otel.instruments import Instruments
    from ..otel.sdk import MeterProvider, MetricReader, Resource
    from ..otel.transport import Outcome, Sender

__all__ = ["LogsDestination", "MetricsDestination", "SpansDestination", "destination_for"]

SenderFactory = Callable[[], "Sender"]


def foreign(exporter_factory: Callable[[], Any]) -> SenderFactory:
    """Return a factory of senders for an exporter of which only SUCCESS and FAILURE are known."""

    def build() -> Sender:
        from ..otel.transport import Foreign

        return Foreign(exporter_factory())

    return build


_UNSETTLED = object()


class _ExporterDestination(Destination):
    """What destinations of log records and of spans have in common: convert, export, find the record to blame."""

    def __init__(
        self, sender_factory: SenderFactory, *, name: str, resource: Resource, max_batch: int = 512
    ) -> None:
        self.name = name
        self.max_batch = max_batch
        self._sender_factory = sender_factory
        self._resource = resource
        self._sender: Sender | None = None
        self._converter: Any = None
        # What a batch that has to be retried has come to so far, by identity of the record; see `_retry_later`.
        self._settled: dict[int, tuple[LogRecord, Rejected | None]] = {}

    def open(self) -> None:
        """Build the exporter; connections are made by its first export."""
        self._sender = self._sender_factory()
        self._converter = self._make_converter(self._resource)

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        """Export the records; one that the other side refuses is looked for by halving the batch."""
        known = self._settled
        settled = {id(record): known[id(record)] for record in batch if id(record) in known} if known else {}
        self._settled = {}
        try:
            refused = Delivery(self._send).run([record for record in batch if id(record) not in settled])
        except Interrupted as stop:
            settled.update({id(record): (record, None) for record in stop.delivered})
            settled.update({id(rejected.record): (rejected.record, rejected) for rejected in stop.rejected})
            raise self._retry_later(batch, settled, stop.outcome) from None
        return [rejected for _, rejected in settled.values() if rejected is not None] + refused

    def _retry_later(
        self,
        batch: Sequence[LogRecord],
        settled: dict[int, tuple[LogRecord, Rejected | None]],
        outcome: Outcome,
    ) -> RetryLater:
        """Say how much of the front is delivered, and remember what is settled behind it.

        RetryLater cannot name rejected records: they, and what was delivered after the first of them, are told when
        the worker comes again with the rest, and are not sent twice.
        """
        delivered = 0
        for record in batch:
            if settled.get(id(record), (record, _UNSETTLED))[1] is not None:
                break
            del settled[id(record)]
            delivered += 1
        self._settled = settled
        return RetryLater(outcome.reason, outcome.detail, delivered=delivered, after=outcome.after)

    def force_flush(self, timeout: float) -> bool:
        """Flush what the exporter itself buffers."""
        if self._sender is None:
            return True
        flush = getattr(self._sender.exporter, "force_flush", None)
        if flush is None:
            return True
        return bounded(lambda: flush(int(timeout * 1000)) is not False, timeout, False)

    def close(self, timeout: float) -> None:
        """Shut the exporter down; one that hangs is left behind after `timeout` seconds."""
        if self._sender is not None:
            bounded(self._sender.exporter.shutdown, timeout, None)
            self._sender = None

    def _send(self, records: Sequence[LogRecord]) -> Outcome:
        from ..otel.transport import Outcome, Verdict

        if self._sender is None or self._converter is None:
            self.open()
        assert self._sender is not None
        assert self._converter is not None
        try:
            converted = self._convert(self._converter, records)
        except Exception as error:  # noqa: BLE001  # a record made by hand may hold anything
            return Outcome(Verdict.REFUSED, "not_convertible", f"{type(error).__name__}: {error}")
        return self._sender.send(converted)

    def _make_converter(self, resource: Resource) -> Any:
        """Return what turns records into what the sender takes."""
        from ..otel.convert import Converter

        return Converter(resource)

    @abstractmethod
    def _convert(self, converter: Any, records: Sequence[LogRecord]) -> Any:
        """Return what the sender takes."""


class LogsDestination(_ExporterDestination):
    """Log records to an exporter; `sender_factory` builds it when the destination is opened."""

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.TEXT, LogType.AUDIT})
    keeps_anchors = True

    def _convert(self, converter: Any, records: Sequence[LogRecord]) -> Any:
        return converter.logs(records)


class SpansDestination(_ExporterDestination):
    """Audit events to a span exporter, each as an event of a span of its own."""

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.AUDIT})

    def _convert(self, converter: Any, records: Sequence[LogRecord]) -> Any:
        return converter.spans(records)


class MetricsDestination(Destination):
    """Measurements aggregated here, and exported every `interval` seconds on a thread of its own.

    A measurement is delivered when it is aggregated; exports are counted in `exports_succeeded` and `exports_failed`.
    `instruments` is as LogConfig has it.
    """

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.METRIC})

    def __init__(
        self,
        sender_factory: SenderFactory,
        *,
        name: str,
        resource: Resource,
        prefix: str = "hft_",
        interval: float = 5.0,
        max_batch: int = 512,
        instruments: Mapping[str, InstrumentConfig] | None = None,
    ) -> None:
        self.name = name
        self.max_batch = max_batch
        self._sender_factory = sender_factory
        self._resource = resource
        self._prefix = prefix
        self._interval = interval
        self._configured = instruments
        self._sender: Sender | None = None
        self._reader: MetricReader | None = None
        self._provider: MeterProvider | None = None
        self._instruments: Instruments | None = None
        self._pump: Pump | None = None
        self._last_export_succeeded = True

    def open(self) -> None:
        """Build exporter, reader and instruments, and start the thread that exports."""
        from ..otel.instruments import Instruments
        from ..otel.sdk import (
            MeterProvider,
            MetricExporter,
            PeriodicExportingMetricReader,
            counted_metric_exporter,
        )

        sender = self._sender_factory()
        exporter: MetricExporter = counted_metric_exporter(
            sender.exporter, lambda data: self._export(sender, data)
        )
        # The reader's own thread would come back to life in a forked child, and hang in shutdown: ours does neither.
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        provider = MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)
        instruments = Instruments(provider, self._prefix, configured=self._configured)
        if self.telemetry is not None:
            instruments.observe(self.telemetry)
        self._sender, self._reader, self._provider, self._instruments = sender, reader, provider, instruments
        self._pump = Pump(self._collect, self._interval, f"hft-otel-{self.name}")
        self._pump.start()

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        """Aggregate the measurements; nothing is sent here."""
        if self._instruments is None:
            self.open()
        assert self._instruments is not None
        record_one = self._instruments.record
        return [Rejected(record, reason) for record in batch if (reason := record_one(record)) is not None]

    def force_flush(self, timeout: float) -> bool:
        """Export what is aggregated now; say whether that succeeded in time."""
        return self._pump is None or self._pump.flush(timeout)

    def close(self, timeout: float) -> None:
        """Export a last time and shut the exporter down, in `timeout` seconds at most."""
        if self._pump is None:
            return
        deadline = monotonic() + timeout
        self._pump.flush(timeout * 0.8)
        self._pump.stop(0.0)
        if self._provider is not None:
            bounded(self._provider.shutdown, deadline - monotonic(), None)
        self._pump = None

    def _collect(self) -> bool:
        assert self._reader is not None
        self._last_export_succeeded = True  # where there is nothing to export, nothing failed
        try:
            self._reader.collect()
        except Exception as error:  # noqa: BLE001  # a collection that took too long, or a bug in the SDK
            self._count(False, f"{type(error).__name__}: {error}")
        return self._last_export_succeeded

    def _export(self, sender: Sender, data: Any) -> bool:
        from ..otel.transport import Verdict

        outcome = sender.send(data)
        if outcome.rejected:
            self._count(False, f"{outcome.rejected} data points rejected: {outcome.detail}")
        else:
            self._count(outcome.verdict is Verdict.DELIVERED, f"{outcome.reason}: {outcome.detail}")
        return self._last_export_succeeded

    def _count(self, succeeded: bool, error: str) -> None:
        self._last_export_succeeded = succeeded
        if succeeded:
            self.exports_succeeded += 1
            self.export_error = ""
        else:
            self.exports_failed += 1
            self.export_error = error


def destination_for(
    exporter: Any,
    name: str,
    *,
    resource: Resource,
    config: Mapping[str, Any] | None = None,
    max_batch: int = 512,
    prefix: str = "hft_",
    interval: float = 5.0,
    instruments: Mapping[str, InstrumentConfig] | None = None,
) -> Destination:
    """Return the destination for an OpenTelemetry exporter: an instance, or a class that `config` builds one of.

    Raises ConfigError where it is none, or where the class does not take the options of `config`.
    """
    from ..otel.sdk import LogRecordExporter, MetricExporter, SpanExporter

    kind: type = exporter if isinstance(exporter, type) else type(exporter)
    options = dict(config or {})
    if kind is exporter:
        try:
            inspect.signature(exporter).bind(**options)
        except TypeError as error:
            cause = f"{kind.__module__}.{kind.__qualname__} cannot be built from `config`: {error}"
            raise ConfigError(
                cause, path=name, cure="give it the arguments that its constructor takes"
            ) from None
    build = foreign((lambda: exporter(**options)) if kind is exporter else (lambda: exporter))
    if issubclass(kind, LogRecordExporter):
        return LogsDestination(build, name=name, resource=resource, max_batch=max_batch)
    if issubclass(kind, SpanExporter):
        return SpansDestination(build, name=name, resource=resource, max_batch=max_batch)
    if issubclass(kind, MetricExporter):
        return MetricsDestination(
            build, name=name, resource=resource, prefix=prefix, interval=interval, instruments=instruments
        )
    raise ConfigError(
        f"{kind.__module__}.{kind.__qualname__} is no OpenTelemetry exporter",
        path=name,
        cure="name a LogRecordExporter, SpanExporter or MetricExporter, or a subclass of hft_otel.LogBackend",
    )
