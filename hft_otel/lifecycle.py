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
from types import FrameType

__all__ = ["at_end"]

_stop: Callable[[], None] | None = None
_installed = False


def at_end(stop: Callable[[], None]) -> None:
    """Call `stop` once when this process ends; the latest caller's counts, as a forked child replaces its parent's."""
    global _stop, _installed  # noqa: PLW0603  (a process has one end)
    _stop = stop
    if "multiprocessing.util" in sys.modules and not _installed_in_child():
        from multiprocessing.util import Finalize  # noqa: PLC0415  (only where it is in use already)

        Finalize(None, _run_once, exitpriority=0)  # its children leave by os._exit, past atexit
    if not _installed:
        _installed = True
        atexit.register(_run_once)
        _chain_sigterm()


def _installed_in_child() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return process is None or getattr(process, "parent_process", lambda: None)() is None


def _run_once() -> None:
    global _stop  # noqa: PLW0603  (see above)
    stop, _stop = _stop, None
    if stop is not None:
        stop()


def _chain_sigterm() -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # Python allows only the main thread to set handlers; exit still drains
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    _run_once()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), number)
