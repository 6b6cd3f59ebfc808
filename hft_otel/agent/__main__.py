"""The agent's program: steps back behind the trading process, takes its `sys.path`, then imports what does the work.

Only Python's own library is imported before, since all else may be found by that path alone.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["main"]

AUTOGROUP = Path("/proc/self/autogroup")
"""With autogroup scheduling, sessions share the cores evenly, and a nice level counts within its session only; the agent
is a session of its own. Source: sched(7)."""


def main(descriptor: int) -> int:
    """Work until the trading process has ended and everything is delivered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trading process
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until there is something to go on with: see Agent
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with socket.socket(fileno=descriptor) as connection:
        size = int.from_bytes(_read(connection, 4), "big")
        told = json.loads(_read(connection, size))
        _step_back(told["nice"], told["cpus"])
        _take_descriptors()
        sys.path[:] = told["path"]
        from hft_otel.agent.run import run

        return run(connection)


def _step_back(nice: int, cpus: list[int]) -> None:
    """Leave the trader its core, also where it runs with a real-time priority, which we have inherited."""
    try:
        if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.nice(nice)
        with suppress(OSError):  # by session, where the kernel shares out so: see AUTOGROUP
            AUTOGROUP.write_text(str(nice))
        if cpus:
            os.sched_setaffinity(0, cpus)
    except (OSError, ValueError) as error:
        print(f"hft-otel: the agent runs where the trading process does: {error}", file=sys.stderr)  # noqa: T201


def _take_descriptors() -> None:
    """Open as many files as the system lets us: streams of dead processes that wait, each with its segments, add up."""
    with suppress(OSError, ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise SystemExit(0)  # the trading process ended before it could say anything
        data += part
    return data


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        raise SystemExit("the agent of hft-otel is started by the trading process: see `isolation: process`")
    raise SystemExit(main(int(sys.argv[1])))
