"""The agent's work: read what the trading process writes, deliver it, answer flushes; outlive it until all is delivered."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from ..building import Builder
from ..lanes import streams
from ..ledger import FlushReport
from ..notices import say
from .service import Service, Unbuilt
from .status import Pulse
from .wire import PROTOCOL, Ask, Channel, Flush, Flushed, Gone, Hello, Ready, Refused, Serve, Trouble

__all__ = ["Agent", "run"]

_FIRST = 30.0
"""Seconds for the trading process to say who it is."""
_TICK = 0.2
_BEAT = 1.0
_GRACE = 10.0
"""Seconds that the trading process has for ending too, after a SIGTERM that was for both."""
_LAST_PRINTS = 2.0
"""Seconds after the trading process's end in which we may still print; then whoever waits for our output may go on."""
_LEAVE = 5.0
"""Seconds for delivering what we have, where another reader takes over."""


def run(connection: socket.socket) -> int:
    """Do an agent's work until it is done; return the exit status."""
    channel = Channel(connection)
    try:
        hello = channel.first(_FIRST)
    except Gone:
        return 0
    if not isinstance(hello, Hello) or hello.version != PROTOCOL:
        why = "the installed hft-otel was replaced by another version while the program runs"
        return _refuse(channel, why)
    try:
        _become(hello)
        service = Service.open(hello.stream, hello.journal, Builder(Unbuilt))
    except Exception as error:  # noqa: BLE001  (whatever stands in the way, the trading process has to know)
        return _refuse(channel, f"{type(error).__name__}: {error}")
    return Agent(channel, hello, service).work()


def _refuse(channel: Channel, why: str) -> int:
    try:
        channel.send(Refused(why))
    except Gone:  # nobody else is left to say it
        say(f"the trading process has ended, and its agent cannot deliver: {why}; the next start does")
    return 1


def _become(hello: Hello) -> None:
    """Take on the trading process's environment."""
    os.environ.update(hello.environ)
    time.tzset()
    logging.raiseExceptions = False  # a traceback of Python's logging in the agent would help nobody


class Agent:
    """One agent at work."""

    def __init__(self, channel: Channel, hello: Hello, service: Service) -> None:
        self._channel: Channel | None = channel
        self._hello = hello
        self._service = service
        service.intake.ask = self._ask
        self._pulse = Pulse(Path(hello.stream), hello.pid)
        self._next_beat = 0.0
        self._terminated = float("inf")

    def work(self) -> int:
        """Serve while the trading process lives, then deliver what is left; return the exit status."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        with contextlib.suppress(ValueError, OSError):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while self._trader_lives():
            if self._channel is None or time.monotonic() > self._terminated + _GRACE:
                return self._leave()
            self._listen(_TICK)
            self._beat("serving")
        self._listen(0)  # what it said last
        self._service.writer_gone()
        return self._finish()

    def _trader_lives(self) -> bool:
        """Say so of the program that we work for: `os.execv` puts another one in its place, with the same number."""
        return os.getppid() == self._hello.pid and (self._channel is not None or not self._is_replaced())

    def _is_replaced(self) -> bool:
        """Say whether the trading process has given up the lock, and maps its lanes no more.

        One that has closed all its descriptors, as some do that become a daemon, still maps them, and writes there.
        """
        stream = Path(self._hello.stream)
        try:
            if (lock := streams.try_lock(stream)) is None:
                return False
            os.close(lock)
            return stream.name not in Path(f"/proc/{self._hello.pid}/maps").read_text(errors="replace")
        except OSError:
            return False

    def _on_sigterm(self, number: int, frame: object) -> None:
        """Go once the trading process has ended, too: a service manager ends both at the same time."""
        self._terminated = min(self._terminated, time.monotonic())

    def _listen(self, seconds: float) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            channel.wait(seconds)
            for message in channel.receive():
                if isinstance(message, Serve):
                    self._serve(channel, message)
                elif isinstance(message, Trouble):
                    self._service.told = message.problem
                elif isinstance(message, Flush):
                    name = f"hft-otel-flush-{message.number}"
                    threading.Thread(
                        target=self._flush, args=(channel, message), name=name, daemon=True
                    ).start()
        except Gone:
            self._channel = None
            self._await_end()

    def _await_end(self) -> None:
        """Wait a moment: the socket of a process that ends is closed just before the process is gone."""
        deadline = time.monotonic() + 1.0
        while self._trader_lives() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _serve(self, channel: Channel, message: Serve) -> None:
        self._service.serve(message)
        if self._service.start():
            channel.send(Ready(os.getpid()))

    def _ask(self) -> None:
        if (channel := self._channel) is not None:
            with contextlib.suppress(Gone):
                channel.send(Ask())

    def _flush(self, channel: Channel, message: Flush) -> None:
        report = self._service.flush(message.positions, message.deadline)
        with contextlib.suppress(Gone):
            channel.send(Flushed(message.number, report))

    def _beat(self, state: str) -> None:
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + _BEAT
            with contextlib.suppress(Exception):  # a status that cannot be told must stop nothing else
                self._service.beat(self._pulse, state)

    def _leave(self) -> int:
        """Go while the trading process lives: another reader continues at what is not settled."""
        self._service.worker.flush(_LEAVE)
        return 0

    def _finish(self) -> int:
        """Deliver what the trading process has left, within `linger` seconds, and take its lanes away."""
        ended = time.monotonic()
        done = threading.Event()

        def stop() -> None:
            try:
                report = self._service.stop(self._hello.linger)
                if not report.complete and not silent:
                    self._say_what_is_left(report)
            finally:
                done.set()

        silent = False
        threading.Thread(target=stop, name="hft-otel-last", daemon=True).start()
        while not done.wait(0.02):
            self._beat("draining")
            if not silent and time.monotonic() > ended + _LAST_PRINTS:
                silent = True
                with contextlib.suppress(Exception):  # it may end at this very moment
                    self._say_what_is_left(self._service.worker.report())
                _let_go_of_output()
        return 0

    def _say_what_is_left(self, report: FlushReport) -> None:
        """Say that not all is delivered yet; for the time after it nobody may be there to hear us."""
        left = [
            f"{sums.destination} {sums.type} {number}"
            for sums in report.destinations
            if (number := sums.pending + sums.dropped.get("shutdown", 0))
        ]
        say(
            f"process {self._hello.pid} has ended with records not delivered: {', '.join(left) or report.pending};"
            f" its agent (pid {os.getpid()}) tries for at most {self._hello.linger:g} s, what is left then waits for the"
            " next start"
        )


def _let_go_of_output() -> None:
    """Print nowhere from now on, so that who reads the trading process's output sees its end."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        with contextlib.suppress(Exception):
            stream.flush()
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
