"""What an agent says of itself, and `hft-otel status`, which shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hft_otel.agent.status import FILE, Pulse, Status, look
from hft_otel.cli.app import app
from hft_otel.lanes import streams
from hft_otel.ledger import DestinationSums, FlushReport, LaneSums


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stream:
    """A stream's folder, its two locks, and what its agent says."""

    def __init__(self, folder: Path, name: str) -> None:
        self.clock = Clock()
        self.folder, self.lock = streams.make_folder(folder, name)
        agent_lock = streams.try_lock(self.folder, streams.AGENT_LOCK)
        assert agent_lock is not None
        self.agent_lock = agent_lock
        self.pulse = Pulse(self.folder, 4242, self.clock)

    def kill(self, *, trader: bool = False, agent: bool = False) -> None:
        if trader:
            os.close(self.lock)
            self.lock = -1
        if agent:
            os.close(self.agent_lock)
            self.agent_lock = -1

    def close(self) -> None:
        self.kill(trader=self.lock >= 0, agent=self.agent_lock >= 0)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    with closing(Stream(tmp_path / "lanes", "host-1-a")) as made:
        yield made


@pytest.fixture
def status(tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["status", "--folder", str(tmp_path / "lanes"), *arguments])

    return run


def report(emitted: int, **dropped: int) -> FlushReport:
    return FlushReport(
        [LaneSums("low", "TEXT", emitted - sum(dropped.values()), 0, dropped, 0)],
        [DestinationSums("file", "TEXT", emitted, emitted - 1)],
        complete=True,
    )


def test_rates_are_of_the_time_since_the_last_beat(stream: Stream) -> None:
    stream.pulse.beat(report(100))
    stream.clock.now += 2
    said = stream.pulse.beat(report(300))
    assert (said.lanes[0].rate, said.destinations[0].rate) == (100.0, 100.0)
    stream.clock.now += 1
    assert stream.pulse.beat(report(300)).lanes[0].rate == 0.0


def test_what_was_there_before_the_first_beat_is_no_rate(stream: Stream) -> None:
    assert stream.pulse.beat(report(100_000)).lanes[0].rate == 0.0


def test_a_password_in_a_problem_is_not_written(stream: Stream) -> None:
    problem = "cannot reach http://user:hunter2@host:9091"
    said = stream.pulse.beat(report(1), problem_of=lambda name: problem, problems=[problem])
    assert said.problems == [said.destinations[0].problem] == ["cannot reach http://user:***@host:9091"]


def test_the_file_is_replaced_whole_and_is_for_its_user_alone(stream: Stream) -> None:
    for number in range(3):
        stream.pulse.beat(report(number))
    assert sorted(path.name for path in stream.folder.glob("status*")) == [FILE]
    assert (stream.folder / FILE).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_gone_troubles_nobody(stream: Stream) -> None:
    streams.remove(stream.folder)
    assert stream.pulse.beat(report(1)).trader == 4242


@pytest.mark.parametrize(
    ("trader", "agent", "later", "verdict"),
    [
        (True, True, 0, "serving"),
        (False, True, 0, "draining"),
        (True, False, 0, "no agent"),
        (False, False, 0, "orphaned"),
        (True, True, 60, "silent"),
    ],
)
def test_the_verdict_follows_from_who_lives(
    stream: Stream, trader: bool, agent: bool, later: float, verdict: str
) -> None:
    stream.pulse.beat(report(1))
    stream.kill(trader=not trader, agent=not agent)
    stream.clock.now += later
    (seen,) = look(stream.folder.parent, stream.clock)
    assert seen.verdict == verdict
    assert (seen.trader_alive, seen.agent_alive) == (trader, agent)


def test_looking_takes_no_lock_away(stream: Stream) -> None:
    look(stream.folder.parent)
    assert streams.try_lock(stream.folder) is None


def test_an_agent_that_has_said_nothing_yet_is_shown(stream: Stream, status: Callable[..., Result]) -> None:
    shown = status()
    assert shown.exit_code == 1
    assert "silent" in shown.output and "said nothing yet" in shown.output


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'{"trader": "x"}', b"\xff\xfe"])
def test_a_damaged_status_is_as_good_as_none(stream: Stream, content: bytes) -> None:
    (stream.folder / FILE).write_bytes(content)
    (seen,) = look(stream.folder.parent)
    assert seen.status is None


def test_without_streams_it_says_so(status: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "lanes").mkdir()
    shown = status()
    assert shown.exit_code == 0
    assert f"no trading process has its lanes in {tmp_path / 'lanes'}" in shown.output


def test_a_process_is_shown_with_its_numbers(stream: Stream, status: Callable[..., Result]) -> None:
    stream.pulse = Pulse(stream.folder, 4242)
    stream.pulse.beat(report(12_345), lag=0.25, fill=lambda lane: 0.5)
    shown = status()
    assert shown.exit_code == 0, shown.output
    assert "serving  host-1-a" in shown.output
    assert f"trading process 4242, agent {os.getpid()}" in shown.output
    assert "lag 250 ms" in shown.output
    assert "50% full" in shown.output and "12,345 in" in shown.output
    assert "12,344 delivered        1 waiting" in shown.output


def test_losses_and_problems_stand_out_and_make_the_status_one(
    stream: Stream, status: Callable[..., Result]
) -> None:
    stream.pulse = Pulse(stream.folder, 4242)
    stream.pulse.beat(report(10, room_full=3))
    shown = status()
    assert shown.exit_code == 1
    assert "dropped 3 (room_full 3)" in shown.output
    stream.pulse.beat(report(10), problem_of=lambda name: "connection refused", problems=["", "a bug"])
    shown = status()
    assert shown.exit_code == 1
    assert "problem: connection refused" in shown.output and "problem: a bug" in shown.output


def test_a_probe_of_one_process_is_not_troubled_by_others(
    stream: Stream, status: Callable[..., Result], tmp_path: Path
) -> None:
    stream.pulse.beat(report(5))
    stream.kill(trader=True, agent=True)
    with closing(Stream(tmp_path / "lanes", "host-with-dash-42-b")) as other:
        Pulse(other.folder, 42).beat(report(5))
        shown = status("--pid", "42")
        assert shown.exit_code == 0, shown.output
        assert "host-1-a" not in shown.output
        assert status().exit_code == status("--pid", "1").exit_code == 1
        assert "host-with-dash-42-b" not in status("--pid", "1").output
    missing = status("--pid", "4")
    assert missing.exit_code == 1
    assert "no trading process with pid 4 has its lanes" in missing.output
    assert (missing := status("--pid", "4", "--json")).output == "[]\n" and missing.exit_code == 1


def test_a_process_whose_number_an_orphan_had_is_the_one_that_lives(
    stream: Stream, status: Callable[..., Result], tmp_path: Path
) -> None:
    stream.kill(trader=True, agent=True)
    with closing(Stream(tmp_path / "lanes", "host-1-b")) as other:
        Pulse(other.folder, 1).beat(report(5))
        shown = status("--pid", "1")
    assert (shown.exit_code, "host-1-a" in shown.output) == (0, False)


def test_an_orphan_is_shown_with_who_delivers_it(stream: Stream, status: Callable[..., Result]) -> None:
    assert "next start" not in status().output
    stream.kill(trader=True, agent=True)
    assert "nobody delivers what it has left; the next start of a program with these lanes" in status().output


def test_json_is_one_line_with_all_of_it(stream: Stream, status: Callable[..., Result]) -> None:
    stream.pulse = Pulse(stream.folder, 4242)
    stream.pulse.beat(report(5), lag=1.5)
    shown = status("--json")
    assert shown.output.count("\n") == 1
    (seen,) = json.loads(shown.output)
    assert seen["verdict"] == "serving"
    assert seen["status"]["lag"] == 1.5
    assert set(seen["status"]) == set(Status.__struct_fields__)


def test_a_configuration_says_where_its_lanes_are(tmp_path: Path) -> None:
    lanes = tmp_path / "elsewhere"
    with closing(Stream(lanes, "host-2-b")):
        file = tmp_path / "logging.yaml"
        file.write_text(f"logging:\n  lanes: {{folder: {lanes}}}\n")
        shown = CliRunner().invoke(app, ["status", str(file)])
    assert "host-2-b" in shown.output


def test_without_a_file_it_is_the_configuration_that_loggers_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = tmp_path / "elsewhere"
    file = tmp_path / "logging.yaml"
    file.write_text(f"logging:\n  lanes: {{folder: {lanes}}}\n")
    monkeypatch.setenv("HFT_OTEL_CONFIG", str(file))
    with closing(Stream(lanes, "host-2-b")):
        assert "host-2-b" in CliRunner().invoke(app, ["status"]).output
    file.unlink()
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 2
    assert "HFT_OTEL_CONFIG" in shown.output


def test_a_folder_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        shown = CliRunner().invoke(app, ["status", "--folder", str(tmp_path / name)])
        assert shown.exit_code == 2
        assert f"there is no folder {tmp_path / name}" in shown.output


def test_a_configured_folder_that_is_not_there_has_no_process(tmp_path: Path) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text(f"logging:\n  lanes: {{folder: {tmp_path / 'later'}}}\n")
    shown = CliRunner().invoke(app, ["status", str(file)])
    assert (shown.exit_code, "no trading process" in shown.output) == (0, True)


def test_watching_shows_it_again_until_it_is_interrupted(
    stream: Stream, status: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("hft_otel.cli.status.time.sleep", sleep)
    shown = status("--watch")
    assert waits == [1.0, 1.0]
    assert shown.output.count("host-1-a") == 2
