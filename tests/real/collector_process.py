"""Runs a Collector on a whole configuration as it is checked in or rendered, on ports and in folders of the test's own.

Nothing in the configuration is rewritten but by the environment variables that it leaves open, with one exception,
which is said in `replaced`: a component that this Collector was built without. An exporter of that kind gives its place
to OTLP over HTTP, to a stand-in, with the same queue; processors and connectors of that kind are left out.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.real.running import Program
from tools import parts

Json = dict[str, Any]
VARIABLE = re.compile(r"\$\{env:(\w+)(?::-([^}]*))?\}")
ADDRESS = re.compile(r"(?:[\w.-]+:|\[[\w:]*\]:)?\d{2,5}")
LISTENING = ("receivers", "extensions", "service")


COLLECTORS = ("otelcol-hft", "otelcol-hft-es", "otelcol-hft-test")
"""The one with the most in it first: the full one, the one with Elasticsearch, the small one."""


def best() -> Path | None:
    """The Collector with the most in it that is here."""
    return next(filter(None, map(parts.locate, COLLECTORS)), None)


@cache
def components(binary: Path) -> dict[str, frozenset[str]]:
    """What a Collector was built with: names by class, such as `exporters`."""
    told = subprocess.run([binary, "components"], capture_output=True, check=True, timeout=30).stdout
    listed = yaml.safe_load(told)
    kinds = ("receivers", "processors", "exporters", "connectors", "extensions")
    return {kind: frozenset(_names(listed.get(kind) or [])) for kind in kinds}


def _names(entries: list[Json]) -> Iterator[str]:
    for entry in entries:
        yield str(entry["name"])
        yield from map(str, entry.get("aliases") or ([entry["alias"]] if entry.get("alias") else []))


def has(binary: Path | None, kind: str, *names: str) -> bool:
    """Whether there is a Collector, and it has all of these."""
    return binary is not None and set(names) <= components(binary)[kind]


class PipelineCollector(Program):
    """A Collector with a configuration of the product.

    Each variable of the configuration that stands for an address where it listens gets a free port of 127.0.0.1, which
    `address(variable)` tells and which stays over restarts; `env` has the values of others. `sink` is the URL for what
    this Collector was built without.
    """

    name = "collector"

    def __init__(
        self,
        binary: Path,
        folder: Path,
        config: str,
        env: Mapping[str, str] | None = None,
        *,
        sink: str = "",
    ) -> None:
        self.document, self.replaced = without_missing(yaml.safe_load(config), components(binary), sink)
        self._addresses = dict(_listening(self.document))
        names = [name for name in self._addresses if name not in (env or {})]
        super().__init__(binary, folder, names, env)

    def prepare(self) -> None:
        text = yaml.safe_dump(self.document, sort_keys=False)
        (self.folder / "config.yaml").write_text(text)
        for name, port in self.ports.items():
            self._env[name] = str(port) if self._addresses[name].isdigit() else f"127.0.0.1:{port}"

    def command(self) -> list[str]:
        return [str(self.binary), f"--config={self.folder / 'config.yaml'}"]

    def is_ready(self) -> bool:
        return "Everything is ready" in self.new_output()

    def address(self, variable: str) -> str:
        """host:port of one of the variables for addresses."""
        return f"127.0.0.1:{self.ports[variable]}"

    def errors(self) -> list[str]:
        """What it has logged as errors since the last start, each once."""
        lines = (line.split("\t") for line in self.new_output().splitlines())
        return sorted(
            {"\t".join(parts[2:])[:300] for parts in lines if len(parts) > 2 and parts[1] == "error"}
        )


def validate(binary: Path, document: Json, folder: Path, env: Mapping[str, str]) -> str:
    """What `otelcol validate` says against a configuration: "" where it passes."""
    file = folder / "validate.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    told = subprocess.run(
        [binary, "validate", f"--config={file}"],
        capture_output=True,
        text=True,
        env=dict(os.environ) | dict(env),
        timeout=60,
        check=False,
    )
    return "" if told.returncode == 0 else told.stdout + told.stderr


def _listening(document: Json) -> Iterator[tuple[str, str]]:
    """Variables for addresses or ports on which this configuration listens, with their defaults."""
    exporters = document.get("exporters") or {}
    places = [document.get(section) for section in LISTENING]
    places += [value for name, value in exporters.items() if kind_of(name) == "prometheus"]
    for text in _texts(places):
        for name, default in VARIABLE.findall(text):
            if ADDRESS.fullmatch(default):
                yield name, default


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)


def kind_of(name: str) -> str:
    """The type in a component's name."""
    return name.partition("/")[0]


def without_missing(document: Json, built: Mapping[str, frozenset[str]], sink: str) -> tuple[Json, list[str]]:
    """The configuration for a Collector without some components, and what was replaced or left out."""
    document = copy.deepcopy(document)
    renamed: dict[str, str | None] = {}
    for section in ("exporters", "processors", "connectors"):
        for name in list(document.get(section) or {}):
            if kind_of(name) in built[section]:
                continue
            options = document[section].pop(name) or {}
            renamed[name] = None
            if section == "exporters" and name not in (document.get("connectors") or {}):
                renamed[name] = f"otlp_http/{_flat(name)}"
                document["exporters"][renamed[name]] = _otlp_instead(name, options, sink)
    pipelines = document["service"]["pipelines"]
    for pipeline in pipelines.values():
        for part in pipeline:
            wanted = (renamed.get(name, name) for name in pipeline[part])
            pipeline[part] = [name for name in wanted if name is not None]
    for name in [
        name for name, pipeline in pipelines.items() if not (pipeline["receivers"] and pipeline["exporters"])
    ]:
        del pipelines[name]
    for section in ("connectors", "processors"):
        if not document.get(section, True):
            del document[section]
    return document, [f"{name} -> {new or 'left out'}" for name, new in renamed.items()]


def _flat(name: str) -> str:
    return name.replace("/", ".")


def _otlp_instead(name: str, options: Json, sink: str) -> Json:
    kept = {key: options[key] for key in ("sending_queue",) if key in options}
    for_ever = (options.get("retry") or {}).get("max_retries", 0) > 1000  # Elasticsearch's own way to say so
    limit = "0s" if for_ever else (options.get("retry_on_failure") or {}).get("max_elapsed_time", "5m")
    retry = {"initial_interval": "100ms", "max_interval": "1s", "max_elapsed_time": limit}
    return {
        "endpoint": f"{sink}/{_flat(name)}",
        "compression": "none",
        "timeout": "2s",
        "retry_on_failure": retry,
        **kept,
    }
