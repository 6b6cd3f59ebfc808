"""32 threads that log at the same time: 10,000 records a second for a minute, and as fast as they can."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.agents import HEAD, agents_in, configure, no_agent_left
from tests.real.processes import NOT_MEASURED, hear, otlp, python, say, started
from tests.real.running import Collector

SECONDS = float(os.environ.get("HFT_LOAD_SECONDS", "60"))
THREADS, RATE = 32, 10_000
ROOMS = ("audit", "high", "metric", "low")
FOREIGN = 0.25
"""Share of the machine's time that other programs, and other machines on the same hardware, may take."""

# Each thread counts its records per room. "paced" has all of them come to a rate, each thread in steps of 10 ms; without
# a rate they log as fast as the interpreter lets them. Every hundredth record is an audit, every tenth a warning.
PROGRAM = (
    HEAD
    + """
threads, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
log = make()
log.info("ready")
log.counter("calls")
assert log.force_flush(60)
tell(pid=os.getpid())
sys.stdin.readline()
counts, late = [[0, 0, 0, 0] for _ in range(threads)], [0.0] * threads


def one(thread, step):
    own = counts[thread]
    if step % 100 == 0:
        log.audit("audit", thread=thread, number=own[0], symbol="BTC/USDT", price=64000.5)
        own[0] += 1
    elif step % 10 == 0:
        log.warning("high", thread=thread, number=own[1], symbol="BTC/USDT", price=64000.5)
        own[1] += 1
    elif step % 10 == 5:
        log.counter("calls")
        own[2] += 1
    else:
        log.info("low", thread=thread, number=own[3], symbol="BTC/USDT", price=64000.5)
        own[3] += 1


def paced(thread):
    total, done = int(rate / threads * seconds), 0
    while done < total:
        due = min(int((time.perf_counter() - begin) * rate / threads) + 1, total)
        late[thread] = max(late[thread], (due - done) * threads / rate)
        for done in range(done, due):
            one(thread, done)
        done += 1
        time.sleep(0.01)


def unpaced(thread):
    done, end = 0, begin + seconds
    while time.perf_counter() < end:
        for done in range(done, done + 50):
            one(thread, done)
        done += 1


begin = time.perf_counter()
work = [threading.Thread(target=paced if rate else unpaced, args=(thread,)) for thread in range(threads)]
for each in work:
    each.start()
for each in work:
    each.join()
took = time.perf_counter() - begin
tell(logged=True)
sys.stdin.readline()
report = log.force_flush(90)
sums = {lane.lane: [lane.emitted, lane.unrouted, sum(lane.dropped.values()), lane.pending] for lane in report.lanes}
boxes = {
    f"{box.destination} {box.type}": [box.accepted, box.delivered, sum(box.dropped.values()), box.pending]
    for box in report.destinations
}
tell(counts=counts, took=took, late=max(late), flushed=report.complete, lanes=sums, boxes=boxes, report=str(report))
"""
)


class Machine:
    """Whose the time of the machine is, from when this is made: the share of those who are not of the test."""

    def __init__(self, folder: Path, *pids: int) -> None:
        self._pids = (os.getpid(), *pids)
        self._folder = folder
        self._begin = self._look()

    def foreign(self) -> float:
        """Say what share other programs have taken, or other machines on the same hardware, so far."""
        before, now = self._begin, self._look()
        spent = max(now[1] - before[1], 1)
        return max(1 - (now[0] - before[0]) / spent - (now[2] - before[2]) / spent, 0.0)

    def _look(self) -> tuple[int, int, int]:
        """Return in ticks: what was idle, all, and what the test has used."""
        fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        ours = sum(map(_ticks, (*self._pids, *agents_in(self._folder))))
        return fields[3] + fields[4], sum(fields), ours


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def play(folder: Path, otel: Collector, rate: float, seconds: float) -> tuple[dict[str, Any], float]:
    """Run the program; return what it told, and the share of the machine that others have taken meanwhile."""
    arguments = (str(THREADS), str(rate), str(seconds))
    with (
        no_agent_left(folder),
        started(python(PROGRAM, *arguments), folder, **NOT_MEASURED) as process,
    ):
        pid = json.loads(hear(process))["pid"]
        machine = Machine(folder, pid, otel.pid)
        say(process)
        hear(process)
        foreign = machine.foreign()
        say(process)
        told: dict[str, Any] = json.loads(hear(process))
        assert process.wait(60) == 0
    otel.stop()
    print(
        f"{sum(map(sum, told['counts']))} records in {told['took']:.1f} s, the latest {told['late'] * 1000:.0f} ms late; "
        f"others took {foreign:.0%} of the machine\n{told['report']}"
    )
    return told, foreign


def in_file(folder: Path) -> Iterator[tuple[int, str, int]]:
    """Thread, room and number of every record in the file."""
    with (folder / "out.jsonl").open("rb") as file:
        for line in file:
            found = json.loads(line)
            if found["body"] != "ready":
                yield found["attributes"]["thread"], found["body"], found["attributes"]["number"]


def in_collector(otel: Collector) -> Iterator[tuple[int, str, int]]:
    """The same, of every log record in the Collector's file."""
    for request in otel.requests("logs.jsonl"):
        for of_resource in request["resourceLogs"]:
            for of_scope in of_resource["scopeLogs"]:
                for record in of_scope["logRecords"]:
                    body = record["body"]["stringValue"]
                    if body != "ready":
                        values = {each["key"]: each["value"].get("intValue") for each in record["attributes"]}
                        yield int(values["thread"]), body, int(values["number"])


def series(found: Iterator[tuple[int, str, int]]) -> dict[tuple[int, str], int]:
    """Count per thread and room; fails where one comes twice, or behind a later one."""
    last: dict[tuple[int, str], int] = {}
    counts: dict[tuple[int, str], int] = {}
    for thread, room, number in found:
        key = thread, room
        assert number > last.get(key, -1), f"thread {thread}, {room}: {number} comes behind {last[key]}"
        last[key], counts[key] = number, counts.get(key, 0) + 1
    return counts


def logged(told: dict[str, Any]) -> dict[tuple[int, str], int]:
    """What the threads have logged, per thread and room."""
    return {
        (thread, room): own[place]
        for thread, own in enumerate(told["counts"])
        for place, room in enumerate(ROOMS)
        if own[place] and room != "metric"
    }


def both(folder: Path, otel: Collector, isolation: str) -> None:
    """Everything goes to a file of JSON lines and to the Collector."""
    # Of equal rank: how fast the agent is, is asked here; with the usual `nice` the answer would be the neighbours'.
    agent = {"agent": {"nice": 0}} if isolation == "process" else {}
    configure(folder, isolation, {"otlp": otlp(otel.endpoint)}, **agent)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_ten_thousand_records_a_second_from_32_threads_are_all_delivered_in_order(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    otel = collector()
    both(tmp_path, otel, "process")
    told, foreign = play(tmp_path, otel, RATE, SECONDS)
    dropped = sum(sums[2] for sums in [*told["lanes"].values(), *told["boxes"].values()])
    if dropped and foreign > FOREIGN:
        pytest.skip(f"inconclusive: others took {foreign:.0%} of this machine")
    assert not dropped and told["flushed"], told["report"]
    assert sum(map(sum, told["counts"])) == int(RATE / THREADS * SECONDS) * THREADS
    assert series(in_file(tmp_path)) == logged(told)
    assert series(in_collector(otel)) == logged(told)
    calls = [point for point in otel.metrics() if point["name"] == "hft.calls"]
    assert calls[-1]["value"] == 1 + sum(own[2] for own in told["counts"])


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_32_threads_at_full_speed_have_every_record_delivered_or_counted(
    isolation: str, collector: Callable[..., Collector], tmp_path: Path
) -> None:
    otel = collector()
    both(tmp_path, otel, isolation)
    told, _ = play(tmp_path, otel, 0, 5)
    assert told["flushed"], told["report"]
    sent = {room: sum(own[place] for own in told["counts"]) for place, room in enumerate(ROOMS)}
    sent["metric"], sent["low"] = sent["metric"] + 1, sent["low"] + 1  # what said that it is ready
    lanes, boxes = told["lanes"], told["boxes"]
    assert {room: emitted for room, (emitted, *_) in lanes.items()} == sent
    assert all(pending == 0 for _, _, _, pending in [*lanes.values(), *boxes.values()])
    assert lanes["audit"][2] == 0  # never dropped, at any speed

    file, counted = series(in_file(tmp_path)), series(in_collector(otel))
    for found, name in ((file, "file"), (counted, "otlp.logs")):
        texts = sum(number for (_, room), number in found.items() if room != "audit") + 1
        assert texts == boxes[f"{name} TEXT"][1]
        assert boxes[f"{name} TEXT"][0] == sent["low"] + sent["high"] - lanes["low"][2] - lanes["high"][2]
        audits = sum(number for (_, room), number in found.items() if room == "audit")
        assert audits == boxes[f"{name} AUDIT"][1] == sent["audit"]
    calls = [point for point in otel.metrics() if point["name"] == "hft.calls"]
    assert calls[-1]["value"] == boxes["otlp.metrics METRIC"][1] == sent["metric"] - lanes["metric"][2]
