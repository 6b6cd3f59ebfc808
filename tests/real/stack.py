"""The stack of docker-compose.yml with local programs: the same Collector, Prometheus and logging configurations.

Only what has to differ does: addresses, shorter intervals, and exporters that the small Collector does not have.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.real.collector_process import components
from tests.real.elasticsearch_bulk import ElasticsearchBulk
from tests.real.processes import ROOT, environment, python, say, started
from tests.real.running import Collector, Prometheus, free_ports

DOCKER = ROOT / "docker"
NOT_IN_SMALL_BUILD = "elasticsearch"
QUICKER = {"scrape_interval: 5s": "scrape_interval: 500ms", "scrape_timeout: 4s": "scrape_timeout: 500ms"} | {
    "evaluation_interval: 15s": "evaluation_interval: 1s"
}

# Trades until its standard input says a line; the counter that falls is dropped, and counted as that.
TRADER = """
import asyncio, sys
from pathlib import Path
from hft_otel import LogConfig, LoggerFactory
from trading_system.replay import open_source
from trading_system.session import run_session

config = LogConfig.from_yaml(Path(sys.argv[1]))

async def trade():
    LoggerFactory.create_logger("refunds", config).counter("refunds", -1)
    session = asyncio.create_task(
        run_session(config, open_source(seed=1), seconds=600, rate=300.0, disconnect_every=1.5)
    )
    print("trading", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    session.cancel()
    await asyncio.gather(session, return_exceptions=True)

asyncio.run(trade())
"""


class Stack(NamedTuple):
    """The programs under way."""

    collector: Collector
    prometheus: Prometheus


def collector_config(more: dict[str, Any] | None = None, *, whole: bool = False) -> dict[str, Any]:
    """The stack's Collector configuration, `whole` or without what the small build lacks; `more` is added to its sections."""
    config: dict[str, Any] = yaml.safe_load((DOCKER / "collector.yaml").read_text())
    gone = {name for name in config["exporters"] if name.split("/")[0] == NOT_IN_SMALL_BUILD and not whole}
    for name in gone:
        del config["exporters"][name]
    pipelines = config["service"]["pipelines"]
    for name, pipeline in list(pipelines.items()):
        pipeline["exporters"] = [each for each in pipeline["exporters"] if each not in gone]
        if not pipeline["exporters"]:
            del pipelines[name]
    for section, parts in (more or {}).items():
        (pipelines if section == "pipelines" else config[section]).update(parts)
    return config


def prometheus_folder(folder: Path, targets: dict[str, str]) -> str:
    """Copy prometheus.yml and its rules, with targets of our own in its files; returns the configuration."""
    shutil.copytree(DOCKER / "prometheus" / "rules", folder / "rules")
    for file in sorted((DOCKER / "prometheus" / "targets").iterdir()):
        groups = yaml.safe_load(file.read_text())
        for group in groups:
            group["targets"] = [targets[address] for address in group["targets"]]
        (folder / "targets").mkdir(exist_ok=True)
        (folder / "targets" / file.name).write_text(yaml.safe_dump(groups))
    text = (DOCKER / "prometheus" / "prometheus.yml").read_text()
    for given, quick in QUICKER.items():
        assert given in text
        text = text.replace(given, quick)
    return text


@contextmanager
def running_stack(
    folder: Path, otelcol: Path, prometheus: Path, more: dict[str, Any] | None = None
) -> Iterator[Stack]:
    """The Collector, Prometheus and the example system, from their start to their end."""
    health, grpc, http, audit_grpc, audit_http, metrics, exporter, jaeger, scrape = free_ports(9)
    variables = {
        "HFT_COLLECTOR_HEALTH_PORT": health,
        "HFT_COLLECTOR_GRPC_PORT": grpc,
        "HFT_COLLECTOR_HTTP_PORT": http,
        "HFT_COLLECTOR_AUDIT_GRPC_PORT": audit_grpc,
        "HFT_COLLECTOR_AUDIT_HTTP_PORT": audit_http,
        "HFT_COLLECTOR_METRICS_PORT": metrics,
        "HFT_PROMETHEUS_ENDPOINT": f"127.0.0.1:{exporter}",
        "HFT_JAEGER_ENDPOINT": f"http://127.0.0.1:{jaeger}",  # nobody is there: its queues fill
        "HFT_COLLECTOR_DATA": folder / "queues",
        "HFT_LOGS": folder / "logs",
    }
    targets = {
        "collector:9464": f"127.0.0.1:{exporter}",
        "collector:8888": f"127.0.0.1:{metrics}",
        "example:9464": f"127.0.0.1:{scrape}",
    }
    process = {
        "HFT_OTLP_ENDPOINT": f"http://127.0.0.1:{http}",
        "HFT_OTLP_AUDIT_ENDPOINT": f"http://127.0.0.1:{audit_http}",
        "HFT_SCRAPE_PORT": str(scrape),
        "HFT_JOURNAL": str(folder / "journal"),
    }
    with ExitStack() as stack:
        whole = NOT_IN_SMALL_BUILD in components(otelcol)["exporters"]
        if whole:
            variables["HFT_ELASTICSEARCH_ENDPOINT"] = stack.enter_context(ElasticsearchBulk()).url
        texts = {name: str(value) for name, value in variables.items()}
        collector = Collector(otelcol, folder / "collector", collector_config(more, whole=whole), texts)
        stack.callback(lambda: collector.stop() if collector.running else None)
        collector.start()
        trader = stack.enter_context(started(python(TRADER, DOCKER / "logging.yaml"), folder, **process))
        stack.callback(lambda: say(trader))
        server_folder = folder / "prometheus"
        server_folder.mkdir()
        server = Prometheus(prometheus, server_folder, config=prometheus_folder(server_folder, targets))
        stack.callback(lambda: server.stop() if server.running else None)
        server.start()
        yield Stack(collector, server)


__all__ = ["DOCKER", "Stack", "collector_config", "environment", "prometheus_folder", "running_stack"]
