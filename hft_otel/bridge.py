"""The bridge: what is logged through `logging.getLogger` goes into the lanes too, where each record passes exactly once.

It stands in `logging.Logger.callHandlers`, behind the levels and filters of the loggers, and in front of the
handlers: so no handler is added anywhere that `basicConfig`, `dictConfig` or a server could trip over or remove, and
loggers that do not propagate are heard as well.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from typing import Self

from .config import ConsoleConfig, LogConfig
from .router import level_number
from .standard import StandardLogger

__all__ = ["Bridge", "Taker", "installed"]

_OWN_THREADS = ("hft-otel", "Otel")
"""How the names of threads begin that export: what is logged there would be exported, and logged there again."""
_MARK = "hft_otel"
"""Attribute of records that come from us; see ConsoleBackend."""
_MAX_NAMES = 4096


class Taker:
    """Puts records of Python's logging into the lanes, under their own loggers' names and after `like`'s settings."""

    def __init__(self, like: StandardLogger, level: int = 0, exclude: Iterable[str] = ()) -> None:
        self._like = like
        self._level = level
        self._exclude = tuple(exclude)
        self._takers: dict[str, tuple[int, StandardLogger | None]] = {}

    def take(self, record: logging.LogRecord) -> None:
        """Put the record into a lane if some route wants it; never raises."""
        try:
            found = self._takers.get(record.name) or self._make(record.name)
            lowest, taker = found
            if taker is None or record.levelno < lowest or _is_ours(record):
                return
        except Exception:  # a record that somebody has made strange
            taker = self._like
        taker._take_safely(record)

    def _make(self, name: str) -> tuple[int, StandardLogger | None]:
        if len(self._takers) >= _MAX_NAMES:  # names made at run time must not fill the memory
            self._takers.clear()
        taker: StandardLogger | None = None
        if not any(name == left_out or name.startswith(f"{left_out}.") for left_out in self._exclude):
            taker = self._like._renamed(name)
        lowest = self._level if taker is None else max(self._level, taker.lowest_level)
        found = self._takers[name] = lowest, taker
        return found


class Bridge:
    """Takes every record that passes the levels and filters of its logger, until it is uninstalled.

    `level` is the lowest level to take. Where the root logger lets less through, its level is lowered; its handlers
    get no more than before. `exclusive` leaves the handlers of Python's logging without records. `prints` says that
    the records are seen on the console anyway, so that `logging.lastResort` need not print them a second time.
    """

    def __init__(
        self,
        like: StandardLogger,
        *,
        level: int | None = None,
        exclusive: bool = False,
        exclude: Iterable[str] = (),
        prints: bool = False,
    ) -> None:
        self._taker = Taker(like, level or 0, exclude)
        self._level = level
        self._exclusive = exclusive
        self._prints = prints
        self._root_level: int | None = None
        """The level that the root logger had, where it was lowered."""

    @classmethod
    def configured(cls, like: StandardLogger, config: LogConfig) -> Self:
        """Return the bridge that a configuration asks for, not yet installed."""
        settings = config.stdlib
        return cls(
            like,
            level=None if settings.level is None else level_number(settings.level, 0),
            exclusive=settings.exclusive,
            exclude=settings.exclude,
            prints=any(isinstance(each, ConsoleConfig) and each.enabled for each in config.backends.values()),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

    def install(self) -> None:
        """Begin to take records, in place of a bridge that was there before."""
        global _installed  # noqa: PLW0603  (one per process is the point)
        with _lock:
            if _installed is not None:
                _installed._restore_level()
            if not _hook.is_in_place:
                _hook.put()
            _installed = self
            root = logging.root
            if self._level is not None and root.level > self._level:
                self._root_level = root.level
                root.setLevel(self._level)

    def uninstall(self) -> None:
        """Take no more records, and leave Python's logging as it was found."""
        global _installed  # noqa: PLW0603  (see above)
        with _lock:
            if _installed is self:
                _installed = None
                self._restore_level()
                _hook.remove()

    def _restore_level(self) -> None:
        if (
            self._root_level is not None and logging.root.level == self._level
        ):  # else somebody has set another
            logging.root.setLevel(self._root_level)
        self._root_level = None

    def handle(self, logger: logging.Logger, record: logging.LogRecord) -> bool:
        """Take a record; say whether the handlers are to have it as well."""
        self._taker.take(record)
        if self._exclusive:
            return False
        if self._root_level is not None and record.levelno < self._root_level and self._is_lowered(logger):
            return False
        return not self._prints or logger.hasHandlers()

    def _is_lowered(self, logger: logging.Logger | None) -> bool:
        """Say whether the logger let a record through only because the root's level was lowered."""
        while logger is not None and logger is not logging.root:
            if logger.level:
                return False
            logger = logger.parent
        return logging.root.level == self._level


def installed() -> Bridge | None:
    """Return the bridge that takes records now."""
    return _installed


class _Hook:
    """Our function in the place of `logging.Logger.callHandlers`, as other tools put theirs there."""

    def __init__(self) -> None:
        self.is_in_place = False
        self.original = logging.Logger.callHandlers

    def put(self) -> None:
        """Put ours in front of what is there."""
        self.original = logging.Logger.callHandlers
        logging.Logger.callHandlers = _call_handlers  # type: ignore[assignment,method-assign]
        self.is_in_place = True

    def remove(self) -> None:
        """Put back what was there; where another tool has put its own in front of ours, ours stays and does nothing."""
        if logging.Logger.callHandlers is _call_handlers:
            logging.Logger.callHandlers = self.original  # type: ignore[method-assign]
            self.is_in_place = False


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    bridge = _installed
    if bridge is None or isinstance(logger, StandardLogger) or bridge.handle(logger, record):
        _hook.original(logger, record)


def _is_ours(record: logging.LogRecord) -> bool:
    """Say whether the record comes from our own work: from a thread that exports, or from a backend that hands it on."""
    thread = record.threadName or threading.current_thread().name
    return thread.startswith(_OWN_THREADS) or record.__dict__.get(_MARK) is True


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603  (the inherited lock may be held for ever)
    _lock = threading.RLock()


_lock = threading.RLock()
_hook = _Hook()
_installed: Bridge | None = None
os.register_at_fork(after_in_child=_after_fork_in_child)
