"""The factory: from configuration to loggers, and to whoever delivers for them."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ._canonical import canonical
from ._validation import validate
from ._yaml import with_environment  # its import also gives LogConfig what reads files
from .audit.trail import Keeping
from .bridge import Bridge
from .building import Builder, located, make_router
from .config import (
    DEVELOPMENT_ENVIRONMENTS,
    AgentConfig,
    ConfigError,
    JournalConfig,
    LogConfig,
    StdlibConfig,
)
from .interfaces import HFTLoggerInterface, LogBackend
from .lanes.intake import Drain, Intake, Pipeline, agent_intake, drain_by_default, process_intake
from .lanes.journal import Journal
from .lanes.shared import Sizes, default_folder
from .ledger import FlushReport
from .lifecycle import at_end, at_sigterm
from .logger import HFTLogger
from .notices import Notices, say, watching
from .record import LogLevel, LogType
from .redaction import Redactor
from .router import LogRouter, level_number
from .standard import call_site_level
from .worker import Worker

__all__ = ["LoggerFactory"]


_LATE = (
    "what is logged after the end of telemetry is lost (after_shutdown), but for audit events: they wait in the journal;"
    " import hft_otel before whatever registers with atexit what logs"
)


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
        return _process.logger(name, with_environment(LoggerFactory._snapshot(config), os.environ))

    @staticmethod
    def _snapshot(config: LogConfig | None) -> LogConfig:
        """Return a copy of a configuration, or the default for None."""
        return _copied(config) if config is not None else LoggerFactory._get_default_config()

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
        return make_router(config, backends)


@dataclass(slots=True)
class _Wired:
    """One configuration, live, the intake that its records go to, and the process that this holds for."""

    config: LogConfig
    intake: Intake
    pipeline: Pipeline
    pid: int = field(default_factory=os.getpid)


class _Process:
    """What the loggers of this process share: pipelines by configuration, backends by type and options, the agent.

    Locks are taken in this order: this one, the intake's, the builder's. The first record of a forked child comes
    with the intake's.
    """

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin_child)
        drain_by_default(self._start_worker)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._wired: dict[bytes, _Wired] = {}
        self._agent: AgentConfig | None = None
        self._journal = JournalConfig()
        """What the configuration says that was the first."""
        self._builder = Builder()
        self._ends: list[Callable[[float], None]] = []
        """What ends the drains of this process, each within a number of seconds."""

    def _begin_child(self) -> None:
        """Forget the parent's live backends; the configurations stay, to build the child's from."""
        wired, agent, journal = self._wired, self._agent, self._journal
        self._begin()
        self._wired, self._agent, self._journal = wired, agent, journal

    def logger(self, name: str, config: LogConfig) -> HFTLogger:
        """Return a logger of the pipeline for this configuration, which is built at its first use."""
        with self._lock:
            before = len(self._wired)
            wired = self._wire(config)
            if config.stdlib.bridge and len(self._wired) > before:
                self._install_bridge(wired, config)
            at_sigterm()  # the drain may have been started on a thread, which could not
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
            self._check_shared(config)
            if not self._wired:
                self._journal = config.journal
            config = located(config)
            wired = self._wired[key] = self._for_agent(config) or self._for_thread(config)
        return wired

    def _install_bridge(self, wired: _Wired, config: LogConfig) -> Bridge:
        bridge = Bridge.configured(_logger("stdlib", wired), config)
        bridge.install()
        return bridge

    def _check_shared(self, config: LogConfig) -> None:
        """Refuse a second journal, or other lanes: a process has one, which the first of its configurations names."""
        every = [wired.config for wired in self._wired.values()]
        remote = [each for each in every if each.effective_isolation == "process"]
        asks = config.effective_isolation == "process"
        alike = [each for each in every if each.effective_isolation == config.effective_isolation]
        for part, first in (
            ("journal", every[:1]),
            ("lanes", alike[:1]),
            ("agent", remote[:1] if asks else []),
        ):
            for kept_part in (getattr(each, part) for each in first):
                for key, kept in vars(kept_part).items():
                    wanted = getattr(getattr(config, part), key)
                    if kept != wanted and not (key.endswith("folder") and _same_folder(kept, wanted)):
                        cause = f"this process has its {part} with {key} {kept} already, and this asks for {wanted}"
                        cure = f"give all configurations of a process the same {part}"
                        raise ConfigError(cause, file=config.source, path=f"logging.{part}.{key}", cure=cure)

    def backends(self, config: LogConfig) -> dict[str, LogBackend]:
        """Return the enabled backends, each shared with every configuration that asks for the same."""
        return self._builder.backends(config)

    def _make_durable(self, intake: Intake) -> None:
        if self._journal.durability == "sync":
            intake.sync_audits()

    # -- a thread of this process delivers --

    def _for_thread(self, config: LogConfig) -> _Wired:
        journal = config.journal
        backends = self.backends(config)
        intake = process_intake(
            journal.folder,
            journal.segment_kb * 1024,
            journal.spare_segments,
            journal.fallback_folder,
            _sizes(config),
        )
        self._make_durable(intake)
        router = make_router(config, backends)
        pipeline = intake.register(router, list(backends.values()), Redactor(config.redact))
        return _Wired(config, intake, pipeline)

    def _start_worker(self, intake: Intake) -> Drain:
        """Start a worker in this process, over live backends of this process."""
        for wired in list(self._wired.values()):
            if wired.intake is intake and (wired.pid != os.getpid() or intake.lanes is not None):
                backends = self.backends(wired.config)
                router = make_router(wired.config, backends)
                pipeline = wired.pipeline._replace(router=router, backends=tuple(backends.values()))
                intake.pipelines[pipeline.number] = wired.pipeline = pipeline
                wired.pid = os.getpid()
        worker = Worker(intake)
        worker.keep(Keeping.of(self._journal))
        for pipeline in intake.pipelines:
            worker.add(pipeline)
        worker.start()
        notices = watching(worker, lambda: intake.problem)
        notices.start()
        self._at_end(partial(self._end_worker, worker, notices, intake.journal), first=True)
        return worker

    def _end_worker(self, worker: Worker, notices: Notices, journal: Journal, timeout: float) -> None:
        notices.stop()  # first: the last words below say it all, once
        worker.on_late = partial(say, _LATE)
        report = worker.stop(timeout)
        if not report.complete or any("shutdown" in sums.dropped for sums in report.destinations):
            why = journal.problem or "its folder could not be written for a while"
            say(_last_words(report, timeout, why if journal.in_memory else ""))

    # -- an agent beside this process delivers --

    def _for_agent(self, config: LogConfig) -> _Wired | None:
        """Wire the configuration to the agent; None where a thread is to deliver, after one line that says why."""
        if config.effective_isolation != "process":
            return None
        from .agent.remote import AgentRouter, obstacle
        from .agent.spawn import crowded

        why = obstacle(config)
        if not why:
            self._builder.check(config)
            journal = config.journal
            folder = Path(config.lanes.folder) if config.lanes.folder else default_folder()
            intake = agent_intake(
                journal.folder,
                journal.segment_kb * 1024,
                journal.spare_segments,
                folder,
                _sizes(config),
                journal.fallback_folder,
            )
            if intake.lanes is not None and not intake.shared:
                why = intake.lanes.problem
                intake.journal.close(settled=True)
        if why:
            say(f"no agent for this configuration, since {why}; a thread of this process delivers")
            return None
        self._make_durable(intake)
        if self._agent is None:
            self._agent = config.agent
            if config.environment not in DEVELOPMENT_ENVIRONMENTS and (crowd := crowded(self._agent)):
                say(crowd)
        intake.start_drain = self._start_keeper
        router = AgentRouter(config)
        pipeline = intake.register(router, list(router.backends.values()), Redactor(config.redact))
        return _Wired(config, intake, pipeline)

    def _start_keeper(self, intake: Intake) -> Drain:
        """Start the agent of this process and what looks after it; in a child without lanes, a worker."""
        from .agent.keeper import Keeper
        from .agent.service import Service

        if intake.lanes is None or not intake.shared:
            say(f"no agent, since {intake.lanes and intake.lanes.problem}; a thread of this process delivers")
            return self._start_worker(intake)
        lanes, builder = intake.lanes, self._builder

        def take_over() -> Service:
            service = Service.open(str(lanes.stream_folder), str(intake.journal.stream_folder), builder)
            service.intake.ask = intake.publish
            return service

        keeper = Keeper(intake, self._agent or AgentConfig(), take_over)
        for pipeline in intake.pipelines:
            keeper.add(pipeline)
        keeper.start()
        self._at_end(keeper.end)
        return keeper

    # -- the end --

    def _at_end(self, end: Callable[[float], None], *, first: bool = False) -> None:
        """Call it at the end; first those who have nobody that goes on after us."""
        self._ends.insert(0 if first else len(self._ends), end)
        at_end(self._end)

    def _end(self) -> None:
        timeout = max((wired.config.exit_timeout for wired in list(self._wired.values())), default=2.0)
        deadline, left = time.monotonic() + timeout, timeout
        while self._ends:
            self._ends.pop(0)(left)
            left = max(deadline - time.monotonic(), 0.0)


def _logger(name: str, wired: _Wired) -> HFTLogger:
    config = wired.config
    logger = HFTLogger(
        name,
        pipeline=wired.pipeline,
        intake=wired.intake,
        context=config.global_context,
        level=level_number(config.min_level, LogLevel.DEBUG),
        call_site=call_site_level(config.call_site),
    )
    logger._origin = LoggerFactory._unpickled, (config,)
    return logger


def _sizes(config: LogConfig) -> Sizes:
    lanes = config.lanes
    return Sizes.of_megabytes(lanes.low_mb, lanes.high_mb, lanes.metric_mb)


def _same_folder(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and os.path.realpath(one) == os.path.realpath(other)


def _copied(config: Any) -> LogConfig:
    if not isinstance(config, LogConfig):
        cause = f"expected a LogConfig, found a value of type {type(config).__name__}"
        raise ConfigError(
            cause, path="config", cure="make one by LogConfig.from_yaml(path) or LogConfig.from_dict(mapping)"
        )
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
