"""The list of the parts; looking for a program among them, and bringing a part that is missing."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

from . import collectors, go, opensearch
from .model import Part, Program, UnavailableError
from .steps import lock, say

ALL: dict[str, Part] = {
    "collector": Part(
        (Program("otelcol-hft-test", variable="HFT_OTELCOL"),),
        collectors.build_small,
        collectors.MANIFEST.read_text,
        go.command,
    ),
    "collector-elasticsearch": Part(
        (Program("otelcol-hft-es", variable="HFT_OTELCOL"),),
        collectors.build_elasticsearch,
        collectors.elasticsearch_recipe,
        go.command,
        may_be_refused=True,
    ),
    "prometheus": Part(
        (Program("prometheus", on_path=("prometheus",)), Program("promtool", on_path=("promtool",))),
        go.build_prometheus,
        lambda: go.PROMETHEUS,
        go.command,
    ),
    "pushgateway": Part(
        (Program("pushgateway", on_path=("prometheus-pushgateway", "pushgateway")),),
        go.build_pushgateway,
        lambda: go.PUSHGATEWAY,
        go.command,
    ),
    "compose": Part((Program("compose-config"),), go.build_compose, go.compose_recipe, go.command),
    "opensearch": Part(
        (Program("opensearch"),),
        opensearch.build_opensearch,
        opensearch.opensearch_recipe,
        opensearch.maven,
        opensearch.leave_out_opensearch,
    ),
    "collector-full": Part(
        (Program("otelcol-hft", variable="HFT_OTELCOL"),),
        collectors.build_full,
        collectors.full_recipe,
        go.command,
        collectors.leave_out_full,
    ),
}
PROGRAMS: dict[str, tuple[Part, Program]] = {
    program.name: (part, program) for part in ALL.values() for program in part.programs
}


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


def bring(name: str) -> None:
    """Make the part be there, building it where it is missing. Safe to call from several processes at once."""
    part = ALL[name]
    if is_there(part):
        return
    for program in part.programs:
        if program.variable and os.environ.get(program.variable):
            raise UnavailableError(cure(program.name))
    part.need()
    with lock():
        if is_there(part):  # another process built it meanwhile
            return
        started = time.monotonic()
        part.build(part)
        for program in part.programs:
            program.stamp.write_text(_digest(part))
        size = sum(p.built.stat().st_size for p in part.programs) / 1e6
        say(f"{name}: ready after {time.monotonic() - started:.0f} s, {size:.0f} MB in .parts/bin")


def is_there(part: Part) -> bool:
    """Whether all of its programs are on this machine, built from the present recipe."""
    return all(locate(program.name) for program in part.programs)


def _is_current(part: Part, program: Program) -> bool:
    try:
        return program.stamp.read_text() == _digest(part) and os.access(program.built, os.X_OK)
    except OSError:
        return False


def _digest(part: Part) -> str:
    return hashlib.sha256(part.recipe().encode()).hexdigest()


def _part_name(part: Part) -> str:
    return next(name for name, candidate in ALL.items() if candidate is part)
