"""From configuration to live backends and routers; the only module that knows every class of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ._canonical import canonical
from ._validation import Place, keeps_audit, takes
from .config import (
    BACKEND_KINDS,
    BackendConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    WebhookConfig,
)
from .destinations.base import Destination
from .destinations.foreign import load_class
from .destinations.group import Group, ViaCollector
from .interfaces import LogBackend
from .record import LogLevel
from .router import BackendInfo, LogRouter, level_number

__all__ = ["Builder", "backend_infos", "located", "make_router"]


_PATHS = ("file_path", "certificate", "client_certificate", "client_key")
"""Options of backends that are paths."""
_Key = tuple[str, bytes]
"""A backend's type and options."""


def backend_infos(config: LogConfig) -> list[BackendInfo]:
    """Return what the route table needs to know of the enabled backends; builds none of them."""
    infos: list[BackendInfo] = []
    for name, backend in config.backends.items():
        if backend.enabled:
            infos.append(
                BackendInfo(
                    name,
                    takes(backend),
                    level_number(backend.min_level, LogLevel.DEBUG),
                    keeps_audit(backend),
                )
            )
    return infos


def located(config: LogConfig) -> LogConfig:
    """Return the configuration with absolute paths: what an agent or a child builds from it later finds the same files."""
    return replace(config, backends={name: _located(part) for name, part in config.backends.items()})


def _located(part: BackendConfig) -> BackendConfig:
    if getattr(part, "via", "sdk") == "collector":  # those are paths of the Collector's
        return part
    given = {name: getattr(part, name, None) for name in _PATHS}
    paths: dict[str, Any] = {
        name: str(Path(path).expanduser().absolute()) for name, path in given.items() if path
    }
    return replace(part, **paths) if paths and not isinstance(part, CustomConfig) else part


def make_router(config: LogConfig, backends: Mapping[str, LogBackend]) -> LogRouter:
    """Return the router for the configuration's rules over live backends."""
    infos = [info for info in backend_infos(config) if info.name in backends]
    return LogRouter(config.routing_rules, backends, config.environment, infos)


class Builder:
    """Builds backends, one by type and options, and refuses two that would be in each other's way.

    `stand_in`, where it is given, makes what takes the place of a backend that cannot be built.
    """

    def __init__(self, stand_in: Callable[[str, Exception], LogBackend] | None = None) -> None:
        # The innermost lock of a process: whoever holds it only builds, and asks for no other.
        self._lock = threading.RLock()
        self._stand_in = stand_in
        self._built: dict[_Key, LogBackend] = {}
        self._claims: dict[tuple[str, str], _Key] = {}

    def backends(self, config: LogConfig) -> dict[str, LogBackend]:
        """Return the enabled backends by name, each shared with every configuration that asks for the same."""
        with self._claiming():
            return self._live(config)

    def check(self, config: LogConfig) -> None:
        """Raise ConfigError for what cannot be built, or not beside the others; for backends that live elsewhere."""
        with self._claiming():
            for name, backend in _enabled(config).items():
                if getattr(backend, "via", "sdk") != "collector":
                    self._claim(name, backend, _key(backend, config), config)
                    if isinstance(backend, CustomConfig):
                        _load_custom(name, backend, config)
                    elif type(backend) not in BACKEND_KINDS.values():
                        raise _no_destination(name, backend, config)

    @contextmanager
    def _claiming(self) -> Iterator[None]:
        """Hold the lock; a configuration that cannot be used must claim no file or port."""
        with self._lock:
            before = dict(self._built), dict(self._claims)
            try:
                yield
            except BaseException:
                self._built, self._claims = before
                raise

    def _live(self, config: LogConfig) -> dict[str, LogBackend]:
        enabled = _enabled(config)
        otlp = {
            name: part for name, part in enabled.items() if isinstance(part, OtlpConfig) and part.via == "sdk"
        }
        live: dict[str, LogBackend] = {name: self._shared(name, part, config) for name, part in otlp.items()}
        group = next((backend for backend in live.values() if isinstance(backend, Group)), None)
        for name, backend in enabled.items():
            if getattr(backend, "via", "sdk") == "collector":
                if group is None:
                    cure = "add `otlp: {enabled: true}` under backends"
                    raise (_place(name, config) / "via").error("collector needs the otlp backend", cure)
                live[name] = ViaCollector(name, group, takes(backend))
            elif name not in live:
                live[name] = self._shared(name, backend, config)
        return {name: live[name] for name in enabled}

    def _shared(self, name: str, backend: BackendConfig, config: LogConfig) -> LogBackend:
        key = _key(backend, config)
        self._claim(name, backend, key, config)
        if key not in self._built:
            try:
                self._built[key] = _build(name, backend, config)
            except Exception as error:
                if self._stand_in is None:
                    raise
                self._built[key] = self._stand_in(name, error)
        return self._built[key]

    def _claim(self, name: str, backend: BackendConfig, key: _Key, config: LogConfig) -> None:
        """Refuse the same file or port with other options: two writers would tear each other's output."""
        if isinstance(backend, FileConfig):
            claim = ("file_path", os.path.realpath(backend.file_path))
        elif isinstance(backend, PrometheusConfig) and backend.scrape and backend.port:
            claim = ("port", f"{backend.host}:{backend.port}")
        else:
            return
        if self._claims.setdefault(claim, key) != key:
            raise (_place(name, config) / "config" / claim[0]).error(
                f"{claim[1]} is in use by another backend with other options",
                f"give both the same options, or one another {claim[0]}; in a notebook, where the options were "
                "changed and the cell run again, restart the kernel",
            )


def _place(name: str, config: LogConfig) -> Place:
    return Place(config.source, ("logging", "backends", name))


def _enabled(config: LogConfig) -> dict[str, BackendConfig]:
    return {name: backend for name, backend in config.backends.items() if backend.enabled}


def _key(backend: BackendConfig, config: LogConfig) -> _Key:
    """Return what two backends have in common that are the same."""
    options = canonical(replace(backend, enabled=True))
    belongs = {"environment": config.environment, **config.global_context}  # see _resource
    resource = canonical(belongs) if isinstance(backend, (OtlpConfig, CustomConfig)) else b""
    if isinstance(backend, (PrometheusConfig, OtlpConfig, CustomConfig)):
        resource += canonical(list(config.instruments.items()))  # in their order, which counts
    return type(backend).__name__, options + resource


def _build(name: str, backend: BackendConfig, config: LogConfig) -> LogBackend:
    """Return a new backend; imports its module only now, since exporters are slow to import."""
    built = _build_destination(name, backend, config)
    for destination in built.parts if isinstance(built, Group) else (built,):
        if isinstance(destination, Destination):
            destination.name = destination.name or name
            destination.min_level = LogLevel(level_number(backend.min_level, LogLevel.DEBUG))
    return built


def _build_destination(name: str, backend: BackendConfig, config: LogConfig) -> LogBackend:  # noqa: PLR0911  (one return per kind)
    if isinstance(backend, ConsoleConfig):
        from .destinations.console import ConsoleBackend

        return ConsoleBackend(backend)
    if isinstance(backend, FileConfig):
        from .destinations.file import FileBackend

        return FileBackend(backend)
    if isinstance(backend, SlackConfig):
        from .destinations.slack import SlackBackend

        return SlackBackend(backend)
    if isinstance(backend, WebhookConfig):
        from .destinations.webhook import WebhookBackend

        return WebhookBackend(backend)
    if isinstance(backend, PrometheusConfig):
        from .destinations.prometheus import PrometheusBackend

        return PrometheusBackend(backend, _resource(config), config.instruments)
    if isinstance(backend, OtlpConfig):
        from .destinations.otlp import otlp_destinations

        return Group(name, otlp_destinations(backend, _resource(config), name, config.instruments))
    if isinstance(backend, CustomConfig):
        return _build_custom(name, backend, config)
    raise _no_destination(name, backend, config)


def _no_destination(name: str, backend: BackendConfig, config: LogConfig) -> ConfigError:
    kinds = (DatadogConfig, ElasticsearchConfig)
    cure = (
        "set `via: collector`" if isinstance(backend, kinds) else "use one of the types of backends there are"
    )
    return _place(name, config).error("this process has no destination for this backend", cure)


def _build_custom(name: str, backend: CustomConfig, config: LogConfig) -> LogBackend:
    """Return the user's own: a LogBackend, or any exporter of OpenTelemetry."""
    from .destinations.exporters import destination_for
    from .destinations.foreign import as_destination, build_custom

    found = _load_custom(name, backend, config)
    if not issubclass(found, LogBackend):
        return destination_for(
            found,
            name,
            resource=_resource(config),
            config=backend.config,
            instruments=config.instruments,
        )
    with _placed(name, config):
        return as_destination(build_custom(backend.class_path, backend.config), name)


def _load_custom(name: str, backend: CustomConfig, config: LogConfig) -> type[Any]:
    """Import the user's class."""
    from .otel.sdk import LogRecordExporter, MetricExporter, SpanExporter

    with _placed(name, config):
        return load_class(backend.class_path, (LogBackend, LogRecordExporter, MetricExporter, SpanExporter))


@contextmanager
def _placed(name: str, config: LogConfig) -> Iterator[None]:
    """Say of an error in a backend's options which backend it is, and where that stands."""
    try:
        yield
    except ConfigError as error:
        if error.file is not None:
            raise
        place = _place(name, config)
        raise ConfigError(
            error.cause,
            file=place.file,
            path=f"{place}.{error.path}" if error.path else str(place),
            cure=error.cure,
        ) from error.__cause__


def _resource(config: LogConfig) -> Any:
    from .otel.sdk import make_resource

    return make_resource({"deployment.environment.name": config.environment, **config.global_context})
