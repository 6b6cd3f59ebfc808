"""Where an agent would run, and what is said where that is in the trading thread's way."""

from __future__ import annotations

import os

import pytest

from hft_otel.agent.spawn import crowded
from hft_otel.config import AgentConfig


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four CPUs, of which this thread has the last one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


def test_an_agent_on_the_traders_only_cpu_is_said_with_the_cure() -> None:
    assert crowded(AgentConfig()) == (
        "the agent has only CPU 3, on which this thread runs too, and takes time from it there; "
        "give it others: `agent: {cpus: [0, 1, 2]}`"
    )
    assert crowded(AgentConfig(cpus=[3])) == crowded(AgentConfig())


@pytest.mark.parametrize("cpus", [[0], [2, 3]])
def test_an_agent_with_a_cpu_of_its_own_is_not(cpus: list[int]) -> None:
    assert crowded(AgentConfig(cpus=cpus)) == ""


def test_nor_is_one_whose_trader_has_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3})
    assert crowded(AgentConfig()) == ""


def test_a_machine_with_one_cpu_is_called_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert crowded(AgentConfig()).endswith("; this machine has no other")
