"""Any OpenTelemetry exporter as a destination, whatever it returns, raises or waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hft_otel.config import ConfigError
from hft_otel.destinations.base import RetryLater
from hft_otel.destinations.exporters import (
    LogsDestination,
    MetricsDestination,
    SpansDestination,
    destination_for,
)
from hft_otel.record import InstrumentKind
from tests.unit.otlp_stand_in import audit, metric, text

RESOURCE = Resource({"service.name": "test"})


class Scripted(LogRecordExporter):
    """Does with each batch what `act` says, and keeps what it took."""

    def __init__(self, act: Callable[[list[str]], Any] = lambda _: LogRecordExportResult.SUCCESS) -> None:
        self.act = act
        self.taken: list[str] = []
        self.calls = 0
        self.closed = threading.Event()
        self.flushes = True

    def export(self, batch: Sequence[Any]) -> Any:
        self.calls += 1
        bodies = [entry.log_record.body for entry in batch]
        result = self.act(bodies)
        if result is not LogRecordExportResult.FAILURE:
            self.taken += bodies
        return result

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return self.flushes

    def shutdown(self) -> None:
        self.closed.set()


def logs_to(exporter: LogRecordExporter) -> Any:
    destination = destination_for(exporter, "mine", resource=RESOURCE)
    destination.open()
    return destination


def texts(count: int) -> list[Any]:
    return [text(f"message {number}") for number in range(count)]


def test_instances_become_the_destination_of_their_kind() -> None:
    assert type(destination_for(InMemoryLogRecordExporter(), "a", resource=RESOURCE)) is LogsDestination
    assert type(destination_for(InMemorySpanExporter(), "b", resource=RESOURCE)) is SpansDestination
    metrics = destination_for(Metrics(), "c", resource=RESOURCE, prefix="x_", interval=1.0)
    assert (type(metrics), metrics.name) == (MetricsDestination, "c")


class Configured(Scripted):
    def __init__(self, *, url: str, size: int = 3) -> None:
        super().__init__()
        self.url = url


def test_class_is_built_from_its_options_when_opened() -> None:
    built: list[Any] = []

    class Noted(Configured):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            built.append(self)

    destination = destination_for(Noted, "mine", resource=RESOURCE, config={"url": "x"})
    assert built == []
    destination.open()
    assert built[0].url == "x"


def test_class_that_does_not_take_its_options_is_refused() -> None:
    with pytest.raises(ConfigError, match="uri") as caught:
        destination_for(Configured, "mine", resource=RESOURCE, config={"url": "x", "uri": "y"})
    assert "arguments that its constructor takes" in str(caught.value)


def test_what_is_no_exporter_is_refused() -> None:
    with pytest.raises(ConfigError, match="no OpenTelemetry exporter"):
        destination_for(object(), "mine", resource=RESOURCE)


def test_records_reach_an_exporter_of_log_records() -> None:
    exporter = InMemoryLogRecordExporter()
    destination = logs_to(exporter)
    assert destination.deliver([text("hello", context={"a": 1}), audit("trade")]) == []
    first, second = exporter.get_finished_logs()
    assert (first.log_record.body, dict(first.log_record.attributes or {})) == ("hello", {"a": 1})
    assert second.log_record.event_name == "audit.trade"
    assert destination.deliver([]) == []


def test_audits_reach_an_exporter_of_spans() -> None:
    exporter = InMemorySpanExporter()
    destination = destination_for(exporter, "mine", resource=RESOURCE)
    assert destination.deliver([audit("trade", "a-1")]) == []  # opens by itself
    [span] = exporter.get_finished_spans()
    assert span.events[0].name == "audit.trade"
    assert span.resource == RESOURCE


@pytest.mark.parametrize("result", [LogRecordExportResult.FAILURE, SpanExportResult.FAILURE, False])
def test_failure_is_retried_later(result: Any) -> None:
    exporter = Scripted(lambda _: result)
    with pytest.raises(RetryLater, match="Scripted returned") as caught:
        logs_to(exporter).deliver(texts(5))
    assert (caught.value.reason, caught.value.delivered) == ("export_failed", 0)
    assert exporter.calls == 1


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("down"), TimeoutError("slow"), OSError(28, "disk full")]
)
def test_broken_connection_is_retried_later(error: Exception) -> None:
    def act(_: list[str]) -> None:
        raise error

    with pytest.raises(RetryLater) as caught:
        logs_to(Scripted(act)).deliver(texts(5))
    assert caught.value.reason == "connection_error"


def test_exporter_that_returns_nothing_has_succeeded() -> None:
    assert logs_to(Scripted(lambda _: None)).deliver(texts(5)) == []


def test_record_that_makes_the_exporter_raise_is_rejected_alone() -> None:
    def act(bodies: list[str]) -> LogRecordExportResult:
        if "poison" in bodies:
            raise ValueError("cannot encode")
        return LogRecordExportResult.SUCCESS

    exporter = Scripted(act)
    batch = [*texts(9), text("poison"), *texts(22)]
    assert [(r.record.message, r.reason) for r in logs_to(exporter).deliver(batch)] == [
        ("poison", "exporter_raised")
    ]
    assert exporter.taken == [r.message for r in batch if r.message != "poison"]


def test_exporter_that_raises_for_everything_is_retried_later() -> None:
    def act(_: list[str]) -> None:
        raise RuntimeError("not ready")

    exporter = Scripted(act)
    for size in (1, 3, 512):
        exporter.calls = 0
        with pytest.raises(RetryLater, match="not ready") as caught:
            logs_to(exporter).deliver(texts(size))
        assert (caught.value.reason, caught.value.delivered) == ("exporter_raised", 0)
        assert exporter.calls < 40


def test_record_that_cannot_be_converted_is_rejected_alone() -> None:
    exporter = Scripted()
    broken = text("broken")
    broken.context = None  # type: ignore[assignment]  # made by hand
    assert [r.reason for r in logs_to(exporter).deliver([*texts(3), broken])] == ["not_convertible"]
    assert len(exporter.taken) == 3


def test_delivered_front_is_named_when_the_rest_has_to_wait() -> None:
    taken: list[str] = []

    def act(bodies: list[str]) -> LogRecordExportResult:
        if len(bodies) > 2:
            raise ValueError("too many")
        if len(taken) >= 4:
            return LogRecordExportResult.FAILURE
        taken.extend(bodies)
        return LogRecordExportResult.SUCCESS

    with pytest.raises(RetryLater) as caught:
        logs_to(Scripted(act)).deliver(texts(8))
    assert (taken, caught.value.delivered) == ([f"message {n}" for n in range(4)], 4)


def test_what_was_settled_is_forgotten_when_other_records_come() -> None:
    up = False

    def act(bodies: list[str]) -> LogRecordExportResult:
        if "poison" in bodies:
            raise ValueError("cannot encode")
        return (
            LogRecordExportResult.SUCCESS if up or bodies == ["message 0"] else LogRecordExportResult.FAILURE
        )

    exporter = Scripted(act)
    destination = logs_to(exporter)
    batch = [text("message 0"), text("poison"), text("message 1"), text("message 2")]
    with pytest.raises(RetryLater) as caught:
        destination.deliver(batch)
    assert caught.value.delivered == 1
    up = True
    assert destination.deliver(texts(2)) == []
    assert [r.record for r in destination.deliver(batch[1:])] == [batch[1]]


def test_flush_asks_the_exporter() -> None:
    exporter = Scripted()
    destination = destination_for(exporter, "mine", resource=RESOURCE)
    assert destination.force_flush(1.0)
    destination.open()
    assert destination.force_flush(1.0)
    exporter.flushes = False
    assert not destination.force_flush(1.0)


def test_exporter_without_a_flush_has_nothing_to_flush() -> None:
    class Bare:
        def export(self, batch: Any) -> None: ...

        def shutdown(self) -> None: ...

    from hft_otel.otel.transport import Foreign

    destination = LogsDestination(lambda: Foreign(Bare()), name="bare", resource=RESOURCE)
    destination.open()
    assert destination.force_flush(1.0)


def test_exporter_that_hangs_cannot_hold_up_flush_or_close() -> None:
    release = threading.Event()

    class Hanging(Scripted):
        def force_flush(self, timeout_millis: int = 10_000) -> bool:
            return release.wait(30)

        def shutdown(self) -> None:
            release.wait(30)

    destination = logs_to(Hanging())
    started = time.monotonic()
    assert not destination.force_flush(0.05)
    destination.close(0.05)
    destination.close(0.05)
    assert time.monotonic() - started < 2
    release.set()


def test_close_shuts_the_exporter_down() -> None:
    exporter = Scripted()
    destination = logs_to(exporter)
    destination.close(1.0)
    assert exporter.closed.is_set()


def test_levels_and_types_decide_what_is_handled() -> None:
    destination = logs_to(Scripted())
    assert destination.should_handle(text("x"))
    assert not destination.should_handle(metric("x", 1))


class Metrics(MetricExporter):
    def __init__(self, act: Callable[[], Any] = lambda: MetricExportResult.SUCCESS) -> None:
        super().__init__()
        self.act = act
        self.exports: list[dict[str, Any]] = []
        self.closed = threading.Event()

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any) -> Any:
        found = {m.name: m for r in metrics_data.resource_metrics for s in r.scope_metrics for m in s.metrics}
        self.exports.append(found)
        return self.act()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.closed.set()


@pytest.fixture
def metrics_to() -> Iterator[Any]:
    made: list[Any] = []

    def open_one(exporter: Metrics, interval: float = 3600.0) -> Any:
        destination = destination_for(exporter, "mine", resource=RESOURCE, interval=interval)
        made.append(destination)
        return destination

    yield open_one
    for destination in made:
        destination.close(1.0)


def test_measurements_are_aggregated_and_exported_on_flush(metrics_to: Any) -> None:
    exporter = Metrics()
    destination = metrics_to(exporter)
    assert destination.force_flush(1.0)  # nothing is open, nothing is left
    for _ in range(3):
        assert destination.deliver([metric("fills", 1, InstrumentKind.COUNTER)]) == []
    assert exporter.exports == []
    assert destination.force_flush(5.0)
    assert exporter.exports[0]["hft.fills"].data.data_points[0].value == 3
    assert destination.exports_succeeded == 1


def test_flush_with_nothing_to_export_succeeds(metrics_to: Any) -> None:
    exporter = Metrics()
    destination = metrics_to(exporter)
    destination.open()
    assert destination.force_flush(5.0)
    assert exporter.exports == []


def test_last_export_happens_at_close(metrics_to: Any) -> None:
    exporter = Metrics()
    destination = metrics_to(exporter)
    destination.deliver([metric("depth", 5)])
    destination.close(5.0)
    assert set(exporter.exports[0]) == {"hft.depth"}
    assert exporter.closed.is_set()
    destination.close(5.0)
    assert len(exporter.exports) == 1


def raising() -> None:
    raise RuntimeError("no way")


@pytest.mark.parametrize(
    ("act", "error"), [(lambda: MetricExportResult.FAILURE, "FAILURE"), (raising, "no way")]
)
def test_failed_metric_exports_are_counted_with_their_cause(metrics_to: Any, act: Any, error: str) -> None:
    exporter = Metrics(act)
    destination = metrics_to(exporter)
    destination.deliver([metric("depth", 5)])
    assert not destination.force_flush(5.0)
    assert (destination.exports_succeeded, destination.exports_failed) == (0, 1)
    assert error in destination.export_error
    exporter.act = lambda: MetricExportResult.SUCCESS
    assert destination.force_flush(5.0)
    assert (destination.exports_succeeded, destination.export_error) == (1, "")


def test_collection_that_raises_is_counted(metrics_to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = metrics_to(Metrics())
    destination.open()
    monkeypatch.setattr(destination._reader, "_collect", lambda *_, **__: raising())
    assert not destination.force_flush(5.0)
    assert (destination.exports_failed, destination.export_error) == (1, "RuntimeError: no way")


def test_own_counters_leave_with_the_metrics(metrics_to: Any) -> None:
    exporter = Metrics()
    destination = metrics_to(exporter)
    destination.telemetry = lambda: [("telemetry.emitted", 7.0, {"type": "TEXT"})]
    destination.open()
    assert destination.force_flush(5.0)
    assert exporter.exports[0]["hft.telemetry.emitted"].data.data_points[0].value == 7.0


def test_hanging_metric_exporter_holds_up_neither_deliver_nor_close(metrics_to: Any) -> None:
    release = threading.Event()
    destination = metrics_to(Metrics(lambda: release.wait(30)), interval=0.01)
    destination.deliver([metric("depth", 5)])
    started = time.monotonic()
    assert not destination.force_flush(0.05)
    for _ in range(100):
        destination.deliver([metric("depth", 5)])
    destination.close(0.1)
    assert time.monotonic() - started < 2
    release.set()


def test_span_exporter_failure_is_retried_later() -> None:
    class Failing(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.FAILURE

    destination = destination_for(Failing, "mine", resource=RESOURCE)
    with pytest.raises(RetryLater):
        destination.deliver([audit("x")])
    destination.close(1.0)
