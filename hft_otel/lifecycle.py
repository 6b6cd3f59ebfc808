"""The end of a process: exit, SIGTERM and multiprocessing's own exit all drain within a bound.

A SIGTERM handler that the application has is called at once and left to do its work, since its orders come first;
only where there is none do we drain and then let the signal end the process as it would have.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

__all__ = ["at_end", "end_now"]

_stop: Callable[[], None] | None = None
_installed = False
_stopping = False
_terminated = False
"""SIGTERM came while the process was draining already."""


def at_end(stop: Callable[[], None]) -> None:
    """Call `stop` once when this process ends; only the latest caller's counts.

    A forked child forgets its parent's: what that would drain is the parent's.
    """
    global _stop, _installed  # noqa: PLW0603  (a process has one end)
    _stop = stop
    if _is_multiprocessing_child():
        from multiprocessing.util import Finalize

        Finalize(None, end_now, exitpriority=0)  # such children leave by os._exit, past atexit
    if not _installed:
        _installed = True
        atexit.register(end_now)
        _chain_sigterm()


def _is_multiprocessing_child() -> bool:
    process = sys.modules.get("multiprocessing.process")  # not imported here, for those that do not use it
    return process is not None and process.parent_process() is not None


def end_now() -> None:
    """Do now what the end of the process would: drain, deliver, close; nothing is left to do at the end then."""
    global _stop, _stopping  # noqa: PLW0603  (see above)
    stop, _stop = _stop, None
    if stop is None:
        return
    _stopping = True
    with suppress(Exception):  # an application that ends well must not seem to end badly
        stop()
    _stopping = False
    if _terminated:
        _terminate()


def _chain_sigterm() -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # Python allows only the main thread to set handlers; exit still drains
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _terminated  # noqa: PLW0603  (see above)
    if _stopping:  # this very signal interrupts the drain, which ends soon by itself
        _terminated = True
        return
    end_now()
    _terminate()


def _terminate() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _forget() -> None:
    global _stop, _stopping, _terminated
    _stop, _stopping, _terminated = None, False, False


os.register_at_fork(after_in_child=_forget)
