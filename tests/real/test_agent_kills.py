"""kill -9 at random moments, of the trading process, of its agent, of both: nothing that was confirmed is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.kills import ROUNDS, rounds
from tests.real.seeds import drawn_seed

COUNT = 20

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(900)]


@pytest.mark.parametrize("kind", ROUNDS)
def test_kills_lose_nothing_that_was_confirmed(kind: str, tmp_path: Path) -> None:
    seed = drawn_seed()
    outcomes = list(rounds(kind, COUNT, seed, tmp_path))
    bad = [(number, outcome) for number, outcome in enumerate(outcomes) if not outcome.is_good]
    assert bad == [], f"seed {seed}"
    assert sum(outcome.confirmed for outcome in outcomes) > 1000
