"""Asks an Elasticsearch (or OpenSearch) index for the identities of the audit events that it holds."""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

__all__ = ["read_ids"]

_PAGE = 5_000
_TIMEOUT = 30.0
_DEFAULT = "logs-*"


def read_ids(url: str, field: str, page: int = _PAGE) -> Iterator[str]:
    """Yield the `audit.id` of every document with one, in order, repeated ones repeatedly. Raises OSError.

    The URL may name user, password and index (else `logs-*`). Each page begins with the last id of the one before it, not
    after it, so that documents with the same id are all counted; there may be a page of those.
    """
    parts = urlsplit(url)
    index = parts.path.strip("/") or _DEFAULT
    host = parts.netloc.rpartition("@")[2]
    search = urlunsplit((parts.scheme, host, f"/{index}/_search", "ignore_unavailable=true", ""))
    headers = {"Content-Type": "application/json"}
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    last, seen = "", set[str]()
    while True:
        query = {
            "size": page,
            "_source": False,
            "sort": [{field: {"order": "asc", "unmapped_type": "keyword"}}],
            "query": {"range": {field: {"gte": last}}},
        }
        hits = _ask(search, headers, query)
        fresh = [hit for hit in hits if (hit["_index"] + hit["_id"]) not in seen]
        for hit in fresh:
            yield str(hit["sort"][0])
        if len(hits) < page or not fresh:
            return
        last = str(hits[-1]["sort"][0])
        seen = {hit["_index"] + hit["_id"] for hit in hits if hit["sort"][0] == last}


def _ask(url: str, headers: dict[str, str], query: dict[str, Any]) -> list[Any]:
    request = urllib.request.Request(url, msgspec.json.encode(query), headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        found: list[Any] = msgspec.json.decode(answer.read())["hits"]["hits"]
    return found
