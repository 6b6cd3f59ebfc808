"""Measurements on OpenTelemetry instruments: the right one, the right unit, and a reason for each that is dropped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from hft_otel.config import InstrumentConfig
from hft_otel.otel.instruments import LATENCY_BUCKETS, MAX_INSTRUMENTS, Instruments, to_float
from hft_otel.record import InstrumentKind
from tests.unit.otlp_stand_in import latency, metric

GAUGE, COUNTER = InstrumentKind.GAUGE, InstrumentKind.COUNTER
MAX_SERIES = 2000
"""The SDK's own limit per instrument."""
UP_DOWN, HISTOGRAM = InstrumentKind.UP_DOWN_COUNTER, InstrumentKind.HISTOGRAM


class Metered:
    """Instruments on a provider of their own, and what it would export."""

    def __init__(self, prefix: str = "hft_", preferred_temporality: Any = None, **options: Any) -> None:
        self.reader = InMemoryMetricReader(preferred_temporality)
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.instruments = Instruments(self.provider, prefix, **options)

    def record(self, *args: Any, **tags: Any) -> str | None:
        return self.instruments.record(metric(*args, **tags))

    def collect(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}

    def points(self, name: str) -> list[Any]:
        found = self.collect().get(name)
        return list(found.data.data_points) if found else []


@pytest.fixture
def metered() -> Metered:
    return Metered()


def test_metric_is_a_gauge_with_the_prefix_as_namespace(metered: Metered) -> None:
    assert metered.record("orderbook_depth", 5, exchange="mexc", none=None) is None
    assert metered.record("orderbook_depth", 7.5, exchange="mexc") is None
    [point] = metered.points("hft.orderbook_depth")
    assert (point.value, dict(point.attributes)) == (7.5, {"exchange": "mexc"})


@pytest.mark.parametrize(("prefix", "name"), [("", "depth"), ("hft", "hft.depth"), ("a_b_", "a_b.depth")])
def test_prefix_comes_from_the_configuration(prefix: str, name: str) -> None:
    metered = Metered(prefix)
    metered.record("depth", 1)
    assert metered.points(name)


def test_counter_adds_up(metered: Metered) -> None:
    for value in (1, 2.5, Decimal("0.5")):
        assert metered.record("messages", value, COUNTER, kind="trade") is None
    found = metered.collect()["hft.messages"]
    assert found.data.is_monotonic
    assert found.data.data_points[0].value == 4.0


def test_up_down_counter_goes_both_ways(metered: Metered) -> None:
    assert [metered.record("inventory", value, UP_DOWN) for value in (5, -7)] == [None, None]
    found = metered.collect()["hft.inventory"]
    assert not found.data.is_monotonic
    assert found.data.data_points[0].value == -2


def test_latency_is_recorded_in_seconds_with_buckets_from_1_us_to_10_s(metered: Metered) -> None:
    assert metered.instruments.record(latency("parse", 0.004)) is None
    assert metered.instruments.record(latency("parse", 2000)) is None
    found = metered.collect()["hft.latency"]
    [point] = found.data.data_points
    assert found.unit == "s"
    assert point.sum == pytest.approx(2.000004)
    assert dict(point.attributes) == {"operation": "parse"}
    assert tuple(point.explicit_bounds) == LATENCY_BUCKETS
    assert (LATENCY_BUCKETS[0], LATENCY_BUCKETS[-1], len(LATENCY_BUCKETS)) == (1e-6, 10.0, 22)
    assert point.bucket_counts[LATENCY_BUCKETS.index(5e-6)] == 1
    assert point.bucket_counts[LATENCY_BUCKETS.index(2.5)] == 1


def test_gauge_cannot_take_the_name_of_the_latency(metered: Metered) -> None:
    assert metered.record("latency", 5) == "kind_conflict"
    assert metered.instruments.record(latency("parse", 1)) is None


def test_histogram_takes_unit_and_buckets_of_the_configuration() -> None:
    metered = Metered(configured={"spread": InstrumentConfig(kind="histogram", buckets=[1.0, 2.0])})
    assert metered.record("spread", 1.5, HISTOGRAM, "bps") is None
    found = metered.collect()["hft.spread"]
    assert found.unit == "bps"
    assert list(found.data.data_points[0].bucket_counts) == [0, 1, 0]


def test_decimal_after_float_in_one_histogram_works(metered: Metered) -> None:
    values = (0.5, Decimal("0.25"), 1, "2", Fraction(1, 4), True)
    assert [metered.record("size", value, HISTOGRAM) for value in values] == [None] * len(values)
    [point] = metered.points("hft.size")
    assert (point.count, point.sum) == (6, 5.0)


@pytest.mark.parametrize("value", ["abc", None, object(), [1], 1j, b"x", Decimal("sNaN")])
@pytest.mark.parametrize("kind", list(InstrumentKind))
def test_what_is_no_number_is_dropped_with_its_reason(
    metered: Metered, kind: InstrumentKind, value: Any
) -> None:
    assert metered.record("x", value, kind) == "not_a_number"
    assert metered.collect() == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", 10**400])
@pytest.mark.parametrize("kind", [COUNTER, UP_DOWN, HISTOGRAM])
def test_sums_take_finite_numbers_only(metered: Metered, kind: InstrumentKind, value: Any) -> None:
    assert metered.record("x", value, kind) == "not_finite"
    assert metered.points("hft.x") == []


def test_gauge_takes_nan_and_infinity(metered: Metered) -> None:
    assert metered.record("spread", 1.0, side="buy") is None
    assert metered.record("spread", math.nan, side="buy") is None
    assert metered.record("spread", 10**400, side="sell") is None
    values = {point.attributes["side"]: point.value for point in metered.points("hft.spread")}
    assert math.isnan(values["buy"])
    assert values["sell"] == math.inf
    assert metered.record("spread", 2.0, side="buy") is None
    assert {point.value for point in metered.points("hft.spread")} == {2.0, math.inf}


def test_negative_values_are_dropped_where_sums_may_only_grow(metered: Metered) -> None:
    assert metered.record("x", -1, COUNTER) == "negative_counter"
    assert metered.record("y", -1, HISTOGRAM) == "negative_histogram"


def test_names_are_made_valid_and_hopeless_ones_dropped(metered: Metered) -> None:
    assert metered.record("fill rate %", 1) is None
    assert metered.record("größe", 2) is None
    assert metered.record("a/b.c-d", 3) is None
    assert set(metered.collect()) == {"hft.fill_rate_", "hft.gr_e", "hft.a/b.c-d"}
    for name in ("", "???", "___", "x" * 300):
        assert metered.record(name, 1) == "invalid_name"
    bare = Metered("")
    assert bare.record("5m_volume", 1) is None
    assert set(bare.collect()) == {"m_5m_volume"}


def test_one_name_has_one_kind_and_unit(metered: Metered) -> None:
    assert metered.record("x", 1) is None
    assert metered.record("x", 1, COUNTER) == "kind_conflict"
    assert metered.record("X", 1, COUNTER) == "kind_conflict"
    assert metered.record("x", 1, GAUGE, "bps") == "kind_conflict"
    assert metered.record("X", 3) is None
    assert metered.points("hft.x")[0].value == 3


def test_invalid_unit_is_left_out(metered: Metered) -> None:
    assert metered.record("x", 1, GAUGE, "µs") is None
    assert metered.collect()["hft.x"].unit == ""


def test_only_allow_listed_context_becomes_attributes(metered: Metered) -> None:
    record = metric("fills", 1, COUNTER, exchange="gateio")
    record.context = {"exchange": "mexc", "symbol": "BTCUSDT", "component": None, "order_id": "42"}
    assert metered.instruments.record(record) is None
    assert dict(metered.points("hft.fills")[0].attributes) == {"exchange": "gateio", "symbol": "BTCUSDT"}


def test_tag_values_become_plain_values(metered: Metered) -> None:
    tags = {
        "d": Decimal("1.5"),
        "i": 2**70,
        "b": True,
        "f": 0.5,
        "l": [1, 2],
        "s": "a\ud800",
        "e": b"x",
        "u": "é",
    }
    assert metered.record("x", 1, GAUGE, "", **tags) is None
    assert dict(metered.points("hft.x")[0].attributes) == {
        "d": "1.5",
        "i": str(2**70),
        "b": True,
        "f": 0.5,
        "l": "[1, 2]",
        "s": "a\ufffd",
        "e": "b'x'",
        "u": "é",
    }


def test_tag_keys_become_text(metered: Metered) -> None:
    record = metric("x", 1)
    record.metric_tags = {7: "a", "": "b"}  # type: ignore[dict-item]  # what a caller may hand over
    assert metered.instruments.record(record) is None
    assert dict(metered.points("hft.x")[0].attributes) == {"7": "a", "_": "b"}


@pytest.mark.parametrize("kind", list(InstrumentKind))
@pytest.mark.parametrize("prometheus", [False, True])
def test_series_beyond_the_limit_are_dropped_and_the_others_go_on(
    kind: InstrumentKind, prometheus: bool
) -> None:
    metered = Metered(prometheus=prometheus)
    reasons = [metered.record("x", 1, kind, order=str(number)) for number in range(MAX_SERIES + 10)]
    assert reasons == [None] * MAX_SERIES + ["too_many_series"] * 10
    assert metered.record("x", 1, kind, order="0", side="buy") == "too_many_series"
    assert metered.record("x", 1, kind, order="7") is None
    assert metered.record("y", 1, kind, order="2005") is None  # each metric has its own limit
    points = metered.points("hft_x" if prometheus else "hft.x")
    assert {point.attributes.get("order") for point in points} == {str(each) for each in range(MAX_SERIES)}
    assert len(points) == MAX_SERIES


def test_latencies_and_numbers_as_tags_count_to_the_limit_as_the_sdk_tells_them_apart(
    metered: Metered,
) -> None:
    for number in range(MAX_SERIES - 3):
        assert metered.instruments.record(latency(f"operation {number}", 1)) is None
        assert metered.record("x", 1, n=number + 2) is None
    assert [metered.record("x", 1, n=one) for one in (1, 1.0, True, "1")] == [None] * 3 + ["too_many_series"]
    assert [metered.record("x", math.nan, n=one) for one in (True, 0)] == [None, "too_many_series"]
    reasons = [metered.instruments.record(latency(f"more {number}", 1)) for number in range(4)]
    assert reasons == [None] * 3 + ["too_many_series"]


def test_with_deltas_each_collection_has_room_for_new_series() -> None:
    metered = Metered(preferred_temporality={Counter: AggregationTemporality.DELTA})
    for turn in range(2):
        numbers = range(turn * 5000, turn * 5000 + MAX_SERIES + 1)
        reasons = [metered.record("x", 1, COUNTER, order=str(number)) for number in numbers]
        assert reasons == [None] * MAX_SERIES + ["too_many_series"]
        assert len(metered.points("hft.x")) == MAX_SERIES


def test_metric_names_beyond_the_limit_are_dropped(metered: Metered) -> None:
    reasons = [metered.record(f"order_{number}", 1) for number in range(MAX_INSTRUMENTS + 5)]
    assert reasons.count(None) == MAX_INSTRUMENTS - 1  # the latency is there already
    assert set(reasons[-6:]) == {"too_many_metrics"}


def test_with_the_sdk_disabled_every_measurement_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", " True")
    metered = Metered()
    metered.instruments.observe(Telemetry())
    reasons = [metered.record(f"{kind.value}_metric", 1, kind) for kind in InstrumentKind]
    assert reasons == ["sdk_disabled"] * len(InstrumentKind)
    assert metered.instruments.record(latency("parse", 1)) == "sdk_disabled"
    behind = latency("parse", 1)
    behind.via_collector = ("datadog",)
    assert metered.instruments.record(behind) == "sdk_disabled"
    assert metered.record("counter_metric", "abc", COUNTER) == "not_a_number"
    assert metered.collect() == {}


def test_scope_names_the_backends_behind_the_collector(metered: Metered) -> None:
    record = metric("x", 1)
    record.via_collector = ("datadog",)
    assert metered.instruments.record(record) is None
    assert metered.instruments.record(metric("x", 2)) is None
    behind = latency("parse", 5)
    behind.via_collector = ("datadog",)
    assert metered.instruments.record(behind) is None
    data = metered.reader.get_metrics_data()
    assert data is not None
    [resource] = data.resource_metrics
    found = {
        str(dict(scope.scope.attributes)): {m.name for m in scope.metrics} for scope in resource.scope_metrics
    }
    assert found == {"{'hft.backends': 'datadog'}": {"hft.x", "hft.latency"}, "{}": {"hft.x"}}
    assert {scope.scope.name for scope in resource.scope_metrics} == {"hft_otel"}


def test_for_prometheus_names_that_would_collide_are_one() -> None:
    metered = Metered(prometheus=True)
    assert metered.record("a.b", 1, **{"x.y": "1"}) is None
    assert metered.record("a_b", 2, **{"x_y": "1"}) is None
    assert metered.record("a-b", 1, COUNTER) == "kind_conflict"
    [point] = metered.points("hft_a_b")
    assert (point.value, dict(point.attributes)) == (2, {"x_y": "1"})


def test_for_prometheus_families_do_not_overlap() -> None:
    metered = Metered(prometheus=True)
    assert metered.record("fills", 1, COUNTER) is None
    assert metered.record("fills_total", 1) == "kind_conflict"
    assert metered.record("size", 1, HISTOGRAM) is None
    assert metered.record("size_count", 1) == "kind_conflict"
    assert metered.record("latency_seconds", 1) == "kind_conflict"
    assert metered.record("latency", 1) == "kind_conflict"
    assert metered.record("orders_total", 1, COUNTER) is None


def test_for_prometheus_reserved_labels_are_renamed() -> None:
    metered = Metered(prometheus=True)
    assert metered.record("x", 1, HISTOGRAM, "", le="1", quantile="2") is None
    assert dict(metered.points("hft_x")[0].attributes) == {"le_": "1", "quantile_": "2"}


def test_for_prometheus_backends_behind_the_collector_make_no_second_series() -> None:
    metered = Metered(prometheus=True)
    record = metric("x", 1)
    record.via_collector = ("datadog",)
    assert metered.instruments.record(record) is None
    assert metered.instruments.record(metric("x", 2)) is None
    assert len(metered.points("hft_x")) == 1


class Telemetry:
    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    def __call__(self) -> Iterable[tuple[str, float, Mapping[str, str]]]:
        self.calls += 1
        if self.fails:
            raise RuntimeError("no counters")
        yield "telemetry.emitted", 10 * self.calls, {"type": "TEXT"}
        yield "telemetry.emitted", 1, {"type": "AUDIT"}
        yield "telemetry.pending", -3, {"lane": "text"}
        yield "unknown", 1, {}


def test_own_counters_are_read_once_per_collection(metered: Metered) -> None:
    telemetry = Telemetry()
    metered.instruments.observe(telemetry)
    for calls in (1, 2, 3):
        found = metered.collect()
        assert telemetry.calls == calls
        values = {p.attributes["type"]: p.value for p in found["hft.telemetry.emitted"].data.data_points}
        assert values == {"TEXT": 10 * calls, "AUDIT": 1}
        assert found["hft.telemetry.emitted"].data.is_monotonic
        assert not found["hft.telemetry.pending"].data.is_monotonic
        assert found["hft.telemetry.pending"].data.data_points[0].value == -3
        assert "hft.unknown" not in found


def test_own_counters_that_cannot_be_read_once_come_back(
    metered: Metered, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry()
    metered.instruments.observe(telemetry)
    telemetry.fails = True
    assert metered.record("x", 1) is None
    assert set(metered.collect()) == {"hft.x"}
    telemetry.fails = False
    found = metered.collect()
    assert found["hft.telemetry.emitted"].data.data_points[0].value == 20
    assert telemetry.calls == 2
    assert caplog.records == []


def test_user_metric_cannot_take_the_name_of_an_own_counter(metered: Metered) -> None:
    metered.instruments.observe(Telemetry())
    assert metered.record("telemetry.pending", 1) == "kind_conflict"


@given(
    name=st.text(max_size=20),
    value=st.none()
    | st.floats()
    | st.integers()
    | st.text(max_size=5)
    | st.decimals()
    | st.binary(max_size=3),
    tags=st.dictionaries(
        st.text(st.characters(codec=None), max_size=3), st.floats() | st.integers() | st.text(), max_size=3
    ),
    kind=st.sampled_from(InstrumentKind),
    prometheus=st.booleans(),
)
def test_nothing_raises(
    name: str, value: Any, tags: dict[str, Any], kind: InstrumentKind, prometheus: bool
) -> None:
    metered = Metered(prometheus=prometheus)
    record = metric(name, value, kind)
    record.metric_tags = tags
    reason = metered.instruments.record(record)
    assert (reason is None) == bool(metered.collect())


def test_hostile_values_are_counted_not_raised(metered: Metered) -> None:
    class Hostile:
        def __float__(self) -> float:
            raise RuntimeError("no number")

        def __hash__(self) -> int:
            raise RuntimeError("no hash")

    record = metric("x", 1)
    record.metric_name = Hostile()  # type: ignore[assignment]  # what a caller may hand over
    assert metered.instruments.record(record) == "not_recordable"
    assert to_float(Hostile()) is None
