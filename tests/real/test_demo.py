"""`hft-otel demo`: the example system over generated messages and over recordings, and an account that adds up."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.real.processes import NOT_MEASURED, ROOT, Ended, hft_otel, run, started
from tests.real.running import free_ports, wait_until
from tools import parts

MARKET_DATA = ROOT.parent / "shared" / "market-data"
RECORDINGS = sorted(
    path for path in MARKET_DATA.glob("*/*.jsonl*") if path.name.endswith((".jsonl", ".jsonl.gz"))
)
LANES = {"audit", "high", "metric", "low"}


def demo(tmp_path: Path, *arguments: str | Path, **environment: str) -> Ended:
    """Run the demo in a folder of its own, as wide as a table needs."""
    command = hft_otel("demo", *arguments)
    return run(command, tmp_path, HFT_DEMO_CONSOLE_LEVEL="CRITICAL", COLUMNS="200", **environment)


def succeeded(ended: Ended) -> None:
    """Check for a good end, and a standard error with nothing but what the example's pricing library says there."""
    assert ended.status == 0, ended.stdout[-3000:] + ended.stderr
    assert [line for line in ended.stderr.splitlines() if not line.startswith("edge of ")] == []


def rows(output: str, width: int) -> dict[tuple[str, str], list[str]]:
    """The rows of tables with so many columns, by their first two cells."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) == width:
            found[cells[0], cells[1]] = cells[2:]
    return found


def check_account(output: str) -> Counter[str]:
    """Check both sums as they were printed, and that nothing was dropped; return the calls by kind."""
    lanes, destinations = rows(output, 7), rows(output, 6)
    assert {lane for lane, _ in lanes} == LANES
    for emitted, routed, unrouted, dropped, pending in lanes.values():
        assert int(emitted) == int(routed) + int(unrouted)
        assert (dropped, pending) == ("0", "0")
    assert destinations
    for accepted, delivered, dropped, pending in destinations.values():
        assert accepted == delivered
        assert (dropped, pending) == ("0", "0")
    calls = Counter({kind: int(number) for kind, number in rows(output, 4)})
    total = calls.pop("all")
    assert sum(calls.values()) == total
    emitted_by = {lane: int(cells[0]) for (lane, _), cells in lanes.items()}
    assert emitted_by["audit"] == calls["AUDIT"]
    assert emitted_by["metric"] == calls["METRIC"] + calls["LATENCY"] + calls["COUNTER"]
    assert "nothing was dropped" in output
    assert "wrong:" not in output
    return calls


def test_demo_ends_with_an_account_that_adds_up(tmp_path: Path) -> None:
    ended = demo(tmp_path, "--seconds", "3", "--no-collector")
    succeeded(ended)
    calls = check_account(ended.stdout)
    assert (
        min(calls[kind] for kind in ("DEBUG", "INFO", "ERROR", "METRIC", "LATENCY", "COUNTER", "AUDIT")) > 0
    )
    lines = [
        line
        for line in (tmp_path / "logs" / "hft.log").read_text().splitlines()
        if "hft.audit.anchor" not in line
    ]
    audits = [line for line in lines if "'audit.id'" in line]
    assert len(audits) == calls["AUDIT"]
    assert len(lines) - len(audits) == sum(calls.get(kind, 0) for kind in ("WARNING", "ERROR", "CRITICAL"))


@pytest.mark.skipif(
    parts.locate("otelcol-hft-test") is None, reason="otelcol-hft-test is not here: make collector"
)
def test_demo_counts_what_a_real_collector_received(tmp_path: Path) -> None:
    ended = demo(tmp_path, "--seconds", "3", "--collector")
    succeeded(ended)
    check_account(ended.stdout)
    destinations = rows(ended.stdout, 6)
    sent = {key: int(cells[1]) for key, cells in destinations.items()}
    files = tmp_path / "logs" / "collector"
    records = [
        record
        for line in (files / "logs.jsonl").read_text().splitlines()
        for resource in json.loads(line)["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
        if record.get("eventName") != "hft.audit.anchor"  # leaves after the sums were taken
    ]
    assert len(records) == sent["otlp.logs", "TEXT"] + sent["otlp.logs", "AUDIT"]
    assert sum("eventName" in record for record in records) == sent["otlp.logs", "AUDIT"]
    assert (
        f"In the Collector's files: {len(records)} log records, {sent['otlp.traces', 'AUDIT']} audit spans"
        in (ended.stdout)
    )


@pytest.mark.slow
@pytest.mark.skipif(not RECORDINGS, reason=f"no recordings here: {MARKET_DATA} is not there")
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_demo_over_a_recording_drops_nothing(tmp_path: Path, recording: Path) -> None:
    ended = demo(tmp_path, "--seconds", "3", "--messages", recording)
    succeeded(ended)
    calls = check_account(ended.stdout)
    messages = re.search(r"^(\d+) messages \((\d+) malformed", ended.stdout, re.MULTILINE)
    assert messages is not None
    assert int(messages[1]) > 1000
    assert calls["ERROR"] >= int(messages[2]) > 0


@pytest.fixture(params=["plain", "compressed"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A little recording of our own, for where there are no others."""
    depth = {"e": "depthUpdate", "s": "BTCUSDT", "b": [["64000.1", "0.5"]], "a": [["64000.2", "0.7"]]}
    frames = [json.dumps({**depth, "u": number}) for number in range(50)]
    text = "".join(
        json.dumps({"exchange": "binance", "data": frame}) + "\n" for frame in [*frames, "{broken"]
    )
    path = tmp_path / "recording.jsonl"
    if request.param == "plain":
        path.write_text(text)
    else:
        path = path.with_suffix(".jsonl.gz")
        path.write_bytes(gzip.compress(text.encode()))
    return path


def test_demo_replays_a_file_of_messages(tmp_path: Path, recording: Path) -> None:
    ended = demo(tmp_path, "--seconds", "1", "--messages", recording, "--no-collector")
    succeeded(ended)
    check_account(ended.stdout)


def refused(ended: Ended, *words: str) -> None:
    """Check that a run ended with status 2 and one clear error, and nothing else."""
    assert ended.status == 2, ended.stdout
    assert ended.stderr.count("\n") <= 4, ended.stderr
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr


def test_unknown_file_of_messages_is_refused_with_one_line(tmp_path: Path) -> None:
    ended = demo(tmp_path, "--messages", "nowhere.jsonl")
    refused(ended, "nowhere.jsonl", "No such file")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"not json\n", ("a.jsonl, line 1", "not JSON")),
        ("a.jsonl", b"", ("no received message",)),
        ("a.jsonl.gz", b"not gzip", ("not a whole gzip file",)),
        ("a.jsonl", b'{"data": 5}\n', ("line 1", "`data`")),
    ],
)
def test_file_that_holds_no_messages_is_refused_with_one_line(
    tmp_path: Path, name: str, content: bytes, words: Sequence[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    ended = demo(tmp_path, "--messages", name)
    refused(ended, *words)
    assert ended.stderr.count("\n") == 1


def test_unknown_configuration_is_refused(tmp_path: Path) -> None:
    refused(demo(tmp_path, "--config", "nowhere.yaml"), "nowhere.yaml")


def test_demo_that_drops_something_ends_with_status_1(tmp_path: Path) -> None:
    """A pager that cannot work: its records are dropped and counted, the others are not touched."""
    (tmp_path / "broken.py").write_text(
        "from hft_otel import LogBackend\n"
        "class Broken(LogBackend):\n"
        "    async def write(self, record):\n"
        "        raise RuntimeError('no line')\n"
    )
    text = (ROOT / "examples" / "logging.yaml").read_text()
    start, end = text.index("    pager:"), text.index("  # A record goes to all backends")
    text = f'{text[:start]}    pager: {{class: "broken:Broken"}}\n\n{text[end:]}'
    text = text.replace('      min_level: "WARNING"\n      backends: ["pager"]', '      backends: ["pager"]')
    (tmp_path / "logging.yaml").write_text(text)
    more = {"PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}:{tmp_path}"}
    ended = demo(tmp_path, "--seconds", "1", "--config", "logging.yaml", "--no-collector", **more)
    assert ended.status == 1, ended.stdout
    assert "losing records at pager" in ended.stderr or "pager has a problem" in ended.stderr
    assert re.search(r"wrong: pager TEXT: dropped \d+ raised", ended.stdout)
    others = {key: cells for key, cells in rows(ended.stdout, 6).items() if key[0] != "pager"}
    assert others
    assert all(cells[0] == cells[1] for cells in others.values())


def test_scrape_endpoint_moves_on_where_its_port_is_taken(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    text = (
        (ROOT / "examples" / "logging.yaml")
        .read_text()
        .replace('prefix: "hft_"', f'prefix: "hft_"\n        port: {port}')
    )
    (tmp_path / "logging.yaml").write_text(text)
    with socket.create_server(("127.0.0.1", port)):
        ended = demo(tmp_path, "--seconds", "1", "--config", "logging.yaml", "--no-collector")
    assert ended.status == 0, ended.stdout
    check_account(ended.stdout)


def test_interrupted_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    """Ctrl-C reaches the demo alone, and its Collector ends with it."""
    command = hft_otel("demo", "--seconds", "60")
    with started(command, tmp_path, HFT_DEMO_CONSOLE_LEVEL="CRITICAL", **NOT_MEASURED) as process:
        pid = process.pid
        wait_until((tmp_path / "logs" / "hft.log").exists, what="the first line of the log")
        children = children_of(pid)
        process.send_signal(2)
        process.communicate(timeout=30)
        assert process.returncode in (1, 130, -2)
    wait_until(
        lambda: not any(Path(f"/proc/{child}").exists() for child in children), what="the Collector's end"
    )


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
