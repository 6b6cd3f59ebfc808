"""The trading process's side of the agent: starts it, keeps it alive, makes journal segments ready, asks it to flush.

One thread that sleeps until something happens, and then works for microseconds. It exports nothing. Whatever goes
wrong, callers never notice: records wait in the lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ..config import AgentConfig
from ..lanes.intake import Intake, Pipeline
from ..ledger import FlushReport
from ..notices import Notices, last_words, say
from . import spawn, wire
from .remote import AgentRouter
from .service import Service
from .status import STALE, read
from .wire import PROTOCOL, Ask, Channel, Flush, Flushed, Gone, Hello, Ready, Refused, Serve, Trouble

__all__ = ["Keeper"]

_TRIES = 3
"""Starts in a row that may fail before the thread takes over, where the agent never worked."""
_FIRST_BACKOFF, _MAX_BACKOFF = 0.1, 30.0
_WORKED = 30.0
"""Seconds after which an agent counts as one that works: the next one is started without delay."""
_PATIENCE = 5.0
"""Seconds that an agent has for ending, once it has let go of the socket."""
_CLOSING = 0.5
"""Seconds for closing what has nothing left to deliver."""
_MARGIN = 0.1
"""Seconds by which the agent is to answer before the caller's time is up, so that its sums still arrive."""
_RETRY = 1.0
"""Seconds between two tries to make journal segments, where the last one failed; and after an error of the keeper's."""
_ERRORS = 10
"""Errors in a row after which the thread takes over: nobody would see that the agent works, nor pass on flushes."""


@dataclass(slots=True)
class _Request:
    """A flush on its way; `sent_to` is the agent that was asked, `report` its answer."""

    flush: Flush
    deadline: float
    sent_to: int = 0
    report: FlushReport | None = None


class Keeper:
    """The drain of a process whose lanes are read by an agent (see lanes.intake.Drain).

    `take_over` makes the thread that delivers where no agent can be started, from what the agent would be told.
    """

    def __init__(
        self,
        intake: Intake,
        options: AgentConfig,
        take_over: Callable[[], Service],
        start: Callable[[AgentConfig], spawn.Started] = spawn.start,
    ) -> None:
        self._intake = intake
        self._options = options
        self._take_over = take_over
        self._notices = Notices(FlushReport.nothing, list, lambda: intake.problem)
        self._start_agent = start
        self._served: list[Serve] = []
        self._told = 0
        """How many of `_served` the agent was told."""
        self._told_problem = ""
        """What it was told last of the journal."""
        self._requests: dict[int, _Request] = {}
        self._asked: deque[_Request] = deque()
        self._numbers = itertools.count(1)
        self._channel: Channel | None = None
        self.pid = 0
        """The agent's; 0 while there is none."""
        self._ready = self._worked = False
        self._failures = self._restarts = 0
        self._started_at = self._start_at = 0.0
        self._ending: list[tuple[int, float]] = []
        """Agents that have let go of the socket, and when each must have ended."""
        self._last: FlushReport | None = None
        self._reported = (0, 0, 0)
        """What flushes have said was dropped: here, at an agent, and which one."""
        self.stand_in: Service | None = None
        """The thread that delivers where no agent can."""
        self._wake, self._poke = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="hft-otel-keeper", daemon=True)
        self._left = self._troubled = False
        self._problem = ""
        _keepers.add(self)

    def start(self) -> None:
        """Start the agent, and tell it at once all it needs: should we be killed now, it delivers what we logged."""
        self._ensure_agent()
        self._thread.start()

    # -- the drain: callers --

    def add(self, pipeline: Pipeline) -> None:
        """Have the agent serve a further pipeline."""
        router = pipeline.router
        assert isinstance(router, AgentRouter)  # the factory registers no other here
        serve = Serve(pipeline.number, router.packed, logging.getLevelNamesMapping())
        self._served.append(serve)
        self._intake.announce(len(self._served))
        if (stand_in := self.stand_in) is not None:
            stand_in.serve(serve)
        self._alert()

    def wake(self) -> None:
        """See to the journal, if its segments are what is short, or a problem is new; the agent looks at the lanes by itself."""
        journal = self._intake.journal
        if len(journal.supply) < journal.spare or bool(self._intake.problem) != self._troubled:
            self._alert()

    def flush(self, timeout: float) -> FlushReport:
        """Wait until all that was emitted before the call is delivered, at most `timeout` seconds."""
        request = self._ask(timeout)
        while self._waits(request):
            time.sleep(0.001)  # no lock: a signal handler may be what waits here
        if (stand_in := self.stand_in) is not None:
            request.report = stand_in.flush(request.flush.positions, request.flush.deadline)
        return self._answer(request)

    async def flush_async(self, timeout: float) -> FlushReport:
        """Like `flush`, without blocking the event loop."""
        request = self._ask(timeout)
        while self._waits(request):
            await asyncio.sleep(0.002)
        if (stand_in := self.stand_in) is not None:
            flush = partial(stand_in.flush, request.flush.positions, request.flush.deadline)
            request.report = await asyncio.get_running_loop().run_in_executor(None, flush)
        return self._answer(request)

    def end(self, timeout: float) -> None:
        """See at the process's end that what was logged is delivered, within `timeout` seconds; say where it may not be.

        An agent at work goes on without a word of ours: it says itself what takes it long (see run.py).
        """
        report = self.flush(timeout)
        if report.complete:
            if (stand_in := self.stand_in) is not None:
                stand_in.stop(_CLOSING)
        elif self._is_in_doubt():
            say(last_words(report, timeout, self._who_goes_on()))

    def _is_in_doubt(self) -> bool:
        lanes = self._intake.lanes
        if self.stand_in is not None or self._channel is None or lanes is None or os.getpid() == 1:
            return True  # process 1 takes its agent along
        said = read(lanes.stream_folder)
        if said is None:
            return time.monotonic() - self._started_at > _WORKED
        losing = (part.problem or part.dropped for part in said.destinations)
        return time.time() - said.written > STALE or bool(said.problems) or any(losing)

    def _who_goes_on(self) -> str:
        if self.stand_in is not None or not self.pid:
            lanes = self._intake.lanes
            return f"they wait in {lanes and lanes.stream_folder} for the next start"
        linger = f"at most {self._options.linger:g} s"
        return f"the agent (pid {self.pid}) goes on for {linger}, what is left then waits for the next start"

    def leave(self) -> None:
        """Let go of everything in a forked child, or when the drain is no longer needed; the agent stays."""
        self._left = True
        for descriptor in (self._wake, self._poke):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._channel is not None:
            self._channel.close()

    def _ask(self, timeout: float) -> _Request:
        self._intake.publish()
        positions = tuple(room.position for room in self._intake.rooms)
        deadline = time.monotonic() + timeout
        flush = Flush(next(self._numbers), positions, deadline - min(_MARGIN, timeout / 10))
        request = _Request(flush, deadline)
        self._asked.append(request)
        self._alert()
        return request

    def _waits(self, request: _Request) -> bool:
        return request.report is None and self.stand_in is None and time.monotonic() < request.deadline

    def _answer(self, request: _Request) -> FlushReport:
        """Return the agent's answer; without one, what it said last, as not complete."""
        report = request.report
        if report is None:
            report = replace(self._last or FlushReport([], [], complete=False), complete=False)
        report.restarts = self._restarts
        self._requests.pop(request.flush.number, None)
        # An agent counts from its own start, what callers here could not write from ours; its report has both.
        here = sum(tally.value for room in self._intake.rooms for tally in room.drops.copy().values())
        there = max(report.dropped - here, 0)
        before_here, before_there, agent = self._reported
        report.newly_dropped = max(here - before_here, 0)
        report.newly_dropped += max(there - (before_there if agent == request.sent_to else 0), 0)
        self._reported = (here, there, request.sent_to)
        return report

    def _alert(self) -> None:
        """Wake the thread; a full pipe means that it is about to wake."""
        with contextlib.suppress(OSError):
            os.write(self._poke, b"\0")

    # -- the keeper's thread --

    def _run(self) -> None:
        errors = 0
        while not self._left:
            try:
                self._turn()
                errors = 0
            except Exception as error:  # noqa: BLE001  (whatever it is, the agent must not be without a keeper)
                self._mend(problem := f"{type(error).__name__}: {error}")
                time.sleep(_RETRY)
                self._alert()  # what had woken it is not done yet
                if (errors := errors + 1) >= _ERRORS and self.stand_in is None:
                    self._hand_over(problem)

    def _mend(self, problem: str) -> None:
        """Go on after an error, which is said once; the application may have closed our descriptors with all others."""
        if self._left:
            return
        if problem != self._problem:
            self._problem = problem
            say(f"the agent's keeper goes on after an error: {problem}")
        if not (spawn.is_open(self._wake) and spawn.is_open(self._poke)):
            self._wake, self._poke = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if (channel := self._channel) is not None and not spawn.is_open(channel.fileno()):
            self._on_gone(channel, Gone("its socket was closed"))

    def _hand_over(self, problem: str) -> None:
        """End the agent, which holds the lock of the lanes, and have the thread deliver; where that fails, once more later."""
        with contextlib.suppress(Exception):
            if self._channel is not None:
                self._on_gone(self._channel, Gone("its keeper fails"))
            self._ready = False  # no other agent takes over, so nothing is to say so
            while self._ending:
                self._reap()
                time.sleep(0.02)
            if self.stand_in is None and not self._left:
                self._give_up(f"its keeper fails again and again ({problem})")

    def _turn(self) -> None:
        self._ensure_agent()
        channel = self._channel
        speaks = () if channel is None else (channel.fileno(),)
        heard = wire.readable(self._pause(), self._wake, *speaks)
        if self._wake in heard:
            os.read(self._wake, 4096)
        journal = self._intake.journal
        if journal.left or len(journal.supply) < journal.spare:  # little work, and only where there is some
            journal.replenish()
        problem = self._intake.problem
        if problem or self._troubled:
            self._troubled = bool(problem)
            self._notices.look()
        if channel is not None:
            self._talk(channel, hears=not heard.isdisjoint(speaks))
        self._reap()

    def _pause(self) -> float | None:
        """Return how long to sleep at most; None means until something happens."""
        if self._ending:
            return 0.02
        if self._channel is None and self.stand_in is None:
            return max(self._start_at - time.monotonic(), 0.0)
        return _RETRY if self._intake.problem else None

    def _talk(self, channel: Channel, *, hears: bool) -> None:
        try:
            for message in channel.receive() if hears else ():
                if isinstance(message, Ready):
                    self._ready = self._worked = True
                elif isinstance(message, Flushed):
                    self._last = message.report
                    if (request := self._requests.pop(message.number, None)) is not None:
                        request.report = message.report
                elif isinstance(message, Ask):
                    self._intake.publish()
                elif isinstance(message, Refused):
                    self._give_up(message.why)
                    return
            self._tell(channel)
        except Exception as error:  # noqa: BLE001  (gone, or saying what we do not understand)
            self._on_gone(channel, error)

    def _tell(self, channel: Channel) -> None:
        """Send what the agent was not told yet."""
        while self._told < len(self._served):
            channel.send(self._served[self._told])
            self._told += 1
        if self._told_problem != (problem := self._intake.problem):
            channel.send(Trouble(problem))
            self._told_problem = problem
        while self._asked:
            request = self._asked.popleft()
            self._requests[request.flush.number] = request
        now = time.monotonic()
        for number, request in list(self._requests.items()):
            if request.deadline < now:
                self._requests.pop(number, None)
            elif request.sent_to != self.pid:
                request.sent_to = self.pid
                channel.send(request.flush)

    # -- the agent's life --

    def _ensure_agent(self) -> None:
        if self._channel is not None or self.stand_in is not None or time.monotonic() < self._start_at:
            return
        try:
            self.pid, self._channel = self._start_agent(self._options)
            self._started_at = time.monotonic()
            self._ready, self._told, self._told_problem = False, 0, ""
            self._channel.send(self._hello())
            self._tell(self._channel)
        except spawn.CannotStart as error:
            self._give_up(str(error))
        except Exception as error:  # noqa: BLE001  (whatever the system says; the next try may succeed)
            self._failed(f"{type(error).__name__}: {error}")

    def _hello(self) -> Hello:
        lanes = self._intake.lanes
        assert lanes is not None  # the factory makes keepers for shared intakes only
        stream, journal = str(lanes.stream_folder), str(self._intake.journal.stream_folder)
        return Hello(PROTOCOL, os.getpid(), stream, journal, self._options.linger, spawn.exported())

    def _on_gone(self, channel: Channel, error: Exception) -> None:
        """See the agent off, and plan the next one."""
        channel.close()
        self._channel = None
        self._ending.append((self.pid, time.monotonic() + _PATIENCE))
        if not isinstance(error, OSError):  # Gone, or the application has closed the socket
            say(f"the agent (pid {self.pid}) says what is not understood: {error}; it is ended")
        self._start_at = float("inf")  # until it has ended: `_reap`

    def _reap(self) -> None:
        for pid, deadline in list(self._ending):
            if how := spawn.ended(pid, deadline):
                self._ending.remove((pid, deadline))
                self._failed(how)

    def _failed(self, how: str) -> None:
        """Plan the next start; where the agent never worked, give up after some."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._ready and time.monotonic() - self._started_at > _WORKED:
            self._failures = 0
        wait = min(_FIRST_BACKOFF * 2**self._failures, _MAX_BACKOFF) if self._failures else 0.0
        self._failures += 1
        self._start_at = time.monotonic() + wait
        pid, self.pid = self.pid, 0
        if not self._worked and self._failures >= _TRIES:
            self._give_up(f"it does not start ({how})")
        elif self._ready:
            self._restarts += 1
            say(f"the agent (pid {pid}) has ended ({how}); another one takes over where it was")
        self._ready = False

    def _give_up(self, why: str) -> None:
        """Have a thread of this process deliver what the lanes hold and what comes."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        stand_in = self._take_over()
        say(f"no agent: {why}; a thread of this process delivers instead")
        for serve in list(self._served):
            stand_in.serve(serve)
        stand_in.start()
        self.stand_in = stand_in


_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for keeper in list(_keepers):
        keeper.leave()
    _keepers.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
