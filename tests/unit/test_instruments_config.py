"""`instruments:`, from the YAML file to what is recorded; and what it says of one that cannot be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.resources import Resource

from hft_otel._validation import validate
from hft_otel._yaml import effective
from hft_otel.config import (
    BackendConfig,
    ConfigError,
    CustomConfig,
    InstrumentConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
)
from hft_otel.destinations.exporters import destination_for
from hft_otel.destinations.otlp import otlp_destinations
from hft_otel.destinations.prometheus import PrometheusBackend
from hft_otel.factory import LoggerFactory
from hft_otel.otel.instruments import Instruments
from hft_otel.record import InstrumentKind
from tests.unit.config_support import load
from tests.unit.otlp_stand_in import latency, metric

ARBITRAGE = """
logging:
  backends: {file: }
  routing_rules: [{backends: [file]}]
  instruments:
    "arbitrage_success": {kind: counter}
    "*_usd": {kind: up_down_counter, unit: "{USD}"}
    "trade_execution_latency": {kind: histogram, unit: ms, buckets: [0.1, 0.5, 1, 5], description: "Order to fill"}
    "depth*":
    "*": {description: "Anything else"}
    "latency": {buckets: ["${LOWEST:-0.001}", 1]}
"""


def error_of(instruments: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        LogConfig.from_dict({"instruments": instruments}, source="app.yaml")
    assert caught.value.file == "app.yaml"
    assert caught.value.cure
    assert len(str(caught.value).splitlines()) == 3
    return caught.value


class Recorded:
    """Instruments as configured, and what would be exported of them."""

    def __init__(self, prometheus: bool = False, **configured: InstrumentConfig) -> None:
        self.reader = InMemoryMetricReader()
        provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.instruments = Instruments(provider, prometheus=prometheus, configured=configured)

    def __call__(self, name: str, value: Any, kind: InstrumentKind = InstrumentKind.GAUGE) -> str | None:
        return self.instruments.record(metric(name, value, kind))

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        found = data.resource_metrics if data is not None else ()
        return {m.name: m for r in found for s in r.scope_metrics for m in s.metrics}


def test_the_file_says_what_metrics_are_recorded_on_in_its_order(tmp_path: Path) -> None:
    config = load(tmp_path, ARBITRAGE)
    assert list(config.instruments.items()) == [
        ("arbitrage_success", InstrumentConfig("counter")),
        ("*_usd", InstrumentConfig("up_down_counter", "{USD}")),
        ("trade_execution_latency", InstrumentConfig("histogram", "ms", [0.1, 0.5, 1, 5], "Order to fill")),
        ("depth*", InstrumentConfig()),
        ("*", InstrumentConfig(description="Anything else")),
        ("latency", InstrumentConfig(buckets=[0.001, 1.0])),
    ]
    assert validate(config) == []


def test_what_is_shown_of_them_loads_as_the_same(tmp_path: Path) -> None:
    config = load(tmp_path, ARBITRAGE)
    shown = yaml.safe_dump({"logging": effective(config)}, sort_keys=False)
    assert list(load(tmp_path, shown).instruments.items()) == list(config.instruments.items())
    assert "kind='counter'" in repr(config)


@pytest.mark.parametrize(
    ("instruments", "path", "cause", "cure"),
    [
        ({"x": {"kind": "guage"}}, "x.kind", 'unknown value "guage"', "did you mean gauge? valid are gauge, counter, up_down_counter, histogram"),
        ({"x": {"kind": 5}}, "x.kind", "expected one of gauge", "quotes"),
        ({"x": {"bucket": [1]}}, "x.bucket", 'unknown key "bucket"', "did you mean buckets? valid are kind, unit, buckets, description"),
        ({"x": "counter"}, "x", "expected a mapping", "write keys"),
        (["x"], "", "expected a mapping", "write keys"),
        ({"": {}}, "", '"" matches no metric', "*_usd"),
        ({"  ": {}}, "  ", '"  " matches no metric', "*_usd"),
        ({5: {}}, "", "expected text as the key", "quotes"),
        ({"x": {"kind": "histogram", "buckets": [1, 3, 2]}}, "x.buckets[2]", "bounds must rise, and 2 comes after 3", "order them"),
        ({"x": {"kind": "histogram", "buckets": [1, 1]}}, "x.buckets[1]", "1 comes after 1", "each once"),
        ({"x": {"kind": "histogram", "buckets": [1, math.inf]}}, "x.buckets[1]", "expected a finite number, found inf", "has a bucket already"),
        ({"x": {"kind": "histogram", "buckets": [math.nan]}}, "x.buckets[0]", "expected a finite number, found nan", "numbers only"),
        ({"x": {"kind": "histogram", "buckets": [True]}}, "x.buckets[0]", "expected a number, found true", "write a number"),
        ({"x": {"kind": "histogram", "buckets": 5}}, "x.buckets", "expected a list", "[a, b]"),
        ({"x": {"buckets": [1]}}, "x.buckets", "a gauge has no buckets", "kind: histogram"),
        ({"x": {"kind": "counter", "buckets": [1]}}, "x.buckets", "a counter has no buckets", "kind: histogram"),
        ({"x": {"unit": "µs"}}, "x.unit", "ASCII", "UCUM, such as ms, us"),
        ({"x": {"unit": "m s"}}, "x.unit", "without blanks", "UCUM"),
        ({"x": {"unit": "m" * 64}}, "x.unit", "at most 63", "UCUM"),
        ({"x": {"unit": "m\n"}}, "x.unit", "without blanks", "UCUM"),
        ({"x": {"unit": 1}}, "x.unit", "expected text, found 1", "quotes"),
        ({"latency": {"kind": "gauge"}}, "latency.kind", "on a histogram, not on a gauge", "leave kind out"),
        ({"latency": {"unit": "ms"}}, "latency.unit", 'in seconds, not in "ms"', "give buckets in seconds"),
        ({"latency": {"buckets": [2, 1]}}, "latency.buckets[1]", "1 comes after 2", "order them"),
        ({"telemetry.dropped": {"kind": "gauge"}}, "telemetry.dropped", "the logger itself", "remove it"),
    ],
)  # fmt: skip
def test_an_error_says_where_why_and_the_cure(instruments: Any, path: str, cause: str, cure: str) -> None:
    error = error_of(instruments)
    assert error.path == f"logging.instruments.{path}" if path.strip() else "logging.instruments"
    assert cause in error.cause
    assert cure in error.cure


def test_an_error_in_a_file_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "logging:\n  instruments:\n    a: {kind: counter}\n    b:\n      kind: sum\n")
    assert caught.value.line == 5


def test_configurations_made_in_python_are_checked_alike() -> None:
    good = {
        "x": InstrumentConfig(InstrumentKind.HISTOGRAM, buckets=[1, 2]),
        "latency": InstrumentConfig("histogram", "s"),
    }
    validate(LogConfig(instruments=good))
    wrong: Any = {"x": {"kind": "counter"}}
    with pytest.raises(ConfigError, match="expected an InstrumentConfig"):
        validate(LogConfig(instruments=wrong))
    with pytest.raises(ConfigError, match="unknown value"):
        validate(LogConfig(instruments={"x": InstrumentConfig("sum")}))


def test_a_name_behind_a_pattern_that_takes_it_is_warned_of() -> None:
    order = ("*_usd", "fee_usd", "size", "latency", "*", "late", "size")
    [one, two] = [
        w for w in validate(LogConfig(instruments=dict.fromkeys(order, InstrumentConfig()))) if "instr" in w
    ]
    assert one == 'instruments: "*_usd", further up, takes what "fee_usd" names: put it below'
    assert '"*", further up, takes what "late" names' in two


def test_a_name_as_dashboards_have_it_is_warned_of() -> None:
    backends: dict[str, BackendConfig] = {"otlp": OtlpConfig(prefix="desk_"), "bare": OtlpConfig(prefix="")}
    names = dict.fromkeys(("desk_depth", "hft_depth", "depth"), InstrumentConfig())
    [warning] = [w for w in validate(LogConfig(backends=backends, instruments=names)) if "instr" in w]
    assert warning == (
        'instruments: "desk_depth" begins with desk_, which backends add: write what metric() is given'
    )


def test_a_metric_is_recorded_on_the_first_that_matches() -> None:
    recorded = Recorded(
        success=InstrumentConfig("counter", description="Done"),
        **{
            "*_usd": InstrumentConfig("up_down_counter", "{USD}"),
            "fee_*": InstrumentConfig("gauge"),
            "wait_[ab]?": InstrumentConfig("histogram", "ms", [1, 10]),
        },
    )
    for name, value in (("success", 1), ("success", 2), ("fee_usd", 5), ("fee_usd", -7), ("wait_a1", 4)):
        assert recorded(name, value) is None
    assert recorded("wait_c1", 4) is None
    assert recorded("Success", 4) == "kind_conflict"  # a gauge: case counts in patterns, and not in names
    found = recorded.metrics()
    success, fee, wait = found["hft.success"], found["hft.fee_usd"], found["hft.wait_a1"]
    assert (success.data.is_monotonic, success.data.data_points[0].value) == (True, 3)
    assert success.description == "Done"
    assert (fee.data.is_monotonic, fee.data.data_points[0].value, fee.unit) == (False, -2, "{USD}")
    assert list(wait.data.data_points[0].bucket_counts) == [0, 1, 0]
    assert (wait.unit, wait.data.data_points[0].explicit_bounds) == ("ms", (1, 10))
    assert not hasattr(found["hft.wait_c1"].data, "aggregation_temporality")  # a gauge


def test_a_counter_stays_one_and_a_contradiction_is_counted() -> None:
    recorded = Recorded(
        fills=InstrumentConfig("counter", "{fill}"),
        any_kind=InstrumentConfig(unit="By", description="Sent"),
        held=InstrumentConfig("gauge"),
    )
    count = InstrumentKind.COUNTER
    assert [recorded("fills", 1, count), recorded("fills", 2)] == [None, None]
    assert recorded("any_kind", 1, count) is None
    assert recorded("held", 1, count) == "kind_conflict"  # also where it comes first
    assert recorded("held", 1) is None
    found = recorded.metrics()
    assert (found["hft.fills"].data.data_points[0].value, found["hft.fills"].unit) == (3, "{fill}")
    assert (found["hft.any_kind"].unit, found["hft.any_kind"].description) == ("By", "Sent")


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("counter", -1, "negative_counter"),
        ("counter", math.nan, "not_finite"),
        ("counter", None, "not_a_number"),
        ("up_down_counter", math.nan, "not_finite"),
        ("up_down_counter", -math.inf, "not_finite"),
        ("histogram", -0.5, "negative_histogram"),
        ("histogram", math.inf, "not_finite"),
        ("gauge", "much", "not_a_number"),
    ],
)
def test_a_value_that_the_kind_cannot_take_is_dropped_with_its_reason(
    kind: str, value: Any, reason: str
) -> None:
    recorded = Recorded(x=InstrumentConfig(kind))
    assert recorded("x", value) == reason
    assert recorded("x", 1) is None
    assert recorded.metrics()["hft.x"].data.data_points


def test_latency_takes_buckets_and_only_its_name_speaks_of_it() -> None:
    recorded = Recorded(
        **{
            "*": InstrumentConfig("counter", "ms"),
            "latency": InstrumentConfig(buckets=[0.5, 2.0], description="How long"),
        }
    )
    for milliseconds in (1, 600, 3000):
        assert recorded.instruments.record(latency("parse", milliseconds)) is None
    assert recorded("latency", 5) == "kind_conflict"
    found = recorded.metrics()["hft.latency"]
    assert (found.unit, found.description) == ("s", "How long")
    assert list(found.data.data_points[0].bucket_counts) == [1, 1, 1]
    assert found.data.data_points[0].explicit_bounds == (0.5, 2.0)


def test_for_prometheus_a_unit_is_the_end_of_the_name() -> None:
    recorded = Recorded(prometheus=True, wait=InstrumentConfig("histogram", "ms"))
    assert recorded("wait", 1) is None
    assert recorded("wait_milliseconds", 1) == "kind_conflict"


class Kept(MetricExporter):
    """A metric exporter of the user's, which keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[MetricsData] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        self.data.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        return None


CONFIGURED = {"success": InstrumentConfig("counter", "{trade}")}


def test_an_exporter_of_the_users_gets_them_as_configured() -> None:
    exporter = Kept()
    destination = destination_for(exporter, "mine", resource=Resource({}), instruments=CONFIGURED)
    destination.open()
    assert destination.deliver([metric("success", 1), metric("success", 2), metric("success", -1)])[
        0
    ].reason == ("negative_counter")
    assert destination.force_flush(5)
    destination.close(1)
    [found] = exporter.data[0].resource_metrics[0].scope_metrics[0].metrics
    assert (found.unit, found.data.data_points[0].value) == ("{trade}", 3)  # type: ignore[union-attr]  # of a sum


def test_otlp_hands_them_to_its_metrics() -> None:
    config = OtlpConfig(endpoint="http://127.0.0.1:1", signals=["metrics"], metric_interval=3600)
    [destination] = otlp_destinations(config, Resource({}), instruments=CONFIGURED)
    destination.open()
    assert [rejected.reason for rejected in destination.deliver([metric("success", -1)])] == [
        "negative_counter"
    ]
    destination.close(0.1)


def test_the_scrape_endpoint_shows_them() -> None:
    backend = PrometheusBackend({"scrape": False}, instruments=CONFIGURED)
    assert [rejected.reason for rejected in backend.deliver([metric("success", -1)])] == ["negative_counter"]
    backend.close(1)


def built(backend: BackendConfig, instruments: dict[str, InstrumentConfig]) -> Any:
    config = LogConfig(backends={"x": backend}, instruments=instruments)
    return LoggerFactory._create_backends(config)["x"]


@pytest.mark.parametrize(
    "backend",
    [
        PrometheusConfig(port=0),
        OtlpConfig(endpoint="http://127.0.0.1:1", protocol="http/protobuf"),
        CustomConfig(class_path=f"{__name__}:Kept"),
    ],
)
def test_backends_are_shared_where_the_instruments_and_their_order_are_the_same(
    backend: BackendConfig,
) -> None:
    one = {"a*": InstrumentConfig("counter"), "*b": InstrumentConfig("histogram")}
    same, turned = dict(one), dict(reversed(one.items()))
    assert built(backend, one) is built(replace(backend), same)
    assert built(backend, one) is not built(backend, turned)
    assert built(backend, one) is not built(backend, {})


def test_one_port_cannot_show_two_sets_of_instruments() -> None:
    port = PrometheusConfig(port=29_464)
    built(port, CONFIGURED)
    with pytest.raises(ConfigError, match="in use by another backend with other options"):
        built(port, {})
