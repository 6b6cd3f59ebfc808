"""What the tests of the agent share: programs that log, agents to be found, killed and waited for."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.real.processes import write_config
from tests.real.running import wait_until

# Comes before every program: a logger by logging.yaml, and what it may want.
HEAD = """
import asyncio, json, multiprocessing, os, signal, sys, threading, time
from hft_otel import LogConfig, LoggerFactory

def make(name="engine"):
    return LoggerFactory.create_logger(name, LogConfig.from_yaml("logging.yaml"))

def tell(**what):
    print(json.dumps(what), flush=True)
"""


def configure(
    folder: Path, isolation: str, backends: Mapping[str, Any] | None = None, **rest: Any
) -> Mapping[str, Any]:
    """Write a logging.yaml with a file of JSON lines and what is given, journal and lanes beside it."""
    file = {
        "enabled": True,
        "config": {"file_path": str(folder / "out.jsonl"), "format": "json", "rotation": False},
    }
    every = {"file": file, **(backends or {})}
    rest.setdefault("lanes", {"folder": str(folder / "lanes")})
    rest.setdefault("exit_timeout", 20)
    write_config(folder, every, isolation=isolation, **rest)
    return every


def records(folder: Path, *, killed: bool = False) -> list[dict[str, Any]]:
    """What has been delivered to the file, line by line; a line that is still being written is left out.

    Where a writer was `killed`, half a line may stand there, ended by the next writer: it is no delivery.
    """
    path = folder / "out.jsonl"
    found: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            found += [json.loads(line)] if line.endswith(b"\n") else []
        except ValueError:
            if not killed:
                raise
    return found


def numbers(found: list[dict[str, Any]], message: str) -> Counter[int]:
    """How often each numbered record with this message (or audit event) is there."""
    return Counter(entry["attributes"]["number"] for entry in found if entry["body"] == message)


def agents_in(folder: Path) -> list[int]:
    """The processes that are agents and work in this folder, by what the system knows of them."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if not entry.name.isdigit() or (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            command = (entry / "cmdline").read_bytes().split(b"\0")
            agent = any(part.endswith(b"hft_otel/agent/__main__.py") for part in command)
            if agent and (entry / "cwd").resolve() == folder.resolve():
                found.append(int(entry.name))
    return sorted(found)


def streams(folder: Path) -> list[Path]:
    """What is left of lanes and journals."""
    return [
        path
        for part in ("lanes", "journal")
        if (folder / part).exists()
        for path in (folder / part).iterdir()
    ]


def await_quiet(folder: Path, seconds: float = 30) -> None:
    """Wait until no agent works here any more and nothing is left to deliver."""
    wait_until(
        lambda: (agents_in(folder), streams(folder)), lambda left: left == ([], []), "the end", seconds
    )


@contextmanager
def no_agent_left(folder: Path) -> Iterator[None]:
    """Kill at the end what should have ended by itself, so that a failed test leaves nothing behind."""
    try:
        yield
    finally:
        for pid in agents_in(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def one_agent(folder: Path, other_than: int = 0) -> int:
    """Wait for the one agent that works here."""
    (pid,) = wait_until(
        lambda: [pid for pid in agents_in(folder) if pid != other_than],
        lambda found: len(found) == 1,
        "an agent",
    )
    return pid


def serving(folder: Path) -> int:
    """Wait until the agent here has said that it serves; return its pid."""

    def ask() -> int:
        for path in (folder / "lanes").glob("*/status.json"):
            with suppress(OSError, ValueError):
                said = json.loads(path.read_bytes())
                if said["lanes"] and said["agent"] in agents_in(folder):
                    return int(said["agent"])
        return 0

    return wait_until(ask, what="an agent that serves")


def pause(until: float) -> None:
    """Wait until a moment (time.monotonic)."""
    time.sleep(max(until - time.monotonic(), 0))
