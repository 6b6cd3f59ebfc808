"""Work that must never hold up a destination's thread: exports of aggregated metrics, and foreign calls that may hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["Pump", "bounded"]

_T = TypeVar("_T")


def bounded(call: Callable[[], _T], timeout: float, otherwise: _T) -> _T:
    """Return what the call returns, or `otherwise` when it raises or takes longer than `timeout` seconds.

    A call that takes longer goes on in a daemon thread, which does not keep the process alive.
    """
    results: list[_T] = []

    def run() -> None:
        with suppress(Exception):  # a foreign call at its end; the caller is told `otherwise`
            results.append(call())

    thread = threading.Thread(target=run, name="hft-otel-bounded", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # from Python 3.12 on there are no new threads while the interpreter ends
        run()
    else:
        thread.join(max(timeout, 0.0))
    return results[0] if results else otherwise


class Pump:
    """A daemon thread that works every `interval` seconds, and when asked to.

    `work` says whether it succeeded; what it raises counts as False. The thread does not survive a fork, on purpose:
    a child that went on exporting its parent's metrics would count them twice.
    """

    def __init__(self, work: Callable[[], bool], interval: float, name: str) -> None:
        self._work = work
        self._interval = max(interval, 0.001)
        self._changed = threading.Condition()
        self._asked = 0
        self._answered = 0
        self._succeeded = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; the first work is due after one interval."""
        self._thread.start()

    def ask(self) -> int:
        """Have the work done soon, without waiting; return the ticket to wait for."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    def flush(self, timeout: float) -> bool:
        """Have the work done now; say whether it was and succeeded within `timeout` seconds."""
        ticket = self.ask()
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._answered >= ticket or self._stopping, max(timeout, 0.0)
            )
            return done and self._answered >= ticket and self._succeeded

    def stop(self, timeout: float = 0.0) -> None:
        """Do no more work; wait at most `timeout` seconds for work that is under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(max(timeout, 0.0))

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or self._asked > self._answered, due - time.monotonic()
                )
                if self._stopping:
                    return
                ticket = self._asked
            try:
                succeeded = self._work()
            except Exception:  # noqa: BLE001  # `work` reports its own failures; a bug in it must not end the thread
                succeeded = False
            due = time.monotonic() + self._interval
            with self._changed:
                self._answered = ticket
                self._succeeded = succeeded
                self._changed.notify_all()
