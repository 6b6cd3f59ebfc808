"""The three Collectors, built by ocb, the Collector's own builder, from the manifests in collector-config."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from . import go
from .model import BIN, PARTS, ROOT, BuildError, Part
from .steps import run

CONFIGS = ROOT / "collector-config"
MANIFEST = CONFIGS / "builder-test.yaml"
ELASTICSEARCH_MANIFEST = CONFIGS / "builder-elasticsearch.yaml"
ELASTICSEARCH_SUMS = CONFIGS / "builder-elasticsearch.sum"
FULL_MANIFEST = CONFIGS / "builder.yaml"

FULL_CORES, FULL_MEMORY_GB = 4, 10  # below this the full Collector would take CI's time, or its memory


def build_small(part: Part) -> None:
    """Build the one that most tests run."""
    _build(part, "collector", MANIFEST, "2 to 6 minutes from nothing")


def build_elasticsearch(part: Part) -> None:
    """Build the small one with the exporter for Elasticsearch, of pinned hashes."""
    cost = "a minute or less after the small one"
    _build(part, "collector-elasticsearch", ELASTICSEARCH_MANIFEST, cost, ELASTICSEARCH_SUMS)


def build_full(part: Part) -> None:
    """Build production's, with Datadog and Elasticsearch."""
    _build(part, "collector-full", FULL_MANIFEST, "6 minutes and more from nothing, 6 GB of memory")


def elasticsearch_recipe() -> str:
    """What the Collector with Elasticsearch is made of."""
    return ELASTICSEARCH_MANIFEST.read_text() + ELASTICSEARCH_SUMS.read_text()


def leave_out_full() -> str | None:
    """Why `all` does not build the full Collector here; None where it does."""
    wish = os.environ.get("HFT_FULL_COLLECTOR")
    if wish is not None:
        return None if wish == "1" else f"HFT_FULL_COLLECTOR={wish}"
    cores, memory = os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if os.environ.get("CI") == "true" and cores >= FULL_CORES and memory >= FULL_MEMORY_GB:
        return None
    return (
        f"it is built by itself only in CI on {FULL_CORES} cores and {FULL_MEMORY_GB} GB or more "
        f"(here {cores} and {memory:.0f}); HFT_FULL_COLLECTOR=1 asks for it"
    )


def _build(part: Part, part_name: str, manifest: Path, cost: str, sums: Path | None = None) -> None:
    builder = _builder(part_name, manifest)
    output = PARTS / "build" / part_name  # as the manifest says
    output.mkdir(parents=True, exist_ok=True)
    if sums is not None:
        # Go holds every module to the hash that go.sum has for it, and asks its checksum database for the others.
        shutil.copyfile(sums, output / "go.sum")
    command = [str(builder), "--config", str(manifest), "--verbose"]
    run(part_name, f"download and compile ({cost})", command)
    name = part.programs[0].name
    (output / name).replace(BIN / name)


def _builder(part_name: str, manifest: Path) -> Path:
    version = _builder_version(manifest)
    tools = PARTS / "tools" / version
    if not (tools / "builder").exists():
        package = f"go.opentelemetry.io/collector/cmd/builder@{version}"
        install = [go.command(), "install", "-v", "-trimpath", "-ldflags=-s -w", package]
        run(part_name, f"ocb {version}, the Collector's builder", install, {"GOBIN": str(tools)})
    return tools / "builder"


def _builder_version(manifest: Path) -> str:
    found = re.search(r"collector/receiver/otlpreceiver (v[\w.-]+)", manifest.read_text())
    if found is None:
        raise BuildError(
            f"{manifest.relative_to(ROOT)} names no otlpreceiver, whose version is the builder's"
        )
    return found[1]
