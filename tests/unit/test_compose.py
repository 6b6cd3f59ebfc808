"""docker-compose.yml: pinned, bounded, closed to the outside, without secrets, and mounting what there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_otel.collector import from_file, render
from tools.parts import collectors, go

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROVISIONING = ROOT / "docker" / "grafana" / "provisioning"
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")
SECRET = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)

every_service = pytest.mark.parametrize("name", SERVICES)


def images() -> Iterator[str]:
    """All images that are pulled: of services that build none, and those that Dockerfiles begin with."""
    for service in SERVICES.values():
        build = service.get("build")
        if not build:
            yield service["image"]
            continue
        yield from build.get("args", {}).values()
        text = dockerfile(build).read_text()
        yield from (image for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if image != "${IMAGE}")


def dockerfile(build: dict[str, Any]) -> Path:
    return ROOT / build["context"] / build.get("dockerfile", "Dockerfile")


def mounts(service: dict[str, Any]) -> list[list[str]]:
    return [volume.split(":") for volume in service.get("volumes", [])]


def test_all_parts_of_the_stack_are_there() -> None:
    assert set(SERVICES) == {"collector", "prometheus", "grafana", "elasticsearch", "jaeger", "example"}
    assert SERVICES["example"]["profiles"] == ["example"]
    assert all("profiles" not in service for name, service in SERVICES.items() if name != "example")


def test_every_image_is_pinned_to_a_release() -> None:
    found = set(images())
    assert len(found) == 7
    for image in found | {service["image"] for service in SERVICES.values()}:
        assert PINNED.fullmatch(image), image


def test_collector_and_prometheus_are_the_releases_that_are_tested_here() -> None:
    manifest = yaml.safe_load(collectors.MANIFEST.read_text())
    found = set(images())
    assert f"otel/opentelemetry-collector-contrib:{manifest['dist']['version']}" in found
    assert f"prom/prometheus:v{go.PROMETHEUS}" in found


@every_service
def test_ports_are_bound_to_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{HFT_\w+_PORT:-\d+\}:\d+", port), port


def test_no_two_ports_are_the_same() -> None:
    ports = [re.search(r":-(\d+)\}", port) for each in SERVICES.values() for port in each.get("ports", [])]
    numbers = [port[1] for port in ports if port]
    assert len(numbers) == len(ports) == len(set(numbers)) == 8


@every_service
def test_service_is_watched_bounded_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["healthcheck"]["retries"] > 1
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


@every_service
def test_there_is_no_secret_in_the_file(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(variable):
            assert value in ("", "true", "false") or re.fullmatch(r"\$\{\w+(:\?[^}]*)?\}", str(value)), (
                variable
            )
    assert not re.search(r"://[^/\s]*:[^/\s]*@", TEXT)


def test_grafana_has_no_administrator_and_so_no_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] != "Admin"


@every_service
def test_what_is_mounted_is_there_and_read_only(name: str) -> None:
    for source, target, *mode in mounts(SERVICES[name]):
        assert target.startswith("/")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


def test_every_volume_is_used_and_keeps_something() -> None:
    used = {source for service in SERVICES.values() for source, *_ in mounts(service)}
    assert set(COMPOSE["volumes"]) == {source for source in used if not source.startswith(".")}


@every_service
def test_dependencies_are_services_that_can_be_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]
        assert "profiles" not in SERVICES[other]


@every_service
def test_dockerfiles_copy_what_there_is(name: str) -> None:
    build = SERVICES[name].get("build")
    if not build:
        return
    text = dockerfile(build).read_text()
    allowed = dockerfile(build).with_suffix(".dockerignore")
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / build["context"] / source).exists(), source
            assert f"!{source}" in allowed.read_text().splitlines()


def hosts(text: str) -> set[str]:
    """Names of other machines in URLs and targets."""
    found = set(re.findall(r"https?://([a-z][\w-]*):\d+", text)) | set(
        re.findall(r'"([a-z][\w-]*):\d+"', text)
    )
    return found - {"localhost"}


@pytest.mark.parametrize(
    "file",
    [
        ROOT / "docker" / "logging.yaml",
        ROOT / "docker" / "collector.yaml",
        *sorted((ROOT / "docker" / "prometheus" / "targets").iterdir()),
        *sorted((PROVISIONING / "datasources").iterdir()),
    ],
    ids=lambda file: file.name,
)
def test_hosts_in_configurations_are_services(file: Path) -> None:
    found = hosts(file.read_text())
    assert found
    assert found <= set(SERVICES)


def test_data_sources_are_those_that_dashboards_ask() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "hft-otel.yml").read_text())["datasources"]
    assert {source["type"]: source["uid"] for source in sources} == {
        "prometheus": "prometheus", "elasticsearch": "elasticsearch", "jaeger": "jaeger"
    }  # fmt: skip
    assert [source["name"] for source in sources if source.get("isDefault")] == ["Prometheus"]


def test_dashboards_are_mounted_where_grafana_looks_for_them() -> None:
    provider = yaml.safe_load((PROVISIONING / "dashboards" / "hft-otel.yml").read_text())["providers"][0]
    targets = {target: source for source, target, *_ in mounts(SERVICES["grafana"])}
    assert targets[provider["options"]["path"]] == "./docker/grafana/dashboards"
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / targets[str(home.parent)] / home.name).exists()


def test_collector_reads_what_is_rendered_from_the_logging_configuration() -> None:
    file = ROOT / "docker" / "logging.yaml"
    rendered = render(from_file(file, {}), "dev")
    assert (ROOT / "docker" / "collector.yaml").read_text() == rendered, "run `make stack-config`"


def test_collector_can_be_reached_in_its_container() -> None:
    config = (ROOT / "docker" / "collector.yaml").read_text()
    environment = SERVICES["collector"]["environment"]
    local = set(re.findall(r"\$\{env:(\w+):-127\.0\.0\.1", config))
    assert local
    assert all(environment[name].startswith("0.0.0.0") for name in local)
    ports = {int(port) for port in re.findall(r"_PORT:-(\d+)\}", config)}
    published = {int(port.rsplit(":", 1)[1]) for port in SERVICES["collector"]["ports"]}
    assert published == {4317, 4318, 4327, 4328} <= ports


def test_collector_refuses_before_its_memory_is_at_its_end() -> None:
    limit = int(SERVICES["collector"]["environment"]["HFT_COLLECTOR_MEMORY_MIB"])
    assert limit * 1.25 < int(SERVICES["collector"]["mem_limit"].removesuffix("m"))


def test_dashboards_hold_for_a_developers_collector_too() -> None:
    stack = yaml.safe_load((ROOT / "docker" / "collector.yaml").read_text())
    dev = yaml.safe_load((ROOT / "collector-config" / "dev.yaml").read_text())
    assert stack["receivers"] == dev["receivers"]
    assert stack["exporters"]["prometheus"] == dev["exporters"]["prometheus"]
    assert stack["service"]["telemetry"] == dev["service"]["telemetry"]
    pipelines = stack["service"]["pipelines"], dev["service"]["pipelines"]
    assert pipelines[0]["metrics/prometheus"] == pipelines[1]["metrics/prometheus"]
    for processor in pipelines[0]["metrics/prometheus"]["processors"]:
        if processor != "transform/unmark":  # its other statements depend on the other pipelines
            assert stack["processors"][processor] == dev["processors"][processor]


def make(folder: Path, docker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make with a `docker` of ours, a shell script."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{docker}\n")
    program.chmod(0o755)
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["up"], "compose up --build --detach --wait"),
        (["up", "ARGS=--profile example"], "compose --profile example up --build --detach --wait"),
        (["down"], "compose --profile * down"),
        (["down", "ARGS=--volumes"], "compose --profile * down --volumes"),
    ],
)
def test_make_asks_docker_compose(arguments: list[str], asked: str, tmp_path: Path) -> None:
    done = make(tmp_path, f'echo "$*" >> {tmp_path}/asked', *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().splitlines() == ["compose version", asked]
    assert ("http://127.0.0.1:3000" in done.stdout) == (arguments[0] == "up")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
@pytest.mark.parametrize("target", ["up", "down"])
def test_make_says_how_to_get_docker_where_it_is_missing(target: str, tmp_path: Path) -> None:
    done = make(tmp_path, "exit 1", target)
    assert done.returncode != 0
    assert "https://docs.docker.com/compose/install/" in done.stdout
    assert "docs/stack.md" in done.stdout
