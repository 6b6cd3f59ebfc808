"""A clock that steps, folders that can no longer be written: no exception, one clear line, accounted loss only."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.agents import HEAD, agents_in, configure, no_agent_left, numbers, records
from tests.real.processes import Ended, run, run_script
from tests.real.running import wait_until
from tests.unit.small_disk import small_disk

SMALL_JOURNAL = {"segment_kb": 64, "spare_segments": 2}
LOSSES = """
def losses(report):
    return {f"{lane.lane} {reason}": number for lane in report.lanes for reason, number in lane.dropped.items()}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with no_agent_left(tmp_path):
        yield tmp_path


# --- the clock

HOUR = 3600 * 10**9
STEPS = {
    "an hour back": -HOUR,
    "decades ahead": 30 * 365 * 24 * HOUR,
    "before the epoch": -(10**31),
    "beyond 64 bits": 2**64,
}
STEPPING = """
import hft_otel.calls, hft_otel.logger
start, now, step = time.time_ns(), time.time_ns, int(sys.argv[1])
moved = (lambda: -10**9) if step < -10**30 else (lambda: now() + step)
log = make()
for number in range(300):
    if number == 100:
        hft_otel.calls.time_ns = hft_otel.logger.time_ns = moved
    if number == 200:
        hft_otel.calls.time_ns = hft_otel.logger.time_ns = now
    log.info("text", number=number)
    log.audit("sent", number=number)
report = log.force_flush(30)
tell(complete=report.complete, emitted=report.emitted, pending=report.pending, losses=losses(report))
"""


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_steps_costs_no_record(step: str, isolation: str, folder: Path) -> None:
    configure(folder, isolation)
    told = run_script(HEAD + LOSSES + STEPPING, str(STEPS[step]), cwd=folder).told
    wait_until(lambda: agents_in(folder), lambda left: not left, "the agent's end", 30)
    assert (told["complete"], told["emitted"], told["pending"]) == (True, 600, 0)
    found = records(folder)
    there = {kind: set(numbers(found, kind)) for kind in ("text", "sent")}
    whole = set(range(300))
    assert sum(told["losses"].values()) >= sum(len(whole - each) for each in there.values()), told
    if step != "beyond 64 bits":  # a time that no machine has; what it costs is counted
        assert there == {"text": whole, "sent": whole}


# --- folders

LOGGING = """
def fill(start, end):
    for number in range(start, end):
        log.info("text", number=number)
        log.audit("sent", number=number, padding="x" * 200)

log = make()
fill(0, 500)
assert log.force_flush(30)
"""
TURNED = (
    LOGGING
    + """
def turn(mode):
    for top in sys.argv[1:]:
        for path, folders, files in os.walk(top):
            os.chmod(path, mode)

turn(0o500)
fill(500, 3000)
refused = log.force_flush(20)
turn(0o700)
end = time.monotonic() + 30
tries = 0
while log._intake.journal.problem and time.monotonic() < end:
    log.audit("is it over?")
    tries += 1
    time.sleep(0.2)
fill(3000, 3500)
report = log.force_flush(30)
tell(complete=report.complete, pending=report.pending, tries=tries, losses=losses(report))
"""
)


def run_as_a_user(folder: Path, script: str, *arguments: object) -> Ended:
    """Run it so that permissions count, which they do not for root."""
    ordinary = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and setpriv is not here")
    (folder / "program.py").write_text(HEAD + LOSSES + script)
    command: list[str | Path] = [sys.executable, folder / "program.py", *map(str, arguments)]
    ended = run([*ordinary, *command] if os.geteuid() == 0 else command, folder)
    assert ended.status == 0, ended.stderr
    return ended


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("part", ["journal", "lanes"])
def test_a_folder_that_turns_read_only_meanwhile_costs_only_what_is_counted(
    part: str, isolation: str, folder: Path
) -> None:
    configure(folder, isolation, journal={"folder": str(folder / "journal"), **SMALL_JOURNAL})
    (folder / "lanes").mkdir()
    ended = run_as_a_user(folder, TURNED, folder / part)
    wait_until(lambda: agents_in(folder), lambda left: not left, "the agent's end", 30)
    check(ended, records(folder))
    if part == "journal":
        assert "the audit journal has a problem" in ended.stderr


def check(ended: Ended, found: list[dict[str, Any]], end: int = 3500) -> None:
    """Everything is there, or its loss is counted; nothing but our lines stands on stderr."""
    told: dict[str, Any] = ended.told
    assert (told["complete"], told["pending"]) == (True, 0), ended.stderr
    texts, audits = numbers(found, "text"), numbers(found, "sent")
    whole = set(range(end))
    assert set(texts) | set(audits) <= whole
    lacking = len(whole - set(texts)) + len(whole - set(audits))
    assert lacking <= sum(told["losses"].values()) <= lacking + told["tries"], told
    assert {*range(500), *range(3000, 3500)} <= set(texts) & set(audits)
    for line in ended.stderr.splitlines():
        assert line.startswith("hft-otel: "), ended.stderr


@pytest.fixture
def read_only(folder: Path) -> Iterator[Path]:
    """A mount that cannot be written."""
    with small_disk(folder / "mounted", 1024, "ro") as mounted:
        yield mounted.path


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_read_only_mount_is_said_and_costs_nothing_while_all_is_well(
    isolation: str, folder: Path, read_only: Path
) -> None:
    places = {
        "journal": {"folder": str(read_only / "journal")},
        "lanes": {"folder": str(read_only / "lanes")},
    }
    configure(folder, isolation, **places)
    script = (
        HEAD
        + LOSSES
        + LOGGING
        + "time.sleep(2.5)  # until the next notice\nreport = log.force_flush(30)\ntell(losses=losses(report))"
    )
    ended = run_script(script, cwd=folder)
    found = records(folder)
    assert numbers(found, "text") == numbers(found, "sent") == Counter(range(500))
    assert "Read-only file system" in ended.stderr
    assert "Traceback" not in ended.stderr
