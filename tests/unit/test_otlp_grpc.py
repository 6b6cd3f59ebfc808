"""OTLP over gRPC, and over TLS, to a real receiver."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2

from hft_otel.destinations.base import RetryLater
from tests.unit.otlp_stand_in import (
    GrpcReceiver,
    audit,
    grpc_receiver,
    log_records,
    metric,
    metrics,
    spans,
    text,
    until,
)

pytest_plugins = ["tests.unit.otlp_fixtures"]


def texts(count: int) -> list[Any]:
    return [text(f"message {number}") for number in range(count)]


def test_grpc_carries_all_signals(grpc_side: GrpcReceiver, opened: Any) -> None:
    options = {"protocol": "grpc", "headers": {"X-Token": "s3cret"}, "compression": "gzip"}
    assert opened("logs", grpc_side.endpoint, **options).deliver([text("hello")]) == []
    assert opened("traces", grpc_side.endpoint, **options).deliver([audit("trade")]) == []
    found = opened("metrics", grpc_side.endpoint, metric_interval=3600, **options)
    found.deliver([metric("depth", 5)])
    assert found.force_flush(5.0)
    logs_request, trace_request, metrics_request = grpc_side.requests
    assert [r.body.string_value for r in log_records(logs_request)] == ["hello"]
    assert [s.name for s in spans(trace_request)] == ["audit.trade"]
    assert set(metrics(metrics_request)) == {"hft.depth"}
    assert {headers["x-token"] for headers in grpc_side.headers} == {"s3cret"}


def test_grpc_endpoint_without_a_scheme_is_plain_text(grpc_side: GrpcReceiver, opened: Any) -> None:
    endpoint = grpc_side.endpoint.removeprefix("http://")
    assert opened("logs", endpoint, protocol="grpc").deliver(texts(1)) == []


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_grpc_endpoint_may_name_user_and_password(grpc_side: GrpcReceiver, opened: Any, scheme: str) -> None:
    endpoint = f"{scheme}user:hunter2@{grpc_side.endpoint.removeprefix('http://')}"
    assert opened("logs", endpoint, protocol="grpc").deliver(texts(1)) == []
    assert grpc_side.headers[-1]["authorization"] == f"Basic {b64encode(b'user:hunter2').decode()}"


def test_grpc_unavailable_is_retried_after_the_wait_it_asks_for(grpc_side: GrpcReceiver, opened: Any) -> None:
    logs = opened("logs", grpc_side.endpoint, protocol="grpc")
    grpc_side.code = grpc.StatusCode.UNAVAILABLE
    info = RetryInfo(retry_delay=Duration(seconds=3, nanos=500_000_000))
    grpc_side.trailing = (("google.rpc.retryinfo-bin", info.SerializeToString()),)
    started = time.monotonic()
    with pytest.raises(RetryLater) as caught:
        logs.deliver(texts(2))
    assert time.monotonic() - started < 2
    assert (caught.value.reason, caught.value.after) == ("grpc_unavailable", 3.5)
    assert len(grpc_side.requests) == 1
    grpc_side.code = None
    assert logs.deliver(texts(2)) == []


def test_grpc_refused_record_is_found(grpc_side: GrpcReceiver, opened: Any) -> None:
    logs = opened("logs", grpc_side.endpoint, protocol="grpc")
    grpc_side.code = grpc.StatusCode.INVALID_ARGUMENT
    grpc_side.refuse = lambda request: any("poison" in r.body.string_value for r in log_records(request))
    rejected = logs.deliver([*texts(5), text("poison"), *texts(5)])
    assert [(r.record.message, r.reason) for r in rejected] == [("poison", "grpc_invalid_argument")]


def test_grpc_too_large_request_is_sent_in_parts(grpc_side: GrpcReceiver, opened: Any) -> None:
    logs = opened("logs", grpc_side.endpoint, protocol="grpc")
    batch = [text("x" * 1_000_000) for _ in range(6)]  # a server takes 4 MiB
    assert logs.deliver(batch) == []
    assert sum(len(log_records(request)) for request in grpc_side.requests) == 6
    assert len(grpc_side.requests) > 1


def test_grpc_overload_and_missing_rights_are_retried_later(grpc_side: GrpcReceiver, opened: Any) -> None:
    logs = opened("logs", grpc_side.endpoint, protocol="grpc")
    for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.PERMISSION_DENIED):
        grpc_side.code = code
        with pytest.raises(RetryLater, match="as told") as caught:
            logs.deliver(texts(2))
        assert caught.value.reason == f"grpc_{code.name.lower()}"
        assert caught.value.after is None


def test_grpc_service_that_is_not_there_is_told_from_one_that_is_down(
    grpc_side: GrpcReceiver, opened: Any
) -> None:
    logs = opened("logs", grpc_side.endpoint, protocol="grpc")
    for code, told in ((grpc.StatusCode.UNIMPLEMENTED, True), (grpc.StatusCode.UNAVAILABLE, False)):
        grpc_side.code = code
        with pytest.raises(RetryLater) as caught:
            logs.deliver([text("a")])
        assert ("takes no logs: leave them out of `signals`" in str(caught.value)) is told


def test_grpc_partial_success_is_seen(grpc_side: GrpcReceiver, opened: Any) -> None:
    grpc_side.rejected = 1
    rejected = opened("logs", grpc_side.endpoint, protocol="grpc").deliver(texts(3))
    assert [r.reason for r in rejected] == ["partial_success"]


def test_grpc_receiver_that_comes_back_is_found_soon(opened: Any) -> None:
    with grpc_receiver() as first:
        logs = opened("logs", first.endpoint, protocol="grpc", timeout=2.0)
        # after a long time down, too: gRPC's own limit is two minutes
        assert dict(logs._sender.exporter._channel_options)["grpc.max_reconnect_backoff_ms"] <= 5000
        assert logs.deliver(texts(1)) == []
    with pytest.raises(RetryLater):
        logs.deliver(texts(1))
    address = first.endpoint.removeprefix("http://")
    second = grpc.server(__import__("concurrent.futures").futures.ThreadPoolExecutor(2))

    class Service:
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # the name in the protocol
            return logs_service_pb2.ExportLogsServiceResponse()

    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc

    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Service(), second)
    assert second.add_insecure_port(address)
    second.start()

    def delivered() -> bool:
        try:
            return bool(logs.deliver(texts(1)) == [])
        except RetryLater:
            return False

    try:
        assert until(delivered, 10)
    finally:
        second.stop(0).wait(5)


def test_protocol_may_come_from_the_environment(
    grpc_side: GrpcReceiver, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert opened("logs", grpc_side.endpoint).deliver(texts(1)) == []
    assert len(grpc_side.requests) == 1


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    command += [
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("needs the openssl program")
    return certificate, key


def test_tls_with_a_certificate_of_ones_own(
    certificate: tuple[Path, Path], opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.load_verify_locations(certificate[0])
    context.verify_mode = ssl.CERT_REQUIRED
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        import certifi

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())  # must not displace what is configured
        cert, key = map(str, certificate)
        endpoint = f"https://127.0.0.1:{server.server_port}"
        trusted = opened("logs", endpoint, certificate=cert, client_certificate=cert, client_key=key)
        assert trusted.deliver(texts(1)) == []
        with pytest.raises(RetryLater, match="certificate"):
            opened("logs", endpoint).deliver(texts(1))
    finally:
        server.shutdown()
        server.server_close()
    assert seen == ["/v1/logs"]


def test_grpc_tls_with_a_certificate_of_ones_own(certificate: tuple[Path, Path], opened: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc

    class Service:
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # the name in the protocol
            return logs_service_pb2.ExportLogsServiceResponse()

    cert, key = certificate[0].read_bytes(), certificate[1].read_bytes()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Service(), server)
        credentials = grpc.ssl_server_credentials([(key, cert)], cert, True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            files = {"certificate": str(certificate[0]), "client_certificate": str(certificate[0])}
            logs = opened(
                "logs", f"https://localhost:{port}", protocol="grpc", client_key=str(certificate[1]), **files
            )
            assert logs.deliver(texts(1)) == []
        finally:
            server.stop(0).wait(5)
