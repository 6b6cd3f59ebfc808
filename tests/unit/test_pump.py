"""Work beside a destination's thread: every interval, on demand, and never longer than it may take."""

from __future__ import annotations

import threading
import time

from hft_otel.destinations.pump import Pump, bounded
from tests.unit.otlp_stand_in import until


def raising() -> None:
    raise RuntimeError("no way")


def test_pump_works_every_interval_until_stopped() -> None:
    done: list[float] = []
    pump = Pump(lambda: done.append(time.monotonic()) is None, 0.01, "test-pump")
    pump.start()
    assert until(lambda: len(done) >= 3)
    pump.stop(5.0)
    assert all(thread.name != "test-pump" for thread in threading.enumerate())


def test_pump_that_was_stopped_answers_no_flush() -> None:
    pump = Pump(lambda: True, 3600, "test-pump")
    pump.stop()
    pump.start()
    assert not pump.flush(5.0)


def test_flush_waits_for_work_that_began_after_it_was_asked_for() -> None:
    began, release = threading.Semaphore(0), threading.Event()
    runs: list[int] = []

    def work() -> bool:
        began.release()
        release.wait(5)
        runs.append(len(runs))
        return True

    pump = Pump(work, 0.01, "test-pump")
    pump.start()
    assert began.acquire(timeout=5)  # by the interval: what is flushed below came too late for it
    flushed: list[bool] = []
    flushing = threading.Thread(target=lambda: flushed.append(pump.flush(5.0)))
    flushing.start()
    assert until(lambda: pump._asked == 1)
    release.set()
    flushing.join(5)
    assert flushed == [True]
    assert len(runs) >= 2
    pump.stop(5.0)


def test_pump_survives_work_that_raises() -> None:
    pump = Pump(raising, 3600, "test-pump")  # type: ignore[arg-type]  # raises before it returns
    pump.start()
    assert not pump.flush(5.0)
    assert not pump.flush(5.0)
    pump.stop(5.0)


def test_bounded_call_gives_its_value_or_the_alternative() -> None:
    assert bounded(lambda: 7, 5.0, 0) == 7
    assert bounded(raising, 5.0, None) is None
    release = threading.Event()
    assert bounded(lambda: release.wait(30), 0.02, False) is False
    release.set()
