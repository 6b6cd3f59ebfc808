"""What docs/stdlib.md and docs/testing.md show is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hft_otel import LogConfig
from tests.unit.core_support import ROOT, run_python


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / "docs" / document).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", range(4))
def test_the_programs_about_logging_run(tmp_path: Path, number: int) -> None:
    programs = blocks("stdlib.md", "python")
    assert len(programs) == 4
    (tmp_path / "program.py").write_text(programs[number])
    done = run_python(tmp_path, "program.py")
    assert (done.returncode, done.stderr) == (0, "")
    if number == 0:
        written = (tmp_path / "logs" / "app.log").read_text()
        assert "INFO exchange.mexc: order 42 filled at 1.50 | {}" in written
        assert "WARNING exchange.mexc: slow: 12 ms | {'symbol': 'BTCUSDT'}" in written
        assert "INFO exchange.mexc: open | {'connection': 7}" in written
    if number == 1:
        written = (tmp_path / "logs" / "app.log").read_text()
        assert "INFO exchange.mexc: with the id | {'correlation_id': 'arb-17'}" in written
        assert "INFO exchange.mexc: without it | {}" in written
    if number == 2:
        written = (tmp_path / "logs" / "app.log").read_text()
        assert "INFO websockets.client: connected to wss://... | {}" in written


def test_the_yaml_is_valid() -> None:
    [text] = blocks("stdlib.md", "yaml")
    stdlib = LogConfig.from_dict(yaml.safe_load(text)).stdlib
    assert (stdlib.bridge, stdlib.level, stdlib.exclude, stdlib.exclusive) == (
        True,
        "INFO",
        ["asyncio"],
        False,
    )


def test_the_tests_about_testing_pass(tmp_path: Path) -> None:
    [tests] = blocks("testing.md", "python")
    (tmp_path / "test_desk.py").write_text(tests)
    done = run_python(tmp_path, "-m", "pytest", "-p", "_hft_otel_pytest", "-p", "no:cacheprovider", "-q", ".")
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"test_desk.py", "__pycache__"}
