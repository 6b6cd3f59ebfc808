"""How the real parts are brought: what is refused, left out or failed, and the exit status of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.parts import BuildError, UnavailableError, catalog, cli, collectors, model, steps

REFUSAL = """\
go: example.org/contrib/exporter/elasticsearchexporter@v0.161.0: reading https://proxy.example.org/x.zip: 403 Forbidden
\tserver response: This module version is not available.
go: example.org/contrib/connector/datadogconnector@v0.161.0: reading https://proxy.example.org/x.mod: 403 Forbidden
go: example.org/contrib/exporter/elasticsearchexporter@v0.161.0: reading https://proxy.example.org/x.zip: 403 Forbidden
go: example.org/contrib/exporter/fileexporter@v0.161.0: reading https://proxy.example.org/x.zip: 404 Not Found
"""
NOT_VOUCHED_FOR = """\
go: example.org/profiler@v0.0.2: verifying module: example.org/profiler@v0.0.2: reading \
https://proxy.example.org/sumdb/sum.golang.org/lookup/example.org/profiler@v0.0.2: 404 Not Found
go: example.org/agent@v0.1.0: verifying go.mod: example.org/agent@v0.1.0/go.mod: reading \
https://proxy.example.org/sumdb/sum.golang.org/lookup/example.org/agent@v0.1.0: 404 Not Found
"""


def test_refused_modules_are_named_once() -> None:
    assert steps.refused_modules(REFUSAL) == ["datadogconnector@v0.161.0", "elasticsearchexporter@v0.161.0"]
    assert steps.refused_modules(NOT_VOUCHED_FOR) == ["agent@v0.1.0", "profiler@v0.0.2"]
    assert steps.refused_modules("./main.go:3:1: syntax error") == []


def test_go_is_asked_for_just_what_a_manifest_lists() -> None:
    text = collectors.FULL_MANIFEST.read_text()
    listed = yaml.safe_load(text)
    replaced = listed.pop("replaces")
    del listed["dist"]
    modules = {each["gomod"] for part in listed.values() for each in part}
    asked = collectors.go_mod(text).splitlines()
    required = {line.removeprefix("require ") for line in asked if line.startswith("require ")}
    assert required == modules | {"go.opentelemetry.io/collector/otelcol v0.161.0"}
    assert [line for line in asked if line.startswith("replace ")] == [f"replace {each}" for each in replaced]


def test_manifest_without_a_receiver_names_no_release() -> None:
    with pytest.raises(BuildError, match="names no otlpreceiver"):
        collectors.go_mod("receivers: []")


def test_step_that_is_refused_a_module_is_no_failed_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PARTS", tmp_path)
    monkeypatch.setattr(steps, "ROOT", tmp_path)
    (tmp_path / "said").write_text(REFUSAL)
    refused = ["sh", "-c", "cat said; exit 1"]
    with pytest.raises(UnavailableError, match=r"refuses datadogconnector@v0\.161\.0, .*HFT_OTELCOL"):
        steps.run("full", "a step", refused, cwd=tmp_path)
    # What an earlier step was refused stands in the same log, and is no reason for this one.
    with pytest.raises(BuildError, match="ended with status 2"):
        steps.run("full", "another step", ["sh", "-c", "echo broken; exit 2"], cwd=tmp_path)


@pytest.mark.parametrize(("wish", "left_out"), [("1", False), ("0", True)])
def test_environment_decides_on_the_full_collector(
    wish: str, left_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFT_FULL_COLLECTOR", wish)
    reason = collectors.leave_out_full()
    assert (reason is not None) is left_out


def test_small_machine_leaves_the_full_collector_out_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HFT_FULL_COLLECTOR", raising=False)
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert "HFT_FULL_COLLECTOR=1 asks for it" in str(collectors.leave_out_full())
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 8_000_000)
    assert collectors.leave_out_full() is None


def only(part: str, patch: pytest.MonkeyPatch) -> None:
    """Let there be this part alone, and not be on this machine."""
    patch.delenv("HFT_OTELCOL", raising=False)
    patch.setattr(cli, "ALL", {part: catalog.ALL[part]})
    for module in (cli, catalog):
        patch.setattr(module, "locate", lambda _: None)


def test_optional_part_that_is_left_out_is_said_and_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFT_FULL_COLLECTOR", "0")
    only("collector-full", monkeypatch)
    assert cli.main(["all"]) == cli.EXIT_OK
    assert (
        "collector-full: left out, and its tests are skipped: HFT_FULL_COLLECTOR=0" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("error", "all_of_them", "alone"),
    [
        (UnavailableError("refuses x@v1"), cli.EXIT_OK, cli.EXIT_UNAVAILABLE),
        (BuildError("checksum mismatch"), cli.EXIT_FAILED, cli.EXIT_FAILED),
    ],
)
def test_collector_with_elasticsearch_may_be_refused_but_not_fail(
    error: Exception,
    all_of_them: int,
    alone: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def bring(_: str) -> None:
        raise error

    only("collector-elasticsearch", monkeypatch)
    monkeypatch.setattr(cli, "bring", bring)
    assert cli.main(["all"]) == all_of_them
    assert cli.main(["collector-elasticsearch"]) == alone
    assert str(error) in capsys.readouterr().out


@pytest.mark.parametrize(("part", "expected"), [("collector", 3), ("opensearch", 0)])
def test_part_that_is_not_there_is_an_error_unless_it_is_optional(
    part: str, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(part, monkeypatch)
    assert cli.main(["all", "--where"]) == expected
    assert "\t-" in capsys.readouterr().out
    assert cli.main([part, "--where"]) == cli.EXIT_UNAVAILABLE


def test_collector_with_elasticsearch_is_the_small_one_and_that_exporter() -> None:
    small, more = (
        yaml.safe_load(file.read_text()) for file in (collectors.MANIFEST, collectors.ELASTICSEARCH_MANIFEST)
    )
    (added,) = [each for each in more["exporters"] if each not in small["exporters"]]
    assert "/elasticsearchexporter " in added["gomod"]
    more["exporters"].remove(added)
    replaced = [line.partition(" => ")[2] for line in more.pop("replaces")]
    pinned = [line.split() for line in collectors.SUMS.read_text().splitlines()]
    sums = {f"{module} {version}" for module, version, _ in pinned}
    assert {replaced[0], f"{replaced[0]}/go.mod"} <= sums
    assert {**more, "dist": 0} == {**small, "dist": 0}


def test_command_line_runs_with_the_standard_library_alone_and_names_every_program() -> None:
    no_packages = [sys.executable, "-S", "-m", "tools.parts", "--where"]
    done = subprocess.run(
        no_packages, capture_output=True, text=True, check=False, cwd=model.ROOT, timeout=60
    )
    assert done.returncode in (cli.EXIT_OK, cli.EXIT_UNAVAILABLE), done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == list(catalog.PROGRAMS)
