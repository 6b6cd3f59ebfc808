"""The agent's program and what it is started with: refusals, odd beginnings, and a real one that is let go."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hft_otel.agent import run as module
from hft_otel.agent import spawn
from hft_otel.agent.remote import AgentRouter, InAgent, obstacle
from hft_otel.agent.service import Service, Unbuilt
from hft_otel.agent.status import look
from hft_otel.agent.wire import PROTOCOL, Channel, Hello, Ready, Refused, Serve, Trouble
from hft_otel.building import Builder
from hft_otel.config import AgentConfig, ConsoleConfig, CustomConfig, FileConfig, LogConfig
from hft_otel.lanes import streams
from hft_otel.lanes.intake import Intake, Sizes
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.shared import SharedLanes
from hft_otel.logger import HFTLogger
from hft_otel.record import LogLevel, LogRecord, LogType
from hft_otel.redaction import Redactor
from tests.unit.core_support import TRADER, poll

PROGRAM = Path(spawn.__file__).with_name("__main__.py")


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, socket.socket]]:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with theirs:
        yield channel, theirs
    channel.close()


def hello(version: int = PROTOCOL) -> Hello:
    return Hello(version, os.getpid(), "/nowhere/lanes", "/nowhere/journal", 1.0, {})


def test_the_program_says_who_starts_it() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "is started by the trading process" in done.stderr


def test_a_trading_process_that_is_gone_at_once_leaves_nothing_to_do() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-P", str(PROGRAM), str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE)
    ours.close()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, b"")


def test_a_program_that_was_replaced_by_another_version_is_refused(
    ends: tuple[Channel, socket.socket],
) -> None:
    ends[0].send(hello(PROTOCOL + 1))
    assert module.run(ends[1]) == 1
    answer = ends[0].first(5)
    assert isinstance(answer, Refused) and "another version" in answer.why


def test_a_stream_that_is_not_there_is_refused(ends: tuple[Channel, socket.socket]) -> None:
    ends[0].send(hello())
    assert module.run(ends[1]) == 1
    answer = ends[0].first(5)
    assert isinstance(answer, Refused) and "/nowhere/lanes" in answer.why


def test_one_that_says_nothing_is_not_waited_for(
    ends: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST", 0.05)
    assert module.run(ends[1]) == 0


def test_the_agent_may_open_as_many_files_as_the_system_lets_it() -> None:
    """Whatever the trading process may open."""
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert ours[1] > 1000 or ours[1] < 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, ours[1]))
    try:
        started = spawn.start(AgentConfig())
        try:
            most = (ours[1], ours[1])
            poll(lambda: resource.prlimit(started.pid, resource.RLIMIT_NOFILE) == most)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1000, ours[1])
        finally:
            started.channel.close()
            poll(lambda: spawn.ended(started.pid))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, ours)


@pytest.mark.parametrize("what", ["frozen", "nameless", "packed"])
def test_where_python_cannot_be_started_that_is_said(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif what == "nameless":
        monkeypatch.setattr(sys, "executable", "")
    else:
        monkeypatch.setattr(spawn, "_PROGRAM", Path("/app.zip/hft_otel/agent/__main__.py"))
    with pytest.raises(spawn.CannotStart):
        spawn.start(AgentConfig())


def test_an_interpreter_that_is_gone_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError):
        spawn.start(AgentConfig())


def test_what_python_needs_is_in_the_environment_and_the_rest_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_TOKEN", "x")
    monkeypatch.setenv("LC_TIME", "C")
    sent = spawn.exported()
    assert sent["MY_TOKEN"] == "x"
    assert not {"PATH", "LC_TIME", "PYTHONPATH"} & set(sent)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (FileConfig(), ""),
        (ConsoleConfig(), ""),
        (ConsoleConfig(through="stdlib"), "Python's logging of this process"),
        (CustomConfig(class_path="app:Mine"), ""),
        (CustomConfig(class_path="__main__:Mine"), "a class of the program itself"),
        (CustomConfig(class_path="app:Mine", config={"lock": object()}), "cannot be sent to another process"),
        (CustomConfig(enabled=False, class_path="__main__:Mine"), ""),
    ],
)
def test_what_only_this_process_can_serve_is_said(backend: FileConfig, said: str) -> None:
    why = obstacle(LogConfig(backends={"it": backend}))
    assert said in why
    assert bool(why) is bool(said)


def test_a_backend_in_the_agent_answers_gates_and_takes_nothing() -> None:
    config = LogConfig(
        backends={"file": FileConfig()}, routing_rules=[{"backends": ["file"], "min_level": "ERROR"}]
    )
    router = AgentRouter(config)
    assert router.threshold("x") == 40
    (stand_in,) = router.get_backends(LogRecord(1.0, LogLevel.ERROR, LogType.TEXT, "x", "m", {}))
    assert isinstance(stand_in, InAgent) and repr(stand_in) == "<InAgent file>"
    with pytest.raises(RuntimeError, match="lives in the agent"):
        asyncio.run(stand_in.write(LogRecord(1.0, LogLevel.ERROR, LogType.TEXT, "x", "m", {})))
    asyncio.run(stand_in.flush())


def test_what_could_not_be_built_says_why_whenever_it_is_asked() -> None:
    unbuilt = Unbuilt("mine", RuntimeError("no licence"))
    for call in (unbuilt.open, lambda: unbuilt.deliver([])):
        with pytest.raises(RuntimeError, match="no licence"):
            call()
    assert Unbuilt("mine", RuntimeError()).why == "RuntimeError"


@dataclass
class Trader:
    """The trading process's side, as far as an agent or a thread in its place reads it."""

    lanes: SharedLanes
    intake: Intake
    router: AgentRouter
    logger: HFTLogger

    @classmethod
    def within(cls, folder: Path) -> Trader:
        lanes = SharedLanes(folder / "lanes", Sizes(4096, 4, 4, 4))
        intake = Intake(Journal(folder / "journal", 16 * 1024, 2, lanes), lanes.sizes, lanes)
        config = LogConfig(
            backends={"file": FileConfig(file_path=str(folder / "out.log"))},
            routing_rules=[{"backends": ["file"]}],
        )
        router = AgentRouter(config)
        logger = HFTLogger("x", pipeline=intake.register(router, [], Redactor()), intake=intake)
        intake.announce(1)
        return cls(lanes, intake, router, logger)

    def hello(self, pid: int) -> Hello:
        return Hello(
            PROTOCOL, pid, str(self.lanes.stream_folder), str(self.intake.journal.stream_folder), 5.0, {}
        )

    def serve(self) -> Serve:
        return Serve(0, self.router.packed, {})

    def service(self) -> Service:
        return Service.open(
            str(self.lanes.stream_folder), str(self.intake.journal.stream_folder), Builder(Unbuilt)
        )

    def die(self) -> None:
        self.intake.journal.close(settled=False)
        self.lanes.close(remove=False)


def test_who_dies_before_saying_how_to_deliver_leaves_its_records_to_the_next_start(tmp_path: Path) -> None:
    trader = Trader.within(tmp_path)
    trader.logger.info("waits")
    trader.logger.audit("waits too")
    service = trader.service()
    assert streams.try_lock(trader.lanes.stream_folder, streams.AGENT_LOCK) is None
    trader.die()
    service.writer_gone()
    report = service.stop(1)
    assert not report.complete
    assert [sums.pending for sums in report.lanes if sums.lane in ("low", "audit")] == [1, 1]
    successor = trader.service()  # the locks are free
    successor.serve(trader.serve())
    successor.writer_gone()
    assert successor.stop(10).complete
    text = (tmp_path / "out.log").read_text()
    assert "waits" in text and "waits too" in text
    assert not trader.lanes.stream_folder.exists()


def test_an_agent_whose_trading_process_dies_before_saying_how_to_deliver_ends_in_peace(
    tmp_path: Path,
) -> None:
    """What it prints is the trading process's output: no traceback belongs there."""
    trader = Trader.within(tmp_path)
    script = (
        "import sys, msgspec; from hft_otel.agent import spawn, wire; from hft_otel.config import AgentConfig\n"
        "started = spawn.start(AgentConfig())\n"
        "started.channel.send(wire.Hello(wire.PROTOCOL, __import__('os').getpid(), *sys.argv[1:], 5.0, {}))"
    )
    folders = (str(trader.lanes.stream_folder), str(trader.intake.journal.stream_folder))
    done = subprocess.run(
        [sys.executable, "-c", script, *folders], capture_output=True, text=True, timeout=60, check=False
    )  # returns once the agent has closed its output, too
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert streams.try_lock(trader.lanes.stream_folder, streams.AGENT_LOCK) is not None
    trader.intake.journal.close(settled=True)
    trader.lanes.close(remove=True)


RESTARTS_ITSELF = """
assert log.force_flush(60)
log.info("first"); log.audit("second")
os.execv(sys.executable, [sys.executable, "-c", "print('restarted', flush=True); input()"])
"""

CLOSES_ALL = """
log.info("first")
assert log.force_flush(60)
os.closerange(3, 1024)
log.info("second")
print(bool(log.force_flush(60)), len(list((folder / "lanes").iterdir())), flush=True)
"""


def test_a_program_that_restarts_itself_has_ended_for_its_agent(tmp_path: Path) -> None:
    """It keeps its number, and its agent as a child; the next agent looks for what is left when it starts only."""
    command = [sys.executable, "-c", TRADER + RESTARTS_ITSELF, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as trader:
        assert trader.stdin and trader.stdout
        assert trader.stdout.readline() == "restarted\n"
        for place in ("lanes", "journal"):
            poll(lambda place=place: not list(streams.others(tmp_path / place)))  # type: ignore[misc]
        text = (tmp_path / "out.log").read_text()
        assert text.count("first") == text.count("second") == 1
        assert trader.poll() is None
        trader.stdin.write("\n")
    assert trader.returncode == 0


def test_a_program_that_closes_all_descriptors_goes_on(tmp_path: Path) -> None:
    """The lock of its lanes is free then, too."""
    command = [sys.executable, "-c", TRADER + CLOSES_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "True 1\n"), done.stderr
    assert "second" in (tmp_path / "out.log").read_text()


def test_an_agent_that_is_let_go_ends_and_leaves_what_it_did_not_settle(tmp_path: Path) -> None:
    """A keeper lets go of it where a thread takes over; what is not delivered is then the thread's."""
    trader = Trader.within(tmp_path)
    trader.logger.info("delivered")
    started = spawn.start(AgentConfig())
    try:
        started.channel.send(trader.hello(os.getpid()))
        started.channel.send(trader.serve())
        assert started.channel.first(30) == Ready(started.pid)
        started.channel.send(Trouble("the disk is full; audit events go to /second"))
        poll(lambda: any(seen.status and seen.status.problems for seen in look(tmp_path / "lanes")), 10)
        [seen] = look(tmp_path / "lanes")
        assert seen.status and seen.status.problems == ["the disk is full; audit events go to /second"]
        started.channel.send(Trouble(""))
        poll(lambda: all(seen.status and not seen.status.problems for seen in look(tmp_path / "lanes")), 10)
        trader.intake.publish()  # as a keeper does when it is asked
        poll(lambda: (tmp_path / "out.log").exists() and "delivered" in (tmp_path / "out.log").read_text())
    finally:
        started.channel.close()
    ways: list[str] = []
    poll(lambda: ways.append(spawn.ended(started.pid)) or ways[-1], 30)
    assert ways[-1] == "exit status 0"
    assert trader.lanes.stream_folder.exists()  # its process lives
    trader.intake.journal.close(settled=True)
    trader.lanes.close(remove=True)
