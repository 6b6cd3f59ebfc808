"""flush: what it promises, when it answers, and that it keeps its time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hft_otel.lanes.intake import Intake
from hft_otel.lanes.journal import Journal
from hft_otel.logger import HFTLogger
from hft_otel.record import LogType
from tests.unit.core_support import Blocked, Down, Recorder, core, poll


def test_is_true_when_everything_is_delivered(tmp_path: Path) -> None:
    recorder = Recorder()
    with core(tmp_path, recorder) as made:
        for number in range(5000):
            made.log.info(str(number))
        made.log.audit("a")
        report = made.log.force_flush(30)
        assert report
        assert len(recorder.got) == 5001
        assert report.pending == 0
        assert str(report).startswith("delivered\n")


def test_is_true_when_nothing_was_emitted(tmp_path: Path) -> None:
    with core(tmp_path, Recorder()) as made:
        assert made.log.force_flush()


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_keeps_its_timeout_with_a_blocked_destination_and_is_false(tmp_path: Path, timeout: float) -> None:
    blocked, fine = Blocked(), Recorder("fine")
    with core(tmp_path, blocked, fine) as made:
        made.log.info("x")
        assert blocked.entered.wait(5)
        started = time.monotonic()
        report = made.log.force_flush(timeout)
        took = time.monotonic() - started
        assert not report
        assert took < timeout + 0.3  # 0.1 on a quiet machine
        assert str(report).startswith("NOT ALL DELIVERED\n")
        assert "blocked TEXT: accepted 1 = delivered 0 + dropped 0 + pending 1" in str(report)
        poll(lambda: fine.got)
        blocked.go.set()
        assert made.log.force_flush(5)


def test_a_blocked_force_flush_of_a_destination_costs_no_more_than_the_timeout(tmp_path: Path) -> None:
    go = threading.Event()
    recorder = Recorder()
    recorder.force_flush = lambda timeout: go.wait(30)  # type: ignore[method-assign]
    with core(tmp_path, recorder) as made:
        started = time.monotonic()
        assert not made.log.force_flush(0.1)
        assert time.monotonic() - started < 0.5
        go.set()


def test_ends_under_continuous_load_from_another_thread(tmp_path: Path) -> None:
    recorder = Recorder()
    done = threading.Event()
    with core(tmp_path, recorder) as made:

        def load() -> None:
            while not done.is_set():
                made.log.info("load")
                made.log.audit("load")
                done.wait(0.0005)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            poll(lambda: recorder.got)
            for number in range(5):
                made.log.info(f"mine {number}")
                report = made.log.force_flush(10)
                assert report
                assert f"mine {number}" in recorder.messages
        finally:
            done.set()
            thread.join()


def test_a_loss_makes_one_flush_false_and_the_next_true_again(tmp_path: Path) -> None:
    recorder = Recorder()
    with core(tmp_path, recorder) as made:
        made.intake.low.drop("room_full")
        report = made.log.force_flush()
        assert not report and report.complete and report.newly_dropped == 1
        assert made.log.force_flush()


def test_a_loss_that_was_looked_at_in_between_still_makes_the_flush_false(tmp_path: Path) -> None:
    """Notices look at the sums every second; that must not hide a loss from who flushes."""
    with core(tmp_path, Recorder()) as made:
        assert made.log.force_flush()
        made.intake.low.drop("room_full")
        made.worker.report()
        assert not made.log.force_flush()


def test_two_flushes_at_the_same_time_both_hear_of_a_loss(tmp_path: Path) -> None:
    blocked = Blocked()
    with core(tmp_path, blocked) as made:
        made.log.info("x")
        assert blocked.entered.wait(5)
        made.intake.low.drop("room_full")
        reports = []
        threads = [threading.Thread(target=lambda: reports.append(made.log.force_flush(5))) for _ in range(2)]
        for thread in threads:
            thread.start()
        outbox = made.worker.outboxes[id(blocked)]
        poll(lambda: len(outbox._tickets) == 2)
        blocked.go.set()
        for thread in threads:
            thread.join()
        assert [report.newly_dropped for report in reports] == [1, 1]
        assert all(report.complete and not report for report in reports)


def test_many_flushes_at_the_same_time_all_end_true(tmp_path: Path) -> None:
    recorder = Recorder()
    with core(tmp_path, recorder) as made:
        results = []

        def work(who: int) -> None:
            for number in range(20):
                made.log.info(f"{who} {number}")
                results.append(bool(made.log.force_flush(10)))

        threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 160
        assert len(recorder.got) == 160
        assert made.worker._requests == []


def test_waits_for_audit_events_that_a_full_queue_holds_back(tmp_path: Path) -> None:
    down = Down()
    with core(tmp_path, down) as made:
        for number in range(3000):
            made.log.audit(str(number))
            if not made.intake.audit.supply:
                time.sleep(0.001)
        assert not made.log.force_flush(0.1)
        down.up = True
        assert made.log.force_flush(10)
        assert len(down.got) == 3000
        assert made.sums("down", LogType.AUDIT).pending == 0


class TestInAsyncio:
    def test_does_not_block_the_loop(self, tmp_path: Path) -> None:
        blocked = Blocked()
        with core(tmp_path, blocked) as made:

            async def main() -> bool:
                made.log.info("x")
                flush = asyncio.ensure_future(made.log.flush(10))
                while not blocked.entered.is_set():
                    await asyncio.sleep(0)
                turns = 0
                while turns < 50:  # the loop turns although the flush cannot end
                    await asyncio.sleep(0)
                    turns += 1
                assert not flush.done()
                blocked.go.set()
                return bool(await flush)

            assert asyncio.run(main())

    def test_keeps_its_timeout(self, tmp_path: Path) -> None:
        with core(tmp_path, Blocked()) as made:
            made.log.info("x")
            started = time.monotonic()
            assert not asyncio.run(made.log.flush(0.1))
            assert time.monotonic() - started < 1

    def test_a_cancelled_flush_leaves_nothing_behind(self, tmp_path: Path) -> None:
        blocked = Blocked()
        with core(tmp_path, blocked) as made:

            async def main() -> None:
                made.log.info("x")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(made.log.flush(0.3), 0.05)

            asyncio.run(main())
            blocked.go.set()
            poll(lambda: not made.worker._requests and not made.worker.outboxes[id(blocked)]._tickets)
            assert made.log.force_flush()

    def test_works_after_the_loop_has_closed_and_in_a_second_one(self, tmp_path: Path) -> None:
        recorder = Recorder()
        with core(tmp_path, recorder) as made:
            for number in range(2):

                async def main(number: int = number) -> bool:
                    made.log.info(str(number))
                    return bool(await made.log.flush())

                assert asyncio.run(main())
            made.log.info("2")
            assert made.log.force_flush()
            assert recorder.messages == ["0", "1", "2"]

    def test_two_at_the_same_time(self, tmp_path: Path) -> None:
        with core(tmp_path, Recorder()) as made:

            async def main() -> list[bool]:
                made.log.info("x")
                return [bool(report) for report in await asyncio.gather(made.log.flush(), made.log.flush())]

            assert asyncio.run(main()) == [True, True]


INTERRUPTED = """
import signal, sys
from pathlib import Path
from tests.unit.core_support import Recorder, core

recorder, results = Recorder(), []
with core(Path(sys.argv[1]), recorder) as made:

    def handler(number, frame):
        made.log.info("from the handler")
        results.append(bool(made.log.force_flush(20)))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)

    signal.signal(signal.SIGVTALRM, handler)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)
    while len(results) < 60:
        made.log.info("from the main thread")
        made.worker.wake()
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert made.log.force_flush()
    assert all(results)
    assert recorder.messages.count("from the handler") == len(results)
"""


@pytest.mark.slow
def test_works_in_a_signal_handler_that_interrupts_a_logging_thread_anywhere(tmp_path: Path) -> None:
    # In a process of its own and without coverage, whose own lock such a handler would wait for without end.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], timeout=110, check=True)


def test_in_a_signal_handler_that_interrupts_a_report_keeps_its_time(tmp_path: Path) -> None:
    """The interrupted report holds what the worker needs, so the flush cannot succeed; but it must end."""
    with core(tmp_path, Recorder()) as made:
        with made.worker._lock:
            started = time.monotonic()
            assert not made.log.force_flush(0.1)
            assert time.monotonic() - started < 1
        assert made.log.force_flush()


def test_a_logger_without_a_drain_has_nothing_to_flush(tmp_path: Path) -> None:
    intake = Intake(Journal(tmp_path, 4096, 1))
    logger = HFTLogger("x", [], intake=intake)
    assert logger.force_flush()
    assert asyncio.run(logger.flush())
    intake.journal.close(settled=True)
