"""A stand-in for Datadog's intake: takes what the Collector's exporter sends, and reads names, points and tags of it.

Series and sketches as protobuf or JSON, logs as JSON, traces as protobuf; statistics are counted only. The fields are
those of Datadog's public schemas (agent-payload, and the trace agent's).
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from tests.real.stand_in import Answer, Request, StandIn, protobuf_fields

Json = dict[str, Any]


class Series(NamedTuple):
    name: str
    points: tuple[tuple[int, float], ...]
    """Seconds since the epoch, and value; a sketch has its sum."""
    tags: frozenset[str]
    host: str
    count: int = 0
    """Of a sketch: how many values are in it."""


class Span(NamedTuple):
    service: str
    name: str
    resource: str
    meta: dict[str, str]


class DatadogIntake(StandIn):
    """Refuses with 403 what has another api key, or none."""

    def __init__(self, api_key: str = "a" * 32) -> None:
        super().__init__()
        self.api_key = api_key
        self.series: list[Series] = []
        self.sketches: list[Series] = []
        self.logs: list[Json] = []
        self.spans: list[Span] = []
        self.stats = 0

    def handle(self, request: Request) -> Answer:
        in_query = parse_qs(request.query).get("api_key", [""])[
            0
        ]  # how the forwarder asks whether it is valid
        if request.headers.get("dd-api-key", in_query) != self.api_key:
            self.violation(f"{request.path}: no api key, or a wrong one")
            return Answer(403, b'{"errors":["Forbidden"]}')
        match request.path:
            case "/api/v1/validate":
                return Answer(200, b'{"valid":true}')
            case "/api/v2/series":
                self._keep(self.series, list(_series(request)))
            case "/api/beta/sketches":
                self._keep(self.sketches, [_sketch(f) for n, f in protobuf_fields(request.body) if n == 1])
            case "/api/v2/logs":
                return self._logs(request)
            case "/api/v0.2/traces":
                with self.lock:
                    self.spans.extend(_spans(request.body))
            case "/api/v0.2/stats":
                with self.lock:
                    self.stats += 1
            case "/intake/":
                pass  # metadata of the host
            case _:
                self.violation(f"{request.method} {request.path} is not answered here")
                return Answer(404)
        return Answer(202, b'{"errors":[]}')

    def _keep(self, where: list[Series], found: list[Series]) -> None:
        for one in found:
            # What the exporter says of itself, that it runs, has no host.
            if not one.name or not (one.host or one.name.startswith("otel.")):
                self.violation(f"a series without a name or a host: {one}")
        with self.lock:
            where.extend(found)

    def _logs(self, request: Request) -> Answer:
        found = json.loads(request.body) if request.body.strip() else []
        entries = found if isinstance(found, list) else [found]
        entries = [entry for entry in entries if entry]  # an empty object asks whether the way is open
        for entry in entries:
            for key in ("message", "ddtags", "service", "hostname"):
                if not entry.get(key):
                    self.violation(f"a log without {key}: {json.dumps(entry)[:300]}")
        with self.lock:
            self.logs.extend(entries)
        return Answer(202)

    def log_ids(self, key: str = "audit.id") -> Counter[str]:
        """How often each value of an attribute came: twice is a duplicate."""
        with self.lock:
            values = [log_attribute(entry, key) for entry in self.logs]
        return Counter(str(value) for value in values if value is not None)


def log_attribute(entry: Json, key: str) -> Any:
    """An attribute of a log: it stands beside the message, or the message is a JSON object with it."""
    if key in entry:
        return entry[key]
    try:
        message = json.loads(entry.get("message", ""))
    except ValueError:
        return None
    return message.get(key) if isinstance(message, dict) else None


def _series(request: Request) -> Iterator[Series]:
    if request.headers.get("content-type", "").startswith("application/json"):
        for one in json.loads(request.body)["series"]:
            points = tuple((int(p["timestamp"]), float(p["value"])) for p in one["points"])
            hosts = [r["name"] for r in one.get("resources", []) if r["type"] == "host"]
            yield Series(one["metric"], points, frozenset(one.get("tags", [])), "".join(hosts))
        return
    for number, message in protobuf_fields(request.body):
        if number == 1:
            yield _series_of_protobuf(message)


def _series_of_protobuf(message: bytes) -> Series:
    name, host, tags, points = "", "", set(), []
    for number, value in protobuf_fields(message):
        match number:
            case 1:
                resource = dict(protobuf_fields(value))
                host = resource.get(2, b"").decode() if resource.get(1) == b"host" else host
            case 2:
                name = value.decode()
            case 3:
                tags.add(value.decode())
            case 4:
                point = dict(protobuf_fields(value))
                points.append((point.get(2, 0), _double(point.get(1, 0))))
    return Series(name, tuple(points), frozenset(tags), host)


def _sketch(message: bytes) -> Series:
    name, host, tags, points, count = "", "", set(), [], 0
    for number, value in protobuf_fields(message):
        match number:
            case 1:
                name = value.decode()
            case 2:
                host = value.decode()
            case 4:
                tags.add(value.decode())
            case 7:
                sketch = dict(protobuf_fields(value))
                count += sketch.get(2, 0)
                points.append((sketch.get(1, 0), _double(sketch.get(6, 0))))
    return Series(name, tuple(points), frozenset(tags), host, count)


def _spans(payload: bytes) -> Iterator[Span]:
    for tracer in _all(payload, 5):
        for chunk in _all(tracer, 6):
            for span in _all(chunk, 3):
                fields = dict(protobuf_fields(span))
                meta = (dict(protobuf_fields(entry)) for entry in _all(span, 10))
                yield Span(
                    *(fields.get(number, b"").decode() for number in (1, 2, 3)),
                    {entry[1].decode(): entry.get(2, b"").decode() for entry in meta},
                )


def _all(message: bytes, wanted: int) -> list[bytes]:
    return [value for number, value in protobuf_fields(message) if number == wanted]


def _double(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])
