"""Slack: one message per record to an incoming webhook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from ..config import ConfigError, SlackConfig
from ..record import LogRecord, LogType
from ._http import HttpDestination
from ._options import level_named, typed_options
from ._text import context_of, render

__all__ = ["SlackBackend"]

MAX_PART = 1750
"""Characters of the message and of the stack trace; Slack cuts what is longer than 4000 in all."""
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class SlackBackend(HttpDestination):
    """Messages for people: TEXT from `min_level` up, by default CRITICAL, and the AUDIT events that a rule sends here."""

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.TEXT, LogType.AUDIT})
    max_batch: int = 1

    def __init__(self, config: SlackConfig | Mapping[str, Any] | None = None) -> None:
        options = typed_options(SlackConfig, config, "slack")
        if not options.webhook_url:
            cure = "create an incoming webhook in Slack and put its URL here"
            raise ConfigError("there is no URL", path="slack.webhook_url", cure=cure)
        limit = options.rate_limit_per_minute
        super().__init__(options.webhook_url, {}, options.timeout, limit, "slack.webhook_url")
        self.min_level = level_named(options.min_level, "slack")

    def body(self, records: Sequence[LogRecord]) -> bytes:
        text = b"".join(render(_message, records, _message)).decode().strip()
        return msgspec.json.encode({"text": text})


def _message(record: LogRecord) -> str:
    context = context_of(record)
    said = f"{record.message} | {context}" if context else record.message
    text = f"*{record.level._name_}* {_shown(record.logger_name)}: {_shown(said)}"
    if record.exception:
        trace = record.exception.stacktrace.strip()
        text += f"\n```{_shown(trace[-MAX_PART:])}```"  # its end says most
    return text


def _shown(text: str) -> str:
    """Return the text, cut, and such that it mentions nobody: `<!channel>` would."""
    cut = text if len(text) <= MAX_PART else f"{text[:MAX_PART]}... (cut)"
    return cut.translate(_ESCAPES)
