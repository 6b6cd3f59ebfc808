"""What make runs once more: a test that was late may pass then, one that has found a loss may not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASSES_THE_SECOND_TIME = """
from pathlib import Path
import pytest

{mark}
def test_it():
    before = Path(__file__).with_suffix(".tried")
    assert before.exists() or before.touch()
"""


@pytest.mark.parametrize(("mark", "status"), [("", 0), ("@pytest.mark.proof", 1)])
def test_a_proof_that_has_failed_stays_failed(mark: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = proof\n")
    (tmp_path / "conftest.py").write_text("from tests.real.conftest import pytest_runtest_setup\n")
    (tmp_path / "test_it.py").write_text(PASSES_THE_SECOND_TIME.format(mark=mark))

    def run(*options: str, **env: str) -> int:
        command = [sys.executable, "-m", "pytest", "-q", *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode

    assert run() == 1
    assert run("--last-failed", HFT_TEST_AGAIN="1") == status


def test_make_says_that_it_is_the_second_time() -> None:
    again = (ROOT / "Makefile").read_text().partition("AGAIN  :=")[2].partition("\n\n")[0]
    assert "HFT_TEST_AGAIN=1 $(PYTEST) --last-failed" in again
