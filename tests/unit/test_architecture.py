"""The shape of the package: what may import what, what is public, how long things are, what an import costs."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import hft_otel

PACKAGE = Path(hft_otel.__file__).parent
ROOT = "<root>"

ORDER = (
    "record",
    "_url",
    "secret_names",
    "redaction",
    "interfaces",
    "_guarded",
    "_failures",
    "config",
    "ledger",
    "otel.current",
    "lanes",
    "router",
    "arguments",
    "taken",
    "listeners",
    "standard",
    "calls",
    "logger",
    "bridge",
    "performance",
    "unpack",
    "otel",
    "destinations",
    "outbox",
    "handover",
    "audit",
    "audit_feed",
    "lane_feed",
    "routes",
    "recovery",
    "worker",
    "notices",
    "lifecycle",
    "_validation",
    "_environment",
    "_yaml",
    "_canonical",
    "building",
    "agent",
    "factory",
    "collector",
    "stdlib",
    "testing",
    "cli",
)
"""From the ground up; a name stands for a module or for a folder, whose modules may import each other without a cycle."""

PUBLIC = {
    "AgentConfig",
    "BackendConfig",
    "ComponentConfig",
    "ConfigError",
    "ConsoleBackend",
    "ConsoleConfig",
    "CustomConfig",
    "DEVELOPMENT_ROUTING_RULES",
    "DatadogConfig",
    "ElasticsearchConfig",
    "FileBackend",
    "FileConfig",
    "FlushReport",
    "HFTLogger",
    "HFTLoggerInterface",
    "InstrumentConfig",
    "InstrumentKind",
    "JournalConfig",
    "LanesConfig",
    "LogBackend",
    "LogConfig",
    "LogLevel",
    "LogRecord",
    "LogRouter",
    "LogType",
    "LoggerFactory",
    "OtlpConfig",
    "PRODUCTION_ROUTING_RULES",
    "PerformanceLogger",
    "PrometheusBackend",
    "PrometheusConfig",
    "SlackConfig",
    "StdlibConfig",
    "WebhookConfig",
    "bridge_stdlib",
    "unbridge_stdlib",
}

HEAVY = (
    "requests",
    "urllib3",
    "grpc",
    "opentelemetry.exporter",
    "prometheus_client",
    "rich",
    "click",
)
"""What an import of the package must not pay for; those who configure it do."""


class Import(NamedTuple):
    """One import of a module of ours by another."""

    importer: str
    imported: str
    line: int
    at_import_time: bool
    justified: bool


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or ROOT] = path
    return found


MODULES = modules()


@cache
def imports() -> tuple[Import, ...]:
    return tuple(each for name, path in MODULES.items() for each in _imports_of(name, path))


def _imports_of(importer: str, path: Path) -> Iterator[Import]:
    source = path.read_text()
    lines = source.splitlines()
    tree = ast.parse(source)
    package = path.parent.relative_to(PACKAGE.parent).parts
    types_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in types_only:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*base, *filter(None, [node.module])))
            names = [f"{origin}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == PACKAGE.name:
                justified = "#" in lines[node.lineno - 1] and "noqa" not in lines[node.lineno - 1]
                yield Import(importer, _module_of(name), node.lineno, node not in lazy, justified)


def _module_of(dotted: str) -> str:
    """Return the module of ours that a dotted name means: itself, or the one that it is taken from."""
    inner = dotted.split(".")[1:]
    while inner and ".".join(inner) not in MODULES:
        inner = inner[:-1]
    return ".".join(inner) or ROOT


def place(module: str) -> int:
    """Return where a module stands in the order: by the longest entry that covers it."""
    covering = [entry for entry in ORDER if module == entry or module.startswith(f"{entry}.")]
    assert covering, f"{module} has no place in ORDER"
    return ORDER.index(max(covering, key=len))


def describe(each: Import) -> str:
    return f"{each.importer}:{each.line} imports {each.imported}"


def test_every_module_has_its_place() -> None:
    for module in MODULES:
        if module != ROOT:
            place(module)


def test_a_module_imports_only_what_stands_below_it() -> None:
    wrong = [
        describe(each)
        for each in imports()
        if ROOT not in (each.importer, each.imported)
        and place(each.imported) > place(each.importer)
        and (each.at_import_time or not each.justified)
    ]
    assert wrong == []


def test_nobody_inside_imports_the_package_root() -> None:
    assert [describe(each) for each in imports() if each.imported == ROOT and each.importer != ROOT] == []


def test_there_is_no_cycle_not_even_a_lazy_one() -> None:
    left = {module: set[str]() for module in MODULES}
    for each in imports():
        if each.imported != each.importer and (each.at_import_time or not each.justified):
            left[each.importer].add(each.imported)
    while left:
        free = [module for module, needs in left.items() if not needs & left.keys()]
        assert free, f"a cycle among {sorted(left)}"
        for module in free:
            del left[module]


def test_unstable_names_of_opentelemetry_are_imported_in_one_place() -> None:
    unstable = re.compile(r"^\s*(from|import) opentelemetry\.(sdk\.)?_", re.MULTILINE)
    users = [module for module, path in MODULES.items() if unstable.search(path.read_text())]
    assert users == ["otel.sdk"]


def test_the_public_names_are_exactly_these() -> None:
    assert set(hft_otel.__all__) == PUBLIC
    assert len(hft_otel.__all__) == len(PUBLIC)
    assert sorted(hft_otel.__all__, key=lambda name: (not name.isupper(), name)) == list(hft_otel.__all__)
    for name in PUBLIC:
        assert getattr(hft_otel, name) is not None


@pytest.mark.parametrize("module", sorted(set(MODULES) - {ROOT}))
def test_what_a_module_lists_as_its_own_is_there(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    listed = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    ]
    if MODULES[module].name != "__init__.py":
        assert listed, f"{module} has no __all__"
    for node in listed:
        names = ast.literal_eval(node)
        defined = {
            name
            for statement in tree.body
            for name in (
                [getattr(statement, "name", "")]
                + [getattr(target, "id", "") for target in getattr(statement, "targets", [])]
                + [getattr(getattr(statement, "target", None), "id", "")]
                + [
                    alias.asname or alias.name
                    for alias in getattr(statement, "names", [])
                    if hasattr(alias, "name")
                ]
            )
        }
        assert set(names) <= defined


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = {
        f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > 60
    }
    assert long == {}


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_an_import_loads_nothing_heavy_and_touches_nothing() -> None:
    script = """
import json, sys, time
started = time.perf_counter()
threads_before = __import__("threading").active_count()
import hft_otel
took = time.perf_counter() - started
import threading, os, signal
print(json.dumps({
    "took": took,
    "modules": sorted(sys.modules),
    "threads": threading.active_count() - threads_before,
    "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    "files": os.listdir("."),
}))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{script}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=PACKAGE / "lanes",  # any folder that the test does not write
    )
    found = json.loads(done.stdout)
    print(f"import hft_otel took {found['took'] * 1000:.0f} ms")
    loaded = [each for each in found["modules"] if each.startswith(HEAVY)]
    assert loaded == []
    assert found["threads"] == 0
    assert found["sigterm"]
    assert "logs" not in found["files"]
