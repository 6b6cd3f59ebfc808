"""A Collector beside the demo: OTLP in, one file of JSON lines per signal out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..record import ANCHOR_EVENT
from .otelcol import BUILT, first_of

__all__ = ["DemoCollector", "find_binary"]

_NAMES = ("otelcol-hft-test", "otelcol-hft", "otelcol-contrib", "otelcol")
_START_SECONDS, _STOP_SECONDS = 20.0, 15.0


def find_binary() -> Path | None:
    """Return a Collector's binary: HFT_OTELCOL, the one that `make collector` builds, or one on the PATH."""
    return first_of((_NAMES, f"{BUILT}{os.pathsep}{os.environ.get('PATH', '')}"))


class DemoCollector:
    """A Collector process on a free port of 127.0.0.1, from `start` to `stop`."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.folder = folder.resolve()
        self._binary = binary
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it takes OTLP over HTTP."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it listens; RuntimeError says where its output is when it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for signal in ("logs", "metrics", "traces"):
            self._file(signal).unlink(missing_ok=True)
        config = self.folder / "collector.yaml"
        config.write_text(yaml.safe_dump(self._config(), sort_keys=False))
        log = self.folder / "collector.log"
        with log.open("wb") as output:
            command = [str(self._binary), "--config", str(config)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        end = time.monotonic() + _START_SECONDS
        while not _listens(self._port):
            if time.monotonic() > end or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"{self._binary} did not start; see {log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in good order, so that all it has taken is in its files."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def counts(self) -> dict[str, int]:
        """Return what stands in its files: log records but anchors, audit spans, names of metrics, anchors."""
        scopes = self._scopes("logs", "resourceLogs", "scopeLogs")
        names = [record.get("eventName") for scope in scopes for record in scope["logRecords"]]
        anchors = names.count(ANCHOR_EVENT)
        spans = sum(len(scope["spans"]) for scope in self._scopes("traces", "resourceSpans", "scopeSpans"))
        metrics = {
            metric["name"]
            for scope in self._scopes("metrics", "resourceMetrics", "scopeMetrics")
            for metric in scope["metrics"]
        }
        return {
            "log records": len(names) - anchors,
            "audit spans": spans,
            "metrics": len(metrics),
            "anchors": anchors,
        }

    def _scopes(self, signal: str, resources: str, scopes: str) -> Iterator[dict[str, Any]]:
        path = self._file(signal)
        if not path.exists():
            return
        with path.open() as lines:
            for line in lines:
                for resource in json.loads(line).get(resources, []):
                    yield from resource.get(scopes, [])

    def _file(self, signal: str) -> Path:
        return self.folder / f"{signal}.jsonl"

    def _config(self) -> dict[str, Any]:
        signals = ("logs", "metrics", "traces")
        return {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{self._port}"}}}},
            "exporters": {f"file/{signal}": {"path": str(self._file(signal))} for signal in signals},
            "service": {
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                "pipelines": {
                    signal: {"receivers": ["otlp"], "exporters": [f"file/{signal}"]} for signal in signals
                },
            },
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
