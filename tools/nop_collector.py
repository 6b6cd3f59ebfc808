"""A real Collector that throws everything away: for what is to be measured of the way there."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tools.parts import cure, locate

__all__ = ["BINARY", "NopCollector", "free_port", "nop_collector"]

BINARY = "otelcol-hft-test"


class NopCollector(NamedTuple):
    """A running Collector: its OTLP/HTTP address, its process, and where it tells of itself, if it counts."""

    endpoint: str
    pid: int
    metrics: str = ""

    def log_records(self) -> int:
        """Return how many log records have arrived so far."""
        with urllib.request.urlopen(self.metrics, timeout=10) as response:
            lines = response.read().decode().splitlines()
        name = "otelcol_receiver_accepted_log_records"
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)))


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nop_collector(cores: set[int] | None = None, *, counts: bool = False) -> Iterator[NopCollector | None]:
    """Run it on these cores (by default on all); yields None, after a line that says the cure, where none is built."""
    binary = locate(BINARY)
    if binary is None:
        print(f"Left out: what needs a Collector. {cure(BINARY)}")
        yield None
        return
    port, health, own = free_port(), free_port(), free_port()
    reader = f"{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {own}}}}}}}}}"
    metrics = f"{{level: basic, readers: [{reader}]}}" if counts else "{level: none}"
    pipeline = "{receivers: [otlp], exporters: [nop]}"
    config = (
        f"receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n"
        f"exporters: {{nop: {{}}}}\nextensions: {{health_check: {{endpoint: '127.0.0.1:{health}'}}}}\n"
        f"service: {{extensions: [health_check], telemetry: {{metrics: {metrics}, logs: {{level: error}}}}, "
        f"pipelines: {{logs: {pipeline}, metrics: {pipeline}, traces: {pipeline}}}}}\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(config)
        file.flush()
        process = subprocess.Popen(
            [str(binary), "--config", file.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            if cores:
                os.sched_setaffinity(process.pid, cores)
            _wait_for(f"http://127.0.0.1:{health}")
            yield NopCollector(
                f"http://127.0.0.1:{port}", process.pid, f"http://127.0.0.1:{own}/metrics" if counts else ""
            )
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
