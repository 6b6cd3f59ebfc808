"""Audit events over OTLP: however they were sampled, and once more by replay; the same events, with the same identities."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from hft_otel.audit.trail import Keeping
from hft_otel.audit.verify import verify
from hft_otel.cli.app import app
from hft_otel.config import JournalConfig, OtlpConfig
from hft_otel.destinations.otlp import otlp_destinations
from tests.unit.audit_support import Desk, make_trail
from tests.unit.core_support import Process, core
from tests.unit.otlp_stand_in import RESOURCE, Receiver, log_records, plain, spans

pytest_plugins = ["tests.unit.otlp_fixtures"]
pytestmark = pytest.mark.usefixtures("no_otel_variables")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_trail(tmp_path / "journal", 60)


def logged(receiver: Receiver) -> list[dict[str, Any]]:
    """The attributes of the log records that arrived, each with its event name."""
    return [
        {**plain(record.attributes), "event_name": record.event_name}
        for path, request in zip(receiver.paths, receiver.requests, strict=False)
        if path == "/v1/logs"
        for record in log_records(request)
    ]


def spanned(receiver: Receiver) -> list[tuple[str, list[str]]]:
    """The identity of each span that arrived, and the names of its events."""
    return [
        (plain(span.attributes)["audit.id"], [event.name for event in span.events])
        for path, request in zip(receiver.paths, receiver.requests, strict=False)
        if path == "/v1/traces"
        for span in spans(request)
    ]


def say(made: Process, number: int) -> None:
    for each in range(number):
        made.log.audit("order_filled", number=each)
        if each % 100 == 99:  # the segments of this journal are small
            assert made.log.force_flush(30)


@pytest.mark.parametrize("how", ["no span", "sampled out", pytest.param("one span", marks=pytest.mark.slow)])
def test_every_event_arrives_once_as_event_and_as_span_event(
    how: str, receiver: Receiver, tmp_path: Path
) -> None:
    number = 10_000 if how == "one span" else 1_000
    config = OtlpConfig(endpoint=receiver.endpoint, signals=["logs", "traces"])
    with core(tmp_path, *otlp_destinations(config, RESOURCE)) as made:
        if how == "no span":
            say(made, number)
        else:
            sampler = ALWAYS_ON if how == "one span" else ALWAYS_OFF
            provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
            with provider.get_tracer("t").start_as_current_span("order"):
                say(made, number)
        assert made.log.force_flush(60)
        stream = made.intake.journal.stream
        made.stop()
    expected = Counter(f"{stream}-{each}" for each in range(number))
    assert Counter(entry["audit.id"] for entry in logged(receiver)) == expected
    arrived = spanned(receiver)
    assert Counter(identity for identity, _ in arrived) == expected
    assert {tuple(names) for _, names in arrived} == {("audit.order_filled",)}


def test_an_anchor_arrives_over_otlp_as_an_event_of_its_own_name(receiver: Receiver, tmp_path: Path) -> None:
    config = OtlpConfig(endpoint=receiver.endpoint, signals=["logs", "traces"])
    parts = otlp_destinations(config, RESOURCE)
    with core(tmp_path, *parts) as made:
        made.log.warning("starts the worker")
        assert made.log.force_flush(30)
        made.worker.keep(Keeping.of(JournalConfig()))
        made.log.audit("order_filled")
        assert made.log.force_flush(30)
        made.stop(20)
    (verdict,) = verify(tmp_path)
    (anchor,) = [entry for entry in logged(receiver) if entry["event_name"] == "hft.audit.anchor"]
    assert (anchor["audit.stream"], anchor["audit.seq"]) == (verdict.stream, 0)
    assert "audit.id" not in anchor
    assert len(spanned(receiver)) == 1
    assert (verdict.problems, verdict.anchored) == ([], 0)


class TestReplay:
    def run(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, ["audit", "replay", *map(str, arguments)])

    def test_sends_a_range_to_an_endpoint_with_its_identities(self, desk: Desk, receiver: Receiver) -> None:
        again = ("--to", receiver.endpoint, "--first", 10, "--last", 19, "--stream", desk.stream, "--json")
        for _ in range(2):
            done = self.run(desk.folder, *again)
            assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["events"] == 10
        assert [(each["destination"], each["delivered"]) for each in told["destinations"]] == [
            ("otlp.logs", 10),
            ("otlp.traces", 10),
        ]
        twice = Counter({f"{desk.stream}-{number}": 2 for number in range(10, 20)})
        assert Counter(entry["audit.id"] for entry in logged(receiver)) == twice
        assert Counter(identity for identity, _ in spanned(receiver)) == twice

    def test_goes_by_a_configuration_and_leaves_its_files_alone(
        self, desk: Desk, receiver: Receiver, tmp_path: Path
    ) -> None:
        file = tmp_path / "out.jsonl"
        path = tmp_path / "logging.yaml"
        path.write_text(
            "logging:\n  backends:\n"
            f"    file: {{config: {{file_path: {file}, format: json}}}}\n"
            f"    otlp: {{config: {{endpoint: '{receiver.endpoint}', signals: [logs, metrics]}}}}\n"
            "  routing_rules:\n  - {log_types: [AUDIT], backends: [otlp, file]}\n  - {backends: [file]}\n"
        )
        done = self.run(desk.folder, "--to", path)
        assert done.exit_code == 0, done.output
        assert "otlp.logs: 60 delivered" in done.stdout
        assert not file.exists()
        assert self.run(desk.folder, "--to", path, "--backend", "file").exit_code == 0
        assert len(file.read_text().splitlines()) == 60

    def test_says_what_was_not_taken(self, desk: Desk) -> None:
        done = self.run(desk.folder, "--to", "http://127.0.0.1:9", "--timeout", 0.5)
        assert done.exit_code == 1
        why = "127.0.0.1:9: unreachable (connection refused)"
        assert f"otlp.logs: 0 delivered, 60 not delivered in 0.5 s: {why}" in done.stdout

    def test_says_how_far_it_is_and_what_is_in_the_way(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hft_otel.cli.audit_replay._EVERY", 0.2)
        done = self.run(desk.folder, "--to", "http://127.0.0.1:9", "--timeout", 1, "--json")
        assert "60 events read so far; otlp.logs has 0 (127.0.0.1:9: unreachable (" in done.stderr
        assert set(json.loads(done.stdout)["problems"]) == {"otlp.logs", "otlp.traces"}

    def test_says_that_there_was_nothing_to_send(self, desk: Desk, receiver: Receiver) -> None:
        assert self.run(desk.folder, "--to", receiver.endpoint, "--first", 1000).exit_code == 1

    def test_says_what_cannot_be_used(self, desk: Desk, tmp_path: Path) -> None:
        path = tmp_path / "logging.yaml"
        path.write_text("logging: {backends: {console: {enabled: true}}}\n")
        assert "no otlp backend" in self.run(desk.folder, "--to", path).stderr
        assert "it has console" in self.run(desk.folder, "--to", path, "--backend", "otlp").stderr
        assert self.run(desk.folder, "--to", tmp_path / "none.yaml").exit_code == 2
