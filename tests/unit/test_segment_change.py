"""What a call meets at the end of a segment: the same record goes into the next one, whole."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import msgspec

from tests.unit.core_support import Process


def test_an_audit_event_with_many_values_is_never_cut_there(tmp_path: Path) -> None:
    process = Process(tmp_path)
    log = process.logger()
    book = list(range(100_000, 101_500))
    for number in range(300):
        log.audit("snapshot", number=number, book=book)
    assert log.force_flush(20)
    got = process.backend.got
    assert [record.context["number"] for record in got] == list(range(300))
    assert {len(record.context["book"]) for record in got} == {1500}
    process.stop(5)


def test_a_measurement_keeps_its_tags_there(tmp_path: Path) -> None:
    process = Process(tmp_path)
    log = process.logger()
    tags = {"long": "x" * 300, **{f"tag_{number}": number for number in range(12)}}
    for _ in range(15):
        for _ in range(100):
            log.counter("orders", tags=tags)
        assert log.force_flush(20)
    assert len(process.backend.got) == 1500
    assert {len(record.metric_tags) for record in process.backend.got} == {13}
    assert {record.metric_tags["long"] for record in process.backend.got} == {"x" * 300}
    process.stop(5)


def test_what_two_threads_set_at_once_is_all_carried(tmp_path: Path) -> None:
    process = Process(tmp_path)
    log = process.logger()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(300):
            child = log.bind()
            threads = [
                threading.Thread(target=child.set_context, kwargs={name: number}) for name in ("one", "two")
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert msgspec.msgpack.decode(child._bound) == child.context
    finally:
        sys.setswitchinterval(before)
        process.stop(5)
