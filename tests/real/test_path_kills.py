"""kill -9 of trading process, agent, Collector and Elasticsearch, at random: every audit event is everywhere."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.real.path_kills import play
from tests.real.pipeline_support import needs
from tests.real.seeds import drawn_seed

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(600)]


@needs("elasticsearch")
@pytest.mark.parametrize(("isolation", "rounds"), [("process", 20), ("thread", 8)])
def test_kills_on_the_whole_path_lose_no_audit(isolation: str, rounds: int, tmp_path: Path) -> None:
    outcome = play(isolation, rounds, random.Random(drawn_seed()), tmp_path / "scene")
    print(outcome)
    assert outcome.is_good, outcome
    assert outcome.confirmed > 500
    assert outcome.kills.total() >= rounds
