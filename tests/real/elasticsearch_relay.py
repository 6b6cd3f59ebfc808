"""Lets the Collector's exporter for Elasticsearch write into a real OpenSearch, which it takes for Elasticsearch.

Two things stand between the two, and only they are changed on the way: the exporter insists on the header that names
the product, and in otel mode it asks each action for a data stream by a word that OpenSearch does not know. Documents,
ids and the answers to them are passed on as they are.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from tests.real.elasticsearch_bulk import VERSION
from tests.real.stand_in import Answer, Request, Reset, StandIn

NAMED = (("X-Elastic-Product", "Elasticsearch"), ("Content-Type", "application/json"))


class Relay(StandIn):
    """Passes requests on to `target`; the answers of the next `lose` bulk requests are lost after they took effect."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.lose = 0
        self.bulks = 0
        """Bulk requests that took effect."""
        self.documents = 0
        """Documents in them, those too that were refused as known."""

    def handle(self, request: Request) -> Answer:
        if request.path == "/":
            about = {
                "version": {"number": VERSION, "build_flavor": "default"},
                "tagline": "You Know, for Search",
            }
            return Answer(200, json.dumps(about).encode(), NAMED)
        answer = self._pass_on(request)
        if request.path.endswith("/_bulk"):
            with self.lock:
                self.bulks += 1
                self.documents += request.body.count(b"\n") // 2
                self.lose, lost = max(0, self.lose - 1), self.lose > 0
            if lost:
                raise Reset
        return answer

    def _pass_on(self, request: Request) -> Answer:
        body = without_require_data_stream(request.body) if request.path.endswith("/_bulk") else request.body
        headers = {"Content-Type": "application/x-ndjson" if body else "application/json"}
        onward = urllib.request.Request(
            f"{self.target}{request.path}", body or None, headers, method=request.method
        )
        try:
            with urllib.request.urlopen(onward, timeout=120) as response:
                return Answer(response.status, response.read(), NAMED)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), NAMED)
        except OSError:  # too busy to answer in time, which its client has to live with
            raise Reset from None


def without_require_data_stream(body: bytes) -> bytes:
    """The bulk request without that word in its actions, the documents byte by byte as they were."""
    lines = body.split(b"\n")
    for at in range(0, len(lines) - 1, 2):
        action = json.loads(lines[at])
        for about in action.values():
            about.pop("require_data_stream", None)
        lines[at] = json.dumps(action).encode()
    return b"\n".join(lines)
