"""Where the agent runs: a trading process that is pinned to one CPU is told of it, and by configuration out of its way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.real.agents import HEAD, agents_in, configure, no_agent_left
from tests.real.processes import NOT_MEASURED, Ended, hear, python, say, started

CPUS = sorted(os.sched_getaffinity(0))
PINNED = f"""
os.sched_setaffinity(0, {{{CPUS[0]}}})
log = make()
log.info("text")
assert log.force_flush(30)
tell(ready=True)
sys.stdin.readline()
"""


def play(folder: Path) -> tuple[Ended, set[int]]:
    """Run the pinned program; return how it ended and where its agent was allowed to run."""
    with no_agent_left(folder), started(python(HEAD + PINNED), folder, **NOT_MEASURED) as process:
        hear(process)
        (pid,) = agents_in(folder)
        cpus = os.sched_getaffinity(pid)
        say(process)
        stdout, stderr = process.communicate(timeout=60)
        return Ended(process.returncode, stdout, stderr, 0.0), cpus


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU has nothing to choose from")
def test_an_agent_on_the_only_cpu_of_its_trader_is_said_once_and_cured_by_cpus(tmp_path: Path) -> None:
    configure(tmp_path, "process", environment="prod")
    ended, cpus = play(tmp_path)
    assert cpus == {CPUS[0]}
    (line,) = (line for line in ended.stderr.splitlines() if "takes time from it" in line)
    assert "agent: {cpus: [" in line and f"only CPU {CPUS[0]}," in line

    configure(tmp_path, "process", environment="prod", agent={"cpus": CPUS[1:]})
    ended, cpus = play(tmp_path)
    assert cpus == set(CPUS[1:])
    assert ended.stderr == ""


def test_in_development_nobody_is_told(tmp_path: Path) -> None:
    configure(tmp_path, "process", environment="dev")
    assert play(tmp_path)[0].stderr == ""
