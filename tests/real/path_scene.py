"""The whole path of an audit event in one folder: all that is on it can be killed and started again, and be looked at.

A trading process writes audit events without a pause. They go to a file of our own, and through a real Collector, as
`hft-otel collector render` configures it, to the Collector's file and to the stand-in for Elasticsearch.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hft_otel.collector import from_file, render
from tests.real.agents import HEAD, agents_in, no_agent_left
from tests.real.collector_process import PipelineCollector, best
from tests.real.elasticsearch_durable import ElasticsearchProcess
from tests.real.processes import (
    NOT_MEASURED,
    environment,
    hft_otel,
    otlp,
    python,
    run,
    write_config,
)
from tests.real.running import Program, wait_until

VICTIMS = ("trading process", "agent", "Collector", "Elasticsearch")
PATIENCE = 120.0
"""Seconds for what was written to arrive, once everything is up, and for a program to start."""
FLOW_SECONDS = 3.0
"""Seconds to wait for the next delivery, as agents need time to start, and senders to try again."""
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
    time.sleep(0.01)
for _ in range(10):
    if report := log.force_flush(30):
        break
    time.sleep(0.5)
print(json.dumps({"flushed": bool(report), "report": str(report)}), flush=True)
"""
)
# Finds whatever is left of those that were killed.
LAST = HEAD + "log = make(); log.audit('order_sent', number=-1); log.force_flush(60)"


class Scene:
    """Everything on the path, in one folder."""

    def __init__(self, folder: Path, isolation: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.victims = VICTIMS if isolation == "process" else tuple(v for v in VICTIMS if v != "agent")
        self.own_file = folder / "own.jsonl"
        self.elastic = ElasticsearchProcess(folder / "elasticsearch", *lasting_ports(1))
        self.collector = self._configure(isolation)
        self.elastic.start_seconds = self.collector.start_seconds = PATIENCE
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
        binary = best()
        assert binary is not None, "there is no Collector here: make parts"
        config = render(from_file(path), "dev")
        made = PipelineCollector(binary, self.folder / "collector", config, env)
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

    def kill(self, victim: str, rng: random.Random) -> bool:
        """Kill -9, of one agent or of all that there are, as one may still deliver for a dead process; was there any."""
        match victim:
            case "Collector":
                return self.collector.running and self.collector.kill() == -signal.SIGKILL
            case "Elasticsearch":
                return self.elastic.running and self.elastic.kill() == -signal.SIGKILL
            case "trading process":
                return self._kill_trader()
        agents = agents_in(self.folder)
        for pid in agents if rng.random() < 0.5 else agents[-1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(agents)

    def _kill_trader(self) -> bool:
        process, self._trader = self._trader, None
        if process is None:
            return False
        ended = process.poll()
        process.kill()
        process.communicate()
        assert ended is None, f"the trading process ended with {ended}:\n{self._said()}"
        return True

    def _said(self) -> str:
        return (self.folder / "trader.log").read_text(errors="replace")[-3000:]

    @contextmanager
    def running(self) -> Iterator[None]:
        """All of it up within; at the end nothing of it is left."""
        with ExitStack() as stack:
            stack.enter_context(no_agent_left(self.folder))
            for program in (self.elastic, self.collector):
                stack.callback(_end, program)
            stack.callback(self._end_trader)
            for victim in ("Elasticsearch", "Collector", "trading process"):
                self.start(victim)
            yield

    def _end_trader(self) -> None:
        process, self._trader = self._trader, None
        if process is not None:
            process.kill()
            process.communicate()

    def await_trader(self) -> None:
        """Wait until the trading process that was started last has written something."""
        if self._trader is not None:
            noted = self._traders[-1]
            wait_until(lambda: any(noted.read_bytes()), what="the first audit event", seconds=PATIENCE)

    def await_flow(self) -> None:
        """Wait until something more has come to the Collector's file, if that is to be expected."""
        before = self._kept_size()
        if not self.collector.running:
            return
        with suppress(AssertionError):
            wait_until(self._kept_size, lambda size: size > before, seconds=FLOW_SECONDS)

    def _kept_size(self) -> int:
        return sum(file.stat().st_size for file in self.kept_files)

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
        last = run(python(LAST), self.folder, PATIENCE * 3, **NOT_MEASURED)
        wrong += [f"the last process: {last}"] if last.status else []
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
        ended = run(hft_otel("audit", *arguments, "--json"), self.folder, PATIENCE * 5, **NOT_MEASURED)
        assert ended.status in (0, 1), ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]


def _end(program: Program) -> None:
    if program.running:
        program.kill()


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
