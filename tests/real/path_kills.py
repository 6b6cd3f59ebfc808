"""The whole path of an audit event, and kill -9 of anything on it: for the tests (a few rounds) and `make torture` (many).

A trading process writes audit events without a pause. They go to a file of our own, and through a real Collector, as
`hft-otel collector render` configures it, to the Collector's file and to the stand-in for Elasticsearch. Each round kills
one or several of trading process, agent, Collector and Elasticsearch, and starts them again. After some rounds everything
is up, all is delivered, and `hft-otel audit verify` and `audit reconcile` say what became of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hft_otel.audit.outside import read_seen
from hft_otel.audit.reading import read_events
from tests.real.agents import HEAD, agents_in, no_agent_left
from tests.real.collector_process import PipelineCollector
from tests.real.elasticsearch_durable import ElasticsearchProcess
from tests.real.pipeline_support import best_binary, rendered
from tests.real.processes import (
    NOT_MEASURED,
    environment,
    hft_otel,
    otlp,
    python,
    run,
    run_script,
    write_config,
)
from tests.real.running import wait_until

__all__ = ["PATHS", "PLACES", "VICTIMS", "PathOutcome", "play"]

VICTIMS = ("trading process", "agent", "Collector", "Elasticsearch")
PLACES = ("file", "Collector's file", "Elasticsearch")
PATHS: Mapping[str, str] = {"whole path": "process", "whole path, thread": "thread"}
"""The kinds, and the isolation of each."""

PATIENCE = 120.0
"""Seconds for what was written to arrive, once everything is up."""
EACH = 1_000_000
"""Numbers for the events of one trading process."""

# Notes in mapped memory, which outlives it, how many calls have returned.
TRADER = (
    HEAD
    + """
import mmap, struct
begin, name = int(sys.argv[1]), sys.argv[2]
with open(name, "r+b") as file:
    confirmed = mmap.mmap(file.fileno(), 8)
log = make()
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
number = begin
while not stop.is_set():
    for _ in range(1 + number % 9):
        log.audit("order_sent", number=number, padding="x" * (number % 300))
        number += 1
        struct.pack_into("<Q", confirmed, 0, number - begin)
    time.sleep(0.005)
for _ in range(10):
    if report := log.force_flush(30):
        break
    time.sleep(0.5)
print(json.dumps({"flushed": bool(report), "report": str(report)}), flush=True)
"""
)
# Finds whatever is left of those that were killed.
LAST = HEAD + "log = make(); log.audit('order_sent', number=-1); log.force_flush(60)"


@dataclass
class PathOutcome:
    """What became of some rounds in one scene."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    confirmed: int = 0
    """Calls that had returned."""
    unwritten: int = 0
    """Of them, those that are not in the trail exactly once."""
    events: int = 0
    """Events in the trail."""
    missing: Counter[str] = field(default_factory=Counter)
    """Events of the trail that a place lacks."""
    repeats: Counter[str] = field(default_factory=Counter)
    """Deliveries beyond the first; Elasticsearch keeps none."""
    unrecognised: int = 0
    """Deliveries with an identity that is not the one of that event in the trail."""
    problems: list[str] = field(default_factory=list)
    """What `verify` found, and what did not work as it should."""
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Events that are not where they should be."""
        return self.unwritten + sum(self.missing.values())

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, every repeat is recognised, and nothing else is wrong."""
        return not (self.lost or self.unrecognised or self.problems)


class Scene:
    """Everything on the path, in one folder."""

    def __init__(self, folder: Path, isolation: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.victims = VICTIMS if isolation == "process" else tuple(v for v in VICTIMS if v != "agent")
        self.own_file = folder / "own.jsonl"
        self.elastic = ElasticsearchProcess(folder / "elasticsearch", *lasting_ports(1))
        self.collector = self._configure(isolation)
        self._traders: list[Path] = []
        self._trader: subprocess.Popen[str] | None = None

    def _configure(self, isolation: str) -> PipelineCollector:
        http, audit = lasting_ports(2)
        file = {"type": "file", "enabled": True}
        backends = {
            "own": file | {"config": {"file_path": str(self.own_file), "format": "json", "rotation": False}},
            "kept": file | {"config": {"via": "collector", "file_path": str(self.folder / "kept.jsonl")}},
            "elasticsearch": {"enabled": True, "config": {"endpoint": self.elastic.url}},
            "otlp": otlp(f"http://127.0.0.1:{http}", audit_endpoint=f"http://127.0.0.1:{audit}"),
        }
        path = write_config(
            self.folder,
            backends,
            environment="prod",
            isolation=isolation,
            exit_timeout=60,
            lanes={"folder": str(self.folder / "lanes")},
            # Small segments, so that many are settled and retired while everything is killed.
            journal={
                "folder": str(self.folder / "journal"),
                "segment_kb": 64,
                "spare_segments": 16,
                "anchor_interval": 0.5,
            },
            routing_rules=[
                {
                    "name": "audits",
                    "log_types": ["AUDIT"],
                    "backends": ["own", "kept", "elasticsearch"],
                }
            ],
        )
        env = {
            "HFT_COLLECTOR_DATA": str(self.folder / "collector-data"),
            "HFT_ELASTICSEARCH_ENDPOINT": self.elastic.url,
        }
        made = PipelineCollector(best_binary(), self.folder / "collector", rendered(path, "dev"), env)
        assert made.replaced == [], made.replaced
        # pre-set: the ports that Program would choose are those from which connections start
        names = list(made._port_names)
        made.ports = dict(zip(names, lasting_ports(len(names)), strict=True))
        made.ports |= {"HFT_COLLECTOR_HTTP_PORT": http, "HFT_COLLECTOR_AUDIT_HTTP_PORT": audit}
        return made

    # --- lives and deaths

    def start(self, victim: str) -> None:
        """Start it, if it is down; the agent is started by the trading process."""
        match victim:
            case "Collector" if not self.collector.running:
                self.collector.start()
            case "Elasticsearch" if not self.elastic.running:
                self.elastic.start()
            case "trading process" if self._trader is None:
                self._start_trader()

    def _start_trader(self) -> None:
        number = len(self._traders)
        noted = self.folder / f"confirmed-{number}"
        noted.write_bytes(bytes(8))
        self._traders.append(noted)
        with (self.folder / "trader.log").open("ab") as log:
            self._trader = subprocess.Popen(
                [str(part) for part in python(TRADER, str(number * EACH), noted.name)],
                cwd=self.folder,
                env=environment(**NOT_MEASURED),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def kill(self, victim: str, rng: random.Random) -> None:
        """Kill -9, of one agent or of all that there are, as one may still deliver for a dead process."""
        match victim:
            case "Collector":
                self.collector.kill()
            case "Elasticsearch":
                self.elastic.kill()
            case "agent":
                agents = agents_in(self.folder)
                for pid in agents if rng.random() < 0.5 else agents[-1:]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            case "trading process":
                self._kill_trader()

    def _kill_trader(self) -> None:
        process, self._trader = self._trader, None
        if process is not None:
            ended = process.poll()
            process.kill()
            process.communicate()
            assert ended is None, f"the trading process ended with {ended}:\n{self._said()}"

    def _said(self) -> str:
        return (self.folder / "trader.log").read_text(errors="replace")[-3000:]

    @contextmanager
    def running(self) -> Iterator[None]:
        """All of it up within; at the end nothing of it is left."""
        with ExitStack() as stack:
            stack.enter_context(no_agent_left(self.folder))
            for program in (self.elastic, self.collector):
                stack.callback(lambda program=program: program.kill() if program.running else None)
            stack.callback(self._end_trader)
            for victim in ("Elasticsearch", "Collector", "trading process"):
                self.start(victim)
            yield

    def _end_trader(self) -> None:
        process, self._trader = self._trader, None
        if process is not None:
            process.kill()
            process.communicate()

    # --- the end

    def settle(self) -> list[str]:
        """Start what is down, let the trading process end, deliver what was left; what did not work."""
        for victim in ("Elasticsearch", "Collector", "trading process"):
            self.start(victim)
        process, self._trader = self._trader, None
        assert process is not None
        said, _ = process.communicate("\n", timeout=PATIENCE * 3)
        told = json.loads(said or "{}")
        wrong = [] if told.get("flushed") else [f"flushed false: {said}", self._said()]
        run_script(LAST, cwd=self.folder, timeout=PATIENCE, **NOT_MEASURED)
        wait_until(
            lambda: (agents_in(self.folder), self._unsettled()),
            lambda left: left == ([], []),
            "the end of the agents, with nothing left",
            PATIENCE,
        )
        return wrong

    def _unsettled(self) -> list[str]:
        folders = (self.folder / "lanes", self.folder / "journal")
        found = (path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
        return sorted(name for name in found if not name.endswith(".trail"))

    def await_elasticsearch(self, events: int) -> None:
        """Wait until it has so many, and no more come; the judge says so if they do not come."""
        end, last = time.monotonic() + PATIENCE, -1
        while time.monotonic() < end:
            with urllib.request.urlopen(f"{self.elastic.url}/logs-*/_count", timeout=10) as answer:
                count = json.load(answer)["count"]
            if count >= events and count == last:
                return
            last = count
            time.sleep(0.5)

    # --- what became of it

    @property
    def kept_files(self) -> list[Path]:
        """What the Collector wrote, rotated or not."""
        return sorted(self.folder.glob("kept.audit*.jsonl"))

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def confirmed(self) -> set[int]:
        """The numbers of the calls that had returned."""
        counts = (struct.unpack("<Q", noted.read_bytes())[0] for noted in self._traders)
        return {number * EACH + each for number, count in enumerate(counts) for each in range(count)}

    def audit(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """What a command of `hft-otel audit` tells, a line of JSON per stream."""
        ended = run(hft_otel("audit", *arguments, "--json"), self.folder, PATIENCE, **NOT_MEASURED)
        assert ended.status in (0, 1), ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]


def play(kind: str, count: int, seed: int, batch: int, folder: Path) -> PathOutcome:
    """Play so many rounds in one scene; `seed` and the number of the batch decide who is killed when."""
    scene = Scene(folder, PATHS[kind])
    rng = random.Random(f"{kind}-{seed}-{batch}")
    outcome = PathOutcome()
    begun = time.monotonic()
    with scene.running():
        for _ in range(count):
            outcome.kills.update(_round(scene, rng))
            outcome.rounds += 1
        outcome.problems += scene.settle()
        _judge(scene, outcome)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _round(scene: Scene, rng: random.Random) -> list[str]:
    victims = rng.sample(scene.victims, rng.choice((1, 1, 2, 2, 3, len(scene.victims))))
    for victim in victims:
        time.sleep(rng.choice((0, rng.uniform(0, 0.005), rng.uniform(0, 0.3))))
        scene.kill(victim, rng)
    rng.shuffle(victims)
    for victim in victims:
        time.sleep(rng.choice((0, rng.uniform(0, 0.4))))
        scene.start(victim)
    time.sleep(rng.uniform(0, 0.6))
    return victims


def _judge(scene: Scene, outcome: PathOutcome) -> None:
    trail = {str(event.audit_id): event.context["number"] for event in read_events(scene.journal)}
    written = Counter(trail.values())
    confirmed = scene.confirmed()
    outcome.confirmed, outcome.events = len(confirmed), len(trail)
    outcome.unwritten = sum(1 for number in confirmed if written[number] != 1)
    scene.await_elasticsearch(len(trail))
    against: dict[str, list[str | Path]] = {
        "file": [scene.own_file],
        "Collector's file": [*scene.kept_files],
        "Elasticsearch": [f"elasticsearch:{scene.elastic.url}/logs-audit*"],
    }
    for place, sources in against.items():
        _reconcile(scene, outcome, place, sources)
    seen = [*_seen([scene.own_file]), *_seen(scene.kept_files), *_indexed(scene)]
    outcome.unrecognised += sum(1 for identity, number in seen if trail.get(identity) != number)
    anchors = (part for file in (scene.own_file, *scene.kept_files) for part in ("--anchors", file))
    for verdict in scene.audit("verify", scene.journal, *anchors):
        outcome.problems += [f"verify: {verdict['stream']}: {problem}" for problem in verdict["problems"]]
    outcome.problems += [f"Elasticsearch: {line}" for line in scene.elastic.violations()]


def _reconcile(scene: Scene, outcome: PathOutcome, place: str, sources: Iterable[str | Path]) -> None:
    options = (part for source in sources for part in ("--against", source))
    for held in scene.audit("reconcile", scene.journal, *options):
        outcome.missing[place] += len(held["missing"]) + held["waiting"]
        outcome.repeats[place] += sum(held["duplicates"].values()) - len(held["duplicates"])
        outcome.unrecognised += held["beyond"]


def _seen(files: Iterable[Path]) -> Iterator[tuple[str, int]]:
    for file in files:
        for seen in read_seen(file):
            if seen.audit_id:
                yield seen.audit_id, int(seen.attributes["number"])


def _indexed(scene: Scene) -> Iterator[tuple[str, int]]:
    for identity, document in scene.elastic.documents().items():
        if str(document.get("event_name", "")).startswith("audit."):
            yield identity, document["attributes"]["number"]


def lasting_ports(count: int) -> list[int]:
    """Free ports from which the system starts no connections.

    From the others it does: while nobody listens on such a port, a client that tries it again and again is one day given
    that very port to call from, reaches itself, and keeps the server out.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, max(lowest, 11_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
