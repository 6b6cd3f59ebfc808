"""The factory: from configuration to loggers, and to whoever delivers for them."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._canonical import canonical
from ._validation import validate
from ._yaml import with_environment  # its import also gives LogConfig what reads files
from .building import Builder, make_router
from .config import ConfigError, LogConfig
from .interfaces import HFTLoggerInterface, LogBackend
from .lanes.intake import Drain, Intake, Pipeline, drain_by_default, process_intake
from .lanes.journal import Journal
from .ledger import FlushReport
from .lifecycle import at_end
from .logger import HFTLogger
from .notices import Notices, say
from .record import LogLevel, LogType
from .redaction import Redactor
from .router import LogRouter, level_number
from .worker import Worker

__all__ = ["LoggerFactory"]


class LoggerFactory:
    """Creates loggers for injection; loggers with equal configuration share backends, rules and counters."""

    @staticmethod
    def create_logger(name: str, config: LogConfig | None = None) -> HFTLoggerInterface:
        """Return a logger wired by the configuration, of which a snapshot is taken.

        Without one, the file that HFT_OTEL_CONFIG names counts, else the environment's default. Raises ConfigError
        for a configuration that cannot be used, and nothing else.
        """
        config = _copied(config) if config is not None else LoggerFactory._get_default_config()
        return _process.logger(name, with_environment(config, os.environ))

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
        self._builder = Builder()
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
            level = level_number(config.min_level, LogLevel.DEBUG)
            context = config.global_context
            return HFTLogger(name, pipeline=wired.pipeline, context=context, level=level)

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
        return self._builder.backends(config)

    def _start_drain(self, intake: Intake) -> Drain:
        """Start the worker of this process; in a forked child, over backends of its own."""
        if self._forked:
            self._forked = False
            for wired in list(self._wired.values()):
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
