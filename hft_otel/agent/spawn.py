"""How the agent is started: a program of its own, in a session of its own, with no secret that others could read."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..config import AgentConfig
from .wire import Channel

__all__ = ["CannotStart", "Started", "crowded", "ended", "exported", "is_open", "start"]

_PROGRAM = Path(__file__).with_name("__main__.py")
_NEEDED = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV")
_NEEDED_FAMILIES = ("LC_", "LD_", "PYTHON", "COVERAGE_", "DYLD_")
"""What Python needs in order to start. All else comes through the socket: `/proc/<pid>/environ` would show it."""


class CannotStart(OSError):
    """Here no agent can be started."""


class Started(NamedTuple):
    """An agent under way, and our end of its socket."""

    pid: int
    channel: Channel


def start(options: AgentConfig) -> Started:
    """Start the program and tell it where to run and our `sys.path`; raises OSError (CannotStart where trying again is of no use)."""
    if getattr(sys, "frozen", False) or not sys.executable:  # the executable is the application, not Python
        raise CannotStart("there is no Python program to run it with")
    if not _PROGRAM.exists():
        raise CannotStart(f"{_PROGRAM} is no file")
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=_inherited(1),
                stderr=_inherited(2),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={key: value for key, value in os.environ.items() if _needed(key)},
            )
        pid, process.returncode = (
            process.pid,
            0,
        )  # we wait by its pid; Popen would warn at our own end that it runs
        channel = Channel(ours)
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100  ("" is the current folder)
        channel.send_first(path=path, nice=options.nice, cpus=options.cpus)
    except BaseException:
        ours.close()
        raise
    return Started(pid, channel)


def crowded(options: AgentConfig) -> str:
    """Say what is wrong, and the cure, where an agent started now would have only the trading thread's one CPU; else empty."""
    ours = os.sched_getaffinity(0)
    if len(ours.union(options.cpus or ours)) > 1:
        return ""
    (cpu,) = ours
    others = sorted(set(range(os.cpu_count() or 1)) - ours)
    cure = f"give it others: `agent: {{cpus: {others}}}`" if others else "this machine has no other"
    return (
        f"the agent has only CPU {cpu}, on which this thread runs too, and takes time from it there; {cure}"
    )


def exported() -> dict[str, str]:
    """Return the environment variables that the agent is to be given through the socket."""
    return {key: value for key, value in os.environ.items() if not _needed(key)}


def ended(pid: int, deadline: float = math.inf) -> str:
    """Say how the agent ended; empty while it runs, which is not for long after the deadline. Leaves no zombie."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else has waited for it
        return "it ended"
    if not found:
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def is_open(descriptor: int) -> bool:
    """Say whether there is such a descriptor."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _needed(key: str) -> bool:
    return key in _NEEDED or key.startswith(_NEEDED_FAMILIES)


def _inherited(descriptor: int) -> int | None:
    """Return what makes the agent print where we do; nowhere, where that is closed."""
    return None if is_open(descriptor) else subprocess.DEVNULL
