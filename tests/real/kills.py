"""Rounds of kill -9 at random moments, and what was lost: for the tests (a few rounds) and `make torture` (many)."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.real.agents import (
    HEAD,
    agents_in,
    await_quiet,
    configure,
    no_agent_left,
    one_agent,
    records,
)
from tests.real.processes import NOT_MEASURED, hear, python, run_script, say, started

__all__ = ["ROUNDS", "Outcome", "rounds"]

UNMEASURED: dict[str, Any] = dict(NOT_MEASURED)

# Logs text and audit, and notes in mapped memory, which outlives it, how many calls have returned.
LOGGING = (
    HEAD
    + """
import mmap, struct
burst, pause, last = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
with open("confirmed", "r+b") as file:
    confirmed = mmap.mmap(file.fileno(), 8)
log = make()
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
tell(ready=True)
number = 0
while not stop.is_set():
    for _ in range(burst):
        log.info("text", number=number, padding="x" * (number % 50))
        log.audit("sent", number=number)
        number += 1
        struct.pack_into("<Q", confirmed, 0, number)
    log.counter("orders")
    time.sleep(pause)
if last == "flush":
    report = log.force_flush(60)
    tell(flushed=bool(report), report=str(report))
"""
)
AGAIN = (
    HEAD + "log = make(); log.info('again', number=0); assert log.force_flush(60), str(log.force_flush(0))"
)


@dataclass
class Outcome:
    """What became of one round: records whose call had returned, of them lost, and deliveries beyond the first."""

    confirmed: int
    lost_texts: int
    lost_audits: int
    repeats: int
    unrecognised: int
    """Repeats that have another identity than the first delivery."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, every repeat is recognised, and nothing else is wrong."""
        return not (self.lost_texts or self.lost_audits or self.unrecognised or self.notes)


def _judge(folder: Path, confirmed: int, identity: str = "log.record.uid") -> Outcome:
    found = records(folder, killed=True)
    lost: dict[str, int] = {}
    repeats = unrecognised = 0
    for message, key in (("text", identity), ("sent", "audit.id")):
        mine = [entry["attributes"] for entry in found if entry["body"] == message]
        seen = Counter(each["number"] for each in mine)
        lost[message] = len(set(range(confirmed)) - set(seen))
        repeats += len(mine) - len(seen)
        unrecognised += len({(each["number"], each[key]) for each in mine}) - len(seen)
        unrecognised += len(seen) - len({each[key] for each in mine})
    return Outcome(confirmed, lost["text"], lost["sent"], repeats, unrecognised)


def _confirmed(folder: Path) -> int:
    (number,) = struct.unpack("<Q", (folder / "confirmed").read_bytes())
    return int(number)


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "confirmed").write_bytes(bytes(8))
    configure(folder, "process", exit_timeout=30)


def _moments(rng: random.Random) -> float:
    """Seconds until a kill: now and then before the agent is even up, mostly while it works."""
    return rng.choice((rng.uniform(0, 0.1), rng.uniform(0.1, 1.5)))


def kill_trader(folder: Path, rng: random.Random) -> Outcome:
    """Kill the trading process: its agent delivers what it has left."""
    _prepare(folder)
    with started(python(LOGGING, "10", "0.002", "nothing"), folder, **UNMEASURED) as process:
        hear(process)
        time.sleep(_moments(rng))
        process.kill()
        process.wait()
    await_quiet(folder, 60)
    return _judge(folder, _confirmed(folder))


def kill_agent(folder: Path, rng: random.Random) -> Outcome:
    """Kill the agent, now and then twice: the next one goes on where it was."""
    _prepare(folder)
    with started(python(LOGGING, "1", "0.0005", "flush"), folder, **UNMEASURED) as process:
        hear(process)
        killed = 0
        for _ in range(rng.choice((1, 1, 2))):
            killed = one_agent(folder, other_than=killed)
            time.sleep(_moments(rng))
            os.kill(killed, signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.3))
        say(process)
        told = hear(process)
        assert process.wait(60) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    await_quiet(folder, 60)
    outcome = _judge(folder, _confirmed(folder))
    if '"flushed": true' not in told:
        outcome.notes += [told, said]
    return outcome


def kill_both(folder: Path, rng: random.Random) -> Outcome:
    """Kill both at about the same time: the next start delivers what they left."""
    _prepare(folder)
    with started(python(LOGGING, "10", "0.002", "nothing"), folder, **UNMEASURED) as process:
        hear(process)
        agent = one_agent(folder)
        time.sleep(_moments(rng))
        victims = [process.pid, agent]
        rng.shuffle(victims)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            time.sleep(rng.choice((0, 0, rng.uniform(0, 0.005))))
        process.wait()
    for late in agents_in(folder):  # one that the keeper started between the two kills
        os.kill(late, signal.SIGKILL)
    confirmed = _confirmed(folder)
    run_script(AGAIN, cwd=folder, **UNMEASURED)
    await_quiet(folder, 60)
    return _judge(folder, confirmed)


ROUNDS: Mapping[str, Callable[[Path, random.Random], Outcome]] = {
    "trading process": kill_trader,
    "agent": kill_agent,
    "both": kill_both,
}
"""Who is killed, and how that is done once."""


def rounds(kind: str, count: int, seed: int, folder: Path, first: int = 0) -> Iterator[Outcome]:
    """Play so many rounds, each in a folder of its own and with a seed of its own, by its number."""
    for number in range(first, first + count):
        where = folder / f"round-{number}"
        begun = time.monotonic()
        with no_agent_left(where):
            outcome = ROUNDS[kind](where, random.Random(f"{kind}-{seed}-{number}"))
        outcome.seconds = time.monotonic() - begun
        yield outcome
