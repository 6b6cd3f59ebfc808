#!/usr/bin/env python3
"""Bring the real parts that the tests run against: Collectors, Prometheus with promtool, Pushgateway, OpenSearch, compose-go.

    python tools/parts.py [PART | all] [--where]      PART: collector, collector-full, prometheus, pushgateway, ...

Builds with Go what is missing, into the ignored folder .parts/bin, and says what it is doing; a second call finds
everything in place. Prometheus, promtool and the Pushgateway are taken from PATH where they are installed (Debian has
them); HFT_OTELCOL names a Collector to use instead of building one. --where only looks, and prints a path per program.
`all` tries OpenSearch where Java and Maven are, and the full Collector where HFT_FULL_COLLECTOR=1 asks for it or, in
CI, the machine is large enough; both may be missing without an error, since their tests are skipped with a line.

Exit status: 0 everything is there, 1 a build failed, 2 wrong arguments, 3 something is not available here (no Go).
Only the standard library is used, so this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ROOT / ".parts"
BIN = PARTS / "bin"
MANIFEST = ROOT / "collector-config" / "builder-test.yaml"
FULL_MANIFEST = ROOT / "collector-config" / "builder.yaml"
OPENSEARCH = ROOT / "tools" / "opensearch"
COMPOSE = ROOT / "tools" / "compose"

PROMETHEUS, PROMETHEUS_MODULE = "3.16.0", "v0.316.0"  # Go modules have their own number for version 3
PUSHGATEWAY = "1.11.1"

MIN_GO = (1, 26)  # what the pinned modules ask for
FETCHING_GO = (1, 21)  # from here on, Go fetches a newer toolchain by itself, unless GOTOOLCHAIN=local
HEARTBEAT_SECONDS = 15.0
LOG_TAIL_LINES = 25
FULL_CORES, FULL_MEMORY_GB = 4, 10  # below this the full Collector would take CI's time, or its memory
REFUSED = re.compile(
    r"(\S+@v\S+): reading \S+: 403 Forbidden"
)  # what Go says of a module that it is not given
LOG_PREFIX = re.compile(r"^\S+\tINFO\t\S+\t")  # the builder's time, level and source line

EXIT_OK, EXIT_FAILED, EXIT_UNAVAILABLE = 0, 1, 3


class BuildError(Exception):
    """A build step ended with an error; the message says which, and shows the end of its log."""


class UnavailableError(Exception):
    """This machine cannot build the part; the message is the cure."""


@dataclass(frozen=True)
class Program:
    """One executable: the file in .parts/bin, and the names under which a system may already have it."""

    name: str
    on_path: tuple[str, ...] = ()
    variable: str | None = None

    @property
    def built(self) -> Path:
        return BIN / self.name

    @property
    def stamp(self) -> Path:
        return BIN / f".{self.name}.stamp"


@dataclass(frozen=True)
class Part:
    """What is brought together, how it is built, and the text whose change asks for a new build."""

    programs: tuple[Program, ...]
    build: Callable[[Part], None]
    recipe: Callable[[], str]
    need: Callable[[], str]  # looks for the tool that builds it; UnavailableError where there is none
    optional: Callable[[], str | None] | None = None  # for `all`: None to build it, else why it is left out


# --- looking ----------------------------------------------------------------------------------------------------------


def locate(name: str) -> Path | None:
    """The program `name` (a key of PROGRAMS) on this machine, or None; never builds."""
    part, program = PROGRAMS[name]
    if program.variable and (given := os.environ.get(program.variable)):
        return Path(given) if os.access(given, os.X_OK) else None
    # Of one part, all programs come from the system or none: a promtool of another Prometheus would not do.
    installed = {p.name: found for p in part.programs for n in p.on_path if (found := shutil.which(n))}
    if len(installed) == len(part.programs):
        return Path(installed[name])
    return program.built if _is_current(part, program) else None


def cure(name: str) -> str:
    """One line that says how to get the program."""
    part, program = PROGRAMS[name]
    if program.variable and (given := os.environ.get(program.variable)):
        return f"{program.variable}={given} is not an executable file: correct or unset it"
    try:
        part.need()
    except UnavailableError as reason:
        return str(reason)
    return f"run `make {_part_name(part)}` to build {name}"


def _is_current(part: Part, program: Program) -> bool:
    try:
        return program.stamp.read_text() == _digest(part) and os.access(program.built, os.X_OK)
    except OSError:
        return False


def _digest(part: Part) -> str:
    return hashlib.sha256(part.recipe().encode()).hexdigest()


def _part_name(part: Part) -> str:
    return next(name for name, candidate in ALL.items() if candidate is part)


# --- building ---------------------------------------------------------------------------------------------------------


def bring(name: str) -> None:
    """Make the part be there, building it where it is missing. Safe to call from several processes at once."""
    part = ALL[name]
    if all(locate(p.name) for p in part.programs):
        return
    for program in part.programs:
        if program.variable and os.environ.get(program.variable):
            raise UnavailableError(cure(program.name))
    part.need()
    with _lock():
        if all(locate(p.name) for p in part.programs):  # another process built it meanwhile
            return
        started = time.monotonic()
        part.build(part)
        for program in part.programs:
            program.stamp.write_text(_digest(part))
        size = sum(p.built.stat().st_size for p in part.programs) / 1e6
        _say(f"{name}: ready after {time.monotonic() - started:.0f} s, {size:.0f} MB in .parts/bin")


def _build_collector(part: Part) -> None:
    _build_with_ocb(part, "collector", MANIFEST, "2 to 6 minutes from nothing")


def _build_full_collector(part: Part) -> None:
    _build_with_ocb(part, "collector-full", FULL_MANIFEST, "6 minutes and more from nothing, 6 GB of memory")


def _build_with_ocb(part: Part, part_name: str, manifest: Path, cost: str) -> None:
    version = _builder_version(manifest)
    tools = PARTS / "tools" / version
    output = PARTS / "build" / part_name  # as the manifest says
    output.mkdir(parents=True, exist_ok=True)
    if not (tools / "builder").exists():
        package = f"go.opentelemetry.io/collector/cmd/builder@{version}"
        command = [_go(), "install", "-v", "-trimpath", "-ldflags=-s -w", package]
        _run(part_name, f"ocb {version}, the Collector's builder", command, {"GOBIN": str(tools)})
    command = [str(tools / "builder"), "--config", str(manifest), "--verbose"]
    _run(part_name, f"download and compile ({cost})", command)
    name = part.programs[0].name
    (output / name).replace(BIN / name)


def _leave_out_full_collector() -> str | None:
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


def _build_opensearch(part: Part) -> None:
    folder = PARTS / "opensearch"
    shutil.rmtree(folder, ignore_errors=True)
    _run("opensearch", "jars by Maven (half a minute from nothing)", [
        _maven(), "-B", "-q", "-ntp", "-f", str(OPENSEARCH / "pom.xml"),
        "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'lib'}",
    ])  # fmt: skip
    shutil.copy(OPENSEARCH / "Launch.java", folder)
    script = part.programs[0].built
    script.write_text(
        f"#!/bin/sh\nexec java -Xms512m -Xmx512m -cp '{folder}/lib/*' {folder}/Launch.java \"$@\"\n"
    )
    script.chmod(0o755)


def _leave_out_opensearch() -> str | None:
    try:
        _maven()
    except UnavailableError as reason:
        return str(reason)
    return None


def _maven() -> str:
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        raise UnavailableError(
            "Java 11 or newer (a JDK) and Maven are needed for OpenSearch, and are not here"
        )
    return maven


def _build_prometheus(_: Part) -> None:
    # No web assets and no service discovery: the tests scrape fixed targets and ask the HTTP API.
    source = _download("prometheus", "github.com/prometheus/prometheus", PROMETHEUS_MODULE)
    packages = ["-tags=remove_all_sd", "./cmd/prometheus", "./cmd/promtool"]
    _run("prometheus", f"prometheus and promtool {PROMETHEUS} (3 to 5 minutes from nothing)", [
        _go(), "build", *_flags(PROMETHEUS), *packages,
    ], cwd=source)  # fmt: skip


def _build_pushgateway(_: Part) -> None:
    source = _download("pushgateway", "github.com/prometheus/pushgateway", f"v{PUSHGATEWAY}")
    _run("pushgateway", f"pushgateway {PUSHGATEWAY}", [_go(), "build", *_flags(PUSHGATEWAY), "."], cwd=source)


def _build_compose(_: Part) -> None:
    command = [
        _go(),
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w",
        f"-o={BIN}/compose-config",
        ".",
    ]
    _run(
        "compose",
        "compose-go, what `docker compose` reads its files with (15 seconds from nothing)",
        command,
        cwd=COMPOSE,
    )


def _download(part: str, module: str, version: str) -> Path:
    """The module's folder in Go's cache: building in there takes exactly the dependencies that its go.sum states."""
    command = [_go(), "mod", "download", "-json", f"{module}@{version}"]
    answer = subprocess.run(command, cwd=PARTS, capture_output=True, text=True, check=False)
    try:
        return Path(json.loads(answer.stdout)["Dir"])
    except (KeyError, ValueError):
        raise BuildError(f"{part}: `{' '.join(command)}` failed:\n{answer.stdout}{answer.stderr}") from None


def _flags(version: str) -> list[str]:
    stamp = f"-X github.com/prometheus/common/version.Version={version}"
    return ["-v", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w {stamp}", f"-o={BIN}/"]


def _builder_version(manifest: Path) -> str:
    found = re.search(r"collector/receiver/otlpreceiver (v[\w.-]+)", manifest.read_text())
    if found is None:
        raise BuildError(
            f"{manifest.relative_to(ROOT)} names no otlpreceiver, whose version is the builder's"
        )
    return found[1]


def _go() -> str:
    """The Go command, checked to be able to build the pinned modules."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise UnavailableError(
            f"Go is not installed: get Go {_dotted(MIN_GO)} or newer from https://go.dev/dl/"
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
            f"{version or go} is too old: get Go {_dotted(MIN_GO)} or newer from https://go.dev/dl/"
        )
    return go


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _run(
    part: str, step: str, command: list[str], variables: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> None:
    """Run one step at low priority, its output in a log, with a line every few seconds while it lasts."""
    log = PARTS / "log" / f"{part}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"} | dict(variables or {})
    environment["PATH"] = os.pathsep.join([environment.get("PATH", ""), "/usr/local/go/bin"])  # as _go looks
    _say(f"{part}: {step}")
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
                _say(f"{part}: ... {time.monotonic() - started:.0f} s: {_last_line(log)}")
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


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return LOG_PREFIX.sub("", lines[-1])[:90] if lines else ""


@contextmanager
def _lock() -> Iterator[None]:
    BIN.mkdir(parents=True, exist_ok=True)
    with (PARTS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another build is under way: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.0f} s] {line}", flush=True)


# --- the parts --------------------------------------------------------------------------------------------------------

COLLECTOR = Program("otelcol-hft-test", variable="HFT_OTELCOL")

ALL: dict[str, Part] = {
    "collector": Part((COLLECTOR,), _build_collector, MANIFEST.read_text, _go),
    "prometheus": Part(
        (Program("prometheus", on_path=("prometheus",)), Program("promtool", on_path=("promtool",))),
        _build_prometheus,
        lambda: PROMETHEUS,
        _go,
    ),
    "pushgateway": Part(
        (Program("pushgateway", on_path=("prometheus-pushgateway", "pushgateway")),),
        _build_pushgateway,
        lambda: PUSHGATEWAY,
        _go,
    ),
    "compose": Part(
        (Program("compose-config"),),
        _build_compose,
        lambda: "".join((COMPOSE / file).read_text() for file in ("go.mod", "go.sum", "main.go")),
        _go,
    ),
    "opensearch": Part(
        (Program("opensearch"),),
        _build_opensearch,
        lambda: f"{PARTS}" + "".join((OPENSEARCH / file).read_text() for file in ("pom.xml", "Launch.java")),
        _maven,
        _leave_out_opensearch,
    ),
    "collector-full": Part(
        (Program("otelcol-hft", variable="HFT_OTELCOL"),),
        _build_full_collector,
        FULL_MANIFEST.read_text,
        _go,
        _leave_out_full_collector,
    ),
}
PROGRAMS: dict[str, tuple[Part, Program]] = {
    p.name: (part, p) for part in ALL.values() for p in part.programs
}
STARTED = time.monotonic()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="parts.py", description=__doc__, formatter_class=layout)
    parser.add_argument("part", nargs="?", default="all", choices=[*ALL, "all"])
    parser.add_argument(
        "--where", action="store_true", help="build nothing; print `program<TAB>path` per program"
    )
    options = parser.parse_args(arguments)
    everything = options.part == "all"
    status = EXIT_OK
    for name in ALL if everything else [options.part]:
        required = not (everything and ALL[name].optional)
        found = EXIT_OK if options.where else _try(name, required)
        for program in ALL[name].programs:
            path = locate(program.name)
            print(f"{program.name}\t{path or '-'}")
            if path is None:
                found = found or EXIT_UNAVAILABLE
        if required:
            status = found if found == EXIT_FAILED else status or found
    return status


def _try(name: str, required: bool) -> int:
    """Bring a part and return the exit status; an optional one may be left out, with the reason in a line."""
    leave_out = None if required else ALL[name].optional
    if leave_out and not all(locate(p.name) for p in ALL[name].programs) and (reason := leave_out()):
        _say(f"{name}: left out, and its tests are skipped: {reason}")
        return EXIT_UNAVAILABLE
    try:
        bring(name)
    except UnavailableError as unavailable:
        _say(f"{name}: not available here. {unavailable}")
        return EXIT_UNAVAILABLE
    except BuildError as error:
        _say(str(error))
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
