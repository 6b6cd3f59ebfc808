"""A Collector that is away while a process logs at a steady rate: for the tests (seconds) and `make outage` (minutes)."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hft_otel.audit.reconcile import reconcile
from tests.real import otlp_json
from tests.real.agents import HEAD, agents_in, no_agent_left, serving
from tests.real.processes import NOT_MEASURED, hear, otlp, python, say, started, write_config
from tests.real.running import Collector, wait_until

__all__ = ["AUDITS", "MEGABYTE", "TEXTS", "Memory", "Outage", "Plan", "play"]

MEGABYTE = 1_000_000
AUDITS = 1_000
"""Audit events per second."""
TEXTS = 200
"""Text records per second."""
FLAT, BUSY = 8 * MEGABYTE, 16 * MEGABYTE
"""What a process may grow by, however long the outage: by its end, and at any time, as when all is sent at once."""

# Logs at a steady rate until it hears "stop"; tells at any line how much it has logged.
LOGGING = (
    HEAD
    + """
audits, texts, padding = int(sys.argv[1]), int(sys.argv[2]), "x" * int(sys.argv[3])
log = make()
log.set_context(exchange="mexc", component="order_engine")
stop, number, text = threading.Event(), 0, 0

def listen():
    for line in sys.stdin:
        if line.strip() == "stop":
            return stop.set()
        tell(audits=number, texts=text)

threading.Thread(target=listen, daemon=True).start()
tell(ready=True)
begin = time.monotonic()
while not stop.is_set():
    now = time.monotonic() - begin
    while number < now * audits:
        log.audit("order_sent", number=number, symbol="BTC/USDT", price="64000.5", note=padding)
        number += 1
    while text < now * texts:
        log.warning("Order rejected", number=text, symbol="BTC/USDT")
        text += 1
    time.sleep(0.001)
report = log.force_flush(float(sys.argv[4]))
tell(
    audits=number, texts=text, complete=report.complete, report=str(report),
    lanes={f"{s.lane} {s.type}": s.dropped for s in report.lanes},
    delivered={f"{s.destination} {s.type}": s.delivered for s in report.destinations},
    dropped={f"{s.destination} {s.type}": s.dropped for s in report.destinations},
)
"""
)


class Plan(NamedTuple):
    """What is played."""

    isolation: str = "process"
    seconds: float = 600.0
    """For which the Collector is away."""
    padding: int = 0
    """Bytes that each audit event is larger than an ordinary one."""
    settle: float = 5.0
    """Seconds of logging before the outage, and after all has caught up."""


class Memory(NamedTuple):
    """A process's memory, in bytes."""

    resident: int
    own: int
    """Without pages of files, which the kernel can take back."""

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Look into /proc; nothing where the process is gone."""
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            sizes = {
                line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")
            }
            return cls(sizes["VmRSS"], sizes["RssAnon"])
        return cls(0, 0)


@dataclass
class Outage:
    """What was seen, and what became of everything."""

    plan: Plan
    memory: dict[str, dict[str, Memory]] = field(default_factory=dict)
    """By process, then before the outage, the most in it, at its end, and after all has caught up."""
    journal: dict[str, int] = field(default_factory=dict)
    """Bytes that the journal takes on the disk, without what is kept: before, at the end of the outage, after."""
    behind: int = 0
    """Audit events that were logged in the outage."""
    catching_up: float = 0.0
    """Seconds from the Collector's start until nothing but what was just logged is left, while logging goes on."""
    events: int = 0
    missing: int = 0
    waiting: int = 0
    repeats: int = 0
    out_of_order: int = 0
    spans_missing: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    """The process's own account."""
    texts_arrived: int = 0

    @property
    def bytes_per_event(self) -> float:
        """What an event took on the disk while it waited."""
        return (self.journal["end of outage"] - self.journal["before"]) / max(self.behind, 1)

    @property
    def texts_dropped(self) -> dict[str, int]:
        """Text records that were lost, by reason."""
        found: Counter[str] = Counter()
        for place in (*_about(self.told["lanes"], "TEXT"), *_about(self.told["dropped"], "TEXT")):
            found.update(place)
        return dict(found)

    @property
    def texts_delivered(self) -> int:
        """Text records that the process counts as delivered."""
        return sum(_about(self.told["delivered"], "TEXT"))

    def growth(self, process: str, when: str) -> int:
        """The bytes by which a process's resident memory was then above what it was before."""
        seen = self.memory[process]
        return seen[when].resident - seen["before"].resident

    def problems(self) -> Iterator[str]:
        """What should not be."""
        if self.told["audits"] != self.events:
            yield f"{self.told['audits']} audit events were logged, and the trail has {self.events}"
        for what in ("missing", "waiting", "out_of_order", "spans_missing"):
            if getattr(self, what):
                yield f"{getattr(self, what)} audit events {what.replace('_', ' ')}"
        lost = [*_about(self.told["lanes"], "AUDIT"), *_about(self.told["dropped"], "AUDIT")]
        if any(lost) or not self.told["complete"]:
            yield f"the process does not count all as delivered: {self.told['report']}"
        for process in self.memory:
            for when, bound in (("end of outage", FLAT), ("most", BUSY)):
                if self.growth(process, when) > bound:
                    yield f"the {process} grew by {self.growth(process, when) / MEGABYTE:.1f} MB ({when})"
        logged, dropped = self.told["texts"], sum(self.texts_dropped.values())
        if logged != self.texts_delivered + dropped:
            yield f"of {logged} text records {self.texts_delivered} were delivered and {dropped} counted as dropped"
        if self.texts_arrived != self.texts_delivered:
            yield f"{self.texts_arrived} text records arrived, and {self.texts_delivered} were delivered"


def _about(sums: dict[str, Any], kind: str) -> list[Any]:
    return [value for name, value in sums.items() if name.endswith(f" {kind}")]


class _Watch:
    """The processes and the journal, looked at from outside."""

    def __init__(self, folder: Path, processes: dict[str, int], outage: Outage) -> None:
        self._folder = folder
        self._processes = processes
        self._outage = outage
        self._most = 0
        """Segments there were before the outage."""

    def note(self, when: str) -> None:
        """Note memory and disk under this name."""
        for name, pid in self._processes.items():
            self._outage.memory.setdefault(name, {})[when] = Memory.of(pid)
        self._outage.journal[when] = sum(path.stat().st_blocks * 512 for path in self._segments())

    def most(self, seconds: float) -> None:
        """Look each half second for so long, and note the most memory that there was."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for name, pid in self._processes.items():
                noted = self._outage.memory.setdefault(name, {})
                noted["most"] = max(noted.get("most", Memory(0, 0)), Memory.of(pid))
            time.sleep(min(left, 0.5))

    def usual(self, seconds: float) -> None:
        """Look for so long at how many segments there are when all goes well."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._most = max(self._most, len(self._segments()))
            time.sleep(0.1)

    def catch_up(self, patience: float) -> float:
        """Wait until there are no more segments than usual; the seconds that took."""
        begin = time.monotonic()
        while len(self._segments()) > self._most:
            assert time.monotonic() < begin + patience, f"{len(self._segments())} segments are left"
            self.most(0.2)
        return time.monotonic() - begin

    def _segments(self) -> list[Path]:
        return [path for path in (self._folder / "journal").glob("*/*.seg") if path.parent.suffix != ".trail"]


def play(plan: Plan, folder: Path, otel: Collector) -> Outage:
    """Log to the Collector, take it away for a while, let everything catch up, and hold what arrived against the trail."""
    outage = Outage(plan)
    folder.mkdir(parents=True, exist_ok=True)
    if not otel.running:
        otel.start()
    patience = 120 + 2 * plan.seconds
    _configure(plan, folder, otel.endpoint)
    command = python(LOGGING, str(AUDITS), str(TEXTS), str(plan.padding), str(patience))
    with no_agent_left(folder), started(command, folder, **NOT_MEASURED) as process:
        hear(process)
        wait_until(lambda: next(otel.requests("traces.jsonl"), None), what="the first audit event")
        processes = {"trading process": process.pid}
        if plan.isolation == "process":
            processes["agent"] = serving(folder)
        watch = _Watch(folder, processes, outage)
        watch.usual(plan.settle)
        watch.note("before")
        otel.kill()
        begun = _count(process)
        watch.most(plan.seconds)
        watch.note("end of outage")
        outage.behind = _count(process) - begun
        otel.start()
        outage.catching_up = watch.catch_up(patience)
        watch.most(plan.settle)
        watch.note("after")
        say(process, "stop")
        outage.told = json.loads(hear(process))
        assert process.wait(60) == 0
    _await_no_agent(folder)
    otel.stop()
    _judge(outage, folder, otel)
    return outage


def _configure(plan: Plan, folder: Path, endpoint: str) -> None:
    write_config(
        folder,
        {"otlp": otlp(endpoint)},
        isolation=plan.isolation,
        journal={"folder": str(folder / "journal")},
        lanes={"folder": str(folder / "lanes")},
        exit_timeout=60,
    )


def _await_no_agent(folder: Path) -> None:
    """Wait until no agent works here any more."""
    wait_until(lambda: agents_in(folder), lambda left: not left, "the agent's end", 60)


def _count(process: subprocess.Popen[str]) -> int:
    say(process)
    return int(json.loads(hear(process))["audits"])


def _judge(outage: Outage, folder: Path, otel: Collector) -> None:
    """Hold what stands in the Collector's files against the trail."""
    records = otlp_json.logs(otel.requests("logs.jsonl"))
    audits: list[str] = []
    texts: set[int] = set()
    for record in records:
        if record["event_name"].startswith("audit."):
            audits.append(record["attributes"]["audit.id"])
        elif not record["event_name"]:
            texts.add(record["attributes"]["number"])
    held = reconcile(folder / "journal", audits)
    outage.events = sum(each.events for each in held)
    outage.missing = sum(len(each.missing) for each in held)
    outage.waiting = sum(each.waiting for each in held)
    outage.repeats = len(audits) - len(set(audits))
    outage.out_of_order = _out_of_order(audits)
    spans = {span["attributes"]["audit.id"] for span in otlp_json.spans(otel.requests("traces.jsonl"))}
    outage.spans_missing = len(set(audits) - spans)
    outage.texts_arrived = len(texts)


def _out_of_order(identities: Iterable[str]) -> int:
    """Count events that came, for the first time, after one of a higher number in their stream."""
    last: dict[str, int] = {}
    seen: set[str] = set()
    found = 0
    for identity in identities:
        stream, _, number = identity.rpartition("-")
        if identity not in seen:
            found += int(number) < last.get(stream, -1)
            last[stream] = max(last.get(stream, -1), int(number))
        seen.add(identity)
    return found
