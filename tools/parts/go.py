"""What is built with Go alone: Prometheus with promtool, the Pushgateway, compose-go."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from .model import BIN, PARTS, ROOT, BuildError, Part, UnavailableError
from .steps import run

COMPOSE = ROOT / "tools" / "compose"

PROMETHEUS, PROMETHEUS_MODULE = "3.16.0", "v0.316.0"  # Go modules have their own number for version 3
PUSHGATEWAY = "1.11.1"

MIN_GO = (1, 26)  # what the pinned modules ask for
FETCHING_GO = (1, 21)  # from here on, Go fetches a newer toolchain by itself, unless GOTOOLCHAIN=local


def command() -> str:
    """The Go command, checked to be able to build the pinned modules."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise UnavailableError(
            f"Go is not installed: get Go {dotted(MIN_GO)} or newer from https://go.dev/dl/"
        )
    answer = subprocess.run(
        [go, "env", "GOVERSION", "GOTOOLCHAIN"], capture_output=True, text=True, check=False
    )
    version, toolchain, *_ = [*answer.stdout.split("\n"), "", ""]
    numbers = re.match(r"go(\d+)\.(\d+)", version)
    have = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    need = MIN_GO if toolchain == "local" else FETCHING_GO
    if have < need:
        raise UnavailableError(
            f"{version or go} is too old: get Go {dotted(MIN_GO)} or newer from https://go.dev/dl/"
        )
    return go


def build_prometheus(_: Part) -> None:
    """Build prometheus and promtool from the module as it was released."""
    # No web assets and no service discovery: the tests scrape fixed targets and ask the HTTP API.
    source = _download("prometheus", "github.com/prometheus/prometheus", PROMETHEUS_MODULE)
    packages = ["-tags=remove_all_sd", "./cmd/prometheus", "./cmd/promtool"]
    run("prometheus", f"prometheus and promtool {PROMETHEUS} (3 to 5 minutes from nothing)", [
        command(), "build", *_flags(PROMETHEUS), *packages,
    ], cwd=source)  # fmt: skip


def build_pushgateway(_: Part) -> None:
    """Build the Pushgateway from the module as it was released."""
    source = _download("pushgateway", "github.com/prometheus/pushgateway", f"v{PUSHGATEWAY}")
    run("pushgateway", f"pushgateway {PUSHGATEWAY}", [
        command(), "build", *_flags(PUSHGATEWAY), ".",
    ], cwd=source)  # fmt: skip


def build_compose(_: Part) -> None:
    """Build the small program of tools/compose."""
    run("compose", "compose-go, what `docker compose` reads its files with (15 seconds from nothing)", [
        command(), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", f"-o={BIN}/compose-config", ".",
    ], cwd=COMPOSE)  # fmt: skip


def compose_recipe() -> str:
    """The sources of compose-config."""
    return "".join((COMPOSE / file).read_text() for file in ("go.mod", "go.sum", "main.go"))


def _download(part: str, module: str, version: str) -> Path:
    """The module's folder in Go's cache: building in there takes exactly the dependencies that its go.sum states."""
    asked = [command(), "mod", "download", "-json", f"{module}@{version}"]
    answer = subprocess.run(asked, cwd=PARTS, capture_output=True, text=True, check=False)
    try:
        return Path(json.loads(answer.stdout)["Dir"])
    except (KeyError, ValueError):
        raise BuildError(f"{part}: `{' '.join(asked)}` failed:\n{answer.stdout}{answer.stderr}") from None


def _flags(version: str) -> list[str]:
    stamp = f"-X github.com/prometheus/common/version.Version={version}"
    return ["-v", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w {stamp}", f"-o={BIN}/"]


def dotted(version: tuple[int, int]) -> str:
    """Return the version as it is written."""
    return f"{version[0]}.{version[1]}"
