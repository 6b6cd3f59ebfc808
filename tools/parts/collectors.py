"""The three Collectors, built from the manifests in collector-config: ocb, the Collector's own builder, writes the sources.

It is not let to fetch the modules: it asks for those of all their tests too, and some of these are refused by the module
proxy, or not vouched for by the checksum database. Go alone asks for what is compiled.
"""

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
FULL_MANIFEST = CONFIGS / "builder.yaml"
SUMS = CONFIGS / "builder.sum"

BUILDER = "go.opentelemetry.io/collector/cmd/builder"
OTELCOL = "go.opentelemetry.io/collector/otelcol"
RECEIVER = "go.opentelemetry.io/collector/receiver/otlpreceiver"
"""Its version is the core's, and the builder's."""

FULL_CORES, FULL_MEMORY_GB = 4, 10  # below this the full Collector would take CI's time, or its memory


def build_small(part: Part) -> None:
    """Build the one that most tests run."""
    _build(part, "collector", MANIFEST, "2 to 6 minutes from nothing")


def build_elasticsearch(part: Part) -> None:
    """Build the small one with the exporter for Elasticsearch."""
    _build(part, "collector-elasticsearch", ELASTICSEARCH_MANIFEST, "a minute or less after the small one")


def build_full(part: Part) -> None:
    """Build production's, with Datadog and Elasticsearch."""
    _build(part, "collector-full", FULL_MANIFEST, "10 minutes and more from nothing, 6 GB of memory")


def elasticsearch_recipe() -> str:
    """What the Collector with Elasticsearch is made of."""
    return ELASTICSEARCH_MANIFEST.read_text() + SUMS.read_text()


def full_recipe() -> str:
    """What production's Collector is made of."""
    return FULL_MANIFEST.read_text() + SUMS.read_text()


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


def _build(part: Part, part_name: str, manifest: Path, cost: str) -> None:
    builder = _builder(part_name, manifest)
    output = PARTS / "build" / part_name  # as the manifest says
    output.mkdir(parents=True, exist_ok=True)
    sources = [str(builder), "--config", str(manifest), "--skip-get-modules", "--skip-compilation"]
    run(part_name, "write the sources", sources)
    (output / "go.mod").write_text(go_mod(manifest.read_text()))
    # Go holds every module to the hash that go.sum has for it, and asks its checksum database for the others.
    shutil.copyfile(SUMS, output / "go.sum")
    name = part.programs[0].name
    compile_it = [go.command(), "build", "-mod=mod", "-v", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"]
    compile_it += ["-tags=grpcnotrace", f"-o={name}", "."]
    run(part_name, f"download and compile ({cost})", compile_it, cwd=output)
    (output / name).replace(BIN / name)


def go_mod(manifest: str) -> str:
    """Return the go.mod of what a manifest lists."""
    listed = re.findall(r"^ *- gomod: (\S+ \S+)$", manifest, re.MULTILINE)
    replaced = re.findall(r"^ *- (\S+ => \S+ \S+)$", manifest, re.MULTILINE)
    lines = [f"module {BUILDER}", f"go {go.dotted(go.MIN_GO)}.0"]
    lines += [f"require {module}" for module in (*listed, f"{OTELCOL} {_core_version(manifest)}")]
    return "\n".join([*lines, *(f"replace {pair}" for pair in replaced), ""])


def _builder(part_name: str, manifest: Path) -> Path:
    version = _core_version(manifest.read_text())
    tools = PARTS / "tools" / version
    if not (tools / "builder").exists():
        install = [go.command(), "install", "-v", "-trimpath", "-ldflags=-s -w", f"{BUILDER}@{version}"]
        run(part_name, f"ocb {version}, the Collector's builder", install, {"GOBIN": str(tools)})
    return tools / "builder"


def _core_version(manifest: str) -> str:
    found = re.search(rf"{RECEIVER} (v[\w.-]+)", manifest)
    if found is None:
        raise BuildError("the manifest names no otlpreceiver, whose version is the core's and the builder's")
    return found[1]
