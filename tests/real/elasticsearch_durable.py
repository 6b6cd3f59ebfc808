"""The stand-in for Elasticsearch as a process of its own that may be killed: what it has acknowledged, it still has.

    python -m tests.real.elasticsearch_durable PORT FILE

Beside `_bulk` it answers `_count`, and the `_field_caps` and `_search` of `hft-otel audit reconcile`. Documents stand in FILE, one line each,
before they are acknowledged. A kill does not lose what was written; a loss of power would, as nothing is synced.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.real.elasticsearch_bulk import ElasticsearchBulk, Json
from tests.real.running import Program
from tests.real.stand_in import Answer, Request

READY = "ready"
VIOLATION = "violation: "


class DurableElasticsearch(ElasticsearchBulk):
    """Keeps its documents in a file, and begins with those that are there."""

    def __init__(self, port: int, file: Path) -> None:
        super().__init__()
        self._port = port
        self._found: tuple[Any, list[tuple[str, str]]] = None, []
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        whole, newline, _ = file.read_bytes().rpartition(b"\n")
        os.truncate(self._descriptor, len(whole + newline))  # a line that a kill has cut was not acknowledged
        for line in whole.splitlines():
            index, identity, document = json.loads(line)
            self.documents[identity], self.indices[identity] = document, index

    def violation(self, what: str) -> None:
        print(f"{VIOLATION}{what}", flush=True)

    def handle(self, request: Request) -> Answer:
        index, _, verb = request.path.strip("/").rpartition("/")
        if verb not in ("_count", "_field_caps", "_search"):
            return super().handle(request)
        with self.lock:
            if verb == "_count":
                answer = self._count(index)
            elif verb == "_field_caps":
                answer = self._field_caps(index, parse_qs(request.query)["fields"][0].split(","))
            else:
                answer = self._search(index, json.loads(request.body))
        return Answer(200, json.dumps(answer).encode(), (("Content-Type", "application/json"),))

    def _count(self, index: str) -> Json:
        found = Counter(self.indices.values())
        return {"count": sum(number for name, number in found.items() if fnmatchcase(name, index))}

    def _field_caps(self, index: str, fields: list[str]) -> Json:
        """Attributes are keywords, as in the mapping of OpenTelemetry's data streams."""
        found = sorted({name for name in self.indices.values() if fnmatchcase(name, index)})
        keyword = {"keyword": {"type": "keyword", "searchable": True, "aggregatable": True}}
        mapped = [name for name in fields if any(self._values(index, name.removeprefix("attributes.")))]
        return {"indices": found, "fields": dict.fromkeys(mapped, keyword)}

    def _search(self, index: str, asked: Json) -> Json:
        ((field, range_),) = asked["query"]["range"].items()
        asked_of = (index, field, len(self.documents))
        if self._found[0] != asked_of:  # the next page is asked of the same
            self._found = asked_of, sorted(self._values(index, field.removeprefix("attributes.")))
        found = self._found[1]
        first = bisect_left(found, (range_["gte"], ""))
        hits = [
            {"_index": self.indices[identity], "_id": identity, "sort": [value]}
            for value, identity in found[first : first + asked["size"]]
        ]
        return {"hits": {"hits": hits}}

    def _values(self, index: str, key: str) -> Iterator[tuple[str, str]]:
        for identity, document in self.documents.items():
            value = document["attributes"].get(key)
            if value and fnmatchcase(self.indices[identity], index):
                yield str(value), identity

    def _store(self, request: Request) -> Json:
        with self.lock:
            before = len(self.documents)
            answer = super()._store(request)
            new = list(islice(reversed(self.documents), len(self.documents) - before))[::-1]
            lines = (json.dumps([self.indices[each], each, self.documents[each]]) for each in new)
            left = memoryview("".join(f"{line}\n" for line in lines).encode())
            while left:
                left = left[os.write(self._descriptor, left) :]
            return answer


class ElasticsearchProcess(Program):
    """That process, on a port that is given; `file` has its documents."""

    name = "elasticsearch"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(Path(sys.executable), folder, (), {"PYTHONPATH": os.pathsep.join(sys.path)})
        self.port = port
        self.file = folder / "documents.jsonl"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [str(self.binary), "-m", __name__, str(self.port), str(self.file)]

    def is_ready(self) -> bool:
        return READY in self.new_output()

    def documents(self) -> dict[str, Json]:
        """What it has, by `_id`; each of them stands there once."""
        found = [json.loads(line) for line in self.file.read_bytes().splitlines()]
        by_id = {identity: document for _, identity, document in found}
        assert len(by_id) == len(found), "an _id was stored twice"
        return by_id

    def violations(self) -> list[str]:
        """What it found wrong since it was started first, and whatever else it said."""
        return [line for line in self.output().splitlines() if line != READY]


def main() -> None:
    """Serve until somebody ends it."""
    with DurableElasticsearch(int(sys.argv[1]), Path(sys.argv[2])):
        print(READY, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
