"""A stand-in for Elasticsearch's `_bulk`: data streams in the shape of the exporter's otel mode, and failures on order.

What it answers to a `create`, a repeated id and a broken document is held equal to a real OpenSearch by
test_opensearch.py. The shape of a document is that of the Collector's otel mode: times as text in milliseconds with
nanoseconds behind the point, `body.text`, attributes, resource and scope, `event_name` at top level.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.real.stand_in import Answer, Request, Reset, StandIn

Json = dict[str, Any]
VERSION = "8.17.0"
OTEL_STREAM = re.compile(r"(logs|metrics|traces)-([a-z0-9_.]+)\.otel-([a-z0-9_.]+)")
TIME = re.compile(r"\d{10,}\.\d{1,6}")
CONTENT_TYPES = (
    "application/x-ndjson",
    "application/json",
    "application/vnd.elasticsearch+x-ndjson",
    "application/vnd.elasticsearch+json",
)
ERRORS = {
    400: "document_parsing_exception",
    409: "version_conflict_engine_exception",
    429: "es_rejected_execution_exception",
    503: "unavailable_shards_exception",
}


class Failure(NamedTuple):
    """How one bulk request fails, before or after (`stored`) its documents are kept."""

    status: int = 0
    """The answer's status; 0 for none."""
    seconds: float = 0.0
    """Wait so long before anything else: longer than the client does, and it is a time-out."""
    reset: bool = False
    """Cut the connection instead of an answer."""
    stored: bool = False
    """Keep the documents all the same: the client cannot know, and sends them again."""


class ElasticsearchBulk(StandIn):
    """Takes bulk requests; `fail_next` orders failures, `refuse` gives single documents another status."""

    def __init__(self, *, otel: bool = True) -> None:
        super().__init__()
        self.otel = otel
        self.documents: dict[str, Json] = {}
        """By `_id`."""
        self.indices: dict[str, str] = {}
        """The data stream of each `_id`."""
        self.repeats: Counter[str] = Counter()
        """How often an id came that was there already."""
        self.refused: Counter[int] = Counter()
        """Documents that were answered with each status other than 201."""
        self.refuse: Callable[[str, Json], int] = lambda _id, _document: 0
        self.failures: list[Failure] = []
        self._anonymous = 0

    def fail_next(self, *failures: Failure) -> None:
        """Let the next bulk requests fail, one each."""
        with self.lock:
            self.failures.extend(failures)

    def ids(self, event: str = "") -> set[str]:
        """The ids of what was stored, of those events only whose names begin like this."""
        with self.lock:
            documents = self.documents.items()
            return {key for key, doc in documents if str(doc.get("event_name", "")).startswith(event)}

    def handle(self, request: Request) -> Answer:
        product = (("X-Elastic-Product", "Elasticsearch"), ("Content-Type", "application/json"))
        if request.path == "/" and request.method in ("GET", "HEAD"):
            about = {
                "name": "stand-in",
                "version": {"number": VERSION, "build_flavor": "default"},
                "tagline": "You Know, for Search",
            }
            return Answer(200, json.dumps(about).encode(), product)
        if not request.path.endswith("/_bulk") or request.method not in ("POST", "PUT"):
            self.violation(f"{request.method} {request.path} is not answered here")
            return Answer(404, headers=product)
        status, body = self._bulk(request)
        return Answer(status, json.dumps(body).encode(), product)

    def _bulk(self, request: Request) -> tuple[int, Json]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind not in CONTENT_TYPES:
            raise ValueError(f"Content-Type {kind!r} is refused")
        with self.lock:
            failure = self.failures.pop(0) if self.failures else None
        if failure is None:
            return 200, self._store(request)
        time.sleep(failure.seconds)
        stored = self._store(request) if failure.stored or not (failure.status or failure.reset) else {}
        if failure.reset:
            raise Reset
        if failure.status:
            error = {"type": ERRORS.get(failure.status, "exception"), "reason": "as ordered"}
            return failure.status, {"error": error, "status": failure.status}
        return 200, stored

    def _store(self, request: Request) -> Json:
        default = request.path.removesuffix("/_bulk").strip("/")
        with self.lock:
            items = [self._one(action, doc, default) for action, doc in pairs(request.body)]
        errors = any(next(iter(item.values()))["status"] >= 400 for item in items)
        return {"took": 1, "errors": errors, "items": items}

    def _one(self, action: Json, document: Json, default: str) -> Json:
        ((verb, about),) = action.items()
        index, identity = about.get("_index", default), about.get("_id")
        status, reason = self._judge(verb, index, identity, document)
        if identity is None:
            self._anonymous += 1
            identity = f"generated-{self._anonymous}"
        answer: Json = {"_index": index, "_id": identity, "status": status}
        if status == 201:
            self.documents[identity], self.indices[identity] = document, index
            answer |= {"result": "created", "_version": 1}
        else:
            self.refused[status] += 1
            answer["error"] = {"type": ERRORS.get(status, "exception"), "reason": reason}
        return {verb: answer}

    def _judge(self, verb: str, index: str, identity: str | None, document: Json) -> tuple[int, str]:
        if verb != "create":
            self.violation(f"{verb} on {index}: a data stream takes only create")
            return 400, "only write ops with an op_type of create are allowed in data streams"
        if self.otel:
            for problem in otel_problems(index, identity, document):
                self.violation(f"{index} {identity}: {problem}")
        if identity is not None and (status := self.refuse(identity, document)):
            return status, "as ordered"
        if identity in self.documents:
            self.repeats[identity] += 1
            return 409, "version conflict, document already exists (current version [1])"
        return 201, ""


def pairs(body: bytes) -> Iterator[tuple[Json, Json]]:
    """Action and document of each; ValueError where it is no NDJSON of pairs."""
    if not body.endswith(b"\n"):
        raise ValueError("a bulk request must end with a newline")
    lines = body[:-1].split(b"\n")
    if len(lines) % 2:
        raise ValueError("a bulk request of create must have a document per action")
    for action, document in zip(lines[::2], lines[1::2], strict=True):
        parsed = json.loads(action), json.loads(document)
        if not all(isinstance(part, dict) for part in parsed) or len(parsed[0]) != 1:
            raise ValueError(f"not an action and a document: {action!r}")
        yield parsed


def otel_problems(index: str, identity: str | None, document: Json) -> Iterator[str]:
    """What is not as the Collector's otel mode has it, and as audits are to be kept."""
    stream = OTEL_STREAM.fullmatch(index)
    if stream is None:
        yield "the index is no data stream of otel mode"
        return
    kind, dataset, namespace = stream.groups()
    expected = {"type": kind, "dataset": f"{dataset}.otel", "namespace": namespace}
    if document.get("data_stream") != expected:
        yield f"data_stream is {document.get('data_stream')}, and the index says {expected}"
    if not TIME.fullmatch(str(document.get("@timestamp"))):
        yield f"@timestamp is {document.get('@timestamp')!r}"
    for key in ("attributes", "resource", "scope"):
        if not isinstance(document.get(key, {}), dict):
            yield f"{key} is no object"
    if not document.get("resource", {}).get("attributes", {}).get("service.name"):
        yield "the resource has no service.name"
    if kind != "logs":
        return
    body = document.get("body")
    if not isinstance(body, dict) or not body.keys() & {"text", "structured"}:
        yield f"body is {body!r}"
    attributes = document.get("attributes", {})
    if "hft.backends" in document.get("scope", {}).get("attributes", {}) or "hft.backends" in attributes:
        yield "the mark hft.backends should end at the Collector"
    if str(document.get("event_name", "")).startswith("audit."):
        if dataset != "audit":
            yield f"an audit event is in data set {dataset}"
        if identity is None or identity != attributes.get("audit.id"):
            yield f"_id is not audit.id {attributes.get('audit.id')!r}"
