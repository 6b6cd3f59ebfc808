"""Instruments by metric name: what may be said of one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

from ..config import LATENCY, InstrumentConfig, LogConfig
from ..ledger import SELF_METRICS
from ..record import InstrumentKind
from .place import Place, quoted
from .values import build, check_fields, mapping_at

__all__ = ["build_instruments", "check_instruments", "idle_instruments"]

MAX_UNIT = 63
"""Characters, by OpenTelemetry's rule."""


def build_instruments(value: Any, place: Place) -> dict[str, InstrumentConfig]:
    """Return the instruments by metric name or pattern, in the order of the file."""
    return {
        pattern: build(InstrumentConfig, mapping_at(options, place / pattern), place / pattern)
        for pattern, options in mapping_at(value, place).items()
    }


def check_instruments(instruments: Any, place: Place) -> None:
    """Raise ConfigError for an instrument that nothing can be recorded on as it says."""
    own = {metric.name for metric in SELF_METRICS}
    for pattern, instrument in mapping_at(instruments, place).items():
        here = place / pattern
        if not pattern.strip():
            raise here.error(
                f"{quoted(pattern)} matches no metric",
                "name one, such as orderbook_depth, or a pattern, such as *_usd",
            )
        if not isinstance(instrument, InstrumentConfig):
            raise here.wrong("an InstrumentConfig", instrument, "hand in InstrumentConfig(kind=...)")
        check_fields(instrument, here)
        if pattern in own:
            raise here.error("is a metric of the logger itself, whose kind and unit are fixed", "remove it")
        _check_unit(instrument.unit, here / "unit")
        if pattern == LATENCY:
            _check_latency(instrument, here)
        elif instrument.buckets and instrument.kind != InstrumentKind.HISTOGRAM:
            raise (here / "buckets").error(
                f"a {instrument.kind or InstrumentKind.GAUGE} has no buckets",
                "write kind: histogram, or remove them",
            )
        _check_buckets(instrument.buckets, here / "buckets")


def idle_instruments(config: LogConfig) -> Iterator[str]:
    """Say where a name stands behind a pattern that takes it, or is written as a dashboard has it."""
    prefixes = {str(getattr(backend, "prefix", "")) for backend in config.backends.values()} - {""}
    before: list[str] = []
    for name in config.instruments:
        if added := next((prefix for prefix in prefixes if name.startswith(prefix)), None):
            yield f'instruments: "{name}" begins with {added}, which backends add: write what metric() is given'
        taken = next((pattern for pattern in before if fnmatchcase(name, pattern)), None)
        if taken is not None and name != LATENCY:  # patterns do not speak of latency()
            yield f'instruments: "{taken}", further up, takes what "{name}" names: put it below'
        before.append(name)


def _check_unit(unit: str, place: Place) -> None:
    if len(unit) > MAX_UNIT or not unit.isascii() or not unit.isprintable() or " " in unit:
        expected = f"at most {MAX_UNIT} ASCII characters without blanks"
        raise place.wrong(expected, unit, "write the unit in UCUM, such as ms, us, By, % or {order}")


def _check_latency(instrument: InstrumentConfig, place: Place) -> None:
    if instrument.kind not in (None, InstrumentKind.HISTOGRAM):
        cause = f"latency() is recorded on a histogram, not on a {instrument.kind}"
        raise (place / "kind").error(cause, "leave kind out; metric() with another name takes any")
    if instrument.unit not in ("", "s"):
        cause = f"latencies are exported in seconds, not in {quoted(instrument.unit)}"
        raise (place / "unit").error(cause, "leave unit out, and give buckets in seconds")


def _check_buckets(buckets: list[float], place: Place) -> None:
    for number, bound in enumerate(buckets):
        if not math.isfinite(bound):
            cure = "write numbers only; what is above the last one has a bucket already"
            raise (place / number).wrong("a finite number", bound, cure)
    for number, (lower, upper) in enumerate(pairwise(buckets), 1):
        if upper <= lower:
            cause = f"bounds must rise, and {upper:g} comes after {lower:g}"
            raise (place / number).error(cause, "order them, each once")
