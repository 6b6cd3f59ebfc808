"""The soak, in short, and that it finds what grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.processes import NOT_MEASURED, ROOT, environment
from tools.soak.__main__ import main
from tools.soak.watch import Held, Sample, trends


def soak(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it as `make soak` does."""
    return subprocess.run(
        [sys.executable, "-m", "tools.soak", *arguments],
        cwd=ROOT,
        env=environment(**NOT_MEASURED, **more),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_what_a_trading_process_holds_is_flat_and_all_is_delivered(isolation: str) -> None:
    ended = soak("--minutes", "0.4", "--every", "1", "--isolation", isolation)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Flat." in ended.stdout


# What Python imports at its start: here, something that keeps what every audit call is given.
LEAK = """
import sys
if "tools.soak.trader" in " ".join(sys.orig_argv):
    import hft_otel.logger as module
    kept, audit = [], module.HFTLogger.audit
    def leaking(self, event, /, **context):
        kept.append(bytes(5000))
        return audit(self, event, **context)
    module.HFTLogger.audit = leaking
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_leak_in_the_trading_process_ends_it_with_status_1(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAK)
    paths = f"{tmp_path}:{environment()['PYTHONPATH']}"
    ended = soak("--minutes", "0.4", "--every", "1", PYTHONPATH=paths)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "NOT FLAT: trading process RSS, MB grew by" in ended.stdout


def held(number: int, *, leak: float = 0.0) -> Held:
    return Held(40.0 + number % 3 * 0.1 + leak * number, 25.0, 7.3, 80, 2)


def look(number: int, trader: float = 0.0, agent: float = 0.0) -> Sample:
    return Sample(
        5.0 * number, 0, held(number, leak=trader), held(number, leak=agent), 72, 5, 0.1, number * 7 % 100
    )


def faults(**leaks: float) -> set[str]:
    return {each.name for each in trends([look(number, **leaks) for number in range(100)]) if not each.flat}


def test_a_steady_growth_is_found_and_noise_is_not() -> None:
    assert faults() == set()
    assert faults(trader=0.012) == {"trading process RSS, MB"}
    assert faults(agent=0.05) == {"agent RSS, MB"}
    (growing,) = (each for each in trends([look(n, trader=0.1) for n in range(100)]) if not each.flat)
    assert growing.growth == pytest.approx(9.9, abs=0.1)
    assert growing.per_hour == pytest.approx(72, abs=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--minutes", "0.1"),
        ("--rate", "0"),
        ("--every", "-1"),
        ("--isolation", "both"),
        ("--keep", "/"),
    ],
)
def test_a_misuse_ends_with_status_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    assert "usage: python -m tools.soak" in capsys.readouterr().err
