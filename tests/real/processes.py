"""Scenarios in processes of their own: a logger's intake and worker exist once in a process, and end with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


class Ended(NamedTuple):
    """A process that has ended; `at` is when that was seen, in seconds since the epoch."""

    status: int
    stdout: str
    stderr: str
    at: float

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object in the last line that it printed."""
        answer: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return answer


def write_config(folder: Path, backends: Mapping[str, Any], **rest: Any) -> Path:
    """Write a logging.yaml whose journal is beside it; without `routing_rules`, all goes to all backends."""
    # no trail: what is left there is what was not delivered, and nothing but what was logged arrives
    rest.setdefault("journal", {"folder": str(folder / "journal"), "keep_days": 0})
    rest.setdefault("routing_rules", [{"name": "everything", "backends": list(backends)}])
    path = folder / "logging.yaml"
    path.write_text(yaml.safe_dump({"logging": {"backends": dict(backends), **rest}}, sort_keys=False))
    return path


def otlp(endpoint: str, **options: Any) -> dict[str, Any]:
    """The otlp backend of a configuration."""
    return {"enabled": True, "config": {"endpoint": endpoint, "metric_interval": 0.5, **options}}


# urllib3 closes its connections before our last export at exit, and leaves the one of that to the system.
WARNINGS = "error,ignore::ResourceWarning"


# For programs that fork: coverage's own lock may be held by another thread at that moment, and then the child waits
# for it without end.
NOT_MEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would configure a logger or a CLI in there, and without what `more` has as empty."""
    drop = ("OTEL_", "HFT_", "ENVIRONMENT", "COLUMNS", "FORCE_COLOR")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
    paths = f"{ROOT}{os.pathsep}{EXAMPLES}"
    whole = {**kept, "PYTHONPATH": paths, "PYTHONWARNINGS": WARNINGS, **more}
    return {key: value for key, value in whole.items() if value}


def run(command: Sequence[str | Path], cwd: Path, timeout: float = 90, **more: str) -> Ended:
    """Run a program to its end; `more` are environment variables."""
    with started(command, cwd, **more) as process:
        stdout, stderr = process.communicate(timeout=timeout)
        return Ended(process.returncode, stdout, stderr, time.time())


def run_script(
    script: str, *arguments: str | Path, cwd: Path, succeeds: bool = True, timeout: float = 90, **more: str
) -> Ended:
    """Run a Python program to its end, which by default has to be a good one."""
    ended = run(python(script, *arguments), cwd, timeout, **more)
    assert ended.status == 0 or not succeeds, f"exit status {ended.status}\n{ended.stdout}\n{ended.stderr}"
    return ended


def _hear_ctrl_c() -> None:
    """Undo that a shell has its background jobs ignore Ctrl-C, which all programs under them inherit.

    Here and not between fork and exec: gRPC, where a test has it, does not survive a plain fork for sure.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def started(command: Sequence[str | Path], cwd: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A program under way, with pipes; killed where it is still there at the end."""
    _hear_ctrl_c()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:  # waits, and closes the pipes
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def python(script: str, *arguments: str | Path) -> list[str | Path]:
    """The command that runs a Python program given as text."""
    return [sys.executable, "-c", textwrap.dedent(script), *arguments]


def hft_otel(*arguments: str | Path) -> list[str | Path]:
    """The command line `hft-otel` of this installation."""
    return [Path(sys.executable).with_name("hft-otel"), *arguments]


def say(process: subprocess.Popen[str], line: str = "") -> None:
    """Write a line to the program's standard input."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """Wait for the program's next line; fails with its words where it ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, errors = process.communicate()
        raise AssertionError(f"it ended with {process.returncode}:\n{errors}")
    return line.rstrip("\n")
