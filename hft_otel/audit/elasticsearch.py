"""Asks an Elasticsearch (or OpenSearch) index for the identities of the audit events that it holds."""

from __future__ import annotations

import base64
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from .._url import split_login

__all__ = ["API_KEY", "NoAddressError", "NoAnswerError", "read_ids"]

API_KEY = "ELASTICSEARCH_API_KEY"
"""The environment variable of the key that is shown to the server, as for the Collector."""
_PAGE = 5_000
_TIMEOUT = 30.0
_DEFAULT = "logs-*"
_WITHOUT_ORDER = ("text", "match_only_text")
"""The types of a field whose values are kept in words, and cannot be gone through in order."""


class NoAnswerError(OSError):
    """The index cannot be asked; says why, and what to do."""


class NoAddressError(NoAnswerError):
    """What was given is no address of an index."""


def read_ids(url: str, field: str, page: int = _PAGE) -> Iterator[str]:
    """Yield the `audit.id` of every document with one, in order, repeated ones repeatedly. Raises NoAnswerError.

    The URL may name user, password and index (else `logs-*`). Each page begins with the last id of the one before it, not
    after it, so that documents with the same id are all counted; there may be a page of those.
    """
    index = _Index(url)
    is_mapped = _check_mapping(index, field)
    last, seen = "", set[tuple[str, str]]()
    while True:
        query = {
            "size": page,
            "_source": False,
            "sort": [{field: {"order": "asc", "unmapped_type": "keyword"}}],
            "query": {"range": {field: {"gte": last}}},
        }
        hits = index.search(query)
        if not hits and not last and not is_mapped:
            raise NoAnswerError(
                f"no document of {index} has the field {field}: either no audit event ever came there, or its field has"
                " another name, which --field takes"
            )
        fresh = [hit for hit in hits if (hit["_index"], hit["_id"]) not in seen]
        for hit in fresh:
            yield str(hit["sort"][0])
        if len(hits) < page:
            return
        if not fresh:
            raise NoAnswerError(f"{index} has {page:,} documents or more whose {field} is {last}")
        last = str(hits[-1]["sort"][0])
        seen = {(hit["_index"], hit["_id"]) for hit in hits if hit["sort"][0] == last}


def _check_mapping(index: _Index, field: str) -> bool:
    """Say whether the field is mapped; raises NoAnswerError where it is so that it cannot be gone through."""
    found = index.fields(field, f"{field}.keyword")
    kinds = found.get(field, {})
    for kind in _WITHOUT_ORDER:
        if kind in kinds:
            where = ", ".join(kinds[kind].get("indices") or [str(index)])
            beside = "keyword" in found.get(f"{field}.keyword", {})
            cure = f"name the keyword beside it: --field {field}.keyword" if beside else "map it as keyword"
            raise NoAnswerError(
                f"{field} is mapped as {kind} in {where}, and only a keyword can be gone through: {cure}"
            )
    return bool(kinds)


class _Index:
    """An index (or several: a pattern) of a server, over HTTP."""

    def __init__(self, url: str) -> None:
        address, login = split_login(url)
        try:
            parts = urlsplit(address)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NoAddressError("that is no address such as elasticsearch:http://127.0.0.1:9200/logs-audit*")
        self._name = parts.path.strip("/") or _DEFAULT
        self._base = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        self._headers = {"Content-Type": "application/json"}
        if login is not None and login[0]:
            shown = base64.b64encode(":".join(login).encode()).decode()
            self._headers["Authorization"] = f"Basic {shown}"
        elif key := os.environ.get(API_KEY):
            self._headers["Authorization"] = f"ApiKey {key}"

    def __str__(self) -> str:
        return f"{self._base}/{self._name}"  # never the password

    def fields(self, *names: str) -> dict[str, dict[str, Any]]:
        """Return the types of these fields, and of each type what is known of it."""
        told = self._ask("_field_caps", {"fields": ",".join(names)}, None, ("indices", "fields"))
        if not told["indices"]:
            raise NoAnswerError(f"{self} is no index, nor are there any that the pattern fits")
        return dict(told["fields"])

    def search(self, query: dict[str, Any]) -> list[Any]:
        """Return the hits of a query, all of them or none: a part would be taken for the whole."""
        told = self._ask("_search", {"allow_partial_search_results": "false"}, query, ("hits",))
        return list(told["hits"]["hits"])

    def _ask(
        self, what: str, parameters: dict[str, str], body: dict[str, Any] | None, needs: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return an answer with these keys in it; raises NoAnswerError."""
        address = f"{self._base}/{self._name}/{what}?{urlencode(parameters, safe=',')}"
        data = None if body is None else msgspec.json.encode(body)
        try:
            request = urllib.request.Request(address, data, self._headers)
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                told = msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise NoAnswerError(self._refused(error.code, _reason(error))) from error
        except (OSError, HTTPException) as error:
            raise NoAnswerError(self._unreachable(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoAnswerError(f"{self._base} does not answer as Elasticsearch does: {error}") from error
        if not isinstance(told, dict) or any(key not in told for key in needs):
            raise NoAnswerError(f"{self._base} does not answer as Elasticsearch does")
        return told

    def _refused(self, status: int, reason: str) -> str:
        said = f"{self} answers with {status}{reason and f': {reason}'}"
        match status:
            case 401 | 403:
                has = (
                    "what was shown to it does not do"
                    if "Authorization" in self._headers
                    else "it wants a login"
                )
                return (
                    f"{said} ({has}): set {API_KEY} to a key that may read the index, or write"
                    " http://USER:PASSWORD@HOST/INDEX"
                )
            case 404:
                return f"{said}: name an index or data stream that is there, such as {self._base}/logs-audit*"
        return said

    def _unreachable(self, error: Exception) -> str:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return f"{self._base}: {reason.verify_message}; name the authority's certificate (PEM) in SSL_CERT_FILE"
        return f"{self._base} cannot be reached: {reason}; is the server up, and is the address right?"


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what the server says about its refusal, as far as that can be read."""
    try:
        told = msgspec.json.decode(error.read())["error"]
        return str(told if isinstance(told, str) else told["reason"])[:300]
    except (msgspec.DecodeError, OSError, KeyError, TypeError, ValueError):
        return ""
