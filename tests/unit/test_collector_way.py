"""The way from the SDK to the Collector: audits on a connection of their own, a metric's streams kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from hft_otel import ConfigError, LogConfig, LoggerFactory
from hft_otel.config import OtlpConfig
from hft_otel.destinations.base import Destination
from hft_otel.destinations.group import Group, ViaCollector
from hft_otel.destinations.otlp import otlp_destinations
from hft_otel.record import InstrumentKind, LogType
from tests.unit.otlp_stand_in import (
    RESOURCE,
    Receiver,
    audit,
    http_receiver,
    log_records,
    metric,
    plain,
    spans,
    text,
)

pytest_plugins = ["tests.unit.otlp_fixtures"]


@pytest.fixture
def audits() -> Iterator[Receiver]:
    """Where audits go: the audit port."""
    with http_receiver() as found:
        yield found


@pytest.fixture
def way(no_otel_variables: None, receiver: Receiver, audits: Receiver) -> Iterator[dict[str, Destination]]:
    config = OtlpConfig(endpoint=receiver.endpoint, audit_endpoint=audits.endpoint, metric_interval=60)
    made = {each.name: each for each in otlp_destinations(config, RESOURCE)}
    for each in made.values():
        each.open()
    yield made
    for each in made.values():
        each.close(1.0)


# --- audits


def test_audit_endpoint_makes_a_destination_of_its_own(way: dict[str, Destination]) -> None:
    assert {name: each.accepts for name, each in way.items()} == {
        "otlp.logs": {LogType.TEXT},
        "otlp.metrics": {LogType.METRIC},
        "otlp.traces": {LogType.AUDIT},
        "otlp.audit": {LogType.AUDIT},
    }


def test_audit_events_and_their_spans_go_to_the_audit_port_and_nothing_else(
    way: dict[str, Destination], receiver: Receiver, audits: Receiver
) -> None:
    assert way["otlp.logs"].deliver([text("hello")]) == []
    assert way["otlp.audit"].deliver([audit("order_sent")]) == []
    assert way["otlp.traces"].deliver([audit("order_sent")]) == []
    assert receiver.paths == ["/v1/logs"]
    assert audits.paths == ["/v1/logs", "/v1/traces"]
    assert log_records(audits.requests[0])[0].event_name == "audit.order_sent"
    assert spans(audits.requests[1])[0].name == "audit.order_sent"


@pytest.mark.parametrize(
    ("signals", "names"),
    [
        (["metrics"], ["otlp.metrics"]),
        (["traces"], ["otlp.traces"]),
        (["logs"], ["otlp.logs", "otlp.audit"]),
    ],
)
def test_audit_endpoint_adds_nothing_where_no_logs_are_sent(signals: list[str], names: list[str]) -> None:
    config = OtlpConfig(audit_endpoint="http://127.0.0.1:1", signals=signals)
    assert [each.name for each in otlp_destinations(config, RESOURCE)] == names


def test_audit_endpoint_is_checked(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="audit_endpoint") as caught:
        LogConfig.from_dict({"backends": {"otlp": {"config": {"audit_endpoint": "localhost"}}}})
    assert "http://" in caught.value.cure
    LogConfig.from_dict(
        {"backends": {"otlp": {"config": {"audit_endpoint": "collector:4327", "protocol": "grpc"}}}}
    )
    behind = {
        "type": "otlp",
        "config": {"via": "collector", "endpoint": "http://j:1", "audit_endpoint": "http://j:2"},
    }
    with pytest.raises(ConfigError, match="for the way to the Collector only"):
        LogConfig.from_dict({"backends": {"otlp": {}, "jaeger": behind}})


# --- backends behind the Collector


def test_otlp_behind_the_collector_takes_what_its_signals_carry() -> None:
    jaeger = {"type": "otlp", "config": {"via": "collector", "endpoint": "http://j:1", "signals": ["traces"]}}
    console = {"config": {"via": "collector"}}
    config = LogConfig.from_dict({"backends": {"otlp": {}, "jaeger": jaeger, "console": console}})
    backends = LoggerFactory._create_backends(config)
    assert isinstance(backends["otlp"], Group)
    for name, types in (("jaeger", {LogType.AUDIT}), ("console", {LogType.TEXT})):
        backend = backends[name]
        assert isinstance(backend, ViaCollector)
        assert backend.accepts == types
        assert backend.otlp is backends["otlp"]


def test_otlp_behind_the_collector_needs_an_endpoint_that_the_environment_does_not_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    with pytest.raises(ConfigError, match=r"backends\.jaeger\.config\.endpoint"):
        LogConfig.from_dict(
            {"backends": {"otlp": {}, "jaeger": {"type": "otlp", "config": {"via": "collector"}}}}
        )


def test_only_otlp_itself_is_a_way_to_the_collector() -> None:
    behind = {"config": {"via": "collector", "endpoint": "http://j:1"}}
    with pytest.raises(ConfigError, match="no otlp backend is enabled to send there"):
        LogConfig.from_dict({"backends": {"otlp": behind}})


def test_a_comma_in_the_name_of_a_backend_behind_the_collector_is_refused() -> None:
    files = {"a,b": {"type": "file", "config": {"via": "collector"}}}
    with pytest.raises(ConfigError, match="has a comma in its name"):
        LogConfig.from_dict({"backends": {"otlp": {}, **files}})
    LogConfig.from_dict({"backends": {"a,b": {"type": "file"}}})


# --- metrics


def test_each_backend_gets_every_measurement_in_one_stream(
    way: dict[str, Destination], receiver: Receiver
) -> None:
    counter = metric("orders", 1, InstrumentKind.COUNTER)
    both = replace(counter, via_collector=("prometheus", "datadog"))
    one = replace(counter, via_collector=("prometheus",))
    assert way["otlp.metrics"].deliver([both, one, both, counter]) == []
    assert way["otlp.metrics"].force_flush(5)
    sums: Counter[str] = Counter()
    streams: Counter[str] = Counter()
    for resource in receiver.requests[-1].resource_metrics:
        for scope in resource.scope_metrics:
            for found in scope.metrics:
                if found.name == "hft.orders":
                    mark = plain(scope.scope.attributes).get("hft.backends", "")
                    sums[mark] += int(found.sum.data_points[0].as_double)
                    streams[mark] += 1
    assert sums == {"prometheus": 3, "datadog": 2, "": 1}
    assert set(streams.values()) == {1}


def test_a_measurement_for_several_backends_is_rejected_once(way: dict[str, Destination]) -> None:
    bad = replace(metric("depth", "none"), via_collector=("prometheus", "datadog"))
    (rejected,) = way["otlp.metrics"].deliver([bad])
    assert rejected.record is bad
    assert rejected.reason == "not_a_number"
