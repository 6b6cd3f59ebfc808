"""What a logger is to Python's logging: levels, handlers, filters, children, and the way of a LogRecord past them.

None of it costs a call anything until it is used. A logger with handlers, filters or a parent that it propagates to
takes the long way: a `logging.LogRecord` is made on the caller's thread, the filters may change or drop it, it goes
into the lane, and then to the handlers, which run on the caller's thread by contract.
"""

from __future__ import annotations

import io
import logging
import traceback
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from .arguments import (
    FORBIDDEN,
    KEYWORD_PREFIX,
    MISSING,
    calling_frame,
    exc_info_of,
    level_named,
    merged_extra,
    stacklevel_of,
)
from .lanes.intake import Pipeline
from .listeners import Watched, complain, hand, live, observers, refresh
from .otel.current import current_scope
from .router import level_number

__all__ = ["NEVER", "StandardLogger", "call_site_level"]

NEVER = 1 << 30
"""A level above all others."""


def call_site_level(setting: str) -> int:
    """Return from which level on records say where the call was made; see LogConfig.call_site."""
    return {"always": -1, "never": NEVER}.get(setting) or level_number(setting, logging.WARNING)


class StandardLogger(logging.Logger):
    """The side of HFTLogger that Python's logging, and code written for it, sees.

    `propagate` is False unless it is set: what the backends print must not be printed a second time by the handlers
    of the root logger. Only a child made by `getChild`, and a logger that logging's manager has made (see
    `logging.setLoggerClass`), propagate to the parent that they were given.
    """

    _pipeline: Pipeline
    _context: dict[str, Any]
    _call_site: int

    def _become_standard(self, level: int) -> None:
        """Set what `logging.Logger.__init__` would."""
        self._own_level = level
        self._disabled = False
        self._parent: logging.Logger | None = None
        self._propagate: bool | None = None
        self._handlers: list[logging.Handler] = Watched()
        self._filters: list[Any] = Watched()
        self._children: dict[str, StandardLogger] = {}
        self._cache: dict[int, bool] = {}  # logging's manager clears it
        self._enlist()

    def _enlist(self) -> None:
        live.add(weakref.ref(self, live.discard))

    def _set_gates(self) -> None:
        """Work out the levels that a call is compared with.

        `_threshold` is the lowest level that takes the short way, `_gate` the lowest that is taken at all.
        """
        self._wanted = self._pipeline.threshold(self.name)
        self._observed = bool(self._filters or observers or self._has_listeners())
        self._gate = NEVER if self._disabled else self.getEffectiveLevel()
        live = self._level_is_inherited()
        if live:
            self._gate = 0
        aside = self._observed or live or self._call_site < logging.WARNING
        self._threshold = NEVER if aside else self._gate
        self._metrics_off = not self._pipeline.wants_metrics(self.name)

    def _has_listeners(self) -> bool:
        """Say whether handlers may be called: ours are known, those of loggers that are not ours change unseen."""
        logger: logging.Logger | None = self
        while isinstance(logger, StandardLogger):
            if logger._handlers:
                return True
            if not logger.propagate:
                return False
            logger = logger.parent
        return logger is not None

    def _level_is_inherited(self) -> bool:
        """Say whether the level is that of a logger which is not ours, and may change unseen."""
        logger: logging.Logger | None = self
        while isinstance(logger, StandardLogger):
            if logger._own_level:
                return False
            logger = logger._parent
        return logger is not None

    # -- what logging.Logger has as attributes --

    @property
    def level(self) -> int:
        """The level that was set here, 0 where none was; what no route wants is not captured whatever it says."""
        return self._own_level

    @level.setter
    def level(self, level: int) -> None:
        self._own_level = level
        refresh()

    @property
    def disabled(self) -> bool:
        """Whether text calls do nothing; measurements and audit events have no level, and go on."""
        return self._disabled

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        self._disabled = bool(disabled)
        refresh()

    @property
    def propagate(self) -> bool:
        """Whether the handlers of the parent are called too."""
        return self._parent is not None if self._propagate is None else self._propagate

    @propagate.setter
    def propagate(self, propagate: bool) -> None:
        self._propagate = bool(propagate)
        refresh()

    @property
    def parent(self) -> logging.Logger:
        """The parent that was given, else the logger of Python's logging that would be the parent by name."""
        if self._parent is not None:
            return self._parent
        name = str(self.name)
        while "." in name:
            name = name.rpartition(".")[0]
            found = logging.root.manager.loggerDict.get(name)
            if isinstance(found, logging.Logger):
                return found
        return logging.root

    @parent.setter
    def parent(self, parent: logging.Logger | None) -> None:
        self._parent = parent
        refresh()

    @property
    def handlers(self) -> list[logging.Handler]:
        """The handlers that were added here; those of a `bind` child are the same."""
        return self._handlers

    @handlers.setter
    def handlers(self, handlers: Iterable[logging.Handler]) -> None:
        self._handlers = Watched(handlers)
        refresh()

    @property
    def filters(self) -> list[Any]:
        """The filters that were added here; those of a `bind` child are the same."""
        return self._filters

    @filters.setter
    def filters(self, filters: Iterable[Any]) -> None:
        self._filters = Watched(filters)
        refresh()

    # -- levels --

    def setLevel(self, level: int | str) -> None:
        """Capture nothing below this level, whatever the routes want; what is no level changes nothing."""
        if isinstance(level, str):
            level = level_named(level, self._own_level)
        if isinstance(level, int):
            self.level = int(level)

    def getEffectiveLevel(self) -> int:
        """Return the lowest level that is captured, or handed to handlers where there are any."""
        own = self._inherited_level()
        return own if self._observed else max(own, self._wanted)

    def _inherited_level(self) -> int:
        logger: logging.Logger | None = self
        while isinstance(logger, StandardLogger):
            if logger._own_level:
                return logger._own_level
            logger = logger._parent
        return logging.NOTSET if logger is None else logger.getEffectiveLevel()

    def isEnabledFor(self, level: int) -> bool:
        """Say whether a text call at this level would be captured, or handed to handlers."""
        disabled = getattr(self.manager, "disable", 0)  # 0 is no level to disable: a call at 0 counts
        if self._disabled or (disabled and disabled >= level):
            return False
        return level >= (self.getEffectiveLevel() if self._gate == 0 else self._gate)

    @property
    def lowest_level(self) -> int:
        """The lowest level that goes into a lane."""
        return max(self._inherited_level(), self._wanted)

    # -- children --

    def getChild(self, suffix: str) -> Any:
        """Return the logger of this name below this one, with the same context; it propagates to this one."""
        if self._is_managed():
            return super().getChild(suffix)
        child = self._children.get(suffix)
        if child is None:
            child = self._children[suffix] = self._renamed(f"{self.name}.{suffix}")
        return child

    def getChildren(self) -> set[logging.Logger]:
        """Return the loggers that `getChild` has made here."""
        inherited = getattr(super(), "getChildren", None)  # logging has it from Python 3.12 on
        if self._is_managed() and inherited is not None:
            return set(inherited())
        return set(self._children.values())

    def _is_managed(self) -> bool:
        """Say whether logging's manager has made this logger and hands it out by name."""
        return logging.root.manager.loggerDict.get(self.name) is self

    @abstractmethod
    def _renamed(self, name: str) -> StandardLogger:
        """Return a child of this name."""

    # -- the way of a record --

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Mapping[str, Any] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
        **context: Any,
    ) -> None:
        """Log without asking for the level, as those do who add methods for levels of their own."""
        given = {"exc_info": exc_info, "extra": extra, "stack_info": stack_info, "stacklevel": stacklevel}
        context |= {key: value for key, value in given.items() if value not in (None, False, 1)}
        self._enter(level, msg, args if isinstance(args, tuple) else (args,), context)

    def _aside(self, level: int, msg: Any, args: tuple[Any, ...], context: dict[str, Any]) -> None:
        """The long way of a call, for whatever the short one does not do."""
        if self.isEnabledFor(level):
            self._enter(level, msg, args, context)

    def _enter(self, level: int, msg: Any, args: tuple[Any, ...], context: dict[str, Any]) -> None:
        if self._observed:
            self.handle(self._record(level, msg, args, context))
        else:
            self._capture(level, msg, args, context)

    def _record(
        self, level: int, msg: Any, args: tuple[Any, ...], context: dict[str, Any]
    ) -> logging.LogRecord:
        """Return the call as a record of Python's logging, with all context among its attributes."""
        context = dict(context)
        if msg is MISSING:
            msg = context.pop("msg", "")
        exc_info = exc_info_of(context.pop("exc_info", None))
        site = self.findCaller(bool(context.pop("stack_info", False)), stacklevel_of(context))
        context.pop("stacklevel", None)
        extra = {
            f"{KEYWORD_PREFIX}{key}" if key in FORBIDDEN else key: value
            for key, value in merged_extra(context).items()
        }
        for shared in (current_scope(), self._context):
            for key, value in shared.items():
                if key not in FORBIDDEN:
                    extra.setdefault(key, value)
        return self.makeRecord(
            self.name, level, site[0], site[1], msg, args, exc_info, site[2], extra, site[3]
        )

    def findCaller(self, stack_info: bool = False, stacklevel: int = 1) -> tuple[str, int, str, str | None]:
        """Return file, line and function of the call, and the stack there if it is asked for."""
        frame = calling_frame(stacklevel)
        stack = None
        if stack_info:
            text = io.StringIO()
            text.write("Stack (most recent call last):\n")
            traceback.print_stack(frame, file=text)
            stack = text.getvalue().removesuffix("\n")
        return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, stack

    def handle(self, record: logging.LogRecord) -> None:
        """Take a record, wherever it comes from: past the filters, into the lane, and to the handlers."""
        if self._disabled:
            return
        try:
            passed: Any = self.filter(record)
        except Exception:  # a filter of the application's
            passed = True
            complain()
        if not passed:
            return
        if isinstance(passed, logging.LogRecord):  # a filter may replace the record, from Python 3.12 on
            record = passed
        if record.levelno >= self._wanted:
            self._take_safely(record)
        self.callHandlers(record)

    def callHandlers(self, record: logging.LogRecord) -> None:
        """Hand the record to the handlers here and, as far as it propagates, above; one that raises hurts nobody."""
        found = False
        logger: logging.Logger | None = self
        reached_root = False
        while logger is not None:
            for handler in list(logger.handlers):
                found = True
                hand(handler, record)
            reached_root = reached_root or logger is logging.root
            logger = logger.parent if logger.propagate else None
        for handler in () if reached_root else list(observers):
            found = True
            hand(handler, record)
        if not found and not self._pipeline.backends:  # else nobody would get it
            super().callHandlers(record)

    @abstractmethod
    def _capture(self, level: int, msg: Any, args: tuple[Any, ...], context: dict[str, Any]) -> None:
        """Put a call into the lane."""

    def _take_safely(self, record: logging.LogRecord) -> None:
        """Put a record into the lane, or count that it could not be."""
        try:
            self._take(record)
        except Exception:
            self._count_failure()

    @abstractmethod
    def _count_failure(self) -> None:
        """Count a record that could not be captured."""

    @abstractmethod
    def _take(self, record: logging.LogRecord) -> None:
        """Put a record of Python's logging into the lane."""
