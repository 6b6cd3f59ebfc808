"""An audit event leaves as a log record and as a span event; YAML turns either off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hft_otel.cli.app import app
from hft_otel.collector import way_out
from hft_otel.config import ConfigError, LogConfig, OtlpConfig
from hft_otel.destinations.otlp import otlp_destinations
from hft_otel.record import LogType
from tests.unit.core_support import core
from tests.unit.otlp_stand_in import RESOURCE, Receiver, log_records, plain, spans

pytest_plugins = ["tests.unit.otlp_fixtures"]


def otlp(**options: Any) -> dict[str, Any]:
    return {"config": {"endpoint": "http://127.0.0.1:1", **options}}


@pytest.mark.parametrize(
    ("forms", "paths"),
    [
        (["logs", "traces"], {"/v1/logs": 2, "/v1/traces": 1}),
        (["logs"], {"/v1/logs": 2}),
        (["traces"], {"/v1/logs": 1, "/v1/traces": 1}),
    ],
)
def test_an_event_leaves_in_the_forms_that_are_named_and_text_always(
    forms: list[str], paths: dict[str, int], receiver: Receiver, tmp_path: Path
) -> None:
    config = OtlpConfig(endpoint=receiver.endpoint, signals=["logs", "traces"], audits=forms)
    with core(tmp_path, *otlp_destinations(config, RESOURCE)) as made:
        made.log.info("text")
        made.log.audit("filled")
        report = made.log.force_flush(30)
        assert report
        stream = made.intake.journal.stream
        made.stop()
    arrived: dict[str, int] = {}
    identities = []
    for path, request in zip(receiver.paths, receiver.requests, strict=True):
        found = log_records(request) if path == "/v1/logs" else spans(request)
        arrived[path] = arrived.get(path, 0) + len(found)
        identities += [plain(each.attributes).get("audit.id") for each in found]
    assert arrived == paths
    assert [each for each in identities if each] == [f"{stream}-0"] * len(forms)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["otlp.logs", "otlp.metrics", "otlp.traces"]),
        ({"audits": ["logs"]}, ["otlp.logs", "otlp.metrics"]),
        ({"audits": ["traces"]}, ["otlp.logs", "otlp.metrics", "otlp.traces"]),
        (
            {"audits": ["traces"], "audit_endpoint": "http://a:1"},
            ["otlp.logs", "otlp.metrics", "otlp.traces"],
        ),
        (
            {"audits": ["logs"], "audit_endpoint": "http://a:1"},
            ["otlp.logs", "otlp.metrics", "otlp.audit"],
        ),
        ({"signals": ["metrics"]}, ["otlp.metrics"]),
    ],
)
def test_destinations_follow_the_forms(options: dict[str, Any], names: list[str]) -> None:
    found = otlp_destinations(OtlpConfig(**options), RESOURCE)
    assert [each.name for each in found] == names
    audits = [each.name for each in found if LogType.AUDIT in each.accepts]
    wanted = {"logs": "otlp.audit" if "audit_endpoint" in options else "otlp.logs", "traces": "otlp.traces"}
    assert sorted(audits) == sorted(wanted[form] for form in OtlpConfig(**options).audit_signals)


@pytest.mark.parametrize(
    ("options", "cause", "cure"),
    [
        ({"audits": []}, "is empty", "name logs, traces or both"),
        ({"audits": ["spans"]}, 'unknown value "spans"', "valid are logs, traces"),
        ({"audits": ["traces"], "signals": ["logs"]}, "names traces, which signals leaves out", "add traces"),
    ],
)
def test_forms_that_cannot_be_are_refused(options: dict[str, Any], cause: str, cure: str) -> None:
    with pytest.raises(ConfigError) as raised:
        LogConfig.from_dict({"backends": {"otlp": otlp(**options)}})
    assert "logging.backends.otlp.config.audits" in str(raised.value)
    assert cause in str(raised.value) and cure in str(raised.value)


def test_forms_are_chosen_where_the_events_leave() -> None:
    behind = {"type": "otlp", **otlp(via="collector", audits=["logs"])}
    with pytest.raises(ConfigError, match="for the way to the Collector only"):
        LogConfig.from_dict({"backends": {"otlp": otlp(), "jaeger": behind}})


def test_a_backend_behind_the_collector_that_gets_no_event_is_warned_of() -> None:
    from hft_otel._validation import validate

    tempo = {"type": "otlp", **otlp(via="collector", signals=["traces"])}
    every = {"otlp": otlp(audits=["traces"]), "elasticsearch": {}, "tempo": tempo}
    config = LogConfig.from_dict({"backends": every})
    assert "backend elasticsearch gets no AUDIT: it takes logs, and audits leave as traces" in validate(
        config
    )
    assert not [each for each in validate(config) if "tempo gets no AUDIT" in each]
    assert way_out(config, "elasticsearch", LogType.AUDIT).startswith("nothing")
    assert way_out(config, "tempo", LogType.AUDIT) == "otlp.traces, http://127.0.0.1:1"
    assert way_out(config, "elasticsearch", LogType.TEXT) == "otlp.logs, http://127.0.0.1:1"


def test_an_otlp_backend_without_logs_and_traces_keeps_no_audit() -> None:
    from hft_otel._validation import keeps_audit, takes, validate

    config = LogConfig.from_dict({"backends": {"otlp": otlp(signals=["metrics"])}})
    assert takes(config.backends["otlp"]) == {LogType.METRIC}
    assert not keeps_audit(config.backends["otlp"])
    assert "AUDIT goes nowhere: enable a file, elasticsearch or otlp backend" in validate(config)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "leaves as  log record (otlp.logs) and span event (otlp.traces)"),
        (", audits: [logs]", "leaves as  log record (otlp.logs); traces is left out"),
        (
            ", audits: [traces], audit_endpoint: 'http://a:1'",
            "leaves as  span event (otlp.traces); logs is left out",
        ),
    ],
)
def test_explain_says_in_which_forms_an_event_leaves(tmp_path: Path, options: str, said: str) -> None:
    path = tmp_path / "logging.yaml"
    path.write_text(f"logging:\n  backends:\n    otlp: {{config: {{endpoint: 'http://h:1'{options}}}}}\n")
    shown = CliRunner().invoke(app, ["explain", str(path), "--type", "AUDIT"])
    assert said in shown.stdout, shown.output
    assert "leaves as" not in CliRunner().invoke(app, ["explain", str(path), "--type", "TEXT"]).stdout
