"""A real OpenSearch node, from its jars, for one test module."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.real import running
from tests.real.running import Program, answers


class OpenSearch(Program):
    """One node on free ports; `call` speaks JSON with it."""

    name = "opensearch"

    def __init__(self, binary: Path, folder: Path) -> None:
        super().__init__(binary, folder, ("HTTP", "TRANSPORT"), None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['HTTP']}"

    def command(self) -> list[str]:
        return [
            str(self.binary),
            str(self.folder / "node"),
            str(self.ports["HTTP"]),
            str(self.ports["TRANSPORT"]),
        ]

    def start(self) -> None:
        """Like any program, with more patience: a Java machine starts here."""
        usual, running.START_SECONDS = running.START_SECONDS, 240.0
        try:
            super().start()
        finally:
            running.START_SECONDS = usual

    def is_ready(self) -> bool:
        return answers(f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s")

    def create_data_stream(self, pattern: str, mappings: dict[str, Any] | None = None) -> None:
        """Let indices of a pattern be data streams, as Elasticsearch's own templates do for logs-*."""
        stream = {
            "index_patterns": [pattern],
            "data_stream": {},
            "template": {"settings": {"number_of_replicas": 0}, "mappings": mappings or {}},
        }
        status, answer = call("PUT", f"{self.url}/_index_template/streams", json.dumps(stream).encode())
        assert status == 200, answer


def call(
    method: str, url: str, body: bytes = b"", content_type: str = "application/json"
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer, an error's too."""
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(url, body or None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"{}")


def bulk(url: str, *lines: Any, raw: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Send a bulk request of JSON lines, or of `raw` bytes."""
    body = "".join(f"{json.dumps(line)}\n" for line in lines).encode() if raw is None else raw
    return call("POST", f"{url}/_bulk", body, "application/x-ndjson")
