"""The end of a process, however it comes: what was logged arrives, within a bound, without noise."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hft_otel import lifecycle

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import asyncio, atexit, multiprocessing, os, signal, sys, threading, time
from hft_otel import CustomConfig, FileConfig, LogConfig, LoggerFactory
from hft_otel.config import JournalConfig

def make(extra=None, **options):
    backends = {"file": FileConfig(file_path="out.jsonl", format="json"), **(extra or {})}
    rules = [{"backends": list(backends)}]
    # no trail: what is left here is what was not delivered
    options.setdefault("journal", JournalConfig(folder="journal", segment_kb=64, spare_segments=1, keep_days=0))
    config = LogConfig(backends=backends, routing_rules=rules, **options)
    return LoggerFactory.create_logger("test", config)

BLOCKED = {"blocked": CustomConfig(class_path="backends:Blocked")}
DOWN = {"down": CustomConfig(class_path="backends:Down")}

def ready():
    print("ready", flush=True)
"""
BACKENDS = """
import threading
import time
from hft_otel import LogBackend
from hft_otel.destinations.base import RetryLater

class Blocked(LogBackend):
    async def write(self, record):
        time.sleep(60)

building = threading.Event()

class Slow(LogBackend):
    def __init__(self):
        building.set()
        time.sleep(0.3)

    async def write(self, record):
        pass

class Down(LogBackend):
    async def write(self, record):
        raise RetryLater("unavailable")
"""


class Program:
    """A script in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "backends.py").write_text(BACKENDS)

    def start(self, body: str) -> subprocess.Popen[str]:
        """Start it; its parts that define nothing belong under `if __name__`, where it uses multiprocessing."""
        script = self.folder / "program.py"
        script.write_text(PREAMBLE + textwrap.dedent(body))
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}",
            "PYTHONWARNINGS": "error",
        }
        return subprocess.Popen(
            [sys.executable, str(script)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, body: str) -> tuple[int, str]:
        """Run it to its end; return the exit status and what it said on stderr."""
        process = self.start(body)
        _, stderr = process.communicate(timeout=30)
        return process.returncode, stderr

    def run_and_terminate(self, body: str) -> tuple[int, str, float]:
        """Send it SIGTERM once it is ready; return also how long it took to end."""
        process = self.start(body)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=30)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
        return process.returncode, stderr, time.monotonic() - started

    @property
    def lines(self) -> list[str]:
        """What arrived in the file."""
        path = self.folder / "out.jsonl"
        if not path.exists():
            return []
        records = map(json.loads, path.read_text().splitlines())
        return [next(str(value) for key, value in record.items() if key in KEYS) for record in records]

    @property
    def streams(self) -> int:
        """How many processes left something in the journal."""
        journal = self.folder / "journal"
        return len(list(journal.iterdir())) if journal.exists() else 0


KEYS = ("message", "body", "event")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_a_normal_exit_delivers_everything_and_says_nothing(program: Program) -> None:
    status, stderr = program.run(
        """
        log = make()
        for number in range(3000):
            log.info(f"line {number}")
        log.audit("last")
        """
    )
    assert (status, stderr) == (0, "")
    assert len(program.lines) == 3001
    assert program.streams == 0


def test_what_is_logged_by_an_exit_handler_registered_before_the_first_logger_arrives(
    program: Program,
) -> None:
    status, stderr = program.run(
        """
        def flatten():
            log.audit("positions_flattened")
            log.error("stopped")

        atexit.register(flatten)
        log = make()
        log.info("at work")
        """
    )
    assert (status, stderr) == (0, "")
    assert sorted(program.lines) == ["at work", "positions_flattened", "stopped"]
    assert program.streams == 0


@pytest.mark.parametrize("durability", ["process", "sync"])
def test_audits_after_the_end_wait_in_the_journal_and_text_is_said_to_be_lost(
    program: Program, durability: str
) -> None:
    late = f"""
        from hft_otel import lifecycle
        log = make(journal=JournalConfig(folder="journal", segment_kb=64, keep_days=0, durability="{durability}"))
        log.audit("in time")
        lifecycle.end_now()
        assert not os.listdir("journal")  # all is settled, and no file is made before there is something for it
        for number in range(1000):
            log.audit("late", pad="x" * 100)
            log.error("too late")
        print("ready", flush=True)
        """
    status, stderr = program.run(late)
    assert status == 0
    assert stderr.count("is lost (after_shutdown)") == 1, stderr
    assert program.lines == ["in time"]
    assert program.streams == 1
    assert program.run("make().force_flush(10)") == (0, "")
    assert program.lines == ["in time", *["late"] * 1000]
    assert program.streams == 0


def test_an_exit_by_an_exception_delivers_what_led_to_it(program: Program) -> None:
    status, stderr = program.run(
        """
        log = make()
        log.error("about to fail")
        raise SystemExit(7)
        """
    )
    assert (status, stderr) == (7, "")
    assert program.lines == ["about to fail"]


@pytest.mark.parametrize("backends", ["BLOCKED", "DOWN"])
def test_an_exit_with_a_destination_in_trouble_ends_in_time_and_says_how_many_are_left(
    program: Program, backends: str
) -> None:
    status, stderr = program.run(
        f"""
        log = make({backends}, exit_timeout=0.6)
        for number in range(5):
            log.info("x")
        log.audit("a")
        """
    )
    assert status == 0
    [line] = [line for line in stderr.splitlines() if "not delivered" in line]
    name = backends.lower()
    assert line.startswith("hft-otel: exit after at most 0.6 s with records not delivered: ")
    assert f"{name} TEXT 5" in line
    assert f"{name} AUDIT 1" in line
    assert "1 audit deliveries stay in the journal for the next start" in line
    assert "Traceback" not in stderr
    assert sorted(program.lines) == ["a", *["x"] * 5]
    assert program.streams == 1


def test_the_bound_of_the_exit_holds(program: Program) -> None:
    process = program.start(
        """
        log = make(BLOCKED, exit_timeout=0.5)
        log.info("x")
        time.sleep(0.05)
        ready()
        """
    )
    assert process.stdout is not None
    process.stdout.readline()
    started = time.monotonic()
    process.communicate(timeout=30)
    assert time.monotonic() - started < 0.5 + 1.0  # half a second on a quiet machine


def test_the_audit_that_was_left_is_delivered_at_the_next_start(program: Program) -> None:
    program.run("make(DOWN, exit_timeout=0.2).audit('early')")
    assert program.streams == 1
    before = program.lines
    status, stderr = program.run(
        """
        log = make()
        deadline = time.monotonic() + 10
        while "recovered" not in str(log.force_flush()) or os.listdir("journal")[1:]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        """
    )
    assert (status, stderr) == (0, "")
    assert program.lines == [*before, "early"]
    assert program.streams == 0


class TestSigterm:
    def test_without_a_handler_drains_and_ends_the_process_as_it_would_have(self, program: Program) -> None:
        status, stderr, took = program.run_and_terminate(
            """
            log = make()
            for number in range(2000):
                log.info(f"line {number}")
            ready()
            while True:
                time.sleep(10)
            """
        )
        assert (status, stderr) == (-signal.SIGTERM, "")
        assert len(program.lines) == 2000
        assert took < 20  # a tenth of a second on a quiet machine

    def test_with_a_blocked_destination_ends_in_time(self, program: Program) -> None:
        status, stderr, took = program.run_and_terminate(
            """
            log = make(BLOCKED, exit_timeout=0.5)
            log.info("x")
            ready()
            while True:
                log.info("x")
                time.sleep(0.001)
            """
        )
        assert status == -signal.SIGTERM
        assert "not delivered" in stderr and "Traceback" not in stderr
        assert took < 0.5 + 1.0

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_with_a_handler_of_the_application_calls_that_at_once_and_nothing_else(
        self, program: Program, order: str
    ) -> None:
        install = "signal.signal(signal.SIGTERM, handler)"
        status, stderr, _ = program.run_and_terminate(
            f"""
            def handler(number, frame):
                with open("handled", "w") as file:
                    file.write(str(log.force_flush(5)))
                log.info("still logging")
                os._exit(5) if not log.force_flush(5) else sys.exit(3)

            {install if order == "before" else ""}
            log = make()
            {install if order == "after" else ""}
            log.info("x")
            ready()
            while True:
                time.sleep(10)
            """
        )
        assert (status, stderr) == (3, "")
        assert (program.folder / "handled").exists()
        assert program.lines == ["x", "still logging"]

    def test_ignored_by_the_application_stays_ignored(self, program: Program) -> None:
        status, stderr, _ = program.run_and_terminate(
            """
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            log = make()
            log.info("x")
            ready()
            time.sleep(0.3)
            log.info("y")
            """
        )
        assert (status, stderr) == (0, "")
        assert program.lines == ["x", "y"]

    def test_during_the_drain_of_an_exit_does_not_cut_it_short(self, program: Program) -> None:
        status, stderr, _ = program.run_and_terminate(
            """
            log = make(DOWN, exit_timeout=1.0)
            log.info("x")
            log.force_flush(0.1)

            def during_the_drain():  # which waits a second for the one that is down
                from hft_otel import lifecycle

                while not lifecycle._stopping:
                    time.sleep(0.001)
                ready()

            threading.Thread(target=during_the_drain, daemon=True).start()
            """
        )
        assert status == -signal.SIGTERM
        assert "down TEXT 1" in stderr
        assert program.lines == ["x"]

    def test_in_an_asyncio_program_drains(self, program: Program) -> None:
        status, stderr, _ = program.run_and_terminate(
            """
            async def main():
                log = make()
                log.info("x")
                ready()
                await asyncio.sleep(60)
            asyncio.run(main())
            """
        )
        assert (status, stderr) == (-signal.SIGTERM, "")
        assert program.lines == ["x"]

    def test_chained_by_a_handler_that_came_later_drains(self, program: Program) -> None:
        status, _, _ = program.run_and_terminate(
            """
            log = make()
            previous = signal.getsignal(signal.SIGTERM)
            def handler(number, frame):
                log.info("handler")
                previous(number, frame)
            signal.signal(signal.SIGTERM, handler)
            ready()
            while True:
                time.sleep(10)
            """
        )
        assert status == -signal.SIGTERM
        assert program.lines == ["handler"]


@pytest.mark.parametrize("which", ["the same", "another"])
def test_sigterm_drains_once_the_main_thread_has_made_a_logger_after_another_thread(
    program: Program, which: str
) -> None:
    """Python lets only the main thread set handlers."""
    status, stderr, _ = program.run_and_terminate(f"""
        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        log = make() if {which == "the same"} else make(global_context=dict(part='b'))
        for number in range(2000):
            log.info("late")
        ready()
        time.sleep(60)
    """)
    assert (status, stderr) == (-signal.SIGTERM, "")
    assert program.lines == ["late"] * 2000


def test_a_default_that_the_application_has_put_back_stays(program: Program) -> None:
    status, said = program.run("""
        make()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        make()
        make(global_context=dict(part='b'))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    """)
    assert (status, said) == (0, "")


class TestChildren:
    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_of_multiprocessing_deliver_before_they_end(self, program: Program, method: str) -> None:
        status, stderr = program.run(
            f"""
            def work(number):
                make().info(f"child {{number}}")

            if __name__ == "__main__":
                context = multiprocessing.get_context("{method}")
                log = make()
                log.info("parent")
                log.force_flush()
                children = [context.Process(target=work, args=(number,)) for number in range(2)]
                for child in children:
                    child.start()
                for child in children:
                    child.join()
                    assert child.exitcode == 0
                log.info("parent again")
            """
        )
        assert (status, stderr) == (0, "")
        assert sorted(program.lines) == ["child 0", "child 1", "parent", "parent again"]
        assert program.streams == 0

    @pytest.mark.parametrize("made", ["while main is imported", "while arguments are unpickled"])
    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_of_multiprocessing_deliver_by_a_logger_from_before_their_work(
        self, program: Program, method: str, made: str
    ) -> None:
        early = made == "while main is imported"
        status, stderr = program.run(
            f"""
            def work(log, number):
                log.info(f"child {{number}}")

            def work_early(number):
                log.info(f"child {{number}}")

            if {early} or __name__ == "__main__":
                log = make()

            if __name__ == "__main__":
                context = multiprocessing.get_context("{method}")
                children = [
                    context.Process(target=work_early, args=(number,))
                    if {early} else context.Process(target=work, args=(log, number))
                    for number in range(2)
                ]
                for child in children:
                    child.start()
                for child in children:
                    child.join()
                    assert child.exitcode == 0
            """
        )
        assert (status, stderr) == (0, "")
        assert sorted(program.lines) == ["child 0", "child 1"]

    def test_by_os_fork_deliver_and_leave_the_parent_alone(self, program: Program) -> None:
        status, stderr = program.run(
            """
            log = make()
            for number in range(200):
                log.info(f"parent {number}")
                log.audit(f"parent audit {number}")
            child = os.fork()
            if not child:
                log.info("child")
                log.audit("child audit")
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            log.info("parent at last")
            log.audit("parent audit at last")
            report = log.force_flush()
            assert report, report
            assert "audit AUDIT: emitted 201 " in str(report), report
            """
        )
        assert (status, stderr) == (0, "")
        lines = program.lines
        assert len(lines) == 404
        assert lines.count("child") == lines.count("child audit") == 1
        assert lines[-2:] == ["parent at last", "parent audit at last"] or set(lines[-2:]) == {
            "parent at last",
            "parent audit at last",
        }
        assert program.streams == 0

    def test_by_os_fork_may_make_a_logger_while_another_thread_logs_first(self, program: Program) -> None:
        """Both start what the child has of its own, and must not wait for each other."""
        status, said = program.run("""
            import backends
            log = make()
            assert log.force_flush(10)
            child = os.fork()
            if not child:
                signal.alarm(20)  # ends a child that waits for ever
                slow = {"slow": CustomConfig(class_path="backends:Slow")}
                backends.building.clear()
                maker = threading.Thread(target=make, args=(slow,))
                maker.start()
                assert backends.building.wait(10)
                log.info("child")
                maker.join()
                os._exit(0 if log.force_flush(10) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """)
        assert (status, said) == (0, "")
        assert program.lines == ["child"]

    def test_by_os_fork_that_never_log_end_at_once_and_touch_nothing_of_the_parent(
        self, program: Program
    ) -> None:
        status, stderr = program.run(
            """
            log = make(DOWN, exit_timeout=0.4)
            log.audit("waits")
            log.force_flush(0.1)
            child = os.fork()
            if not child:
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            log.audit("more")
            assert os.listdir("journal")
            """
        )
        assert status == 0, stderr
        assert len([line for line in stderr.splitlines() if "not delivered" in line]) == 1, (
            "it drained its parent's"
        )
        assert "down AUDIT 2" in stderr
        assert program.streams == 1

    def test_that_are_terminated_drain_their_own(self, program: Program) -> None:
        status, stderr = program.run(
            """
            def work(ready):
                log = make()
                log.info("child")
                ready.set()
                time.sleep(60)

            if __name__ == "__main__":
                context = multiprocessing.get_context("fork")
                log = make()
                log.info("parent")
                log.force_flush()
                ready = context.Event()
                child = context.Process(target=work, args=(ready,))
                child.start()
                ready.wait()
                child.terminate()
                child.join()
                assert child.exitcode == -signal.SIGTERM
            """
        )
        assert (status, stderr) == (0, "")
        assert sorted(program.lines) == ["child", "parent"]


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_an_end_without_any_goodbye_loses_no_audit_event(program: Program, end: str) -> None:
    program.run(
        f"""
        log = make(DOWN)
        for number in range(100):
            log.audit(f"event {{number}}")
        {end}
        """
    )
    assert program.streams == 1
    status, stderr = program.run(
        """
        log = make()
        deadline = time.monotonic() + 10
        while len(os.listdir("journal")) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        """
    )
    assert (status, stderr) == (0, "")
    assert {f"event {number}" for number in range(100)} <= set(program.lines)
    assert program.streams == 0


def test_threads_that_log_and_fail_while_the_process_ends_make_no_noise_of_ours(program: Program) -> None:
    status, stderr = program.run(
        """
        log = make()

        def flood():
            while True:
                log.info("x")
                log.audit("y")
                time.sleep(0.0005)

        for _ in range(4):
            threading.Thread(target=flood, daemon=True).start()
        time.sleep(0.1)
        """
    )
    assert status == 0
    assert not re.search("Traceback|Exception|Fatal", stderr), stderr


def test_logging_and_flushing_at_the_very_end_raise_nothing_and_do_not_wait(program: Program) -> None:
    status, stderr = program.run(
        """
        started = []
        def last():
            log.info("after the drain")
            log.audit("after the drain")
            started.append(time.monotonic())
            log.force_flush(20)
            assert time.monotonic() - started[0] < 5

        class Late:
            def __del__(self):
                log.info("later still")

        from hft_otel import lifecycle
        atexit.unregister(lifecycle.end_now)
        atexit.register(last)
        atexit.register(lifecycle.end_now)  # now it comes before `last`
        log = make()
        late = Late()
        log.info("x")
        """
    )
    assert status == 0
    [line] = stderr.splitlines()
    assert "what is logged after the end of telemetry is lost" in line
    assert program.lines == ["x"]


class TestAtEnd:
    """What happens inside, for those branches that a process of its own cannot show one by one."""

    @pytest.fixture(autouse=True)
    def _no_end_of_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifecycle, "_stop", None)
        monkeypatch.setattr(lifecycle, "_stopping", False)
        monkeypatch.setattr(lifecycle, "_terminated", False)
        monkeypatch.setattr(lifecycle, "_at_sigterm", True)
        self.kills: list[tuple[int, int]] = []
        monkeypatch.setattr(lifecycle.os, "kill", lambda *call: self.kills.append(call))
        monkeypatch.setattr(lifecycle.signal, "signal", lambda *call: None)

    def test_stops_once_and_only_the_latest(self) -> None:
        calls: list[str] = []
        lifecycle.at_end(lambda: calls.append("first"))
        lifecycle.at_end(lambda: calls.append("second"))
        lifecycle.end_now()
        lifecycle.end_now()
        assert calls == ["second"]
        assert self.kills == []

    def test_a_stop_that_raises_is_kept_quiet(self) -> None:
        lifecycle.at_end(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        lifecycle.end_now()

    def test_sigterm_drains_and_then_kills(self) -> None:
        calls: list[str] = []
        lifecycle.at_end(lambda: calls.append("drained"))
        lifecycle._on_sigterm(signal.SIGTERM, None)
        assert calls == ["drained"]
        assert self.kills == [(os.getpid(), signal.SIGTERM)]

    def test_sigterm_in_a_drain_waits_for_its_end(self) -> None:
        killed_meanwhile: list[bool] = []

        def stop() -> None:
            lifecycle._on_sigterm(signal.SIGTERM, None)
            killed_meanwhile.append(bool(self.kills))

        lifecycle.at_end(stop)
        lifecycle.end_now()
        assert killed_meanwhile == [False]
        assert self.kills == [(os.getpid(), signal.SIGTERM)]

    def test_a_forked_child_forgets_its_parents(self) -> None:
        calls: list[str] = []
        lifecycle.at_end(lambda: calls.append("parent's"))
        lifecycle._forget()
        lifecycle.end_now()
        assert calls == []
