"""The factory: from configuration to live objects; the only module that knows every class."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ._canonical import canonical
from ._validation import keeps_audit, takes, validate
from ._yaml import with_environment  # its import also gives LogConfig what reads files
from .bridge import Bridge
from .config import (
    BackendConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    StdlibConfig,
    WebhookConfig,
)
from .destinations.base import Destination
from .destinations.foreign import load_class
from .destinations.group import Group, ViaCollector
from .interfaces import HFTLoggerInterface, LogBackend
from .lanes.intake import Drain, Intake, Pipeline, drain_by_default, process_intake
from .lanes.journal import Journal
from .ledger import FlushReport
from .lifecycle import at_end
from .logger import HFTLogger
from .notices import Notices, say
from .record import LogLevel, LogType
from .redaction import Redactor
from .router import BackendInfo, LogRouter, level_number
from .standard import call_site_level
from .worker import Worker

__all__ = ["LoggerFactory", "backend_infos"]


class LoggerFactory:
    """Creates loggers for injection; loggers with equal configuration share backends, rules and counters."""

    @staticmethod
    def create_logger(name: str, config: LogConfig | None = None) -> HFTLoggerInterface:
        """Return a logger wired by the configuration, of which a snapshot is taken.

        Without one, the file that HFT_OTEL_CONFIG names counts, else the environment's default. Raises ConfigError
        for a configuration that cannot be used, and nothing else.
        """
        return LoggerFactory._standard(name, config)

    @staticmethod
    def _standard(name: str, config: LogConfig | None) -> HFTLogger:
        config = _copied(config) if config is not None else LoggerFactory._get_default_config()
        return _process.logger(name, with_environment(config, os.environ))

    @staticmethod
    def _bridge(config: LogConfig) -> Bridge:
        """Take what is logged through Python's logging; see stdlib.bridge_stdlib."""
        return _process.bridge(with_environment(config, os.environ))

    @staticmethod
    def _unpickled(name: str, config: LogConfig, context: Mapping[str, Any], level: int) -> HFTLogger:
        """Return the logger of a pickle: wired as the one that was pickled, with its context and level."""
        logger = _process.logger(name, config)
        logger.context.clear()
        logger.context.update(context)
        logger.setLevel(level)
        return logger

    @staticmethod
    def _get_default_config() -> LogConfig:
        return LogConfig.default()

    @staticmethod
    def _create_backends(config: LogConfig) -> dict[str, LogBackend]:
        """Return the enabled backends by name; building one opens nothing."""
        return _process.backends(config)

    @staticmethod
    def _create_router(config: LogConfig, backends: Mapping[str, LogBackend]) -> LogRouter:
        """Return the router for the configuration's rules over live backends."""
        infos = [info for info in backend_infos(config) if info.name in backends]
        return LogRouter(config.routing_rules, backends, config.environment, infos)


def backend_infos(config: LogConfig) -> list[BackendInfo]:
    """Return what the route table needs to know of the enabled backends; builds none of them."""
    infos: list[BackendInfo] = []
    for name, backend in config.backends.items():
        if backend.enabled:
            infos.append(
                BackendInfo(
                    name,
                    takes(backend),
                    level_number(backend.min_level, LogLevel.DEBUG),
                    keeps_audit(backend),
                )
            )
    return infos


@dataclass(slots=True)
class _Wired:
    """One configuration, live."""

    config: LogConfig
    pipeline: Pipeline


class _Process:
    """What the loggers of this process share: pipelines by configuration, backends by type and options."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin_child)
        drain_by_default(self._start_drain)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._wired: dict[bytes, _Wired] = {}
        self._built: dict[tuple[str, bytes], LogBackend] = {}
        self._claims: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._forked = False

    def _begin_child(self) -> None:
        """Forget the parent's live backends; the configurations stay, to build the child's from."""
        wired = self._wired
        self._begin()
        self._wired = wired
        self._forked = True

    def logger(self, name: str, config: LogConfig) -> HFTLogger:
        """Return a logger of the pipeline for this configuration, which is built at its first use."""
        with self._lock:
            before = len(self._wired)
            wired = self._wire(config)
            if config.stdlib.bridge and len(self._wired) > before:
                self._install_bridge(wired, config)
            return _logger(name, wired)

    def bridge(self, config: LogConfig) -> Bridge:
        """Return the bridge for this configuration, installed; see hft_otel.bridge_stdlib."""
        with self._lock:
            validate(config)
            # The same pipeline as that of loggers whose configuration asks for no bridge.
            return self._install_bridge(self._wire(replace(config, stdlib=StdlibConfig())), config)

    def _wire(self, config: LogConfig) -> _Wired:
        key = canonical([config, list(config.instruments)])  # whose order counts
        wired = self._wired.get(key)
        if wired is None:
            for warning in validate(config):
                say(f"warning: {warning}")
            self._check_journal(config)
            backends = self.backends(config)
            router = LoggerFactory._create_router(config, backends)
            journal = config.journal
            intake = process_intake(journal.folder, journal.segment_kb * 1024, journal.spare_segments)
            pipeline = intake.register(router, list(backends.values()), Redactor(config.redact))
            wired = self._wired[key] = _Wired(config, pipeline)
        return wired

    def _install_bridge(self, wired: _Wired, config: LogConfig) -> Bridge:
        bridge = Bridge.configured(_logger("stdlib", wired), config)
        bridge.install()
        return bridge

    def _check_journal(self, config: LogConfig) -> None:
        """Refuse a second journal: a process has one, which the first of its configurations names."""
        asked = config.journal
        first = next((wired.config.journal for wired in self._wired.values()), asked)
        real = os.path.realpath
        same_folder = first.folder == asked.folder or real(first.folder) == real(asked.folder)
        for key in ("folder", "segment_kb", "spare_segments"):
            kept, wanted = getattr(first, key), getattr(asked, key)
            if kept != wanted and not (key == "folder" and same_folder):
                cause = (
                    f"this process keeps its journal with {key} {kept} already, and this asks for {wanted}"
                )
                cure = "give all configurations of a process the same journal"
                raise ConfigError(cause, file=config.source, path=f"logging.journal.{key}", cure=cure)

    def backends(self, config: LogConfig) -> dict[str, LogBackend]:
        """Return the enabled backends, each shared with every configuration that asks for the same."""
        with self._lock:
            before = dict(self._built), dict(self._claims)
            try:
                return self._live(config)
            except BaseException:
                self._built, self._claims = (
                    before  # a configuration that cannot be used must claim no file or port
                )
                raise

    def _live(self, config: LogConfig) -> dict[str, LogBackend]:
        enabled = {name: backend for name, backend in config.backends.items() if backend.enabled}
        otlp = {
            name: part for name, part in enabled.items() if isinstance(part, OtlpConfig) and part.via == "sdk"
        }
        live: dict[str, LogBackend] = {name: self._shared(name, part, config) for name, part in otlp.items()}
        group = next((backend for backend in live.values() if isinstance(backend, Group)), None)
        for name, backend in enabled.items():
            if getattr(backend, "via", "sdk") == "collector":
                if group is None:
                    cause = f"{config.source or 'config'}: logging.backends.{name}: via: collector needs the otlp backend"
                    raise ConfigError(f"{cause}; add `otlp: {{enabled: true}}` under backends")
                live[name] = ViaCollector(name, group, takes(backend))
            elif name not in live:
                live[name] = self._shared(name, backend, config)
        return {name: live[name] for name in enabled}

    def _shared(self, name: str, backend: BackendConfig, config: LogConfig) -> LogBackend:
        options = canonical(replace(backend, enabled=True))
        belongs = {"environment": config.environment, **config.global_context}  # see _resource
        resource = canonical(belongs) if isinstance(backend, (OtlpConfig, CustomConfig)) else b""
        if isinstance(backend, (PrometheusConfig, OtlpConfig, CustomConfig)):
            resource += canonical(list(config.instruments.items()))  # in their order, which counts
        key = (type(backend).__name__, options + resource)
        self._claim(name, backend, key, config)
        if key not in self._built:
            self._built[key] = _build(name, backend, config)
        return self._built[key]

    def _claim(self, name: str, backend: BackendConfig, key: tuple[str, bytes], config: LogConfig) -> None:
        """Refuse the same file or port with other options: two writers would tear each other's output."""
        if isinstance(backend, FileConfig):
            claim = ("file_path", os.path.realpath(backend.file_path))
        elif isinstance(backend, PrometheusConfig) and backend.scrape and backend.port:
            claim = ("port", f"{backend.host}:{backend.port}")
        else:
            return
        if self._claims.setdefault(claim, key) != key:
            where = f"{config.source or 'config'}: logging.backends.{name}.config.{claim[0]}"
            raise ConfigError(
                f"{where}: {claim[1]} is in use by another backend with other options; "
                f"give both the same options or another {claim[0]}"
            )

    def _start_drain(self, intake: Intake) -> Drain:
        """Start the worker of this process; in a forked child, over backends of its own."""
        if self._forked:
            self._forked = False
            for wired in self._wired.values():
                backends = self.backends(wired.config)
                router = LoggerFactory._create_router(wired.config, backends)
                pipeline = wired.pipeline._replace(router=router, backends=tuple(backends.values()))
                intake.pipelines[pipeline.number] = wired.pipeline = pipeline
        worker = Worker(intake)
        for pipeline in intake.pipelines:
            worker.add(pipeline)
        worker.start()
        journal = intake.journal
        notices = Notices(
            worker.report,
            lambda: list(worker.outboxes.values()),
            lambda: journal.problem,
            lambda: worker.problem,
        )
        notices.start()
        at_end(partial(self._end, worker, notices, journal))
        return worker

    def _end(self, worker: Worker, notices: Notices, journal: Journal) -> None:
        timeout = max((wired.config.exit_timeout for wired in self._wired.values()), default=2.0)
        notices.stop()  # first: the last words below say it all, once
        report = worker.stop(timeout)
        if not report.complete or any("shutdown" in sums.dropped for sums in report.destinations):
            why = journal.problem or "its folder could not be written for a while"
            say(_last_words(report, timeout, why if journal.in_memory else ""))


def _logger(name: str, wired: _Wired) -> HFTLogger:
    config = wired.config
    logger = HFTLogger(
        name,
        pipeline=wired.pipeline,
        context=config.global_context,
        level=level_number(config.min_level, LogLevel.DEBUG),
        call_site=call_site_level(config.call_site),
    )
    logger._origin = LoggerFactory._unpickled, (config,)
    return logger


def _build(name: str, backend: BackendConfig, config: LogConfig) -> LogBackend:
    """Return a new backend; imports its module only now, since exporters are slow to import."""
    built = _build_destination(name, backend, config)
    for destination in built.parts if isinstance(built, Group) else (built,):
        if isinstance(destination, Destination):
            destination.name = destination.name or name
            destination.min_level = LogLevel(level_number(backend.min_level, LogLevel.DEBUG))
    return built


def _build_destination(name: str, backend: BackendConfig, config: LogConfig) -> LogBackend:  # noqa: PLR0911  (one return per kind)
    if isinstance(backend, ConsoleConfig):
        from .destinations.console import ConsoleBackend

        return ConsoleBackend(backend)
    if isinstance(backend, FileConfig):
        from .destinations.file import FileBackend

        return FileBackend(backend)
    if isinstance(backend, SlackConfig):
        from .destinations.slack import SlackBackend

        return SlackBackend(backend)
    if isinstance(backend, WebhookConfig):
        from .destinations.webhook import WebhookBackend

        return WebhookBackend(backend)
    if isinstance(backend, PrometheusConfig):
        from .destinations.prometheus import PrometheusBackend

        return PrometheusBackend(backend, _resource(config), config.instruments)
    if isinstance(backend, OtlpConfig):
        from .destinations.otlp import otlp_destinations

        return Group(name, otlp_destinations(backend, _resource(config), name, config.instruments))
    if isinstance(backend, CustomConfig):
        return _build_custom(name, backend, config)
    kinds = (DatadogConfig, ElasticsearchConfig)
    hint = "; set `via: collector`" if isinstance(backend, kinds) else ""
    raise ConfigError(
        f"{config.source or 'config'}: logging.backends.{name}: no destination for this backend{hint}"
    )


def _build_custom(name: str, backend: CustomConfig, config: LogConfig) -> LogBackend:
    """Return the user's own: a LogBackend, or any exporter of OpenTelemetry."""
    from .destinations.exporters import destination_for
    from .destinations.foreign import as_destination, build_custom
    from .otel.sdk import LogRecordExporter, MetricExporter, SpanExporter

    exporters = (LogRecordExporter, MetricExporter, SpanExporter)
    found = load_class(backend.class_path, (LogBackend, *exporters))
    if issubclass(found, exporters):
        return destination_for(
            found,
            name,
            resource=_resource(config),
            config=backend.config,
            instruments=config.instruments,
        )
    return as_destination(build_custom(backend.class_path, backend.config), name)


def _resource(config: LogConfig) -> Any:
    from .otel.sdk import make_resource

    return make_resource({"deployment.environment.name": config.environment, **config.global_context})


def _copied(config: LogConfig) -> LogConfig:
    try:
        return copy.deepcopy(config)
    except Exception as error:  # noqa: BLE001  # a lock, a socket, or whatever a class of the user's raises
        cause = f"something in it cannot be copied: {error}"
        cure = "put plain data into config:, and let the class build the rest from it"
        raise ConfigError(cause, file=config.source, path="logging", cure=cure) from None


def _last_words(report: FlushReport, timeout: float, in_memory: str) -> str:
    """Return what a process says that ends with something undelivered; `in_memory` says why a journal is no file."""
    lost = [
        f"{sums.destination} {sums.type} {left}"
        for sums in report.destinations
        if (left := _undelivered(sums))
    ]
    kept = sum(sums.pending for sums in report.destinations if sums.type == LogType.AUDIT)
    text = f"exit after at most {timeout:g} s with records not delivered: {', '.join(lost) or report.pending}"
    if kept and in_memory:
        return (
            text + f"; of {kept} audit deliveries, those that the journal has in memory are lost: {in_memory}"
        )
    return text + (f"; {kept} audit deliveries stay in the journal for the next start" if kept else "")


def _undelivered(sums: Any) -> int:
    return int(sums.pending + sums.dropped.get("shutdown", 0))


_process = _Process()
