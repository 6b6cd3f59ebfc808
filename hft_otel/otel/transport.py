"""OTLP exporters whose every result is known: the stock exporters answer SUCCESS or FAILURE, and call too much a success.

The stock exporters encode, resolve OTEL_* variables and talk TLS. Around their connection stands a check that reads what
the other side really said (status, Retry-After, partial success) and stops their own retries, which would block a
destination's thread for 10 s: the outbox retries by itself, with backoff and without losing the batch.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from .._failures import connection_failure
from .._url import split_login
from .sdk import exporting

if TYPE_CHECKING:
    import requests

__all__ = ["Checked", "Foreign", "OtlpOptions", "Outcome", "Sender", "Verdict", "otlp_sender"]

CONTENT_STATUSES = frozenset({400, 413, 422})
"""HTTP statuses that may be about one record of the batch; any other failure is about the server or the way to it."""

_NOT_TAKEN = frozenset({"http_404", "http_405", "http_501", "grpc_unimplemented"})
"""Reasons of an endpoint that does not take the signal, or is not the right one: retried, but no retry is the cure."""

_CONTENT_CODES = frozenset({"INVALID_ARGUMENT"})
_TOO_LARGE = "larger than max"  # grpc's own words, with the code RESOURCE_EXHAUSTED
_SIGNAL_PATHS = {"logs": "v1/logs", "traces": "v1/traces", "metrics": "v1/metrics"}
_REJECTED_FIELDS = {
    "logs": "rejected_log_records",
    "traces": "rejected_spans",
    "metrics": "rejected_data_points",
}
_EXPORTERS = {
    "logs": ("_log_exporter", "OTLPLogExporter"),
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
}
# A channel that failed would otherwise wait up to two minutes before it looks for a restarted Collector again.
_CHANNEL_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 5000))
_MAX_WAIT = 3600.0


class Verdict(Enum):
    """What became of one export."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"
    """The batch, or something in it, will never be taken."""
    RAISED = "raised"
    """A foreign exporter raised: one record may be to blame, or all of the exporter."""


class Outcome(NamedTuple):
    """The result of one export; `rejected` of a delivered batch were not taken, `after` is in seconds."""

    verdict: Verdict
    reason: str = ""
    detail: str = ""
    after: float | None = None
    rejected: int = 0


DELIVERED = Outcome(Verdict.DELIVERED)


class Sender(Protocol):
    """An exporter as the destinations use it; `batch` is what the exporter's `export` takes."""

    exporter: Any

    def send(self, batch: Any) -> Outcome:
        """Export and say what became of it; never raises."""


class Foreign:
    """Any OpenTelemetry exporter: all that is known of a result is SUCCESS, FAILURE or an exception."""

    def __init__(self, exporter: Any) -> None:
        self.exporter = exporter

    def send(self, batch: Any) -> Outcome:
        """Export and say what became of it; never raises."""
        try:
            with exporting():
                result = self.exporter.export(batch)
        except OSError as error:  # the connection's, whatever the records are
            return Outcome(Verdict.RETRY, "connection_error", _describe(error))
        except Exception as error:  # noqa: BLE001  # a foreign exporter may raise anything
            return Outcome(Verdict.RAISED, "exporter_raised", _describe(error))
        if result is False or getattr(result, "name", "") == "FAILURE":
            return Outcome(
                Verdict.RETRY, "export_failed", f"{type(self.exporter).__name__} returned {result!r}"
            )
        return DELIVERED  # SUCCESS; also None, from an exporter that forgot to say so


class Checked:
    """A stock OTLP exporter whose connection leaves the true outcome in `inbox`; log records come as encoded bytes."""

    def __init__(self, exporter: Any, inbox: list[Outcome], export: Callable[[Any], object]) -> None:
        self.exporter = exporter
        self._inbox = inbox
        self._export = export

    def send(self, batch: Any) -> Outcome:
        """Export and say what became of it; never raises."""
        self._inbox.clear()
        try:
            with exporting():
                self._export(batch)
        except Exception as error:  # noqa: BLE001  # our own stop sign, or what the encoder raised
            if not self._inbox:
                return Outcome(Verdict.REFUSED, "not_encodable", _describe(error))
        if self._inbox:
            return self._inbox[-1]
        # The exporter gave up before it reached the connection: the batch cannot be encoded, or is too large.
        return Outcome(Verdict.REFUSED, "not_encodable", "the exporter could not encode the batch")


@dataclass(frozen=True)
class OtlpOptions:
    """How to reach an OTLP receiver; what is None is left to the OTEL_* variables. `timeout` is in seconds."""

    endpoint: str | None = None
    grpc: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    compression: str = "none"
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


def otlp_sender(signal: str, options: OtlpOptions) -> Checked:
    """Build the exporter for `logs`, `traces` or `metrics`; nothing is sent yet."""
    return _grpc_sender(signal, options) if options.grpc else _http_sender(signal, options)


def _exporter_class(protocol: str, signal: str) -> Any:
    module, name = _EXPORTERS[signal]
    return getattr(import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.{module}"), name)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


class _Stop(Exception):
    """Tells a stock exporter to give up at once; it takes it for an error that no retry mends."""


# --- HTTP ---------------------------------------------------------------------------------------------------------


def _http_sender(signal: str, options: OtlpOptions) -> Checked:
    from opentelemetry.exporter.otlp.proto.http import Compression

    inbox: list[Outcome] = []
    exporter = _exporter_class("http", signal)(
        endpoint=http_endpoint(options.endpoint, signal),
        certificate_file=options.certificate,
        client_key_file=options.client_key,
        client_certificate_file=options.client_certificate,
        headers=dict(options.headers),
        timeout=options.timeout,
        # "none" is left open, so that OTEL_EXPORTER_OTLP_COMPRESSION counts
        compression=None if options.compression == "none" else Compression(options.compression),
        session=_checked_session(signal, inbox.append),
    )
    return Checked(exporter, inbox, encoded_export(exporter) if signal == "logs" else exporter.export)


def encoded_export(exporter: Any) -> Callable[[bytes], None]:
    """Return the stock exporter's way out for a request that is encoded already, with its limit on the size."""

    def export(request: bytes) -> None:
        if 0 < exporter._max_request_size < len(request):
            raise ValueError(f"a request of {len(request)} bytes is over {exporter._max_request_size}")
        exporter._client.export(request)

    return export


def http_endpoint(base: str | None, signal: str) -> str | None:
    """Return the URL of a signal for a base URL; one that already ends with a signal's path is taken as its base."""
    if base is None:
        return None
    base = re.sub(r"/v1/(logs|traces|metrics)/?$", "", base).rstrip("/")
    return f"{base}/{_SIGNAL_PATHS[signal]}"


def _checked_session(signal: str, report: Callable[[Outcome], None]) -> requests.Session:
    import requests

    class CheckedSession(requests.Session):
        """Posts once (twice where a kept-alive connection had gone stale) and reports the true outcome."""

        def request(self, *args: Any, **kwargs: Any) -> requests.Response:
            deadline = monotonic() + float(kwargs.get("timeout") or 10.0)
            if isinstance(self.verify, str):
                kwargs["verify"] = self.verify  # or REQUESTS_CA_BUNDLE would displace the configured file
            try:
                try:
                    response = super().request(*args, **kwargs)
                except requests.ConnectionError as error:
                    left = deadline - monotonic()
                    if isinstance(error, requests.Timeout) or left <= 0:
                        raise
                    response = super().request(*args, **{**kwargs, "timeout": left})
            except requests.Timeout as error:
                detail = f"{_host(error)}no answer within {kwargs.get('timeout', 0):.3g} s"
                raise self._stop(Outcome(Verdict.RETRY, "timeout", detail)) from error
            except requests.ConnectionError as error:
                detail = f"{_host(error)}unreachable ({connection_failure(error)})"
                raise self._stop(Outcome(Verdict.RETRY, "connection_error", detail)) from error
            except Exception as error:
                raise self._stop(Outcome(Verdict.RETRY, "connection_error", _describe(error))) from error
            outcome = http_outcome(signal, response.status_code, response.headers, response.content)
            if outcome.verdict is not Verdict.DELIVERED:
                raise self._stop(outcome)
            report(outcome)
            return response

        def _stop(self, outcome: Outcome) -> _Stop:
            report(outcome)
            return _Stop(outcome.reason)

    return CheckedSession()


def _host(error: requests.RequestException) -> str:
    """Return who was asked, without what else stands in the URL."""
    url = str(error.request.url) if error.request else ""
    return f"{urlsplit(url).netloc.rpartition('@')[2]}: " if url else ""


def http_outcome(signal: str, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """Return what an HTTP answer means for the batch."""
    if 200 <= status < 300:
        return _partial_success(signal, body)
    detail = f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}"
    if 300 <= status < 400:
        detail = (
            f"HTTP {status}: redirected to {headers.get('Location', '?')}; use the final address as endpoint"
        )
    reason = f"http_{status}"
    detail += _cure(signal, reason)
    if status in CONTENT_STATUSES:
        return Outcome(Verdict.REFUSED, reason, detail)
    return Outcome(Verdict.RETRY, reason, detail, retry_after(headers.get("Retry-After")))


def _cure(signal: str, reason: str) -> str:
    """Return what is to be done where a signal is not taken; else nothing."""
    if reason not in _NOT_TAKEN:
        return ""
    lists = "`signals`" if signal == "metrics" else "`signals`, or of `audits`"
    return f"; if the endpoint is right, it takes no {signal}: leave them out of {lists}"


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, which may be a number or a date; None where it is neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _MAX_WAIT)


def _partial_success(signal: str, body: bytes) -> Outcome:
    if not body:
        return DELIVERED
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # upstream has no stubs

    message = _message_type(signal, "Response")()
    try:
        message.ParseFromString(body)
    except DecodeError:  # a 2xx is a 2xx, whatever a proxy wrote below it
        return DELIVERED
    return _partial(signal, message)


def _partial(signal: str, response: Any) -> Outcome:
    partial = response.partial_success
    rejected = max(getattr(partial, _REJECTED_FIELDS[signal]), 0)
    return (
        Outcome(Verdict.DELIVERED, "partial_success", partial.error_message[:300], None, rejected)
        if rejected
        else DELIVERED
    )


def _message_type(signal: str, what: str) -> Any:
    service = "trace" if signal == "traces" else signal
    module = import_module(f"opentelemetry.proto.collector.{service}.v1.{service}_service_pb2")
    return getattr(module, f"Export{service.capitalize()}Service{what}")


# --- gRPC ---------------------------------------------------------------------------------------------------------


def _grpc_sender(signal: str, options: OtlpOptions) -> Checked:
    import grpc  # type: ignore[import-untyped]  # upstream has no stubs

    endpoint, login = split_login(options.endpoint) if options.endpoint else (None, None)
    headers = {key.lower(): value for key, value in options.headers.items()}
    if login is not None:  # requests does the same over HTTP
        headers.setdefault("authorization", _basic(*login))
    secure = options.certificate is not None or (endpoint or "").startswith("https://")
    credentials = None
    if secure:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(options.certificate),
            private_key=_read(options.client_key),
            certificate_chain=_read(options.client_certificate),
        )
    inbox: list[Outcome] = []
    exporter = _exporter_class("grpc", signal)(
        endpoint=endpoint,
        insecure=None if endpoint is None and not secure else not secure,  # None: as OTEL_* say
        credentials=credentials,
        headers=headers or None,
        timeout=options.timeout,
        compression=grpc.Compression.Gzip if options.compression == "gzip" else None,
        channel_options=_CHANNEL_OPTIONS,
    )
    exporter._client = _CheckedStub(exporter._client, signal, inbox.append)
    if signal == "logs":
        exporter._translate_data = _message_type(signal, "Request").FromString
    return Checked(exporter, inbox, exporter.export)


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _read(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


class _CheckedStub:
    """The stub of a collector service; reports the true outcome and stops the exporter's own retries."""

    def __init__(self, stub: Any, signal: str, report: Callable[[Outcome], None]) -> None:
        self._stub = stub
        self._signal = signal
        self._report = report

    def Export(  # noqa: N802  # the name that the exporter calls
        self, request: Any, metadata: Sequence[tuple[str, str]], timeout: float
    ) -> Any:
        import grpc

        try:
            response = self._stub.Export(request=request, metadata=metadata, timeout=timeout)
        except grpc.RpcError as error:
            outcome = grpc_outcome(self._signal, error)
            self._report(outcome)
            raise _Stop(outcome.reason) from error
        self._report(_partial(self._signal, response))
        return response


def grpc_outcome(signal: str, error: Any) -> Outcome:
    """Return what a failed call means for the batch; the wait it asks for stands in the trailing metadata."""
    code = error.code().name
    details = error.details() or ""
    reason = f"grpc_{code.lower()}"
    detail = f"gRPC {code}: {details[:200]}{_cure(signal, reason)}"
    if code in _CONTENT_CODES or (code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in details):
        return Outcome(Verdict.REFUSED, reason, detail)
    after = None
    for key, value in error.trailing_metadata() or ():
        if key == "google.rpc.retryinfo-bin":
            from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # upstream has no stubs

            info = RetryInfo()
            info.ParseFromString(value)
            after = min(max(info.retry_delay.seconds + info.retry_delay.nanos / 1e9, 0.0), _MAX_WAIT)
    return Outcome(Verdict.RETRY, reason, detail, after)
