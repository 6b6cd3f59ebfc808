"""The Collector away at 1,000 audit events a second, then back: all arrive, in order, and memory is flat meanwhile.

Here for seconds, with events large enough that what waits would be seen in memory; `make outage` plays ten minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.outages import AUDITS, TEXTS, Plan, play
from tests.real.running import Collector
from tools import outage as tool

SECONDS = float(os.environ.get("HFT_TEST_AWAY", "20"))
LARGE = 1_000

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300 + 5 * SECONDS)]


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_collector_that_is_away_costs_disk_and_no_audit(
    isolation: str, collector: Callable[..., Collector], tmp_path: Path
) -> None:
    seen = play(Plan(isolation, SECONDS, LARGE, settle=3), tmp_path / "system", collector())
    print(*(f"{what}: {number}" for what, number in tool.rows(seen)), sep="\n")
    assert list(seen.problems()) == []
    assert set(seen.memory) == {"trading process", *(["agent"] if isolation == "process" else [])}
    assert seen.behind > AUDITS * SECONDS * 0.8  # it went on logging at its rate
    assert LARGE < seen.bytes_per_event < LARGE + 400
    assert seen.journal["end of outage"] > seen.behind * LARGE
    assert seen.journal["after"] < seen.journal["end of outage"] / 2
    # Text is bounded: what no queue held is counted as lost, and nothing is lost before and after.
    assert TEXTS < sum(seen.texts_dropped.values()) < seen.told["texts"]
    assert set(seen.texts_dropped) <= {"queue_full", "room_full", "lane_full"}
