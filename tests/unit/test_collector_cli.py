"""`hft-otel collector`, and what `explain` and `check` say of the Collector."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hft_otel.cli import collector as command
from hft_otel.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PROD = ROOT / "collector-config" / "logging-prod.yaml"
DEV = ROOT / "collector-config" / "logging-dev.yaml"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Collector, key or width of the machine's."""
    for name in ("HFT_OTELCOL", "DATADOG_API_KEY", "HFT_ELASTICSEARCH", "HFT_JAEGER", "ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def otelcol(folder: Path, script: str, name: str = "otelcol") -> Path:
    """A program in the Collector's place, for what only its exit status and output matter."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_render_prints_what_is_checked_in() -> None:
    result = run("collector", "render", PROD, "--profile", "gateway")
    assert result.exit_code == 0
    assert result.stdout == (PROD.parent / "gateway.yaml").read_text()


def test_profile_is_by_default_that_of_the_environment(tmp_path: Path) -> None:
    assert run("collector", "render", DEV).stdout == (DEV.parent / "dev.yaml").read_text()
    result = run("collector", "render", PROD, "-o", tmp_path / "out.yaml")
    assert (tmp_path / "out.yaml").read_text() == (PROD.parent / "agent.yaml").read_text()
    assert result.stdout == ""
    assert "wrote" in result.stderr


def test_warnings_go_to_stderr(tmp_path: Path) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text("logging: {backends: {otlp: {}, file: {config: {via: collector}}}}")
    result = run("collector", "render", file)
    assert "warning: backends.file: the Collector writes OTLP" in result.stderr
    assert "warning" not in result.stdout


@pytest.mark.parametrize(
    "arguments", [("none.yaml",), (str(PROD), "--profile", "prod"), (str(PROD), "-o", "/no/where")]
)
def test_wrong_use_ends_with_2(arguments: tuple[str, ...]) -> None:
    result = run("collector", "render", *arguments)
    assert result.exit_code == 2
    assert result.stderr


def test_validate_ends_with_what_the_collector_says(tmp_path: Path) -> None:
    good = otelcol(tmp_path, 'grep -q "otlp_grpc/gateway" "${2#--config=}" && test "$1" = validate')
    result = run("collector", "validate", PROD, "--otelcol", good)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"as agent, says {good}" in result.stdout
    bad = otelcol(tmp_path, 'echo "unknown type: x" >&2; exit 1', "bad")
    result = run("collector", "validate", PROD, "--otelcol", bad)
    assert result.exit_code == 1
    assert "unknown type: x" in result.stderr
    assert "cure: it was built without that; otelcol-contrib" in result.stderr


def test_validate_needs_no_secret(tmp_path: Path) -> None:
    keyed = otelcol(tmp_path, "test ${#DATADOG_API_KEY} = 32")
    assert run("collector", "validate", PROD, "--profile", "gateway", "--otelcol", keyed).exit_code == 0


def test_without_a_collector_the_cure_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "find_otelcol", lambda: None)
    result = run("collector", "validate", PROD)
    assert result.exit_code == 2
    assert "set HFT_OTELCOL or --otelcol to one, install otelcol-contrib" in result.stderr
    result = run("collector", "validate", PROD, "--otelcol", tmp_path / "none")
    assert result.exit_code == 2
    assert "cannot be run" in result.stderr


def test_collector_is_the_named_one_then_one_on_the_path_then_the_built_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    built = command.find_otelcol()
    assert built is None or built.parent == ROOT / ".parts" / "bin"
    plain = otelcol(tmp_path, "true")
    assert command.find_otelcol() == plain
    contrib = otelcol(tmp_path, "true", "otelcol-contrib")
    assert command.find_otelcol() == contrib
    monkeypatch.setenv("HFT_OTELCOL", os.fspath(tmp_path / "mine"))
    assert command.find_otelcol() == tmp_path / "mine"


def test_explain_shows_every_hop() -> None:
    result = run("explain", PROD, "--type", "AUDIT")
    assert result.exit_code == 0
    for line in (
        "elasticsearch gets it: rule 'audit_to_file_and_elasticsearch', over otlp and the Collector",
        "from here  otlp.audit, http://127.0.0.1:4328",
        "agent      logs/file.audit -> file/audit",
        "agent      logs/gateway.audit -> otlp_grpc/gateway.audit",
        "gateway    logs/elasticsearch.audit -> elasticsearch/audit",
        "from here  otlp.traces, http://127.0.0.1:4328",
        "gateway    traces/jaeger.audit -> otlp_grpc/jaeger.audit",
    ):
        assert line in result.stdout, line
    result = run("explain", DEV, "--level", "INFO")
    assert "dev        logs/console -> debug/console" in result.stdout
    result = run("explain", PROD, "--type", "METRIC")
    assert "from here  otlp.metrics, http://127.0.0.1:4318" in result.stdout
    assert "gateway    metrics/prometheus -> prometheus" in result.stdout


def test_explain_says_audits_way_where_there_is_one_port(tmp_path: Path) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text("logging: {environment: dev, backends: {otlp: {}, elasticsearch: {}}}")
    result = run("explain", file, "--type", "AUDIT")
    assert "from here  otlp.logs, http://127.0.0.1:4318" in result.stdout


@pytest.mark.parametrize("level", ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT FIVE}", "-5", "LOUD", ""])
def test_explain_knows_no_other_level_than_names_and_numbers(level: str) -> None:
    result = run("explain", PROD, "--level", level)
    assert result.exit_code == 2
    assert f"unknown level {level!r}; valid are CRITICAL" in result.stderr
    assert "TEXT Level 25 from" in run("explain", PROD, "--level", "25").stdout


def test_check_shows_only_the_host_of_a_webhook_and_no_token_of_an_exchange(tmp_path: Path) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text(
        "logging: {global_context: {api_token_mexc: hunter2}, backends: "
        "{webhook: {config: {url: 'http://h/services/T0/B0/hunter2?key=hunter2'}}}}"
    )
    result = run("check", file)
    assert result.exit_code == 0 and "url: http://h/***" in result.output, result.output
    assert "hunter2" not in result.output


def test_explain_and_check_show_no_password_of_an_address(tmp_path: Path) -> None:
    file = tmp_path / "logging.yaml"
    for address in ("http://user:hunter2@host:4318", "user:hunter2@host:4317"):
        protocol = "http/protobuf" if "://" in address else "grpc"
        otlp = f"{{config: {{endpoint: '{address}', protocol: {protocol}}}}}"
        file.write_text(f"logging: {{environment: dev, backends: {{otlp: {otlp}, elasticsearch: {{}}}}}}")
        for arguments in (("explain", file, "--type", "AUDIT"), ("check", file)):
            result = run(*arguments)
            assert result.exit_code == 0 and "host:431" in result.output, result.output
            assert "hunter2" not in result.output
    assert "otlp.logs, host:4317" in run("explain", file, "--type", "AUDIT").stdout


def test_check_warns_of_what_the_collector_cannot_do(tmp_path: Path) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text(
        "logging: {environment: dev, backends: {otlp: {}, file: {config: {via: collector}}}, "
        "routing_rules: [{backends: [file]}]}"
    )
    result = run("check", file, "--strict")
    assert result.exit_code == 1
    assert "the Collector writes OTLP as JSON lines" in result.stdout
    assert run("check", PROD, "--strict").exit_code == 0
    assert run("check", DEV, "--strict").exit_code == 0
