"""The example's logging.yaml with the real logger: what the system says arrives where the file says."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hft_otel import LogConfig
from tests.unit.test_examples_support import ROOT

PROGRAM = """
import asyncio, json, sys
from hft_otel import LogConfig
from trading_system import order_desk
from trading_system.replay import open_source
from trading_system.session import run_session

order_desk.REJECT_SHARE = 1.0  # so that there is much to say
config = LogConfig.from_yaml(sys.argv[1])
result = asyncio.run(run_session(config, open_source(seed=7), seconds=1.5, rate=500.0, disconnect_every=0.5))
report = result.logger.force_flush(10.0)
assert report, str(report)
print(json.dumps({"calls": result.calls, "malformed": result.malformed, "opportunities": result.opportunities,
                  "report": str(report)}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    """Run a session in a process of its own; return what it counted, its folder and its stderr."""
    folder = tmp_path_factory.mktemp("session")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"}
    environment |= {"HFT_DEMO_LOGS": str(folder / "logs"), "HFT_DEMO_CONSOLE_LEVEL": "ERROR", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "examples" / "logging.yaml")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder / "logs", done.stderr


def lines(folder: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Return level, message and context of every line of the log file."""
    found = []
    for line in (folder / "hft.log").read_text().splitlines():
        match = re.fullmatch(r"\S+ \S+ (\w+) [\w.]+: (.*?) \| (\{.*\})", line)
        assert match, line
        found.append((match[1], match[2], ast.literal_eval(match[3])))
    return found


def test_configuration_is_valid_without_any_variable_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HFT_DEMO_LOGS", "HFT_DEMO_CONSOLE_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    config = LogConfig.from_yaml(str(ROOT / "examples" / "logging.yaml"))
    assert set(config.backends) == {"console", "file", "prometheus", "pager"}
    assert config.backends["console"].min_level == "WARNING"


def test_warnings_errors_and_audit_events_are_all_in_the_file(run: tuple[dict[str, Any], Path, str]) -> None:
    counted, folder, _ = run
    calls = counted["calls"]
    found = [line for line in lines(folder) if line[1] != "hft.audit.anchor"]
    audits = [line for line in found if "audit.id" in line[2]]
    assert len(audits) == calls["AUDIT"]
    assert len(found) - len(audits) == calls["WARNING"] + calls["ERROR"] + calls["CRITICAL"]
    assert sum(message.startswith("Parse failed") for _, message, _ in found) == counted["malformed"]


def test_one_correlation_id_joins_text_and_audit_events_of_an_opportunity(
    run: tuple[dict[str, Any], Path, str],
) -> None:
    counted, folder, _ = run
    audits: dict[str, set[str]] = {}
    texts: dict[str, list[str]] = {}
    for _, message, context in lines(folder):
        if "correlation_id" in context:
            if "audit.id" in context:
                audits.setdefault(context["correlation_id"], set()).add(message)
            else:
                texts.setdefault(context["correlation_id"], []).append(message)
    assert len(audits) == counted["opportunities"] > 0
    assert all("arbitrage_opportunity_detected" in events for events in audits.values())
    assert set(texts) <= set(audits)
    assert texts


def test_alerts_reach_the_pager_and_nothing_else_does(run: tuple[dict[str, Any], Path, str]) -> None:
    _, folder, _ = run
    path = folder / "pager.jsonl"
    pages = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    wanted = [line for line in lines(folder) if "alert" in line[2] and "audit.id" not in line[2]]
    assert len(pages) == len(wanted)
    assert all("alert" in page and page["correlation_id"].startswith("arb-") for page in pages)


def test_console_shows_errors_only_when_told_so(run: tuple[dict[str, Any], Path, str]) -> None:
    counted, _, stderr = run
    assert stderr.count("Parse failed") == counted["malformed"]
    assert "Connection error" not in stderr
    assert "Parsing message" not in stderr


def test_every_measurement_is_delivered(run: tuple[dict[str, Any], Path, str]) -> None:
    counted, _, _ = run
    calls = counted["calls"]
    measured = calls["METRIC"] + calls["LATENCY"] + calls["COUNTER"]
    assert f"prometheus METRIC: accepted {measured} = delivered {measured}" in counted["report"]
