"""Prometheus: a scrape endpoint in the process, and a push to a Pushgateway where one is configured."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from .._url import split_login
from ..config import InstrumentConfig, PrometheusConfig
from ..record import LogLevel, LogRecord, LogType
from ._options import level_named, typed_options
from .base import Destination, Rejected
from .pump import Pump, bounded

if TYPE_CHECKING:  # prometheus_client and the SDK load when the destination is opened
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from ..otel.instruments import Instruments
    from ..otel.sdk import MeterProvider, Resource

__all__ = ["PrometheusBackend"]

PORTS_TO_TRY = 100
RETURN_PERIOD = 5.0
"""Seconds between two looks whether the configured port, which was taken, is free."""
PUSH_TIMEOUT = 5.0


class PrometheusBackend(Destination):
    """Measurements aggregated by OpenTelemetry instruments of its own, shown to Prometheus.

    `config` is a PrometheusConfig or a mapping with its keys, `instruments` is as LogConfig has it. The scrape endpoint
    answers at `scrape_url`: where its port is taken, on the next free one, until the port is free; a line on stderr
    says so. A Pushgateway is pushed to on a thread of its own, after `batch_size` measurements or `flush_interval`
    seconds: `deliver` aggregates and never waits.
    """

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.METRIC})
    name = "prometheus"
    batch_size: int = 100
    port: int | None = None
    """The port that the scrape endpoint listens on, once open."""
    scrape_url: str | None = None
    # A subclass need not call __init__: what it would set has its default here.
    _config: PrometheusConfig = PrometheusConfig()
    _configured: Mapping[str, InstrumentConfig] | None = None
    _resource: Resource | None = None
    _instruments: Instruments | None = None
    _provider: MeterProvider | None = None
    _registry: CollectorRegistry | None = None
    _server: WSGIServer | None = None
    _return_at: float | None = None
    """When to try the configured port again (time.monotonic); None where there is no reason to."""
    _pump: Pump | None = None
    _unpushed: int = 0
    _scrape_error: str = ""

    def __init__(
        self,
        config: PrometheusConfig | Mapping[str, Any] | None = None,
        resource: Resource | None = None,
        instruments: Mapping[str, InstrumentConfig] | None = None,
    ) -> None:
        self._config = typed_options(PrometheusConfig, config, self.name)
        self.min_level = level_named(self._config.min_level, self.name)
        self._resource = resource
        self._configured = instruments
        self.batch_size = self._config.batch_size

    def open(self) -> None:
        """Build the instruments, then start the scrape endpoint and the pusher; a taken port is no error."""
        from prometheus_client import CollectorRegistry

        from ..otel.instruments import Instruments
        from ..otel.sdk import MeterProvider, make_resource, prometheus_reader

        config = self._config
        inner = CollectorRegistry()
        provider = MeterProvider(
            [prometheus_reader(inner)], resource=self._resource or make_resource({}), shutdown_on_exit=False
        )
        instruments = Instruments(provider, config.prefix, prometheus=True, configured=self._configured)
        if self.telemetry is not None:
            instruments.observe(self.telemetry)
        registry = CollectorRegistry()
        registry.register(_OneAtATime(inner))
        self._provider, self._registry, self._instruments = provider, registry, instruments
        if config.scrape:
            self._serve()
        if config.push_gateway:
            self._pump = Pump(self._push, config.flush_interval, f"hft-otel-{self.name}-push")
            self._pump.start()

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        """Aggregate the measurements; nothing is sent here."""
        record_one = self._opened().record
        rejected = [
            Rejected(record, reason) for record in batch if (reason := record_one(record)) is not None
        ]
        if self._pump is not None:
            self._unpushed += len(batch)
            if self._unpushed >= self.batch_size:
                self._unpushed = 0
                self._pump.ask()
        return rejected

    def idle(self) -> None:
        """Return to the configured port once it is free."""
        if self._return_at is None or time.monotonic() < self._return_at:
            return
        self._return_at = time.monotonic() + RETURN_PERIOD
        elsewhere = self._server
        with suppress(OSError):  # still taken
            self._listen(self._config.port)
            self._return_at = None
            _say(f"{self.name}: port {self.port} is free: the metrics are at {self.scrape_url} again")
            if elsewhere is not None:
                _stop_serving(elsewhere, self._config.host, 1.0)

    def force_flush(self, timeout: float) -> bool:
        """Push what is aggregated now; say whether that succeeded in time. A scrape endpoint has nothing to flush."""
        return self._pump is None or self._pump.flush(timeout)

    def close(self, timeout: float) -> None:
        """Push a last time and stop listening, in `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        if self._pump is not None:
            self._pump.flush(timeout * 0.8)
            self._pump.stop(0.0)
            self._pump = None
        server, self._server, self._return_at = self._server, None, None
        if server is not None:
            _stop_serving(server, self._config.host, deadline - time.monotonic())
        if self._provider is not None:
            bounded(self._provider.shutdown, max(deadline - time.monotonic(), 0.05), None)
            self._provider = self._instruments = None

    def _opened(self) -> Instruments:
        if self._instruments is None:
            self.open()
        assert self._instruments is not None
        return self._instruments

    def _serve(self) -> None:
        config = self._config
        ports = range(config.port, min(config.port + PORTS_TO_TRY, 65536)) if config.port else (0,)
        error: OSError | None = None
        for port in ports:
            try:
                self._listen(port)
            except OSError as raised:
                error = error or raised
                continue
            if port != config.port:
                self._return_at = time.monotonic() + RETURN_PERIOD
                _say(
                    f"{self.name}: port {config.port} cannot be listened on ({error and error.strerror}): "
                    f"the metrics are at {self.scrape_url} until it can"
                )
            return
        self._scrape_error = f"no scrape endpoint on {config.host}:{config.port}: {error}"
        self.export_error = self._scrape_error

    def _listen(self, port: int) -> None:
        """Serve scrapes on a port; raises OSError where it cannot be had."""
        from prometheus_client import start_http_server

        assert self._registry is not None
        host = self._config.host
        self._server, _ = start_http_server(port, addr=host, registry=self._registry)
        self.port = self._server.server_port
        self.scrape_url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/metrics"

    def _push(self) -> bool:
        from prometheus_client import push_to_gateway
        from prometheus_client.exposition import basic_auth_handler, default_handler

        config = self._config
        assert self._registry is not None
        assert config.push_gateway is not None
        gateway, login = split_login(config.push_gateway)
        handler = default_handler
        if login is not None:
            handler = partial(basic_auth_handler, username=login[0], password=login[1])
        try:
            push_to_gateway(
                gateway,
                job=config.job_name,
                registry=self._registry,
                timeout=PUSH_TIMEOUT,
                handler=handler,
            )
        except Exception as error:  # noqa: BLE001  # counted; a metric is pushed again with the next push
            self.exports_failed += 1
            self.export_error = f"push to {gateway}: {type(error).__name__}: {error}"
            return False
        self.exports_succeeded += 1
        self.export_error = self._scrape_error
        return True

    # What the plan's own PrometheusBackend is written with; see tests/unit/test_plan_block_2_2.py.

    @property
    def _buffer(self) -> list[dict[str, Any]]:
        buffer: list[dict[str, Any]] = self.__dict__.setdefault("plan_buffer", [])
        return buffer

    async def _push_to_prometheus(self, buffer: Sequence[Mapping[str, Any]]) -> None:
        """Record entries of `name`, `value`, `labels` and `timestamp`, and push them where there is a Pushgateway."""
        records = [self._as_record(entry) for entry in buffer]
        self._opened()
        self.deliver(records)
        if self._pump is not None:
            await asyncio.to_thread(self.force_flush, PUSH_TIMEOUT)

    def _as_record(self, entry: Mapping[str, Any]) -> LogRecord:
        return LogRecord(
            timestamp=entry.get("timestamp") or time.time(),
            level=LogLevel.INFO,
            log_type=LogType.METRIC,
            logger_name="",
            metric_name=str(entry["name"]).removeprefix(self._config.prefix),
            metric_value=entry["value"],
            metric_tags=dict(entry.get("labels") or {}),
        )


def _say(line: str) -> None:
    # Not as `export_error`: measurements arrive, and two processes on one machine would never be without a problem.
    from ..notices import say  # stands above

    say(line)


def _stop_serving(server: WSGIServer, host: str, timeout: float) -> None:
    """Close the listening socket; a connection wakes the server, which would look for the end every half second."""
    stopping = threading.Thread(target=server.shutdown, name="hft-otel-scrape-stop", daemon=True)
    stopping.start()
    with suppress(OSError):
        socket.create_connection((host, server.server_port), timeout=0.1).close()
    stopping.join(max(timeout, 0.0))
    server.server_close()


class _OneAtATime:
    """Serialises collections: the exporter's collector mixes up two that run at once (a scrape and a push)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        from ..otel.sdk import exporting

        with self._lock, exporting():
            return list(self._registry.collect())
