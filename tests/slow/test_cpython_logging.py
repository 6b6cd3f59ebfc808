"""CPython's own tests of `logging`, the file of the running interpreter, judge the bridge and the logger."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
THERE = (
    importlib.util.find_spec("test.test_logging") is not None if importlib.util.find_spec("test") else False
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not THERE and os.environ.get("CI") != "true", reason="this interpreter ships no test.test_logging"
    ),
]

NOT_OURS = {
    "LoggerTest.test_set_invalid_level": "setLevel raises nothing: what is no level changes nothing",
    "LoggerTest.test_log_invalid_level_with_raise": "log raises nothing, and knows levels by name",
    "LoggerTest.test_caching": "looks into the private cache of levels, which ours has no need of",
}
"""The tests of Logger and LoggerAdapter that our logger does not pass, and why that is right."""


def run(folder: Path, mode: str) -> dict[str, Any]:
    outcome = folder / f"{mode}.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.slow.cpython_runner", mode, str(outcome)],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert outcome.exists(), done.stderr
    found: dict[str, Any] = json.loads(outcome.read_text())
    return found


def test_with_the_bridge_around_every_test_everything_passes_that_passes_without(tmp_path: Path) -> None:
    plain, bridged = run(tmp_path, "plain"), run(tmp_path, "bridge")
    assert {
        name: bridged["failed"].get(name, "?") for name in plain["passed"] if name not in bridged["passed"]
    } == {}
    assert bridged["failed"].keys() <= plain["failed"].keys()
    assert len(plain["passed"]) > 150
    assert plain["taken"] == 0
    assert bridged["taken"] > 300  # there was a bridge, and records went over it


def test_our_logger_passes_the_tests_of_logger_and_adapter(tmp_path: Path) -> None:
    found = run(tmp_path, "logger")
    assert found["failed"].keys() - NOT_OURS.keys() == set(), found["failed"]
    assert found["failed"].keys() == NOT_OURS.keys(), "an exception that is none any more"
    assert len(found["passed"]) >= 20
