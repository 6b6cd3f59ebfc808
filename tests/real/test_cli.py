"""`hft-otel check` and `explain` as programs: their exit status tells a script what they found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.real.processes import ROOT, Ended, hft_otel, run

PLAN = ROOT / "tests" / "plan_blocks" / "4.2.yaml"
SECRETS = ("sk-live-0123", "hunter2", "T000/B000/abcdef", "tok-5678", "s3cr3t-header")

WITH_SECRETS = """
logging:
  backends:
    otlp:
      enabled: true
      config: {endpoint: "http://127.0.0.1:4318", headers: {authorization: "Bearer tok-5678", x-desk: s3cr3t-header}}
    datadog: {enabled: true, config: {api_key: "${DATADOG_API_KEY}"}}
    slack: {enabled: true, config: {webhook_url: "https://hooks.slack.com/services/T000/B000/abcdef"}}
    webhook: {enabled: true, config: {url: "https://bot:hunter2@alerts.example/hook"}}
  routing_rules:
    - {name: everything, backends: [otlp, datadog, slack, webhook]}
"""


def cli(folder: Path, *arguments: str | Path, **environment: str) -> Ended:
    """Run a command as wide as its tables need."""
    return run(hft_otel(*arguments), folder, COLUMNS="200", **environment)


def written(folder: Path, text: str) -> Path:
    """Write a logging.yaml."""
    path = folder / "logging.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("file", [PLAN, ROOT / "examples" / "logging.yaml"], ids=["plan", "example"])
def test_valid_file_is_explained_and_ends_with_0(tmp_path: Path, file: Path) -> None:
    ended = cli(tmp_path, "check", file)
    assert (ended.status, ended.stderr) == (0, "")
    assert f"{file} is valid" in " ".join(ended.stdout.split())
    for rule in ("metrics_to_prometheus", "errors_to_file_and_console", "debug_to_console_dev_only"):
        assert rule in ended.stdout
    assert list(tmp_path.iterdir()) == []  # checking builds and opens nothing


def test_warnings_end_with_1_only_where_they_are_asked_to(tmp_path: Path) -> None:
    text = """
    logging:
      backends:
        console: {enabled: true}
        file: {enabled: true, config: {file_path: never.log}}
      routing_rules:
        - {name: all, log_types: [TEXT], backends: [console]}
    """
    file = written(tmp_path, text)
    ended = cli(tmp_path, "check", file)
    assert ended.status == 0
    assert "warning:" in ended.stdout
    strict = cli(tmp_path, "check", file, "--strict")
    assert strict.status == 1
    assert "'file'" in strict.stdout or "file" in strict.stdout.split("warning:")[1]


BROKEN = {
    "no such file": (None, ("logging.yaml",)),
    "no mapping": ("just text", ("logging.yaml",)),
    "empty": ("", ("logging.yaml",)),
    "broken YAML": ("logging:\n  backends: [unclosed\n", ("logging.yaml:",)),
    "tab": ("logging:\n\tenvironment: dev\n", ("logging.yaml:2",)),
    "duplicate key": ("logging:\n  environment: dev\n  environment: prod\n", ("environment", "twice")),
    "unknown key": ("logging:\n  backend: {}\n", ("backend", "backends")),
    "unknown option": (
        "logging:\n  backends:\n    file: {config: {file_pth: a.log}}\n",
        ("file_pth", "file_path"),
    ),
    "wrong type": ("logging:\n  backends:\n    file: {config: {max_size_mb: many}}\n", ("max_size_mb",)),
    "unknown level": ("logging:\n  backends:\n    console: {min_level: WARNIG}\n", ("WARNIG", "WARNING")),
    "unknown backend in a rule": (
        "logging:\n  backends:\n    console: {}\n  routing_rules:\n    - {name: a, backends: [consol]}\n",
        ("consol", "console"),
    ),
    "unknown log type": (
        "logging:\n  backends:\n    console: {}\n  routing_rules:\n    - {name: a, log_types: [METRICS], backends: [console]}\n",
        ("METRICS", "METRIC"),
    ),
    "unset variable": (
        "logging:\n  backends:\n    slack: {enabled: true, config: {webhook_url: '${NOT_SET_HERE}'}}\n",
        ("NOT_SET_HERE",),
    ),
    "via a Collector that is not configured": (
        "logging:\n  backends:\n    datadog: {enabled: true, config: {api_key: abc}}\n  routing_rules:\n"
        "    - {name: a, backends: [datadog]}\n",
        ("otlp",),
    ),
    "isolation that is none": ("logging:\n  isolation: fibre\n", ("isolation", "process")),
    "not text": (b"\xff\xfe\x00logging", ("logging.yaml",)),
    "alias bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\nlogging: {redact: *d}\n",
        ("logging.yaml",),
    ),
}


@pytest.mark.parametrize("command", ["check", "explain", "demo"])
@pytest.mark.parametrize("broken", BROKEN)
def test_broken_file_ends_with_2_and_one_clear_error(tmp_path: Path, command: str, broken: str) -> None:
    content, words = BROKEN[broken]
    if isinstance(content, bytes):
        (tmp_path / "logging.yaml").write_bytes(content)
    elif content is not None:
        written(tmp_path, content)
    arguments = ("demo", "--no-collector", "--config") if command == "demo" else (command,)
    ended = cli(tmp_path, *arguments, "logging.yaml")
    assert ended.status == 2, ended.stdout + ended.stderr
    assert ended.stderr.startswith("hft-otel: ")
    assert ended.stderr.count("hft-otel: ") == 1
    assert ended.stderr.count("\n") <= 3  # where, cause, cure
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr
    assert "valid" not in ended.stdout
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    "arguments", [("check", "--strict"), ("check", "--logger", "parser.mexc"), ("explain",)]
)
def test_secrets_are_never_printed(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = written(tmp_path, WITH_SECRETS)
    ended = cli(tmp_path, arguments[0], file, *arguments[1:], DATADOG_API_KEY=SECRETS[0])
    assert "Traceback" not in ended.stderr
    for secret in SECRETS:
        assert secret not in ended.stdout + ended.stderr
    if arguments[0] == "check":
        assert ended.stdout.count("***") >= 5


@pytest.mark.parametrize(
    "breakage",
    [
        ("webhook_url: ", "webhook_ulr: "),
        ("headers: {authorization", "timeout: hunter2, headers: {authorization"),
        ("backends: [otlp,", "backends: [otlpp,"),
        ("slack: {enabled: true", "slack: {enabled: perhaps"),
        ('hook"}}', 'hook"}'),
        ('url: "https://bot', 'url: *hunter2 "https://bot'),
    ],
)
def test_errors_about_a_file_with_secrets_do_not_show_them(tmp_path: Path, breakage: tuple[str, str]) -> None:
    assert breakage[0] in WITH_SECRETS
    file = written(tmp_path, WITH_SECRETS.replace(*breakage))
    ended = cli(tmp_path, "check", file, DATADOG_API_KEY=SECRETS[0])
    assert ended.status == 2
    shown = ended.stdout + ended.stderr
    for secret in SECRETS:
        assert secret not in shown or (secret == "hunter2" and "timeout: hunter2" in breakage[1]), secret


def decided(output: str) -> dict[str, bool]:
    """Which backends get the record, as explain prints it."""
    rows = re.findall(r"^  (\w+) (gets it|does not):", output, re.MULTILINE)
    return {backend: verdict == "gets it" for backend, verdict in rows}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--type", "TEXT", "--level", "ERROR"), {"console", "file"}),
        (("--type", "TEXT", "--level", "info"), {"console"}),
        (("--type", "METRIC"), {"prometheus"}),
        (("--type", "AUDIT"), {"file"}),
        (("--level", "35", "--logger", "parser.mexc", "--context", "exchange=mexc"), {"console", "file"}),
    ],
)
def test_explain_says_who_gets_a_call_and_ends_with_0(
    tmp_path: Path, arguments: tuple[str, ...], expected: set[str]
) -> None:
    ended = cli(tmp_path, "explain", PLAN, *arguments)
    assert (ended.status, ended.stderr) == (0, "")
    verdicts = decided(ended.stdout)
    assert {backend for backend, wanted in verdicts.items() if wanted} == expected
    assert set(verdicts) == {"console", "file", "prometheus"}


def test_explain_ends_with_1_where_nobody_gets_the_call(tmp_path: Path) -> None:
    text = """
    logging:
      backends: {console: {enabled: true, min_level: ERROR}}
      routing_rules: [{name: a, min_level: WARNING, backends: [console]}]
    """
    file = written(tmp_path, text)
    assert cli(tmp_path, "explain", file, "--level", "ERROR").status == 0
    for arguments in (("--level", "INFO"), ("--level", "WARNING"), ("--type", "METRIC")):
        ended = cli(tmp_path, "explain", file, *arguments)
        assert (ended.status, ended.stderr) == (1, ""), arguments
        assert decided(ended.stdout) == {"console": False}


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", PLAN, "--level", "LOUD"),
        ("explain", PLAN, "--type", "TRACE"),
        ("explain", PLAN, "--context", "novalue"),
        ("check",),
        ("no-such-command",),
    ],
)
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: tuple[str | Path, ...]) -> None:
    ended = cli(tmp_path, *arguments)
    assert ended.status == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["check", "explain"])
def test_component_that_the_file_lacks_ends_with_2_and_the_known_names(tmp_path: Path, command: str) -> None:
    text = """
    logging:
      backends: {console: {enabled: true}}
      routing_rules: [{name: a, backends: [console]}]
      components: {parser: {min_level: ERROR}, engine: {}}
    """
    file = written(tmp_path, text)
    assert cli(tmp_path, command, file, "--component", "engine").status == 0
    ended = cli(tmp_path, command, file, "--component", "parsr")
    assert (ended.status, ended.stdout) == (2, "")
    assert 'logging.components\n  cause: unknown component "parsr"\n' in ended.stderr
    assert "did you mean parser? valid are parser, engine" in ended.stderr
    bare = written(tmp_path, "logging: {backends: {console: {enabled: true}}}")
    assert "there are none to choose from" in cli(tmp_path, command, bare, "--component", "x").stderr


def test_help_teaches_the_three_commands(tmp_path: Path) -> None:
    ended = cli(tmp_path, "--help")
    assert (ended.status, ended.stderr) == (0, "")
    for word in ("hft-otel demo", "hft-otel check", "hft-otel explain", "Exit status"):
        assert word in ended.stdout
