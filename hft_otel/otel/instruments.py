"""METRIC records -> OpenTelemetry instruments, which aggregate them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

from ..config import LATENCY, InstrumentConfig
from ..ledger import SELF_METRICS
from ..record import InstrumentKind, LogRecord
from .convert import clean, clean_text, scope_attributes
from .sdk import (
    CallbackOptions,
    MeterProvider,
    NoOpMeter,
    Observation,
    has_no_room_for,
    prometheus_family,
    set_gauge,
)

__all__ = ["LATENCY_BUCKETS", "Instruments", "Telemetry"]

Telemetry = Callable[[], Iterable[tuple[str, float, Mapping[str, str]]]]
"""Reads the logger's own counters: name, value and attributes of each."""

METER = "hft_otel"
LATENCY_BUCKETS = (*(float(f"{step}e{power}") for power in range(-6, 1) for step in (1, 2.5, 5)), 10.0)
"""Upper bounds in seconds, from 1 us to 10 s."""

CONTEXT_ATTRIBUTES = ("exchange", "symbol", "component")
"""Context keys that become attributes of a measurement; any other would be a new time series per order."""

MAX_INSTRUMENTS = 2000
"""Metric names beyond this are dropped: a name that holds an identifier would grow the process without end."""

_MAX_NAME = 255
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_./-]+")
_NOT_IN_PROMETHEUS = re.compile(r"[^A-Za-z0-9_]+")
_RESERVED_LABELS = {"le": "le_", "quantile": "quantile_", "__name__": "name_"}
_DESCRIPTIONS = {
    InstrumentKind.GAUGE: "Last value given to metric()",
    InstrumentKind.COUNTER: "Sum of the values given to counter() or metric()",
    InstrumentKind.UP_DOWN_COUNTER: "Sum of the changes given to metric()",
    InstrumentKind.HISTOGRAM: "Distribution of the values given to metric()",
}
_SUFFIXES = {
    InstrumentKind.GAUGE: ("",),
    InstrumentKind.COUNTER: ("", "_total", "_created"),
    InstrumentKind.UP_DOWN_COUNTER: ("",),
    InstrumentKind.HISTOGRAM: ("", "_bucket", "_sum", "_count", "_created"),
}

_NOTHING_SAID = InstrumentConfig()

_Key = tuple[str, InstrumentKind, str, tuple[str, ...]]
_Recorder = Callable[[float, dict[str, Any]], str | None]


class Instruments:
    """The instruments of one meter provider, made on first use.

    `prefix` is the configuration's (`hft_` gives `hft.<name>`). With `prometheus` the names and labels are made what
    Prometheus takes before anything is aggregated, so that two that would look the same there are the same here.
    `configured` says by metric name or pattern what `metric()` is recorded on (see LogConfig.instruments); a counter
    stays one, and is dropped as `kind_conflict` where the name is configured as another kind. Not for use from
    several threads at a time; the provider's readers may collect meanwhile.
    """

    def __init__(
        self,
        provider: MeterProvider,
        prefix: str = "hft_",
        *,
        prometheus: bool = False,
        configured: Mapping[str, InstrumentConfig] | None = None,
    ) -> None:
        self._provider = provider
        self._prefix = prefix.rstrip("_.") + "." if prefix.rstrip("_.") else ""
        self._prometheus = prometheus
        self._configured = dict(configured or {})
        self._latency = self._configured.pop(LATENCY, _NOTHING_SAID)
        self._recorders: dict[_Key, _Recorder | str] = {}
        self._owners: dict[tuple[str, str], tuple[InstrumentKind, str]] = {}
        self._keys: dict[Any, str] = {}
        self._own: dict[str, list[Observation]] = {}
        # The plan fixes this name: a gauge of the user's that is called the same must not take it first.
        self._recorders[(LATENCY, InstrumentKind.HISTOGRAM, "ms", ())] = self._make_latency(())

    def record(self, record: LogRecord) -> str | None:
        """Aggregate one measurement; return None, or why it was dropped. Never raises."""
        try:
            return self._record(record)
        except Exception:  # noqa: BLE001  # a hostile tag or value ends here
            return "not_recordable"

    def _record(self, record: LogRecord) -> str | None:
        value = record.metric_value
        if type(value) is not float:
            number = to_float(value)
            if number is None:
                return "not_a_number"
            value = number
        key = (
            record.metric_name,
            record.instrument,
            record.unit,
            () if self._prometheus else record.via_collector,
        )
        recorder = self._recorders.get(key)
        if recorder is None:
            recorder = self._recorder(key)
        return recorder if isinstance(recorder, str) else recorder(value, self._attributes(record))

    def _attributes(self, record: LogRecord) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        context = record.context
        for name in CONTEXT_ATTRIBUTES:
            value = context.get(name)
            if value is not None:
                attributes[name] = value if type(value) is str and value.isascii() else _scalar(value)
        keys = self._keys
        for tag, value in record.metric_tags.items():
            if value is not None:
                key = keys.get(tag) or self._key(tag)
                attributes[key] = value if type(value) is str and value.isascii() else _scalar(value)
        return attributes

    def _key(self, tag: Any) -> str:
        key = clean_text(tag) or "_"
        if self._prometheus:
            key = _NOT_IN_PROMETHEUS.sub("_", key)
            key = _RESERVED_LABELS.get(key, key)
        if len(self._keys) < MAX_INSTRUMENTS:
            self._keys[tag] = key
        return key

    def _recorder(self, key: _Key) -> _Recorder | str:
        """Make the instrument for a name, kind and unit, or say why there is none."""
        name, kind, unit, backends = key
        if len(self._recorders) >= MAX_INSTRUMENTS:
            return "too_many_metrics"
        made: _Recorder | str
        if name == LATENCY and kind is InstrumentKind.HISTOGRAM and unit == "ms":
            made = self._make_latency(backends)
        else:
            said = self._said(name)
            if kind is InstrumentKind.GAUGE and said.kind is not None:
                kind = InstrumentKind(said.kind)
            if said.kind in (None, kind):
                made = self._make(name, kind, said.unit or unit, backends, said.buckets, said.description)
            else:
                made = "kind_conflict"
        self._recorders[key] = made
        return made

    def _said(self, name: str) -> InstrumentConfig:
        """Return what the configuration says of a metric name; the first pattern that matches counts."""
        found = (said for pattern, said in self._configured.items() if fnmatchcase(name, pattern))
        return next(found, _NOTHING_SAID) if name != LATENCY else _NOTHING_SAID

    def _make_latency(self, backends: tuple[str, ...]) -> _Recorder | str:
        buckets = self._latency.buckets or LATENCY_BUCKETS
        text = self._latency.description or "Duration of operations"
        made = self._make(LATENCY, InstrumentKind.HISTOGRAM, "s", backends, buckets, text)
        if isinstance(made, str):
            return made
        return lambda value, attributes: made(value / 1000, attributes)

    def _make(
        self,
        name: str,
        kind: InstrumentKind,
        unit: str,
        backends: tuple[str, ...],
        buckets: Sequence[float] = (),
        text: str = "",
    ) -> _Recorder | str:
        full_name = self._full_name(name)
        if full_name is None:
            return "invalid_name"
        if not unit.isascii() or len(unit) > 63:
            unit = ""
        if not self._claim(full_name, kind, unit):
            return "kind_conflict"
        meter = self._provider.get_meter(METER, attributes=scope_attributes(backends))
        if isinstance(meter, NoOpMeter):
            return "sdk_disabled"  # OTEL_SDK_DISABLED=true: what is recorded would go nowhere
        return _instrument(meter, full_name, kind, unit, text or _DESCRIPTIONS[kind], buckets)

    def _full_name(self, name: Any) -> str | None:
        """Return the instrument's name by OTel's rule, or None where nothing of the name can be kept."""
        cleaned = _NOT_IN_NAME.sub("_", clean_text(name))
        if not any(map(str.isalnum, cleaned)):
            return None
        full_name = self._prefix + cleaned
        if not full_name[0].isalpha():
            full_name = "m_" + full_name
        if self._prometheus:
            full_name = _NOT_IN_PROMETHEUS.sub("_", full_name)
        return full_name if len(full_name) <= _MAX_NAME else None

    def _claim(self, full_name: str, kind: InstrumentKind, unit: str) -> bool:
        """Say whether the name is free, or has been used in just this way; case makes no difference."""
        claims: dict[tuple[str, str], tuple[InstrumentKind, str]] = {
            ("otel", full_name.lower()): (kind, unit)
        }
        if self._prometheus:
            base = full_name.removesuffix("_total") if kind is InstrumentKind.COUNTER else full_name
            family = prometheus_family(base, unit)
            for suffix in _SUFFIXES[kind]:
                claims["prometheus", (family + suffix).lower()] = (kind, full_name.lower())
        if any(self._owners.get(name, owner) != owner for name, owner in claims.items()):
            return False
        self._owners.update(claims)
        return True

    def observe(self, telemetry: Telemetry) -> None:
        """Report the logger's own counters with every collection; `telemetry` is called once per collection."""
        meter = self._provider.get_meter(METER)
        for metric in SELF_METRICS:
            kind = InstrumentKind(metric.kind)
            full_name = self._full_name(metric.name)
            if full_name is None or not self._claim(full_name, kind, metric.unit):
                continue  # pragma: no cover  # our own names are valid, and claimed before any of the user's
            create = (
                meter.create_observable_counter
                if kind is InstrumentKind.COUNTER
                else meter.create_observable_up_down_counter
            )
            create(full_name, [self._observer(metric.name, telemetry)], metric.unit, metric.description)

    def _observer(
        self, name: str, telemetry: Telemetry
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        own = self._own

        def read(_: CallbackOptions) -> Iterable[Observation]:
            if name not in own:  # the first instrument of a collection reads for all of them
                fresh: dict[str, list[Observation]] = {metric.name: [] for metric in SELF_METRICS}
                with suppress(Exception):  # what could be read is reported
                    for metric_name, value, attributes in telemetry():
                        if metric_name in fresh:
                            fresh[metric_name].append(Observation(value, dict(attributes)))
                own.clear()
                own.update(fresh)
            return own.pop(name)

        return read


def to_float(value: Any) -> float | None:
    """Return the number that a value states, or None; int, bool, Decimal, text and numpy scalars state one."""
    try:
        if isinstance(value, (int, float, Decimal, str, Real)) or hasattr(value, "__float__"):
            return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # noqa: BLE001, S110  # whatever a foreign __float__ raises, it is not a number
        pass
    return None


def _scalar(value: Any) -> str | bool | int | float:
    cleaned = clean(value)
    return cleaned if isinstance(cleaned, (str, bool, int, float)) else clean_text(str(cleaned))


def _instrument(
    meter: Any, name: str, kind: InstrumentKind, unit: str, text: str, buckets: Sequence[float]
) -> _Recorder:
    if kind is InstrumentKind.GAUGE:
        gauge = meter.create_gauge(name, unit, text)
        return _limited(gauge, _gauge(gauge))
    if kind is InstrumentKind.COUNTER:
        counter = meter.create_counter(name, unit, text)
        return _limited(counter, _counter(counter.add))
    if kind is InstrumentKind.UP_DOWN_COUNTER:
        up_down = meter.create_up_down_counter(name, unit, text)
        return _limited(up_down, _finite(up_down.add))
    histogram = meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=buckets or None)
    return _limited(histogram, _histogram(histogram.record))


def _limited(instrument: Any, record: _Recorder) -> _Recorder:
    """Drop what would be one time series too many: a tag that holds an identifier would else grow without end."""
    is_full = has_no_room_for(instrument)

    def record_known(value: float, attributes: dict[str, Any]) -> str | None:
        return "too_many_series" if is_full(attributes) else record(value, attributes)

    return record_known


def _gauge(gauge: Any) -> _Recorder:
    def set_value(value: float, attributes: dict[str, Any]) -> None:
        if math.isfinite(value):
            gauge.set(value, attributes)
        else:
            set_gauge(gauge, value, attributes)

    return set_value


def _finite(add: Callable[[float, dict[str, Any]], None]) -> _Recorder:
    def record(value: float, attributes: dict[str, Any]) -> str | None:
        if not math.isfinite(value):
            return "not_finite"
        add(value, attributes)
        return None

    return record


def _counter(add: Callable[[float, dict[str, Any]], None]) -> _Recorder:
    def record(value: float, attributes: dict[str, Any]) -> str | None:
        if not math.isfinite(value):
            return "not_finite"
        if value < 0:
            return "negative_counter"
        add(value, attributes)
        return None

    return record


def _histogram(add: Callable[[float, dict[str, Any]], None]) -> _Recorder:
    def record(value: float, attributes: dict[str, Any]) -> str | None:
        if not math.isfinite(value):
            return "not_finite"
        if value < 0:
            return "negative_histogram"  # the SDK would drop it silently: sums of a histogram may only grow
        add(value, attributes)
        return None

    return record
