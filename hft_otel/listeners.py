"""Who listens to the loggers: the lists of handlers and filters, which tell when they change, and the observers of all."""

from __future__ import annotations

import logging
import sys
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # types only
    from .standard import StandardLogger

__all__ = ["Watched", "complain", "hand", "live", "loggers", "observe", "observers", "refresh", "unobserve"]

live: set[weakref.ref[StandardLogger]] = set()
"""Every logger of ours; `list(live)` is one step under the GIL."""
observers: list[logging.Handler] = []
"""Handlers that get the records of all loggers."""


def loggers() -> list[StandardLogger]:
    """Return every logger of ours that is alive."""
    return [logger for reference in list(live) if (logger := reference()) is not None]


def refresh() -> None:
    """Let every logger look again at who wants its records: what one is given may concern those below it."""
    for logger in loggers():
        logger._set_gates()


def observe(handler: logging.Handler) -> None:
    """Hand the records of all our loggers to this handler too, on the callers' threads."""
    observers.append(handler)
    refresh()


def unobserve(handler: logging.Handler) -> None:
    """Hand it nothing more."""
    observers.remove(handler)
    refresh()


class Watched(list[Any]):
    """A list of handlers or filters; whoever changes it, by whatever method, the loggers look again."""

    def _then_refresh(name: str) -> Callable[..., Any]:  # type: ignore[misc]  # noqa: N805  (runs in the class body)
        plain_method = getattr(list, name)

        def method(self: Watched, *args: Any, **kwargs: Any) -> Any:
            result = plain_method(self, *args, **kwargs)
            refresh()
            return result

        return method

    __setitem__ = _then_refresh("__setitem__")
    __delitem__ = _then_refresh("__delitem__")
    __iadd__ = _then_refresh("__iadd__")
    append = _then_refresh("append")
    clear = _then_refresh("clear")
    extend = _then_refresh("extend")
    insert = _then_refresh("insert")
    pop = _then_refresh("pop")
    remove = _then_refresh("remove")


def hand(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Hand a record to a handler that wants its level; what the handler raises is said, and hurts nobody."""
    if record.levelno >= handler.level:
        try:
            handler.handle(record)
        except Exception:  # those of logging see to themselves; this one is somebody else's
            complain()


def complain() -> None:
    """Say what a handler or filter of the application's has raised, where logging would have let it through."""
    if logging.raiseExceptions:
        with suppress(Exception):  # stderr is closed, or gone
            traceback.print_exc(file=sys.stderr)
