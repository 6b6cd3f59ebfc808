"""What the trading process and its agent say to each other, over a pair of sockets that only they have.

A message is a length of 4 bytes and MessagePack. The first one, which `__main__` reads before anything of ours or of
others can be imported, is JSON: the trading process's `sys.path`, and where to run.
"""

from __future__ import annotations

import contextlib
import json
import math
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from ..ledger import FlushReport

__all__ = [
    "PROTOCOL",
    "Answer",
    "Ask",
    "Channel",
    "Flush",
    "Flushed",
    "Gone",
    "Hello",
    "Order",
    "Ready",
    "Refused",
    "Serve",
    "Trouble",
    "readable",
]

PROTOCOL = 2
"""Goes up with every change of what is said here."""
_LENGTH = 4
_LONGEST = 64 * 1024 * 1024
_SEND_TIMEOUT = 10.0
_BUFFER = 1 << 20
"""Bytes asked for, so that what an agent is told first is on its way before it has even started."""

Positions = tuple[tuple[int, int], ...]
"""How far each room is written: segments left behind, and the offset in the current one; in the order of `rooms`."""


class Hello(msgspec.Struct, tag=True, frozen=True):
    """Who the agent works for, and how; environment variables come here, since those of a process can be read by others."""

    version: int
    pid: int
    stream: str
    """The folder of the lanes."""
    journal: str
    """The folder of the audit segments."""
    linger: float
    environ: dict[str, str]


class Serve(msgspec.Struct, tag=True, frozen=True):
    """Serve the pipeline of that number; the configuration is packed (see packing), `levels` are Python logging's."""

    number: int
    config: bytes
    levels: dict[str, int]


class Flush(msgspec.Struct, tag=True, frozen=True):
    """Answer once all before these positions is delivered, at the latest when `time.monotonic` is at the deadline."""

    number: int
    positions: Positions
    deadline: float


class Trouble(msgspec.Struct, tag=True, frozen=True):
    """What is wrong at the moment where audit events are written, for the status; empty once it is over."""

    problem: str


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Note in the control page up to where frames are whole (`Intake.publish`)."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The agent reads the lanes now."""

    pid: int


class Refused(msgspec.Struct, tag=True, frozen=True):
    """The agent cannot work, and why."""

    why: str


class Flushed(msgspec.Struct, tag=True, frozen=True):
    """The answer to a flush: both sums, without what the trading process itself has dropped."""

    number: int
    report: FlushReport


Order = Hello | Serve | Flush | Trouble
Answer = Ask | Ready | Refused | Flushed

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Order | Answer).decode


class Gone(OSError):
    """The other side has ended."""


def readable(timeout: float | None, *descriptors: int) -> set[int]:
    """Return those of which something can be read, or that have ended or are closed, which reading then tells.

    Waits for one at most `timeout` seconds; None means without end. By `poll`, since `select` takes no descriptor
    above 1023. Raises ValueError for a negative descriptor.
    """
    watched = select.poll()
    for descriptor in descriptors:
        watched.register(descriptor, select.POLLIN)
    heard = watched.poll(None if timeout is None else math.ceil(max(timeout, 0) * 1000))
    return {descriptor for descriptor, _ in heard}


class Channel:
    """One end of the pair; any thread may send, one receives."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(_SEND_TIMEOUT)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._received = bytearray()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """The descriptor, for `readable`."""
        return self.connection.fileno()

    def send(self, message: Order | Answer) -> None:
        """Send a message; raises Gone where nobody takes it."""
        self._send(_encode(message))

    def send_first(self, **told: Any) -> None:
        """Send what `__main__` reads first."""
        self._send(json.dumps(told).encode())

    def _send(self, data: bytes) -> None:
        try:
            with self._sending:
                self.connection.sendall(len(data).to_bytes(_LENGTH, "big") + data)
        except OSError as error:
            raise Gone(str(error)) from error

    def receive(self) -> Iterator[Order | Answer]:
        """Yield the messages that have come; raises Gone at the end, msgspec.DecodeError for what is none of ours."""
        ended = False
        while not ended and readable(0, self.fileno()):
            try:
                data = self.connection.recv(1 << 16)
            except ConnectionError:
                data = b""
            self._received += data
            ended = not data
        while (message := self._next()) is not None:
            yield message
        if ended:
            raise Gone("the other side has ended")

    def wait(self, timeout: float) -> bool:
        """Wait until something has come, or the other side has ended; say whether it has."""
        return bool(readable(timeout, self.fileno()))

    def first(self, timeout: float) -> Order | Answer:
        """Wait for a message; raises Gone where none comes."""
        end = time.monotonic() + timeout
        while True:
            for message in self.receive():
                return message
            if not self.wait(end - time.monotonic()):
                break
        raise Gone(f"nothing was said within {timeout:g} s")

    def close(self) -> None:
        """Close this end."""
        with contextlib.suppress(OSError):
            self.connection.close()

    def _next(self) -> Order | Answer | None:
        size = int.from_bytes(self._received[:_LENGTH], "big")
        if size > _LONGEST:
            raise msgspec.DecodeError(f"a message of {size} bytes")
        if len(self._received) < _LENGTH or len(self._received) < _LENGTH + size:
            return None
        data = bytes(self._received[_LENGTH : _LENGTH + size])
        del self._received[: _LENGTH + size]
        message: Order | Answer = _decode(data)
        return message
