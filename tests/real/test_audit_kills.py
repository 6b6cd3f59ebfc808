"""kill -9 of processes that write audit events, at random moments: the trail proves itself, and nothing is missing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from hft_otel.audit.outside import anchors_in, read_seen
from hft_otel.audit.reading import read_events
from hft_otel.audit.reconcile import reconcile
from hft_otel.audit.verify import verify
from tests.real.agents import HEAD, agents_in, configure, no_agent_left
from tests.real.processes import hear, python, run_script, started
from tests.real.running import wait_until
from tests.real.seeds import drawn_seed

ROUNDS = 20
WRITER = (
    HEAD
    + """
logger, number = make(), int(sys.argv[1])
while True:
    for _ in range(5):
        logger.audit("order_sent", number=number, padding="x" * (number % 300))
        number += 1
    # all before it are confirmed, but for what was dropped and counted
    print(number, sum(tally.value for tally in logger._intake.audit.drops.values()), flush=True)
    time.sleep(0.002)
"""
)
LAST = HEAD + "make().audit('order_sent', number=-1)"

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_killed_writers_leave_a_healthy_trail_and_nothing_missing(isolation: str, tmp_path: Path) -> None:
    journal = {
        "folder": str(tmp_path / "journal"),
        "segment_kb": 64,
        "spare_segments": 16,
        "anchor_interval": 0.05,
    }
    configure(tmp_path, isolation, journal=journal)
    arrived = tmp_path / "out.jsonl"
    dice = random.Random(drawn_seed())
    confirmed: set[int] = set()
    with no_agent_left(tmp_path):
        for number in range(ROUNDS):
            begin = number * 1_000_000
            with started(python(WRITER, str(begin)), tmp_path) as process:
                done, dropped = map(int, hear(process).split())
                end = time.monotonic() + dice.uniform(0.0, 0.3)
                while time.monotonic() < end:
                    done, dropped = map(int, hear(process).split())
                if isolation == "process" and dice.random() < 0.3:
                    for pid in agents_in(tmp_path):
                        os.kill(pid, signal.SIGKILL)
                process.kill()
            assert dropped == 0
            confirmed.update(range(begin, done))
            outside = list(anchors_in(arrived)) if arrived.exists() else []
            assert [each.problems for each in verify(tmp_path / "journal", outside) if each.problems] == []
        run_script(LAST, cwd=tmp_path)
        wait_until(lambda: agents_in(tmp_path), lambda left: not left, "the last agent's end")
    ids = [seen.audit_id for seen in read_seen(arrived) if seen.audit_id]
    held = reconcile(tmp_path / "journal", ids)
    assert [each.missing for each in held if each.missing] == []
    assert sum(each.waiting for each in held) == 0
    assert sum(each.delivered for each in held) == len(set(ids))
    written = Counter(record.context["number"] for record in read_events(tmp_path / "journal"))
    assert confirmed <= set(written)
    assert set(written.values()) == {1}
    verdicts = verify(tmp_path / "journal", anchors_in(arrived))
    assert [each for each in verdicts if each.problems or each.outside != each.last] == []
    repeated = sum(number - 1 for number in Counter(ids).values())
    print(f"{len(confirmed)} confirmed, {len(ids)} arrived, {repeated} of them repeated and recognised")
