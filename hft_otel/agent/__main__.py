"""The agent's program: takes the trading process's `sys.path` from the socket, then imports what does the work.

Only Python's own library is imported before, since all else may be found by that path alone.
"""

from __future__ import annotations

import json
import signal
import socket
import sys

__all__ = ["main"]


def main(descriptor: int) -> int:
    """Work until the trading process has ended and everything is delivered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trading process
    connection = socket.socket(fileno=descriptor)
    size = int.from_bytes(_read(connection, 4), "big")
    sys.path[:] = json.loads(_read(connection, size))
    from hft_otel.agent.run import run

    return run(connection)


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
