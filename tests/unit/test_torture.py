"""The tool behind `make torture`: which rounds it plays, what it says of them, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.real.kills import Outcome
from tests.real.path_kills import PathOutcome
from tests.real.processes import ROOT, environment
from tools.torture import KINDS, Progress, options_of
from tools.torture_pool import WHOLE_PATH, Played, Task, tasks_of
from tools.torture_report import is_good, page, tables

GOOD = Played("agent", 1, Outcome(1200, 0, 0, 3, 0))
LOST = Played("agent", 1, Outcome(800, 0, 2, 0, 0))
PATH = Played(
    WHOLE_PATH,
    25,
    PathOutcome(
        "process",
        25,
        kills=Counter({"Collector": 11, "agent": 9}),
        confirmed=5000,
        events=5001,
        repeats=Counter({"file": 70}),
    ),
)


class TestTasks:
    def test_cover_each_round_of_each_kind_once(self) -> None:
        tasks = tasks_of(["agent", WHOLE_PATH], 60)
        for kind in ("agent", WHOLE_PATH):
            mine = [task for task in tasks if task.kind == kind]
            played = [number for task in mine for number in range(task.first, task.first + task.rounds)]
            assert played == list(range(60))

    def test_are_the_same_however_many_there_are(self) -> None:
        assert tasks_of(["agent"], 1000)[:2] == tasks_of(["agent"], 50)


class TestCommandLine:
    def test_plays_all_kinds_on_all_cores_by_default(self) -> None:
        options = options_of([])
        assert (options.rounds, options.jobs, options.kind) == (1000, os.cpu_count(), None)
        assert WHOLE_PATH in KINDS

    @pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--jobs", "-1"], ["--kind", "nobody"]])
    def test_refuses_what_makes_no_sense(self, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            options_of(wrong)
        assert wrong[0] in capsys.readouterr().err


class TestReport:
    def test_sums_up_the_rounds_of_a_kind(self) -> None:
        assert "| agent | 2 | 2,000 | 0 | 2 | 3 | 0 | 0 |" in tables([GOOD, LOST])

    def test_sums_up_the_whole_path_by_isolation(self) -> None:
        threaded = Played(WHOLE_PATH, 25, PathOutcome("thread", 25, missing=Counter({"Elasticsearch": 4})))
        rows = {line.split(" | ")[0]: line for line in tables([PATH, PATH, threaded]).splitlines()}
        assert rows["| process"].startswith("| process | 50 | 0 | 18 | 22 | 0 | 10,000 | 10,002 | 0 | 0 |")
        assert "| 4 |" in rows["| thread"]

    def test_every_row_has_as_many_cells_as_its_head(self) -> None:
        for table in tables([GOOD, PATH]).split("\n\n"):
            assert len({line.count("|") for line in table.splitlines()}) == 1

    def test_page_has_the_facts_and_the_tables(self) -> None:
        text = page([GOOD, PATH], ["2026-01-01", "seed 7"])
        assert "2026-01-01; seed 7." in text
        assert tables([GOOD, PATH]) in text

    @pytest.mark.parametrize(
        "outcome",
        [
            Outcome(1, 1, 0, 0, 0),
            Outcome(1, 0, 1, 0, 0),
            Outcome(1, 0, 0, 1, 1),
            Outcome(1, 0, 0, 0, 0, notes=["flush false"]),
            PathOutcome("process", unwritten=1),
            PathOutcome("process", missing=Counter({"file": 1})),
            PathOutcome("process", unrecognised=1),
            PathOutcome("process", problems=["verify: broken"]),
        ],
    )
    def test_nothing_that_went_wrong_is_good(self, outcome: Outcome | PathOutcome) -> None:
        assert not is_good(Played("kind", 1, outcome))
        assert is_good(GOOD)
        assert is_good(PATH)


class TestProgress:
    def test_tells_of_what_went_wrong_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = Progress()
        progress.note(Task("agent", 0, 25), 3, LOST)
        assert "agent, 3: Outcome(" in capsys.readouterr().out

    def test_tells_how_far_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        progress = Progress()
        for number in range(0, 100, 25):
            progress.note(Task(WHOLE_PATH, number, 25), number, PATH)
        assert [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
            "whole path: 50 rounds",
            "whole path: 100 rounds",
        ]


@pytest.mark.slow
def test_ctrl_c_ends_it_with_what_there_is_and_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.torture", "--kind", "trading process", "--jobs", "2"]
    where = {"TMPDIR": str(tmp_path), "COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**where), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end and not list(tmp_path.glob("*/round-1")):
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "| trading process | " in said
    assert list(tmp_path.iterdir()) == []
    assert [pid for pid in _processes() if str(tmp_path) in _folder_of(pid)] == []


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def _folder_of(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""
