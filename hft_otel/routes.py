"""From a record to the outboxes that it goes to: the routers' answers, resolved to live destinations once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, count
from typing import Any

from .destinations.base import Destination
from .destinations.foreign import as_destination
from .destinations.group import Group, ViaCollector
from .interfaces import LogBackend
from .lanes.intake import Pipeline
from .outbox import Outbox
from .record import LogRecord, LogType
from .router import LogRouter

__all__ = ["Route", "Routes"]

Route = tuple[tuple[Outbox, ...], tuple[str, ...]]
"""The outboxes that a record goes to, and the names of the backends behind the Collector that want it."""

_MAX_KNOWN = 4096

Telemetry = Callable[[], Iterable[tuple[str, float, Mapping[str, str]]]]


class Routes:
    """The pipelines of a worker and the outboxes of their backends, each started once."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.pipelines: dict[int, Pipeline] = {}
        self.outboxes: dict[int, Outbox] = {}
        """By the identity of their destination."""
        self._telemetry = telemetry
        self._adapters: dict[int, Destination] = {}
        """By the identity of the backend, which they keep alive: a destination for each backend that was handed over."""
        self._known: dict[tuple[int, tuple[Any, ...]], Route] = {}

    def add(self, pipeline: Pipeline) -> list[Outbox]:
        """Serve a further pipeline; return the outboxes of its backends, of which the new ones are started."""
        self.pipelines[pipeline.number] = pipeline
        for backend in pipeline.backends:
            if not isinstance(backend, (Group, ViaCollector)) and id(backend) not in self._adapters:
                self._adapters[id(backend)] = as_destination(backend, _name_of(backend))
        destinations = [part for backend in pipeline.backends for part in self._destinations_of(backend)]
        return [self.outboxes.get(id(part)) or self._start(part) for part in destinations]

    def find(self, number: int, record: LogRecord) -> Route:
        """Return where a record goes; cached by what the route table's answer depends on.

        Raises what a router of the user's raises, and KeyError where it names a backend that was not handed over with it.
        """
        router = self.pipelines[number].router
        if type(router) is not LogRouter:
            return self._resolve(
                record, [each for each in router.get_backends(record) if _suits(each, record)]
            )
        key = (number, router.table.key(record))
        route = self._known.get(key)
        if route is None:
            if len(self._known) >= _MAX_KNOWN:  # as the table's own: context values that never repeat
                self._known.clear()
            backends = [router.backends[name] for name in router.table.names(record)]
            route = self._known[key] = self._resolve(record, backends)
        return route

    def find_for_audit(self, number: int, record: LogRecord) -> Route:
        """Like `find`, but where a router of the user's fails the event goes to all that take it."""
        try:
            return self.find(number, record)
        except Exception:  # noqa: BLE001  (whatever a router of the user's raises)
            return self._resolve(record, self.pipelines[number].backends)

    def _resolve(self, record: LogRecord, backends: Iterable[LogBackend]) -> Route:
        outboxes: dict[Outbox, None] = {}
        via: list[str] = []
        for backend in backends:
            if isinstance(backend, ViaCollector):
                via.append(backend.name)
            for destination in self._destinations_of(backend):
                if record.log_type in destination.accepts:
                    outboxes[self.outboxes[id(destination)]] = None
        return tuple(outboxes), tuple(via)

    def _destinations_of(self, backend: LogBackend) -> tuple[Destination, ...]:
        """Return what a backend consists of."""
        if isinstance(backend, ViaCollector):
            backend = backend.otlp
        if isinstance(backend, Group):
            return backend.parts
        return (self._adapters[id(backend)],)

    def _start(self, destination: Destination) -> Outbox:
        destination.telemetry = self._telemetry
        used = {outbox.name for outbox in self.outboxes.values()}
        # numbered where another configuration has a destination of that name: sums go by name
        names = chain([destination.name], (f"{destination.name} {number}" for number in count(2)))
        outbox = Outbox(destination, name=next(name for name in names if name not in used))
        self.outboxes[id(destination)] = outbox
        outbox.start()
        return outbox


def _suits(backend: LogBackend, record: LogRecord) -> bool:
    """Say whether the backend's min_level lets the record through; LogRouter asks this by itself."""
    return record.log_type is not LogType.TEXT or record.level >= getattr(backend, "min_level", 0)


def _name_of(backend: LogBackend) -> str:
    return str(getattr(backend, "name", "") or type(backend).__name__)
