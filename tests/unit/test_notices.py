"""What is said on stderr: when a loss begins, when it is over, and no more than that."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import pytest

from hft_otel import notices as module
from hft_otel.ledger import DestinationSums, FlushReport, LaneSums
from hft_otel.notices import Notices, say
from hft_otel.outbox import Outbox
from tests.unit.core_support import Recorder, poll


class Watch:
    """Notices over sums that the test sets, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.lane: dict[str, int] = {}
        self.destinations: list[DestinationSums] = []
        self.outboxes: list[Outbox] = []
        self.journal = ""
        self.notices = Notices(
            self.report, lambda: self.outboxes, lambda: self.journal, str, self.lines.append, lambda: self.now
        )

    def report(self) -> FlushReport:
        return FlushReport([LaneSums("low", "TEXT", dropped=self.lane)], self.destinations, complete=True)

    def look(self, after: float = 1.0) -> list[str]:
        """Let time pass and look; return what is said."""
        self.now += after
        before = len(self.lines)
        self.notices.look()
        return self.lines[before:]


def test_nothing_is_said_while_nothing_is_lost() -> None:
    watch = Watch()
    watch.outboxes = [Outbox(Recorder())]
    assert watch.look() + watch.look() == []


def test_a_loss_is_said_when_it_begins_and_when_it_is_over() -> None:
    watch = Watch()
    watch.lane = {"room_full": 3}
    [line] = watch.look()
    assert line == (
        "losing records at the low lane (room_full): 3 so far; "
        "more is logged than the worker can take; log less, or raise the logger's min_level"
    )
    assert watch.look() == []
    assert watch.look(10) == ["no longer losing records at the low lane (room_full): 3 lost in all"]
    assert watch.look(100) == []


def test_a_loss_that_goes_on_is_said_again_every_half_minute() -> None:
    watch = Watch()
    said = []
    for second in range(1, 91):
        watch.lane = {"room_full": second}
        said += watch.look()
    assert [line.split(" at ")[0] for line in said] == [
        "losing records",
        "still losing records",
        "still losing records",
    ]


def test_a_loss_that_comes_and_goes_says_at_most_two_lines_in_half_a_minute() -> None:
    watch = Watch()
    said = []
    for turn in range(1, 31):  # ten minutes: a loss every 20 seconds
        watch.lane = {"room_full": turn}
        said += watch.look(10) + watch.look(10)
    assert len(said) <= 2 * 600 / 30


def test_each_place_and_reason_is_a_loss_of_its_own_and_a_destinations_types_are_one() -> None:
    watch = Watch()
    watch.lane = {"room_full": 1}
    watch.destinations = [
        DestinationSums("file", "TEXT", 9, 0, {"disk_full": 2}),
        DestinationSums("file", "METRIC", 9, 0, {"disk_full": 3}),
        DestinationSums("slack", "TEXT", 9, 0, {"queue_full": 1}),
    ]
    said = watch.look()
    assert [line.split(";")[0] for line in said] == [
        "losing records at the low lane (room_full): 1 so far",
        "losing records at file (disk_full): 5 so far",
        "losing records at slack (queue_full): 1 so far",
    ]


def test_a_loss_says_what_went_wrong_there() -> None:
    watch = Watch()
    mine, other = Recorder("mine"), Recorder("other")
    mine.last_error, other.last_error = "ValueError: boom", "no"  # type: ignore[attr-defined]
    watch.outboxes = [Outbox(other), Outbox(mine)]
    watch.destinations = [DestinationSums("mine", "TEXT", 9, 0, {"raised": 2})]
    assert watch.look() == ["losing records at mine (raised): 2 so far; ValueError: boom"]


def test_a_problem_is_said_once_and_so_is_its_end() -> None:
    watch = Watch()
    outbox = Outbox(Recorder("otlp"))
    watch.outboxes = [outbox]
    outbox.problem = "connection refused"
    assert watch.look() == [
        "otlp has a problem: connection refused; records wait, or are dropped and counted"
    ]
    assert [line for _ in range(100) for line in watch.look()] == []
    outbox.problem = ""
    assert watch.look() == ["otlp has recovered"]


def test_a_problem_that_flickers_every_second_does_not_fill_the_log() -> None:
    watch = Watch()
    outbox = Outbox(Recorder("otlp"))
    watch.outboxes = [outbox]
    said = []
    for second in range(300):
        outbox.problem = "503" if second % 2 else ""
        said += watch.look()
    assert 2 <= len(said) <= 2 * 300 / 30 + 2
    assert len([line for line in said if "recovered" in line]) * 2 in (len(said), len(said) - 1)


def test_a_failed_export_of_metrics_is_a_problem_too() -> None:
    watch = Watch()
    destination = Recorder("prometheus")
    watch.outboxes = [Outbox(destination)]
    destination.export_error = "push refused"
    assert "push refused" in watch.look()[0]
    destination.export_error = ""
    assert watch.look() == ["prometheus has recovered"]


def test_an_audit_journal_without_files_is_said() -> None:
    watch = Watch()
    watch.journal = "no space left on device"
    [line] = watch.look()
    assert line == "the audit journal has a problem: no space left on device"
    watch.journal = ""
    assert watch.look() == ["the audit journal has recovered"]


def test_the_thread_goes_on_after_a_look_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PERIOD", 0.001)
    lines: list[str] = []
    looks = 0

    def sums() -> FlushReport:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise ValueError("closed")
        return FlushReport([LaneSums("low", "TEXT", dropped={"room_full": 1})], [], complete=True)

    notices = Notices(sums, list, str, out=lines.append)
    notices.start()
    poll(lambda: lines)
    notices.stop()
    poll(lambda: not notices._thread.is_alive())


class TestSay:
    def test_writes_one_line(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", sys.__stderr__)
            say("two\nlines and \udc80")
        assert capfd.readouterr().err == "hft-otel: two lines and \\udc80\n"

    def test_keeps_a_url_s_password_to_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        say("push to http://user:hunter2@host:9091 failed")
        assert capsys.readouterr().err == "hft-otel: push to http://user:***@host:9091 failed\n"

    def test_writes_to_what_stands_in_for_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        say("hello")
        assert capsys.readouterr().err == "hft-otel: hello\n"

    @pytest.mark.parametrize("stand_in", [None, object()])
    def test_never_raises(self, stand_in: object, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", stand_in)
        say("hello")

    def test_writes_to_a_descriptor_beyond_the_reach_of_select(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if 0 <= hard < 2048:
            pytest.skip(f"this machine lets a process open {hard} files at most")
        script = (
            "import fcntl, resource, sys; from hft_otel.notices import say;"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]));"
            "sys.stderr = sys.__stderr__ = open(fcntl.fcntl(2, fcntl.F_DUPFD, 1100), 'w'); say('far up')"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == "hft-otel: far up\n"

    def test_gives_up_where_nobody_reads(self) -> None:
        """A full pipe behind stderr would else hold up the exit of the process for ever."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        script = "from hft_otel.notices import say; say('x' * 5000); say('y')"
        started = time.monotonic()
        try:
            done = subprocess.run([sys.executable, "-c", script], stderr=writing, timeout=30, check=False)
        finally:
            os.close(reading)
            os.close(writing)
        assert done.returncode == 0
        assert time.monotonic() - started < 20


def test_a_bug_in_the_worker_is_said_once() -> None:
    lines: list[str] = []
    notices = Notices(FlushReport.nothing, list, str, lambda: "KeyError: 'x'", lines.append)
    notices.look()
    notices.look()
    assert len(lines) == 1
    assert "KeyError: 'x'" in lines[0]
