"""The journal's disk is full while a process trades, and all of it is killed: nothing is lost, in both isolations."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hft_otel.audit.verify import verify
from tests.real.agents import HEAD, agents_in, configure, no_agent_left, numbers, records
from tests.real.processes import hear, hft_otel, python, run, run_script, say, started
from tests.real.running import wait_until
from tests.unit.small_disk import SmallDisk, small_disk

EVENTS = 1500
FILL = f"""
log = make()
for number in range({EVENTS}):
    log.audit("sent", number=number, pad="x" * 200)
tell(done=True)
sys.stdin.readline()
"""


FULL = """
log = make()
problem = lambda: log._intake.problem

def write_until(what):
    end = time.monotonic() + 20
    while not what() and time.monotonic() < end:
        for number in range(20):
            log.audit("sent", number=number, pad="x" * 200)
        time.sleep(0.05)
    time.sleep(2.5)  # a line comes within a second, the status within another

log.audit("sent", number=0)
sys.stdin.readline()
write_until(problem)
tell(full=True)
sys.stdin.readline()
write_until(lambda: not problem())
assert log.force_flush(20)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with no_agent_left(tmp_path):
        yield tmp_path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 192) as mounted:
        yield mounted


def folders(disk: SmallDisk, folder: Path) -> dict[str, object]:
    return {
        "folder": str(disk.path / "journal"),
        "fallback_folder": str(folder / "second"),
        "segment_kb": 16,
        "anchor_interval": 0.2,
    }


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_full_disk_and_a_kill_of_everything_lose_nothing(
    folder: Path, disk: SmallDisk, isolation: str
) -> None:
    configure(folder, isolation, journal=folders(disk, folder))
    (folder / "out.jsonl").mkdir()  # the destination is away, so that all of it waits
    with started(python(HEAD + FILL), folder) as process:
        hear(process)
        wait_until(
            lambda: list((folder / "second").rglob("*.seg")),
            lambda found: len(found) > 5,
            "the second folder",
        )
        assert list(disk.path.rglob("*.seg"))
        for pid in agents_in(folder):
            os.kill(pid, signal.SIGKILL)
        process.kill()
    wait_until(lambda: agents_in(folder), lambda left: left == [], "the agent's end")
    (folder / "out.jsonl").rmdir()
    disk.grow(4096)
    run_script(HEAD + "log = make()\nlog.audit('next', number=-1)\nassert log.force_flush(30)", cwd=folder)
    wait_until(
        lambda: numbers(records(folder), "sent").total(), lambda number: number >= EVENTS, "all of them"
    )
    wait_until(lambda: agents_in(folder), lambda left: left == [], "the agent's end")
    found = [entry for entry in records(folder) if entry["body"] == "sent"]
    assert [entry["attributes"]["number"] for entry in found] == list(range(EVENTS))
    ids = [entry["attributes"]["audit.id"] for entry in found]
    stream = ids[0].rpartition("-")[0]
    assert ids == [f"{stream}-{number}" for number in range(EVENTS)]
    verdicts = verify(disk.path / "journal", fallback=folder / "second")
    assert [verdict.problems for verdict in verdicts] == [[], []]
    assert sum(verdict.events for verdict in verdicts) == EVENTS + 1
    assert list((folder / "second").iterdir()) == []
    assert [path for path in (disk.path / "journal").iterdir() if path.suffix != ".trail"] == []


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_full_disk_is_said_once_and_its_end_too(folder: Path, disk: SmallDisk, isolation: str) -> None:
    configure(folder, isolation, journal={**folders(disk, folder), "spare_segments": 1})
    with started(python(HEAD + FULL), folder) as process:
        disk.fill()
        say(process)
        hear(process)
        status = run(hft_otel("status", "--json", "--folder", folder / "lanes"), folder).stdout
        disk.free()
        say(process)
        _, errors = process.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if "audit journal" in line]
    assert len(lines) == 2, errors
    assert f"audit events go to {folder / 'second'}" in lines[0] and "No space left" in lines[0]
    assert lines[1].endswith("the audit journal has recovered")
    assert ("audit events go to" in status) is (isolation == "process")
    wait_until(lambda: agents_in(folder), lambda left: left == [], "the agent's end")
    found = [entry["attributes"]["audit.id"] for entry in records(folder) if entry["body"] == "sent"]
    assert len(found) == len(set(found)) > 40
