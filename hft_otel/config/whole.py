"""The complete configuration, and the rules that hold where none are given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from os import PathLike
from typing import Annotated, Any, ClassVar, Protocol

from msgspec import Meta

from .._guarded import Guarded
from .backends import BackendConfig
from .errors import ConfigError
from .fields import CallSites, Level, OneOf
from .parts import AgentConfig, ComponentConfig, InstrumentConfig, JournalConfig, LanesConfig, StdlibConfig

__all__ = [
    "DEVELOPMENT_ENVIRONMENTS",
    "DEVELOPMENT_ROUTING_RULES",
    "PRODUCTION_ROUTING_RULES",
    "ConfigLoader",
    "LogConfig",
]


DEVELOPMENT_ENVIRONMENTS = ("dev", "development", "local", "test")
"""Values of ENVIRONMENT that get the development default; any other gets the production default."""

# No rule names AUDIT, so that it goes to every enabled file, otlp and elasticsearch backend.
DEVELOPMENT_ROUTING_RULES: list[dict[str, Any]] = [
    {"name": "metrics_to_prometheus", "log_types": ["METRIC"], "backends": ["prometheus"]},
    {"name": "errors_to_file_and_console", "min_level": "WARNING", "backends": ["file", "console"]},
    {
        "name": "debug_to_console_dev_only",
        "max_level": "INFO",
        "environments": list(DEVELOPMENT_ENVIRONMENTS),
        "backends": ["console"],
    },
]
PRODUCTION_ROUTING_RULES: list[dict[str, Any]] = [
    {
        "name": "metrics_to_prometheus_and_datadog",
        "log_types": ["METRIC"],
        "backends": ["prometheus", "datadog"],
    },
    {"name": "errors_to_file_and_datadog", "min_level": "WARNING", "backends": ["file", "datadog"]},
]


def _expect(kind: type[Any], value: Any, where: str) -> None:
    """Raise ConfigError unless the value, handed in from Python, can stand there."""
    if isinstance(value, Mapping if kind is dict else kind):
        return
    wanted, cure = "a mapping", "hand in a dict"
    if kind is not dict:
        wanted, cure = kind.__name__, f"hand in {kind.__name__}(...), or use LogConfig.from_dict"
    found = f"found a value of type {type(value).__name__}"
    raise ConfigError(f"expected {wanted}, {found}", path=f"logging.{where}", cure=cure)


@dataclass(repr=False)
class LogConfig(Guarded):
    """Complete logging configuration; None for a field means its default."""

    environment: str = "dev"
    backends: dict[str, BackendConfig] = field(default_factory=dict)
    routing_rules: list[dict[str, Any]] = field(default_factory=list)
    global_context: dict[str, Any] = field(default_factory=dict)
    min_level: Level = "DEBUG"
    """The lowest level of TEXT that loggers with this configuration take."""
    isolation: Annotated[str, OneOf(("thread", "process"))] | None = None
    """Who delivers: a thread of this process, or a process beside it; None means `effective_isolation`."""
    components: dict[str, ComponentConfig] = field(default_factory=dict)
    journal: JournalConfig = field(default_factory=JournalConfig)
    lanes: LanesConfig = field(default_factory=LanesConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    redact: list[str] = field(default_factory=list)
    """Further key names whose values are secrets."""
    instruments: dict[str, InstrumentConfig] = field(default_factory=dict)
    """By the name that `metric()` is given, or a pattern of `*`, `?` and `[...]`; the first that matches counts."""
    call_site: CallSites = "warning"
    """From which level on text says where it was called: a level, `always` or `never`."""
    stdlib: StdlibConfig = field(default_factory=StdlibConfig)
    exit_timeout: Annotated[float, Meta(ge=0, le=3_600)] = 2.0
    """Seconds that process exit may spend on delivering what is left."""
    source: str | None = None
    """The file that this came from, for error messages."""

    loader: ClassVar[ConfigLoader]
    """What reads files for the methods below: _yaml.py, which stands above this module and sets itself here."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            kind: Any = entry.default_factory
            if getattr(self, entry.name) is None and entry.default is not None:
                setattr(self, entry.name, entry.default if kind is MISSING else kind())
            elif isinstance(kind, type) and kind is not list:  # lists, and what is inside, validation sees
                _expect(kind, getattr(self, entry.name), entry.name)
        for name, component in self.components.items():
            _expect(ComponentConfig, component, f"components.{name}")

    @property
    def effective_isolation(self) -> str:
        """What `isolation` says; where it says nothing, a thread in development and a process elsewhere."""
        return self.isolation or ("thread" if self.environment in DEVELOPMENT_ENVIRONMENTS else "process")

    @classmethod
    def from_yaml(cls, yaml_file: str | PathLike[str]) -> LogConfig:
        """Load the `logging:` part of a YAML file; raises ConfigError with the file, the path in it, cause and cure.

        `${VAR}` and `${VAR:-default}` are replaced from the environment, and standard OTEL_* variables fill what the
        file leaves open.
        """
        path = os.fspath(yaml_file) if isinstance(yaml_file, PathLike) else yaml_file
        if not isinstance(path, str):
            raise ConfigError(
                f"the path of a YAML file is expected, found {path!r}",
                cure="give it as text or as a Path; if an environment variable names it, set that",
            )
        return cls.loader.load_file(path)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], source: str = "<dict>") -> LogConfig:
        """Take what a YAML file would hold, with or without its `logging:` key; `source` names it in errors."""
        return cls.loader.load_mapping(mapping, source)

    @classmethod
    def default(cls) -> LogConfig:
        """Load the file that HFT_OTEL_CONFIG names; where it names none, take the default of ENVIRONMENT (dev)."""
        return cls.loader.load_default()

    @classmethod
    def for_component(cls, component_name: str) -> LogConfig:
        """Load the default with what its `components:` say of this one; one that they do not name gets the default."""
        return cls.loader.load_component(component_name)


class ConfigLoader(Protocol):
    """How configuration gets here from outside; see the methods of LogConfig that are called alike."""

    def load_file(self, path: str | PathLike[str]) -> LogConfig:
        """Load a file."""

    def load_mapping(self, mapping: Mapping[str, Any], source: str) -> LogConfig:
        """Take what a file would hold."""

    def load_default(self) -> LogConfig:
        """Load what holds where nothing is said."""

    def load_component(self, name: str) -> LogConfig:
        """Load the default with the overrides of one component."""
