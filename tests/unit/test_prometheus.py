"""The Prometheus backend: what a scrape and a Pushgateway really receive."""

from __future__ import annotations

import math
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as classic

from hft_otel.config import ConfigError, PrometheusConfig
from hft_otel.destinations import prometheus
from hft_otel.destinations.prometheus import PORTS_TO_TRY, PrometheusBackend, _OneAtATime
from hft_otel.record import InstrumentKind, LogLevel
from tests.unit.otlp_stand_in import audit, latency, metric, text, until

COUNTER, HISTOGRAM = InstrumentKind.COUNTER, InstrumentKind.HISTOGRAM


class Gateway:
    """Takes pushes as a Pushgateway does; answers with `status`, once `may_answer` is set."""

    def __init__(self) -> None:
        self.pushes: list[tuple[str, str, str]] = []
        self.logins: list[str | None] = []
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.address = ""

    def values(self, number: int = -1) -> dict[str, float]:
        return {
            f"{s.name}{sorted(s.labels.items())}": s.value
            for f in classic(self.pushes[number][2])
            for s in f.samples
        }


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    found = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found.pushes.append((self.command, self.path, body))
            found.logins.append(self.headers.get("Authorization"))
            found.may_answer.wait(30)
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.address = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield found
    found.may_answer.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def backend() -> Iterator[Any]:
    made: list[PrometheusBackend] = []

    def open_one(**options: Any) -> PrometheusBackend:
        found = PrometheusBackend({"port": 0, **options}, Resource({"service.name": "test"}))
        made.append(found)
        found.open()
        return found

    yield open_one
    for found in made:
        found.close(2.0)


def scrape(backend: PrometheusBackend, accept: str = "text/plain") -> str:
    assert backend.scrape_url is not None
    request = urllib.request.Request(backend.scrape_url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5) as response:
        return str(response.read().decode())


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(s.name, frozenset(s.labels.items())): s.value for f in classic(page) for s in f.samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_scrape_shows_what_was_measured(backend: Any) -> None:
    found = backend()
    batch = [
        metric("orderbook_depth", 12, exchange="mexc"),
        metric("messages_parsed", 2, COUNTER, type="orderbook"),
        metric("messages_parsed", 1, COUNTER, type="orderbook"),
        latency("parse_message", 0.004),
        latency("parse_message", 40),
    ]
    assert found.deliver(batch) == []
    values = samples(scrape(found))
    assert values[key("hft_orderbook_depth", exchange="mexc")] == 12
    assert values[key("hft_messages_parsed_total", type="orderbook")] == 3
    assert values[key("hft_latency_seconds_count", operation="parse_message")] == 2
    assert values[key("hft_latency_seconds_sum", operation="parse_message")] == pytest.approx(0.040004)
    assert values[key("hft_latency_seconds_bucket", operation="parse_message", le="5e-06")] == 1
    assert values[key("hft_latency_seconds_bucket", operation="parse_message", le="0.05")] == 2
    assert values[key("target_info", service_name="test")] == 1
    assert not [name for name, labels in values if any("scope" in label for label, _ in labels)]


def test_every_family_has_a_help_text_and_one_type(backend: Any) -> None:
    found = backend()
    found.deliver(
        [metric("depth", 1), metric("fills", 1, COUNTER), metric("size", 1, HISTOGRAM), latency("x", 1)]
    )
    page = scrape(found)
    types = re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE)
    assert len(types) == len(set(types)) == 5
    assert sorted(re.findall(r"^# HELP (\S+) \S", page, re.MULTILINE)) == sorted(types)


def test_open_metrics_page_is_valid(backend: Any) -> None:
    found = backend()
    found.deliver([metric("depth", math.nan), metric("fills", 1, COUNTER), latency("x", 1)])
    page = scrape(found, "application/openmetrics-text; version=1.0.0")
    names = {family.name for family in open_metrics(page)}
    assert {"hft_depth", "hft_fills", "hft_latency_seconds"} <= names


def test_names_that_would_clash_in_prometheus_cannot_break_the_scrape(backend: Any) -> None:
    found = backend()
    batch = [
        metric("a.b", 1, **{"x.y": "1"}),
        metric("a_b", 2, **{"x_y": "1"}),
        metric("fills", 1, COUNTER),
        metric("fills_total", 1),
        metric("latency_seconds", 1),
        latency("x", 1),
        metric("size", 1, HISTOGRAM, "", le="7"),
    ]
    assert [(r.record.metric_name, r.reason) for r in found.deliver(batch)] == [
        ("fills_total", "kind_conflict"),
        ("latency_seconds", "kind_conflict"),
    ]
    page = scrape(found, "application/openmetrics-text; version=1.0.0")
    assert {"hft_a_b", "hft_fills", "hft_latency_seconds", "hft_size"} <= {f.name for f in open_metrics(page)}
    assert samples(scrape(found))[key("hft_a_b", x_y="1")] == 2


def test_registry_is_its_own(backend: Any) -> None:
    before = set(REGISTRY._collector_to_names)
    first, second = backend(), backend()
    first.deliver([metric("only_here", 1)])
    assert "hft_only_here" in scrape(first)
    assert "hft_only_here" not in scrape(second)
    assert set(REGISTRY._collector_to_names) == before


def test_taken_port_gives_the_next_free_one_and_is_said(
    backend: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = backend(port=port)
        assert port < found.port < port + PORTS_TO_TRY
        assert found.scrape_url == f"http://127.0.0.1:{found.port}/metrics"
        assert "target_info" not in scrape(found)  # nothing measured yet
    assert found.export_error == ""
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"hft-otel: prometheus: port {port} cannot be listened on (")
    assert f"the metrics are at {found.scrape_url} until it can" in line


def test_free_port_is_taken_without_a_word(backend: Any, capfd: pytest.CaptureFixture[str]) -> None:
    found = backend()
    port = found.port
    found.idle()
    assert found.port == port
    found.close(2.0)
    backend(port=port).idle()
    assert capfd.readouterr().err == ""


def test_configured_port_is_returned_to_once_its_holder_is_gone(
    backend: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "RETURN_PERIOD", 0.02)
    first = backend()
    first.deliver([metric("run", 1)])
    second = backend(port=first.port)
    second.deliver([metric("run", 2)])
    port, elsewhere = first.port, second.port
    assert elsewhere != port
    capfd.readouterr()

    time.sleep(0.03)
    second.idle()  # tries, and the port is still taken
    assert second.port == elsewhere
    assert samples(scrape(first))[key("hft_run")] == 1
    assert samples(scrape(second))[key("hft_run")] == 2
    assert capfd.readouterr().err == ""

    first.close(2.0)
    assert until(lambda: second.idle() or second.port == port)
    assert second.scrape_url == f"http://127.0.0.1:{port}/metrics"
    assert samples(scrape(second))[key("hft_run")] == 2
    with socket.create_server(("127.0.0.1", elsewhere)):  # which nobody listens on any longer
        pass
    second.idle()
    [line] = capfd.readouterr().err.splitlines()
    assert line == f"hft-otel: prometheus: port {port} is free: the metrics are at {second.scrape_url} again"


def test_closed_backend_does_not_come_back(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "RETURN_PERIOD", 0.0)
    first = backend()
    second = backend(port=first.port)
    second.close(2.0)
    first.close(2.0)
    second.idle()
    with socket.create_server(("127.0.0.1", first.port)):
        pass


def test_host_that_cannot_be_bound_is_reported_and_measuring_goes_on(backend: Any, gateway: Gateway) -> None:
    found = backend(host="192.0.2.1", port=9464, push_gateway=gateway.address, flush_interval=3600)
    assert (found.port, found.scrape_url) == (None, None)
    assert found.export_error.startswith("no scrape endpoint on 192.0.2.1:9464")
    assert found.deliver([metric("depth", 1)]) == []
    assert found.force_flush(5.0)
    assert found.export_error.startswith("no scrape endpoint")
    assert found.exports_succeeded == 1


def test_scrape_may_be_off(backend: Any) -> None:
    found = backend(scrape=False)
    assert found.scrape_url is None
    assert found.deliver([metric("depth", 1)]) == []
    assert found.force_flush(1.0)


def test_port_is_free_again_after_close(backend: Any) -> None:
    found = backend()
    found.close(2.0)
    found.close(2.0)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        scrape(found)
    with socket.create_server(("127.0.0.1", found.port)):
        pass


def test_scrapes_and_pushes_at_once_do_not_mix(backend: Any, gateway: Gateway) -> None:
    found = backend(push_gateway=gateway.address, flush_interval=3600)
    found.deliver(
        [metric(f"depth_{number}", number, side=str(side)) for number in range(20) for side in range(10)]
    )
    with ThreadPoolExecutor(6) as pool:
        pages = list(
            pool.map(lambda number: scrape(found) if number % 5 else found.force_flush(10), range(40))
        )
    for page in pages:
        if isinstance(page, str):
            lines = [line for line in page.splitlines() if line.startswith("hft_depth_")]
            assert len(lines) == len(set(lines)) == 200


def test_collections_run_one_at_a_time() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    class Slow:
        def collect(self) -> list[Any]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1
            return []

    one_at_a_time = _OneAtATime(Slow())  # type: ignore[arg-type]  # of a registry, only `collect` is used
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: one_at_a_time.collect(), range(8)))
    assert most == 1


def test_push_after_the_interval(backend: Any, gateway: Gateway) -> None:
    found = backend(push_gateway=gateway.address, flush_interval=0.02, job_name="arb")
    found.deliver([metric("depth", 5, exchange="mexc")])
    assert until(lambda: found.exports_succeeded >= 2)
    method, path, _ = gateway.pushes[-1]
    assert (method, path) == ("PUT", "/metrics/job/arb")
    assert gateway.values()["hft_depth[('exchange', 'mexc')]"] == 5


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_push_with_user_and_password(backend: Any, gateway: Gateway, scheme: str) -> None:
    address = gateway.address.removeprefix("http://")
    found = backend(push_gateway=f"{scheme}us%40er:hunter%2F2@{address}", flush_interval=3600)
    found.deliver([metric("depth", 1)])
    assert found.force_flush(5.0), found.export_error
    assert gateway.logins == [f"Basic {b64encode(b'us@er:hunter/2').decode()}"]
    assert gateway.pushes[-1][1].startswith("/metrics/job/")
    gateway.status = 500
    found.force_flush(5.0)
    assert found.export_error.startswith(f"push to {scheme}{address}: ")
    assert "hunter" not in found.export_error


def test_push_after_the_batch_size(backend: Any, gateway: Gateway) -> None:
    found = backend(push_gateway=gateway.address, flush_interval=3600, batch_size=10)
    found.deliver([metric("fills", 1, COUNTER)] * 9)
    assert gateway.pushes == []
    found.deliver([metric("fills", 1, COUNTER)])
    assert until(lambda: found.exports_succeeded == 1)
    assert gateway.values()["hft_fills_total[]"] == 10


def test_flush_pushes_and_says_whether_it_went(backend: Any, gateway: Gateway) -> None:
    found = backend(push_gateway=gateway.address, flush_interval=3600)
    found.deliver([metric("depth", 5)])
    assert found.force_flush(5.0)
    gateway.status = 500
    assert not found.force_flush(5.0)
    assert (found.exports_succeeded, found.exports_failed) == (1, 1)
    assert gateway.address in found.export_error
    gateway.status = 200
    assert found.force_flush(5.0)
    assert found.export_error == ""


def test_slow_gateway_holds_up_neither_deliver_nor_close(backend: Any, gateway: Gateway) -> None:
    gateway.may_answer.clear()
    found = backend(push_gateway=gateway.address, flush_interval=0.01, batch_size=1)
    started = time.monotonic()
    for _ in range(200):
        found.deliver([metric("depth", 5)])
    assert time.monotonic() - started < 2
    assert not found.force_flush(0.05)
    found.close(0.2)
    assert time.monotonic() - started < 4


def test_last_push_happens_at_close(backend: Any, gateway: Gateway) -> None:
    found = backend(push_gateway=gateway.address, flush_interval=3600)
    found.deliver([metric("depth", 7)])
    found.close(5.0)
    assert gateway.values()["hft_depth[]"] == 7


def test_gateway_that_is_not_there_is_counted(backend: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = backend(push_gateway=f"127.0.0.1:{unused.getsockname()[1]}", flush_interval=3600)
        found.deliver([metric("depth", 7)])
        assert not found.force_flush(5.0)
        assert found.exports_failed == 1
        assert "refused" in found.export_error


def test_what_cannot_be_recorded_is_rejected_with_its_reason(backend: Any) -> None:
    found = backend()
    batch = [metric("x", 1), metric("x", "abc"), metric("y", -1, COUNTER)]
    assert [(r.record, r.reason) for r in found.deliver(batch)] == [
        (batch[1], "not_a_number"),
        (batch[2], "negative_counter"),
    ]


def test_own_counters_are_scraped() -> None:
    found = PrometheusBackend(PrometheusConfig(port=0))

    def telemetry() -> list[tuple[str, float, Mapping[str, str]]]:
        return [("telemetry.emitted", 7.0, {"type": "TEXT"}), ("telemetry.pending", 2.0, {"lane": "low"})]

    found.telemetry = telemetry
    found.open()
    try:
        page = scrape(found)
        values = samples(page)
        assert values[key("hft_telemetry_emitted_total", type="TEXT")] == 7
        assert values[key("hft_telemetry_pending", lane="low")] == 2
        assert "# TYPE hft_telemetry_pending gauge" in page
    finally:
        found.close(2.0)


def test_only_metrics_are_handled() -> None:
    found = PrometheusBackend()
    assert found.should_handle(metric("x", 1))
    assert not found.should_handle(text("x"))
    assert not found.should_handle(audit("x"))


def test_options_come_flat_or_nested_and_are_checked() -> None:
    nested = PrometheusBackend({"min_level": "INFO", "config": {"batch_size": 50, "job_name": "x"}})
    assert (nested.batch_size, nested.min_level) == (50, LogLevel.INFO)
    assert PrometheusBackend(PrometheusConfig(batch_size=7)).batch_size == 7
    with pytest.raises(ConfigError, match="bach_size"):
        PrometheusBackend({"bach_size": 50})


def test_resource_is_that_of_the_process_where_none_is_given(backend: Any) -> None:
    found = PrometheusBackend({"port": 0})
    found.open()
    try:
        found.deliver([metric("x", 1)])
        assert 'telemetry_distro_name="hft-otel"' in scrape(found)
    finally:
        found.close(2.0)
