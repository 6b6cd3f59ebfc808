"""Any HTTP endpoint: arrays of records as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import ConfigError, WebhookConfig
from ..record import LogRecord
from ._http import HttpDestination
from ._options import level_named, typed_options
from ._text import as_json, render

__all__ = ["WebhookBackend"]

_LONGEST_LINGER = 5.0


class WebhookBackend(HttpDestination):
    """Posts JSON arrays of up to `batch_size` records, each an object as in the JSON file; takes all types.

    The limit counts requests. A batch waits for company as long as the limit would make it wait on average.
    """

    def __init__(self, config: WebhookConfig | Mapping[str, Any] | None = None) -> None:
        options = typed_options(WebhookConfig, config, "webhook")
        if not options.url:
            raise ConfigError(
                "there is no URL", path="webhook.url", cure="give the address that takes the records"
            )
        if options.batch_size < 1:
            raise ConfigError("must be at least 1", path="webhook.batch_size")
        limit = options.rate_limit_per_minute
        super().__init__(options.url, options.headers, options.timeout, limit, "webhook.url")
        self.min_level = level_named(options.min_level, "webhook")
        self.max_batch = options.batch_size
        self.linger = min(60 / options.rate_limit_per_minute, _LONGEST_LINGER)

    def body(self, records: Sequence[LogRecord]) -> bytes:
        return b"[" + b",".join(line.rstrip() for line in render(as_json, records, as_json)) + b"]"
