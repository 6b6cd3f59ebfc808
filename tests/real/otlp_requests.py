"""OTLP requests in their JSON form, written by hand, as another SDK may send them."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

Json = dict[str, Any]


def as_attributes(values: dict[str, Any]) -> list[Json]:
    names: dict[type, str] = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return [{"key": key, "value": {names[type(item)]: item}} for key, item in values.items()]


def post(endpoint: str, signal: str, request: Json) -> None:
    whole = urllib.request.Request(
        f"{endpoint}/v1/{signal}", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(whole, timeout=60) as answer:
        assert answer.status == 200
