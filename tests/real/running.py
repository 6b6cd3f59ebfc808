"""Real programs, run for one test each: a Collector, Prometheus, the Pushgateway, on free ports with temporary folders."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.real import otlp_json

START_SECONDS = 20.0
STOP_SECONDS = 30.0
START_TRIES = 3  # a free port may be taken by another program before ours opens it

Config = Mapping[str, Any] | str | None
T = TypeVar("T")


class Program:
    """One process, its folder and its output; it can be stopped, killed and started again on the same ports."""

    name = "program"
    start_seconds = START_SECONDS

    def __init__(
        self, binary: Path, folder: Path, port_names: Sequence[str], env: Mapping[str, str] | None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.binary = binary
        self.folder = folder
        self.ports: dict[str, int] = {}
        self._port_names = port_names
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0  # how much had been printed before the last start

    # --- what each program says of itself

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def prepare(self) -> None:
        """Write what the program reads, once its ports are known."""

    # --- its life

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def output(self) -> str:
        """All that the program has printed, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self) -> None:
        """Start it and wait until it serves; ports are chosen at the first start and kept afterwards."""
        assert not self.running, f"{self.name} is running"
        first = not self.ports
        for attempt in range(1, START_TRIES + 1):
            if first:
                self.ports = dict(zip(self._port_names, free_ports(len(self._port_names)), strict=True))
            self.prepare()
            self._seen = len(self.output())
            if self._spawn():
                return
            taken = "address already in use" in self.output()[self._seen :]
            if not (first and taken and attempt < START_TRIES):
                break
        raise AssertionError(f"{self.name} did not start; the end of its output:\n{self.output()[-3000:]}")

    def _spawn(self) -> bool:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")} | self._env
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + self.start_seconds
        while time.monotonic() < end and self._process.poll() is None:
            if self.is_ready():
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def new_output(self) -> str:
        """What it has printed since the last start."""
        return self.output()[self._seen :]

    def stop(self) -> int:
        """End it in good order (SIGTERM), so that what it has taken is written; returns its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End it without a chance to write anything (SIGKILL)."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None, f"{self.name} was not started"
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.name} did not end within {STOP_SECONDS} s") from None


class Collector(Program):
    """A Collector with an OTLP receiver, writing each signal to a file of JSON lines, unbuffered.

    A config of one's own (a dict or YAML text) may use what the fixture sets: ${env:OTLP_HTTP}, ${env:OTLP_GRPC},
    ${env:HEALTH} and ${env:SPARE} (each 127.0.0.1:port) and ${env:FOLDER}. `logs()`, `metrics()` and `spans()` read
    logs.jsonl, metrics.jsonl and traces.jsonl in that folder, or the files that are named to them. The default config
    writes each request before it answers; with another, what stands in the files is only complete after stop().
    """

    name = "collector"

    def __init__(
        self, binary: Path, folder: Path, config: Config = None, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(binary, folder, ("OTLP_HTTP", "OTLP_GRPC", "HEALTH", "SPARE"), env)
        self.config: Config = DEFAULT_CONFIG if config is None else config

    @property
    def endpoint(self) -> str:
        """For OTLP over HTTP, without a path."""
        return f"http://127.0.0.1:{self.ports['OTLP_HTTP']}"

    @property
    def grpc_endpoint(self) -> str:
        """For OTLP over gRPC, without TLS."""
        return f"http://127.0.0.1:{self.ports['OTLP_GRPC']}"

    @property
    def spare_address(self) -> str:
        """host:port of ${env:SPARE}: for what a config of one's own opens, a Prometheus exporter for example."""
        return f"127.0.0.1:{self.ports['SPARE']}"

    def prepare(self) -> None:
        text = self.config if isinstance(self.config, str) else yaml.safe_dump(dict(self.config or {}))
        (self.folder / "config.yaml").write_text(text)
        self._env |= {name: f"127.0.0.1:{port}" for name, port in self.ports.items()} | {
            "FOLDER": str(self.folder)
        }

    def command(self) -> list[str]:
        config = self.folder / "config.yaml"
        service = (yaml.safe_load(config.read_text()) or {}).get("service") or {}
        own_metrics = "metrics" in (service.get("telemetry") or {})
        # Left alone, each Collector opens port 8888 for metrics about itself, and a second one finds it taken.
        quiet = [] if own_metrics else ["--set=service.telemetry.metrics.level=none"]
        return [str(self.binary), f"--config={config}", *quiet]

    def is_ready(self) -> bool:
        return "Everything is ready" in self.new_output()

    def logs(self, file: str = "logs.jsonl") -> list[dict[str, Any]]:
        """One dict per LogRecord, in the order of the file; see otlp_json for the keys."""
        return list(otlp_json.logs(self.requests(file)))

    def metrics(self, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """One dict per data point, in the order of the file: the last one of a series is its newest."""
        return list(otlp_json.metrics(self.requests(file)))

    def spans(self, file: str = "traces.jsonl") -> list[dict[str, Any]]:
        """One dict per span, in the order of the file."""
        return list(otlp_json.spans(self.requests(file)))

    def count_logs(self, file: str = "logs.jsonl") -> int:
        """How many LogRecords the file has, in little memory: for the tests with very many."""
        return otlp_json.count_logs(self.requests(file))

    def requests(self, file: str) -> Iterator[dict[str, Any]]:
        """The OTLP requests in a file, one by one; a line that is still being written is left out."""
        path = self.folder / file
        if not path.exists():
            return
        with path.open("rb") as lines:
            yield from (json.loads(line) for line in lines if line.endswith(b"\n"))


class Prometheus(Program):
    """A Prometheus that scrapes the targets (host:port) several times a second, and answers PromQL."""

    name = "prometheus"

    def __init__(
        self,
        binary: Path,
        folder: Path,
        targets: Sequence[str] = (),
        *,
        scrape_interval: str = "200ms",
        metrics_path: str = "/metrics",
        config: Config = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(binary, folder, ("WEB",), None)
        self._arguments = list(arguments)
        self.config: Config = config or {
            "global": {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval},
            "scrape_configs": [
                {
                    "job_name": "test",
                    "metrics_path": metrics_path,
                    "static_configs": [{"targets": list(targets)}],
                }
            ],
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['WEB']}"

    def prepare(self) -> None:
        text = self.config if isinstance(self.config, str) else yaml.safe_dump(dict(self.config or {}))
        (self.folder / "prometheus.yml").write_text(text)

    def command(self) -> list[str]:
        return [
            str(self.binary),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.ports['WEB']}",
            "--scrape.discovery-reload-interval=100ms",  # hidden; by default the first scrape waits for 5 s
            *self._arguments,
        ]

    def is_ready(self) -> bool:
        return answers(f"{self.url}/-/ready")

    def api(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of the HTTP API, for example api("targets") or api("metadata")."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            answer = json.loads(get(f"{self.url}/api/v1/{path}{query}"))
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"Prometheus: {error.read().decode(errors='replace')}") from None
        return answer["data"]

    def query(self, promql: str) -> list[dict[str, Any]]:
        """An instant query: per series its `labels`, `value` (float) and `time` (seconds)."""
        data = self.api("query", query=promql)
        result = (
            [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]
        )
        return [
            {"labels": row["metric"], "value": float(row["value"][1]), "time": float(row["value"][0])}
            for row in result
        ]

    def wait_for(
        self, promql: str, accept: Callable[[list[dict[str, Any]]], object] = bool
    ) -> list[dict[str, Any]]:
        """Ask until the answer is accepted (by default: until there is one), at most 15 seconds."""
        return wait_until(lambda: self.query(promql), accept, f"an answer to {promql}")


class Pushgateway(Program):
    """A Pushgateway."""

    name = "pushgateway"

    def __init__(self, binary: Path, folder: Path) -> None:
        super().__init__(binary, folder, ("WEB",), None)

    @property
    def address(self) -> str:
        """host:port, as prometheus_client's push functions take it."""
        return f"127.0.0.1:{self.ports['WEB']}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def command(self) -> list[str]:
        return [str(self.binary), f"--web.listen-address={self.address}"]

    def is_ready(self) -> bool:
        return answers(f"{self.url}/-/ready")

    def metrics_text(self) -> str:
        """What a Prometheus would scrape from it."""
        return get(f"{self.url}/metrics")


# The file exporter writes unbuffered and continues its file at a restart only where it rotates (the size is never
# reached here); without rotation it holds up to a second back, and starts the file anew.
_ROTATION = {"max_megabytes": 100_000, "max_backups": 0}

DEFAULT_CONFIG: dict[str, Any] = {
    "extensions": {"health_check": {"endpoint": "${env:HEALTH}"}},
    "receivers": {
        "otlp": {
            "protocols": {"http": {"endpoint": "${env:OTLP_HTTP}"}, "grpc": {"endpoint": "${env:OTLP_GRPC}"}}
        }
    },
    "exporters": {
        f"file/{signal_name}": {"path": f"${{env:FOLDER}}/{signal_name}.jsonl", "rotation": _ROTATION}
        for signal_name in ("logs", "metrics", "traces")
    },
    "service": {
        "extensions": ["health_check"],
        "pipelines": {
            signal_name: {"receivers": ["otlp"], "exporters": [f"file/{signal_name}"]}
            for signal_name in ("logs", "metrics", "traces")
        },
    },
}


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def get(url: str) -> str:
    """The body of a page of a local server."""
    with urllib.request.urlopen(url, timeout=10) as response:
        body: bytes = response.read()
    return body.decode()


def answers(url: str) -> bool:
    """Whether a local server answers with 200."""
    try:
        get(url)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False
    return True


def wait_until(
    ask: Callable[[], T], accept: Callable[[T], object] = bool, what: str = "it", seconds: float = 15
) -> T:
    """Ask again and again until the answer is accepted; fails with the last answer."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if accept(answer):
            return answer
        if time.monotonic() > end:
            raise AssertionError(
                f"{what} did not come within {seconds} s; the last answer: {answer!r}"[:3000]
            )
        time.sleep(0.05)
