"""One build step after the other: a line says what is done, a log keeps the rest, nobody builds at the same time."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .model import BIN, PARTS, ROOT, BuildError, UnavailableError

HEARTBEAT_SECONDS = 15.0
LOG_TAIL_LINES = 25
# What Go says of a module that it is not given, or that the checksum database is not asked for on its behalf.
REFUSED = re.compile(r"(\S+@v[^\s:/]+)\S*: reading \S+(?:: 403 Forbidden|/sumdb/\S+: 404 Not Found)")
LOG_PREFIX = re.compile(r"^\S+\tINFO\t\S+\t")  # the builder's time, level and source line
STARTED = time.monotonic()


def run(
    part: str, step: str, command: list[str], variables: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> None:
    """Run one step at low priority, its output in a log, with a line every few seconds while it lasts."""
    log = PARTS / "log" / f"{part}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"} | dict(variables or {})
    environment["PATH"] = os.pathsep.join(
        [environment.get("PATH", ""), "/usr/local/go/bin"]
    )  # as go.command looks
    say(f"{part}: {step}")
    started = time.monotonic()
    with log.open("a") as output:
        output.write(f"\n$ {' '.join(command)}\n")
        output.flush()
        start = output.tell()
        process = subprocess.Popen(
            ["nice", "-n", "10", *command], cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while (status := _wait(process, HEARTBEAT_SECONDS)) is None:
                say(f"{part}: ... {time.monotonic() - started:.0f} s: {_last_line(log)}")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status != 0:
        said = log.read_bytes()[start:].decode(errors="replace")
        if refused := refused_modules(said):
            raise UnavailableError(
                f"the Go module proxy refuses {', '.join(refused)}; HFT_OTELCOL can name a Collector that has them"
            )
        tail = "\n".join(said.splitlines()[-LOG_TAIL_LINES:])
        raise BuildError(
            f"{part}: `{step}` ended with status {status}; the end of {log.relative_to(ROOT)}:\n{tail}"
        )


def refused_modules(said: str) -> list[str]:
    """The modules that Go was refused, of what a build has said; a refusal is final, and no fault of the build."""
    return sorted({module.rpartition("/")[2] for module in REFUSED.findall(said)})


@contextmanager
def lock() -> Iterator[None]:
    """Hold the one lock of .parts, waiting for another build to end."""
    BIN.mkdir(parents=True, exist_ok=True)
    with (PARTS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is under way: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """Print a line, with the seconds since the start before it."""
    print(f"[{time.monotonic() - STARTED:4.0f} s] {line}", flush=True)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return LOG_PREFIX.sub("", lines[-1])[:90] if lines else ""
