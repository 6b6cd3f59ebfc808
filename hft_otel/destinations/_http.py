"""What Slack and webhook share: one POST with timeouts and a limit per minute, and an answer that is taken at its word."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .._failures import connection_failure
from ..config import ConfigError
from ..record import LogRecord, LogType
from .base import Destination, Rejected, RetryLater

if TYPE_CHECKING:  # requests loads with the first request: it takes 50 ms
    import requests

__all__ = ["HttpDestination", "RateLimit", "retry_after"]

_MINUTE = 60.0
_LONGEST_WAIT = 3600.0
_READ_AT_MOST = 64 * 1024


class RateLimit:
    """At most so many in any minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._taken: deque[float] = deque(maxlen=per_minute)
        self._clock = clock

    def take(self) -> float:
        """Take a place and return 0.0, or return the seconds until there is one."""
        now = self._clock()
        if len(self._taken) == self._taken.maxlen:
            wait = self._taken[0] + _MINUTE - now
            if wait > 0:
                return wait
        self._taken.append(now)
        return 0.0


class HttpDestination(Destination):
    """Posts parts of at most `max_batch` records, each in one request; subclasses make the body.

    2xx is success. 408, 429, 5xx, timeouts and failed connections are retried, after Retry-After where that is given;
    other answers reject the records. Redirects are not followed, since they would carry the headers along. Over the limit
    of requests per minute TEXT and METRIC are rejected as `rate_limited`, and AUDIT waits. No error text holds more of
    the URL than its host, and nothing of the headers.
    """

    timeout: float = 5.0
    last_error: str = ""
    """The last refusal or failure, for the notice."""
    _session: requests.Session | None = None

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout: float, per_minute: int, option: str
    ) -> None:
        """`option` names the URL's option in errors."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https") or any(char.isspace() for char in url):
            cure = "write https://host/path"
            raise ConfigError("this is no URL (not shown: it may hold a secret)", path=option, cure=cure)
        for key, value in headers.items():
            if not (key.isascii() and key.isprintable() and value.isprintable() and value.isascii()):
                raise ConfigError(
                    f"{key!r} holds what HTTP does not allow there", path="headers", cure="use ASCII"
                )
        if timeout <= 0:
            raise ConfigError("must be more than 0 seconds", path="timeout")
        if per_minute < 1:
            raise ConfigError("must be at least 1", path="rate_limit_per_minute")
        self.host = host
        self.timeout = timeout
        self._url = url
        self._headers = {"User-Agent": "hft-otel", **headers, "Content-Type": "application/json"}
        self._limit = RateLimit(per_minute)

    @abstractmethod
    def body(self, records: Sequence[LogRecord]) -> bytes:
        """Return the JSON to post."""

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        rejected: list[Rejected] = []
        settled = 0
        for start in range(0, len(batch), self.max_batch):
            part = batch[start : start + self.max_batch]
            try:
                reason = self._send(part)
            except RetryLater as later:
                # A retry has no place for rejections: from the first of them on, the records come again. The worker
                # hands over one part at a time, so this is for others.
                later.delivered = settled
                raise
            if reason:
                rejected += [Rejected(record, reason) for record in part]
            elif not rejected:
                settled += len(part)
        return rejected

    def close(self, timeout: float) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _send(self, part: Sequence[LogRecord]) -> str | None:
        """Post a part; return why it was refused, None on success."""
        wait = self._limit.take()
        if wait and any(record.log_type is LogType.AUDIT for record in part):
            raise RetryLater(
                "rate_limited", f"{self.host}: over the limit of requests per minute", after=wait
            )
        return "rate_limited" if wait else self._post(self.body(part))

    def _post(self, body: bytes) -> str | None:
        import requests

        status, after, reason = 0, None, ""
        try:
            response = self._ready().post(
                self._url, data=body, timeout=self.timeout, allow_redirects=False, stream=True
            )
            status, after = response.status_code, retry_after(response.headers.get("Retry-After"))
            with response, suppress(Exception):
                response.raw.read(_READ_AT_MOST)  # the answer is known; this only keeps the connection
        except Exception as error:  # noqa: BLE001 (also answers that are no HTTP, in whatever way)
            lost = "unreachable" if isinstance(error, requests.ConnectionError) else "request_failed"
            reason = "timeout" if isinstance(error, requests.Timeout) else lost
            why = connection_failure(error) if reason == "unreachable" else type(error).__name__
            self.last_error = f"{self.host}: {reason} ({why})"
        if reason:  # raised out here: the exception's own text shows the URL, and none may be attached
            raise RetryLater(reason, self.last_error)
        return self._judge(status, after)

    def _judge(self, status: int, after: float | None) -> str | None:
        if 200 <= status < 300:
            return None
        self.last_error = f"{self.host}: HTTP {status}"
        if status in (408, 429):
            raise RetryLater(f"http_{status}", self.last_error, after=after)
        if status >= 500:
            raise RetryLater("http_5xx", self.last_error, after=after)
        return "http_4xx" if status >= 400 else "http_redirect" if status >= 300 else "http_1xx"

    def _ready(self) -> requests.Session:
        if self._session is None:
            import requests
            from requests.utils import get_auth_from_url

            session = requests.Session()
            session.headers.update(self._headers)
            user, password = get_auth_from_url(self._url)
            # Something has to stand here: without it requests looks for a ~/.netrc and overwrites Authorization.
            session.auth = (user, password) if user or password else lambda request: request
            self._session = session
        return self._session


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given in seconds or as a date; None for neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else None
