"""The identities that Elasticsearch holds, asked for page by page; and what is said where it cannot be asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hft_otel.audit.elasticsearch import API_KEY, NoAnswerError, read_ids
from hft_otel.cli.app import app
from tests.unit.audit_support import Desk, make_trail

FIELD = "attributes.audit.id"
KEYWORD = {FIELD: {"keyword": {"type": "keyword"}}}
Asked = list[tuple[str, dict[str, Any], str]]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY, raising=False)


class _Search(BaseHTTPRequestHandler):
    """Answers what is asked as Elasticsearch documents it, and OpenSearch 2.19 was seen to; or as it is told."""

    documents: list[str]
    fields: dict[str, Any]
    instead: tuple[int, bytes] | None
    asked: Asked

    def do_GET(self) -> None:
        self.asked.append((self.path, {}, self.headers.get("Authorization", "")))
        assert f"/_field_caps?fields={FIELD}," in self.path
        self._answer({"indices": ["logs-audit"], "fields": self.fields})

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, query, self.headers.get("Authorization", "")))
        ((field, condition),) = query["query"]["range"].items()
        assert list(query["sort"][0]) == [field]
        found = sorted(
            (identity, number)
            for number, identity in enumerate(self.documents)
            if identity >= condition["gte"]
        )
        hits = [
            {"_index": "logs-audit", "_id": str(number), "sort": [identity]}
            for identity, number in found[: query["size"]]
        ]
        self._answer({"hits": {"hits": hits}})

    def _answer(self, told: object) -> None:
        status, body = self.instead or (200, json.dumps(told).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def search(
    documents: list[str] | None = None,
    fields: dict[str, Any] | None = None,
    instead: tuple[int, bytes] | None = None,
) -> Iterator[tuple[str, Asked]]:
    known = {
        "documents": documents or [],
        "fields": KEYWORD if fields is None else fields,
        "instead": instead,
        "asked": [],
    }
    handler = type("Handler", (_Search,), known)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusal(url: str) -> str:
    """What is said instead of identities."""
    with pytest.raises(NoAnswerError) as told:
        list(read_ids(url, FIELD))
    return str(told.value)


def reconcile(folder: Path, against: str) -> Result:
    return CliRunner().invoke(app, ["audit", "reconcile", str(folder), "--against", against, "--json"])


class TestIdentities:
    def test_come_as_often_as_they_are_there_across_pages(self) -> None:
        documents = [f"s-{number}" for number in range(25)] + ["s-7", "s-7", "s-12"]
        with search(documents) as (host, asked):
            assert sorted(read_ids(f"http://{host}/logs-audit", FIELD, 4)) == sorted(documents)
        assert len(asked) > 7
        assert asked[1][0] == "/logs-audit/_search?allow_partial_search_results=false"

    def test_that_fill_a_page_alone_are_an_error_and_not_the_end(self) -> None:
        with (
            search([*["s-1"] * 4, "s-2"]) as (host, _),
            pytest.raises(NoAnswerError, match=r"4 documents or more .* s-1"),
        ):
            list(read_ids(f"http://{host}/x", FIELD, 4))

    def test_may_all_be_missing_where_their_field_is_known(self) -> None:
        with search() as (host, _):
            assert list(read_ids(f"http://{host}/x", FIELD)) == []

    def test_of_a_field_that_is_not_listed_are_read_where_there_are_any(self) -> None:
        with search(["s-1"], fields={}) as (host, _):  # as those below a `flattened` field
            assert list(read_ids(f"http://{host}/x", FIELD)) == ["s-1"]

    def test_are_held_against_the_trail_by_the_command(self, tmp_path: Path) -> None:
        desk = make_trail(tmp_path / "journal", 90)
        with search([f"{desk.stream}-{number}" for number in range(89)]) as (host, _):
            done = reconcile(desk.folder, f"elasticsearch:http://{host}/x")
        assert done.exit_code == 1
        assert json.loads(done.stdout)["missing"] == [f"{desk.stream}-89"]


class TestLogin:
    def test_is_taken_out_of_the_address(self) -> None:
        with search() as (host, asked):
            assert list(read_ids(f"http://me:p%40ss@{host}", FIELD)) == []
        assert asked[1][0].startswith("/logs-*/_search")
        assert {login for _, _, login in asked} == {"Basic bWU6cEBzcw=="}

    def test_is_the_key_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(API_KEY, "the-key")
        with search() as (host, asked):
            assert list(read_ids(f"http://{host}/x", FIELD)) == []
        assert {login for _, _, login in asked} == {"ApiKey the-key"}

    def test_that_is_missing_is_asked_for(self) -> None:
        answer = b'{"error": {"reason": "missing authentication credentials"}, "status": 401}'
        with search(instead=(401, answer)) as (host, _):
            said = refusal(f"http://{host}/x")
        assert "401: missing authentication credentials (it wants a login)" in said
        assert API_KEY in said

    def test_that_does_not_do_is_never_printed(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "journal")
        with search(instead=(403, b"Forbidden")) as (host, _):
            done = reconcile(desk.folder, f"elasticsearch:http://me:geheim@{host}/x")
        desk.close()
        assert done.exit_code == 1
        assert "what was shown to it does not do" in done.stderr
        assert "geheim" not in done.output


class TestWhatCannotBeAsked:
    def test_a_field_of_words(self) -> None:
        text = {FIELD: {"text": {"type": "text"}}}
        with search(fields=text) as (host, _):
            assert "mapped as text" in refusal(f"http://{host}/x")
        text[f"{FIELD}.keyword"] = {"keyword": {"type": "keyword"}}
        with search(fields=text) as (host, _):
            assert f"--field {FIELD}.keyword" in refusal(f"http://{host}/x")

    def test_a_field_that_no_document_has(self) -> None:
        with search(fields={}) as (host, _):
            assert "no document of" in refusal(f"http://{host}/x")

    def test_an_index_that_is_not_there(self) -> None:
        answer = b'{"error": {"reason": "no such index [x]"}, "status": 404}'
        with search(instead=(404, answer)) as (host, _):
            assert "no such index [x]: name an index" in refusal(f"http://{host}/x")
        with search(instead=(200, b'{"indices": [], "fields": {}}')) as (host, _):
            assert "the pattern fits" in refusal(f"http://{host}/x*")

    @pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"hits": {}}'])
    def test_something_else(self, answer: bytes) -> None:
        with search(instead=(200, answer)) as (host, _):
            assert "does not answer as Elasticsearch does" in refusal(f"http://{host}/x")

    def test_a_server_that_fails_says_why(self) -> None:
        for answer in (b'{"error": "overloaded"}', b"overloaded", b'{"error": {}}'):
            with search(instead=(503, answer)) as (host, _):
                assert "answers with 503" in refusal(f"http://{host}/x")

    def test_a_server_that_is_down(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            said = refusal(f"http://127.0.0.1:{taken.getsockname()[1]}/x")
        assert "cannot be reached" in said
        assert "is the server up" in said

    def test_a_server_without_the_encryption_that_was_asked_for(self) -> None:
        with search() as (host, _):
            assert "cannot be reached" in refusal(f"https://{host}/x")

    @pytest.mark.parametrize("url", ["", "localhost:9200", "ftp://x", "http:///x", "http://[x"])
    def test_what_is_no_address(self, url: str, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "journal")
        desk.close()
        assert "no address such as" in refusal(url)
        done = reconcile(desk.folder, f"elasticsearch:{url}")
        assert done.exit_code == 2
        assert "Traceback" not in done.output

    def test_a_port_that_is_none(self) -> None:
        assert "cannot be reached" in refusal("http://127.0.0.1:abc/x")
