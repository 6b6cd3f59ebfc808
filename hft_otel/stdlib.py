"""Python's logging into hft-otel: all of it by `bridge_stdlib`, or what one handler gets by `BridgeHandler`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from os import PathLike
from typing import Any

from . import bridge
from .bridge import Bridge, Taker
from .config import LogConfig, StdlibConfig
from .factory import LoggerFactory

__all__ = ["BridgeHandler", "bridge_stdlib", "unbridge_stdlib"]


def bridge_stdlib(
    config: LogConfig | None = None,
    *,
    level: str | None = None,
    exclusive: bool = False,
    exclude: Iterable[str] = (),
) -> Bridge:
    """Take what is logged through Python's logging, by anyone in this process, and route it by the configuration.

    `level` is the lowest level to take; without it, what the loggers let through. `exclusive` keeps the records from
    the handlers of Python's logging; otherwise these get what they got before. `exclude` names loggers to leave
    alone, with all below them. Without `config`, that of `LoggerFactory.create_logger`. Ends by the bridge's
    `uninstall`, at the end of a `with`, or by `unbridge_stdlib`. Raises ConfigError, and nothing else.
    """
    config = LoggerFactory._snapshot(config)
    config.stdlib = StdlibConfig(True, level, exclusive, list(exclude))
    return LoggerFactory._bridge(config)


def unbridge_stdlib() -> None:
    """End the bridge, whoever has installed it; Python's logging is then as it was found."""
    found = bridge.installed()
    if found is not None:
        found.uninstall()


class BridgeHandler(logging.Handler):
    """A handler that puts what it gets into the lanes, for a `dictConfig`: `class: hft_otel.stdlib.BridgeHandler`.

    `config` names a YAML file; without one, the configuration is that of `LoggerFactory.create_logger`. While a bridge
    is installed, which has had each record already, it does nothing. It has no lock, since the lanes need none.
    """

    def __init__(
        self, level: int | str = logging.NOTSET, config: LogConfig | str | PathLike[str] | None = None
    ) -> None:
        super().__init__(level)
        if isinstance(config, (str, PathLike)):
            config = LogConfig.from_yaml(config)
        self._taker = Taker(LoggerFactory._standard("stdlib", config))

    def createLock(self) -> None:
        """Have none."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take the record if the filters let it pass."""
        passed: Any = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record into a lane."""
        if bridge.installed() is None:
            self._taker.take(record)
