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

__all__ = ["at_end", "at_sigterm", "end_now"]

_stop: Callable[[], None] | None = None
_at_sigterm = False
_stopping = False
_terminated = False
"""SIGTERM came while the process was draining already."""


def at_end(stop: Callable[[], None]) -> None:
    """Call `stop` once when this process ends; only the latest caller's counts.

    A forked child forgets its parent's: what that would drain is the parent's.
    """
    global _stop  # noqa: PLW0603  (a process has one end)
    _stop = stop
    if "multiprocessing.util" in sys.modules:  # not imported here, for those that do not use it
        _in_multiprocessing()
    at_sigterm()


def at_sigterm() -> None:
    """Drain at SIGTERM too, unless the application sees to it; for the main thread, which alone may say so."""
    global _at_sigterm  # noqa: PLW0603  (see above)
    if _at_sigterm or threading.current_thread() is not threading.main_thread():
        return
    _at_sigterm = True  # once: whoever takes our handler away later means it
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


class _Bootstrap:
    """Something to hold on to, as multiprocessing wants for what it calls in a child."""


_bootstrap: _Bootstrap | None = None


def _in_multiprocessing() -> None:
    """See to the end of children, who leave by os._exit, past atexit.

    One may log before it is one: while a forkserver's child imports the main module and unpickles its arguments. It
    forgets all finalizers when it begins its work, and then calls what was registered for that.
    """
    global _bootstrap  # noqa: PLW0603  (see above)
    from multiprocessing.process import parent_process
    from multiprocessing.util import register_after_fork

    if parent_process() is not None:
        _finalize()
    if _bootstrap is None:
        _bootstrap = _Bootstrap()
        register_after_fork(_bootstrap, _finalize)


def _finalize(_: object = None) -> None:
    from multiprocessing.util import Finalize

    Finalize(None, end_now, exitpriority=0)


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
# At once, not with the first logger: what is registered later is called before us, and may still log.
atexit.register(end_now)
