"""Stand-ins for an OTLP receiver, over HTTP and gRPC: they parse what they are sent, and answer as they are told."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.resources import Resource

from hft_otel.record import CapturedException, InstrumentKind, LogLevel, LogRecord, LogType, TraceIds

RESOURCE = Resource({"service.name": "test"})
REQUESTS: dict[str, Any] = {
    "/v1/logs": logs_service_pb2.ExportLogsServiceRequest,
    "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
}


class Answer(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Receiver:
    """What arrived, in order, and how to answer; `answer` is asked with the parsed request."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[Any], Answer] = lambda _: Answer()
        self.endpoint = ""

    @property
    def accepted_bodies(self) -> list[str]:
        return [
            record.body.string_value
            for request in self.requests
            if isinstance(request, logs_service_pb2.ExportLogsServiceRequest)
            and self.answer(request).status == 200
            for record in log_records(request)
        ]


def log_records(request: Any) -> list[Any]:
    return [
        r for resource in request.resource_logs for scope in resource.scope_logs for r in scope.log_records
    ]


def spans(request: Any) -> list[Any]:
    return [s for resource in request.resource_spans for scope in resource.scope_spans for s in scope.spans]


def metrics(request: Any) -> dict[str, Any]:
    return {
        metric.name: metric
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def plain(attributes: Any) -> dict[str, Any]:
    """Protobuf attributes as a dict of their values."""
    return {pair.key: _plain(pair.value) for pair in attributes}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_plain(item) for item in found.values]
    return plain(found.values) if kind == "kvlist_value" else found


@contextmanager
def http_receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = zlib.decompress(body, 31)
            request = REQUESTS[self.path].FromString(body)
            receiver.paths.append(self.path)
            receiver.headers.append({key.lower(): value for key, value in self.headers.items()})
            receiver.requests.append(request)
            answer = receiver.answer(request)
            self.send_response(answer.status)
            for key, value in answer.headers:
                self.send_header(key, value)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class GrpcReceiver(Receiver):
    """Answers with `code` and `details` where `code` is set, else with `response(request)`."""

    code: grpc.StatusCode | None = None
    details = "as told"
    trailing: tuple[tuple[str, bytes], ...] = ()
    refuse: Callable[[Any], bool] = staticmethod(lambda _: True)
    rejected = 0

    def handle(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))
        if self.code is not None and self.refuse(request):
            context.set_trailing_metadata(self.trailing)
            context.abort(self.code, self.details)
        if isinstance(request, logs_service_pb2.ExportLogsServiceRequest):
            partial = logs_service_pb2.ExportLogsPartialSuccess(rejected_log_records=self.rejected)
            return logs_service_pb2.ExportLogsServiceResponse(partial_success=partial)
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            return trace_service_pb2.ExportTraceServiceResponse()
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def grpc_receiver() -> Iterator[GrpcReceiver]:
    receiver = GrpcReceiver()

    class Service:
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # the name in the protocol
            return receiver.handle(request, context)

    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Service(), server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Service(), server)
        receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield receiver
        finally:
            server.stop(0).wait(5)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Poll for a condition; say whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def text(message: str, **fields: Any) -> LogRecord:
    return LogRecord(1_700_000_000.0, LogLevel.INFO, LogType.TEXT, "exchange.mexc", message, **fields)


def audit(event: str, audit_id: str = "a-1", **fields: Any) -> LogRecord:
    return LogRecord(
        1_700_000_000.0, LogLevel.INFO, LogType.AUDIT, "arbitrage", event, audit_id=audit_id, **fields
    )


def metric(
    name: str, value: Any, kind: InstrumentKind = InstrumentKind.GAUGE, unit: str = "", /, **tags: Any
) -> LogRecord:
    return LogRecord(
        1_700_000_000.0,
        LogLevel.INFO,
        LogType.METRIC,
        "parser",
        metric_name=name,
        metric_value=value,
        metric_tags=tags,
        instrument=kind,
        unit=unit,
    )


def latency(operation: str, milliseconds: float) -> LogRecord:
    return metric("latency", milliseconds, InstrumentKind.HISTOGRAM, "ms", operation=operation)


TRACE = TraceIds(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)
EXCEPTION = CapturedException("ValueError", "bad price", "Traceback...\nValueError: bad price\n")
