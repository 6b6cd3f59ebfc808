"""The trading process's side of the agent, with agents that do what a test tells them to."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hft_otel.agent import keeper as module
from hft_otel.agent import spawn
from hft_otel.agent.keeper import Keeper
from hft_otel.agent.packing import unpack_config
from hft_otel.agent.remote import AgentRouter
from hft_otel.agent.status import Pulse
from hft_otel.agent.wire import Ask, Channel, Flush, Flushed, Gone, Hello, Ready, Refused, Serve, Trouble
from hft_otel.config import AgentConfig, FileConfig, LogConfig
from hft_otel.lanes.intake import Intake, Sizes
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.shared import SharedLanes
from hft_otel.ledger import DestinationSums, FlushReport, LaneSums
from hft_otel.logger import HFTLogger
from hft_otel.redaction import Redactor
from tests.unit.core_support import TRADER, poll

CONFIG = LogConfig(
    backends={"file": FileConfig(file_path="x.log")},
    routing_rules=[{"backends": ["file"]}],
    isolation="process",
)


class FakeAgent:
    """A process that does nothing, and the other end of its keeper's socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(["sleep", "60"])
        self.channel = Channel(theirs)
        self.keepers_end = Channel(ours)
        self.heard: list[Any] = []

    def hear(self, kind: type) -> Any:
        """Wait for the next message of a kind; those before it are kept in `heard`."""
        while True:
            assert self.channel.wait(5), f"only {self.heard} came"
            for message in self.channel.receive():
                self.heard.append(message)
            if self.heard and isinstance(self.heard[-1], kind):
                return self.heard[-1]

    def answer(self, flush: Flush, *, complete: bool = True, dropped: int = 0) -> None:
        sums = LaneSums("low", "TEXT", 1, 0, {"raised": dropped} if dropped else {})
        self.channel.send(Flushed(flush.number, FlushReport([sums], [], complete)))

    def die(self) -> None:
        """End as a process does that is killed."""
        self.process.kill()
        self.channel.close()

    def close(self) -> None:
        self.channel.close()
        self.keepers_end.close()
        self.process.kill()
        self.process.wait()


class StandIn:
    """The thread that delivers in the agent's place, as far as the keeper knows it."""

    def __init__(self) -> None:
        self.served: list[int] = []
        self.started = self.stopped = False

    def serve(self, message: Serve) -> None:
        self.served.append(message.number)

    def start(self) -> bool:
        self.started = True
        return True

    def flush(self, positions: object, deadline: float) -> FlushReport:
        return FlushReport([LaneSums("low", "TEXT", 7)], [], complete=True)

    def stop(self, timeout: float) -> FlushReport:
        self.stopped = True
        return FlushReport.nothing()


class World:
    """A keeper over lanes of its own, and its agents."""

    def __init__(self, folder: Path, start: Callable[[], spawn.Started] | None = None) -> None:
        lanes = SharedLanes(folder / "lanes", Sizes(4096, 4, 4, 4))
        assert lanes.usable, lanes.problem
        self.intake = Intake(Journal(folder / "journal", 16 * 1024, 2, lanes), lanes.sizes, lanes)
        self.intake.start_drain = self._start
        self.agents: list[FakeAgent] = []
        self.stand_in = StandIn()
        self.start_agent = start or self._new_agent
        self.keeper: Keeper
        self.wire()

    def wire(self) -> HFTLogger:
        router = AgentRouter(CONFIG)
        pipeline = self.intake.register(router, list(router.backends.values()), Redactor())
        self.log = HFTLogger("x", pipeline=pipeline, intake=self.intake)
        return self.log

    def _start(self, intake: Intake) -> Keeper:
        def start(options: AgentConfig) -> spawn.Started:
            return self.start_agent()  # as it is then: tests replace it

        self.keeper = Keeper(intake, AgentConfig(5, 3, [0]), lambda: self.stand_in, start)
        for pipeline in intake.pipelines:
            self.keeper.add(pipeline)
        self.keeper.start()
        return self.keeper

    def _new_agent(self) -> spawn.Started:
        agent = FakeAgent()
        self.agents.append(agent)
        return spawn.Started(agent.process.pid, agent.keepers_end)

    def agent(self, number: int = 0) -> FakeAgent:
        poll(lambda: len(self.agents) > number)
        return self.agents[number]

    def close(self) -> None:
        self.keeper._left = True
        self.keeper._alert()
        self.keeper._thread.join(5)
        self.keeper.leave()
        for agent in self.agents:
            agent.close()
        self.intake.journal.close(settled=True)
        assert self.intake.lanes is not None
        self.intake.lanes.close(remove=True)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "say", lines.append)
    return lines


@pytest.fixture
def world(tmp_path: Path, said: list[str]) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start the work; what is returned waits for its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def wait() -> Any:
        thread.join(10)
        return results[0]

    return wait


def test_the_agent_is_told_at_once_who_it_works_for_and_what_to_serve(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = world.agent().hear(Serve)
    hello = world.agent().heard[0]
    assert isinstance(hello, Hello)
    lanes = world.intake.lanes
    assert lanes is not None
    assert (hello.pid, hello.stream) == (os.getpid(), str(lanes.stream_folder))
    assert hello.linger == 5
    assert (serve.number, unpack_config(serve.config)) == (0, CONFIG)
    assert serve.levels["WARNING"] == 30
    assert lanes.control.pipelines == 1


def test_a_further_pipeline_is_announced_before_its_logger_is_there(world: World) -> None:
    world.agent().hear(Serve)
    world.wire()
    assert world.intake.lanes is not None and world.intake.lanes.control.pipelines == 2
    poll(lambda: world.agent().hear(Serve).number == 1)


def test_a_flush_asks_for_what_was_written_until_then_and_waits_for_the_answer(world: World) -> None:
    world.log.info("a")
    before = tuple(room.position for room in world.intake.rooms)
    result = in_thread(lambda: world.log.force_flush(10))
    flush = world.agent().hear(Flush)
    assert flush.positions == before
    assert 5 < flush.deadline - time.monotonic() < 10.1
    world.agent().answer(flush)
    report = result()
    assert report and report.lanes[0].routed == 1


def test_a_flush_in_an_event_loop_waits_likewise(world: World) -> None:
    async def main() -> FlushReport:
        task = asyncio.create_task(world.log.flush())
        flush = await asyncio.to_thread(world.agent().hear, Flush)
        world.agent().answer(flush)
        return await task

    assert asyncio.run(main())


def test_flushes_of_many_threads_get_their_own_answers(world: World) -> None:
    results = [in_thread(lambda: world.log.force_flush(10)) for _ in range(5)]
    asked: dict[int, Flush] = {}
    while len(asked) < 5:
        world.agent().hear(Flush)
        asked |= {each.number: each for each in world.agent().heard if isinstance(each, Flush)}
    for flush in reversed(asked.values()):
        world.agent().answer(flush, complete=bool(flush.number % 2))
    assert sorted(bool(result()) for result in results) == [False, False, True, True, True]


def test_without_an_answer_a_flush_is_false_at_its_timeout(world: World) -> None:
    world.agent().hear(Serve)
    started = time.monotonic()
    report = world.log.force_flush(0.2)
    assert not report and not report.complete
    assert 0.2 <= time.monotonic() - started < 2


def test_losses_are_reported_once_also_where_the_agent_changes(world: World) -> None:
    def flush(agent: FakeAgent, dropped: int) -> FlushReport:
        result = in_thread(lambda: world.log.force_flush(10))
        agent.answer(agent.hear(Flush), dropped=dropped)
        report = result()
        assert isinstance(report, FlushReport)
        return report

    first = world.agent()
    assert flush(first, 3).newly_dropped == 3
    assert flush(first, 3).newly_dropped == 0
    assert flush(first, 5).newly_dropped == 2
    first.die()
    assert flush(world.agent(1), 1).newly_dropped == 1


def test_an_agent_that_dies_is_replaced_and_asked_again(world: World, said: list[str]) -> None:
    first = world.agent()
    first.hear(Serve)
    first.channel.send(Ready(first.process.pid))
    result = in_thread(lambda: world.log.force_flush(10))
    first.hear(Flush)
    poll(lambda: world.keeper._ready)
    first.die()
    second = world.agent(1)
    flush = second.hear(Flush)
    assert isinstance(second.heard[0], Hello) and isinstance(second.heard[1], Serve)
    second.answer(flush)
    report = result()
    assert report
    assert str(report).startswith("delivered (sums since the last of the agent's 2 starts)\n")
    poll(lambda: said)
    assert said == [
        f"the agent (pid {first.process.pid}) has ended (killed by signal 9); another one takes over where it was"
    ]


def test_an_agent_that_is_killed_leaves_no_zombie(world: World) -> None:
    first = world.agent()
    first.die()
    world.agent(1)
    with pytest.raises(ChildProcessError):
        os.waitpid(first.process.pid, os.WNOHANG)
    first.process.returncode = 0  # the keeper has waited for it


def test_an_agent_that_lets_go_and_does_not_end_is_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    first = world.agent()
    first.channel.close()
    world.agent(1)
    with pytest.raises(ProcessLookupError):
        os.kill(first.process.pid, 0)
    first.process.returncode = 0


def test_an_agent_that_speaks_nonsense_is_replaced(
    world: World, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    world.agent().channel.connection.send(b"\x00\x00\x00\x01\xc1")
    world.agent(1).hear(Hello | Serve)  # type: ignore[arg-type]  # isinstance takes it
    assert any("is not understood" in line for line in said)


def test_starts_that_fail_again_and_again_end_with_a_thread(tmp_path: Path, said: list[str]) -> None:
    tries: list[float] = []

    def fail() -> spawn.Started:
        tries.append(time.monotonic())
        raise OSError("no memory")

    world = World(tmp_path, fail)
    try:
        poll(lambda: world.keeper.stand_in is world.stand_in)
        assert len(tries) == 3
        assert said == [
            "no agent: it does not start (OSError: no memory); a thread of this process delivers instead"
        ]
        assert world.stand_in.served == [0] and world.stand_in.started
        assert world.log.force_flush(5).lanes[0].routed == 7
        assert asyncio.run(world.log.flush()).lanes[0].routed == 7
        world.wire()
        assert world.stand_in.served == [0, 1]
        world.keeper.end(1)
        assert world.stand_in.stopped
    finally:
        world.close()


def test_where_no_agent_can_be_a_thread_takes_over_at_once(tmp_path: Path, said: list[str]) -> None:
    def refuse() -> spawn.Started:
        raise spawn.CannotStart("there is no Python program to run it with")

    world = World(tmp_path, refuse)
    try:
        assert world.keeper.stand_in is world.stand_in
        assert "no Python program" in said[0]
        for number in range(400):
            world.log.audit("x", number=number, padding="y" * 200)
            time.sleep(0.0005)
        assert world.intake.audit.drops == {}  # the keeper still sees to the journal
    finally:
        world.close()


def test_an_agent_that_refuses_hands_over_to_a_thread(world: World, said: list[str]) -> None:
    waiting = in_thread(lambda: world.log.force_flush(10))
    world.agent().hear(Flush)
    world.agent().channel.send(Refused("another version"))
    assert waiting().lanes[0].routed == 7  # what was asked of the agent is asked of the thread
    assert "no agent: another version" in said[0]


def test_the_agent_may_ask_how_far_the_lanes_are_written(world: World) -> None:
    world.log.info("a")
    assert world.intake.lanes is not None
    page = world.intake.lanes.control.rooms["low"]
    assert page.position != world.intake.low.position
    world.agent().channel.send(Ask())
    poll(lambda: page.position == world.intake.low.position)


def test_journal_segments_are_made_ready_by_the_keeper(world: World) -> None:
    for number in range(400):
        world.log.audit("x", number=number, padding="y" * 200)
        time.sleep(0.0005)
    assert world.intake.audit.drops == {}
    poll(lambda: len(world.intake.journal.supply) == world.intake.journal.spare)


def test_the_keeper_sleeps_while_nothing_happens(world: World) -> None:
    world.agent().hear(Serve)
    turns = []
    original = world.keeper._turn
    world.keeper._turn = lambda: (turns.append(1), original())  # type: ignore[method-assign, assignment]
    world.log.info("a")
    time.sleep(0.3)
    assert len(turns) <= 1


def test_an_agent_at_work_goes_on_without_a_word(world: World, said: list[str]) -> None:
    world.agent()
    world.keeper.end(0.05)  # it is just starting
    says(world).beat(FlushReport.nothing())
    world.keeper.end(0.05)
    assert said == []


def says(world: World) -> Pulse:
    """What the agent's status is written by."""
    assert world.intake.lanes is not None
    return Pulse(world.intake.lanes.stream_folder, 1)


@pytest.mark.parametrize("doubt", ["problem", "loss", "bug", "silence", "never a word", "process 1"])
def test_the_last_words_say_who_goes_on(
    world: World, said: list[str], monkeypatch: pytest.MonkeyPatch, doubt: str
) -> None:
    pid = world.agent().process.pid
    report = FlushReport([], [DestinationSums("otlp", "TEXT", 2, 1)], complete=True)
    if doubt == "problem":
        says(world).beat(report, problem_of=lambda name: "connection refused")
    elif doubt == "loss":
        report.destinations[0].dropped["queue_full"] = 1
        says(world).beat(report)
    elif doubt == "bug":
        says(world).beat(report, problems=["a bug"])
    elif doubt == "silence":
        said_last = says(world)
        said_last._clock = lambda: time.time() - 60
        said_last.beat(report)
    elif doubt == "never a word":
        world.keeper._started_at -= 60
    else:
        monkeypatch.setattr(module.os, "getpid", lambda: 1)
    world.keeper.end(0.05)
    assert said == [
        "exit after at most 0.05 s with records not delivered yet; "
        f"the agent (pid {pid}) goes on for at most 5 s, what is left then waits for the next start"
    ]


def test_the_last_words_name_where_records_wait_when_nobody_delivers(world: World, said: list[str]) -> None:
    world.start_agent = lambda: (_ for _ in ()).throw(OSError("no memory"))
    world.keeper._worked = True
    world.agent().die()
    poll(lambda: not world.keeper.pid)
    world.keeper.end(0.05)
    assert world.intake.lanes is not None
    assert f"they wait in {world.intake.lanes.stream_folder} for the next start" in said[-1]


def test_a_forked_child_lets_go_of_the_parents_agent(world: World) -> None:
    world.agent().hear(Serve)
    keeper = world.keeper
    assert keeper._channel is not None
    held = [keeper._wake, keeper._poke, keeper._channel.fileno()]
    child = os.fork()
    if not child:
        left = 0
        for descriptor in held:
            try:
                os.fstat(descriptor)
                left += 1
            except OSError:
                pass
        os._exit(left)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for descriptor in held:
        os.fstat(descriptor)


def test_descriptors_that_the_application_has_closed_are_made_anew(
    world: World, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As programs do that become a daemon."""
    monkeypatch.setattr(module, "_RETRY", 0.01)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    world.agent().hear(Serve)
    keeper = world.keeper
    assert keeper._channel is not None
    with keeper._channel.connection as connection:
        for descriptor in (keeper._wake, connection.fileno()):
            os.close(descriptor)
        with suppress(BrokenPipeError):  # the keeper has looked already
            os.write(keeper._poke, b"\0" * 8)
        connection.detach()
        result = in_thread(lambda: world.log.force_flush(10))
        second = world.agent(1)
        second.answer(second.hear(Flush))
        assert result()
    assert len([line for line in said if "after an error" in line]) <= 2


def test_errors_that_do_not_end_have_a_thread_take_over(
    world: World, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY", 0.01)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    agent = world.agent()
    agent.hear(Serve)
    agent.channel.send(Ready(agent.process.pid))
    poll(lambda: world.keeper._ready)
    in_use = iter([BlockingIOError("in use")])
    opened: list[bool] = []

    def take_over() -> StandIn:
        opened.append(spawn.ended(agent.process.pid) == "it ended")
        for error in in_use:
            raise error
        return world.stand_in

    def fail(*watched: object) -> set[int]:
        raise ValueError("filedescriptor out of range")

    world.keeper._take_over = take_over  # type: ignore[assignment]
    monkeypatch.setattr(module.wire, "readable", fail)
    world.keeper._alert()
    poll(lambda: world.keeper.stand_in is world.stand_in)
    assert opened == [True, True]  # the agent had let go of the lanes; what failed was tried again
    assert said == [
        "the agent's keeper goes on after an error: ValueError: filedescriptor out of range",
        "no agent: its keeper fails again and again (ValueError: filedescriptor out of range); "
        "a thread of this process delivers instead",
    ]
    assert world.log.force_flush(5).lanes[0].routed == 7
    agent.process.returncode = 0


def test_a_few_errors_are_no_reason_to_give_up(
    world: World, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY", 0.001)
    agent = world.agent()
    agent.hear(Serve)
    errors = iter([ValueError(str(number)) for number in range(9)])
    replenished = world.intake.journal.replenish

    def replenish() -> None:
        for error in errors:
            raise error
        replenished()

    monkeypatch.setattr(world.intake.journal, "replenish", replenish)
    monkeypatch.setattr(world.intake.journal, "left", [1], raising=False)
    result = in_thread(lambda: world.log.force_flush(10))
    agent.answer(agent.hear(Flush))
    assert result()
    assert world.keeper.stand_in is None
    assert len(said) == 9


CROWDED = """
import os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard > 0 else 4096, hard))
while os.dup(0) < 1100:
    pass
"""
LOGS = """
log.info("many are open")
print(bool(log.force_flush(60)))
"""


def test_a_process_with_more_descriptors_than_select_takes_has_an_agent(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < 2048:
        pytest.skip(f"this machine lets a process open {hard} files at most")
    done = subprocess.run(
        [sys.executable, "-c", CROWDED + TRADER + LOGS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert "many are open" in (tmp_path / "out.log").read_text()


def test_the_end_of_a_process_is_told() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert spawn.ended(process.pid) == ""
    process.send_signal(signal.SIGKILL)
    poll(lambda: spawn.ended(process.pid) == "killed by signal 9")
    assert spawn.ended(process.pid) == "it ended"
    process.returncode = 0


def test_gone_is_an_os_error() -> None:
    assert issubclass(Gone, OSError)


@pytest.fixture
def disk_error(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """What the disk answers whoever wants something to be on it; empty: it does as it is asked."""
    errors: list[OSError] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        if errors:
            raise errors[0]
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return errors


def test_a_disk_that_refuses_to_sync_is_said_once_and_its_end_too_and_the_agent_is_told(
    world: World, said: list[str], disk_error: list[OSError]
) -> None:
    world.keeper._notices._out = said.append
    world.agent().hear(Serve)
    world.intake.sync_audits()
    log = world.wire()
    disk_error.append(OSError(5, "Input/output error"))
    log.audit("a")
    told = world.agent().hear(Trouble)
    assert "Input/output error" in told.problem
    log.audit("b")
    disk_error.clear()
    poll(lambda: said)
    log.audit("c")
    assert world.agent().hear(Trouble) == Trouble("")
    poll(lambda: len(said) == 2)
    assert "is not on the disk: [Errno 5] Input/output error" in said[0]
    assert said[1] == "the audit journal has recovered"


def test_a_successor_is_told_what_is_wrong_with_the_journal(
    world: World, said: list[str], disk_error: list[OSError]
) -> None:
    first = world.agent()
    first.hear(Serve)
    world.intake.sync_audits()
    disk_error.append(OSError(5, "Input/output error"))
    world.wire().audit("a")
    first.hear(Trouble)
    first.channel.send(Ready(first.process.pid))
    first.die()
    assert "Input/output error" in world.agent(1).hear(Trouble).problem
