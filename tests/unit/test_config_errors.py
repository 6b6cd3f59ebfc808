"""What a configuration that cannot be used says: place, cause, cure; and what one that does nothing says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hft_otel._validation import validate
from hft_otel.config import (
    BackendConfig,
    ComponentConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    JournalConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    WebhookConfig,
)


def error_of(data: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        LogConfig.from_dict(data, source="app.yaml")
    error = caught.value
    assert error.file == "app.yaml"
    assert error.cure
    assert len(str(error).splitlines()) <= 3
    assert error.__suppress_context__ or error.__context__ is None
    return error


def backend(name: str, **options: Any) -> dict[str, Any]:
    return {"backends": {name: options}}


def rule(**options: Any) -> dict[str, Any]:
    return {"backends": {"file": None, "console": None}, "routing_rules": [{"backends": ["file"], **options}]}


@pytest.mark.parametrize(
    ("data", "path", "cause", "cure"),
    [
        # unknown names
        ({"backend": {}}, "backend", 'unknown key "backend"', "did you mean backends? valid are environment, backends"),
        ({"source": "x"}, "source", 'unknown key "source"', "valid are environment"),
        ({"zzz": None}, "zzz", 'unknown key "zzz"', "valid are environment"),
        (backend("promtheus"), "backends.promtheus", 'unknown backend "promtheus"', "did you mean prometheus?"),
        (backend("mine"), "backends.mine", 'unknown backend "mine"', 'needs class: "package.module:Name"'),
        (backend("a", type="fil"), "backends.a.type", 'unknown type "fil"', "did you mean file?"),
        (backend("file", config={"max_size": 1}), "backends.file.config.max_size", "unknown key", "did you mean max_size_mb?"),
        (backend("file", max_size=1), "backends.file.max_size", "unknown key", "did you mean max_size_mb?"),
        (backend("otlp", sent="sdk"), "backends.otlp.sent", "unknown key", "valid are enabled"),
        (backend("m", **{"class": "a:B", "port": 1}), "backends.m.port", "unknown key", "the class's own stand in config:"),
        ({"journal": {"foldr": "x"}}, "journal.foldr", "unknown key", "did you mean folder?"),
        ({"components": {"p": {"contxt": {}}}}, "components.p.contxt", "unknown key", "did you mean context?"),
        # wrong types and ranges
        (backend("file", config={"max_size_mb": "big"}), "backends.file.config.max_size_mb", 'expected a number greater than 0 and at most 1,000,000,000, found "big" (text)', "without quotes"),
        (backend("file", config={"max_size_mb": 0}), "backends.file.config.max_size_mb", "found 0", "write a number greater than 0"),
        (backend("file", config={"max_size_mb": float("nan")}), "backends.file.config.max_size_mb", "found nan", "write a number"),
        (backend("file", config={"backup_count": True}), "backends.file.config.backup_count", "expected a whole number from 0 to 100,000, found true", "write a whole"),
        (backend("file", config={"backup_count": 1.5}), "backends.file.config.backup_count", "found 1.5", "write a whole"),
        (backend("prometheus", port=70000), "backends.prometheus.port", "expected a whole number from 0 to 65,535, found 70000", "write"),
        (backend("prometheus", port=10**30), "backends.prometheus.port", "found 1000", "write"),
        (backend("prometheus", flush_interval=float("inf")), "backends.prometheus.flush_interval", "found inf", "write"),
        (backend("file", config={"file_path": 5}), "backends.file.config.file_path", "expected text, found 5", "put it in quotes"),
        (backend("file", config={"file_path": Path("x")}), "backends.file.config.file_path", "found a value of type PosixPath", "write text"),
        (backend("file", config={"file_path": None}), "backends.file.config.file_path", "found nothing (null)", "write text"),
        (backend("console", enabled="yes"), "backends.console.enabled", 'expected true or false, found "yes" (text)', "without quotes"),
        (backend("console", enabled=None), "backends.console.enabled", "found nothing (null)", "write true or false"),
        (backend("datadog", tags="env:dev"), "backends.datadog.tags", 'expected a list, found "env:dev" (text)', "[a, b]"),
        (backend("datadog", tags=["a", 1.0]), "backends.datadog.tags[1]", "expected text, found 1.0", "put it in quotes"),
        (backend("otlp", config={"headers": ["a"]}), "backends.otlp.config.headers", "expected a mapping, found a list", "write keys"),
        (backend("otlp", config={"headers": {1: "a"}}), "backends.otlp.config.headers", "expected text as the key", "put the key in quotes"),
        (backend("otlp", config={"signals": ["log"]}), "backends.otlp.config.signals[0]", 'unknown value "log"', "did you mean logs?"),
        (backend("otlp", config={"protocol": "http"}), "backends.otlp.config.protocol", 'unknown value "http"', "valid are http/protobuf, grpc"),
        (backend("file", config={"format": "jsn"}), "backends.file.config.format", 'unknown value "jsn"', "did you mean json?"),
        (backend("file", via="collectr"), "backends.file.via", 'unknown value "collectr"', "did you mean collector?"),
        (backend("console", config=["color"]), "backends.console.config", "expected a mapping, found a list", "write keys"),
        ({"backends": {"console": True}}, "backends.console", "expected a mapping, found true", "write keys"),
        ({"backends": ["console"]}, "backends", "expected a mapping, found a list", "write keys"),
        ({"backends": {5: None}}, "backends", "expected text as the key, found 5", "put the key in quotes"),
        ({"routing_rules": {"a": 1}}, "routing_rules", "expected a list of rules, found a mapping", "dash"),
        ({"routing_rules": ["a"]}, "routing_rules[0]", "expected a mapping", "write keys"),
        ({"environment": True}, "environment", "expected text, found true", "put it in quotes"),
        ({"environment": " "}, "environment", "is empty", "name the environment"),
        ({"global_context": {1: 2}}, "global_context", "expected text as the key", "put the key in quotes"),
        ({"redact": "account"}, "redact", "expected a list", "[a, b]"),
        ({"exit_timeout": -1}, "exit_timeout", "expected a number from 0 to 3,600, found -1", "write"),
        ({"journal": {"segment_kb": 0}}, "journal.segment_kb", "expected a whole number from 4", "write"),
        # levels
        ({"min_level": "WARNNG"}, "min_level", 'unknown level "WARNNG"', "did you mean WARNING? valid are DEBUG, INFO"),
        ({"min_level": 30}, "min_level", "expected the name of a level, found 30", "write DEBUG, INFO"),
        (backend("file", min_level="LOUD"), "backends.file.min_level", 'unknown level "LOUD"', "valid are DEBUG"),
        (rule(min_level=30), "routing_rules[0].min_level", "expected the name of a level, found 30", "write DEBUG"),
        (rule(max_level="inf"), "routing_rules[0].max_level", 'unknown level "inf"', "did you mean INFO?"),
        (rule(min_level="ERROR", max_level="INFO"), "routing_rules[0]", "min_level is above max_level", "swap"),
        (backend("otlp", config={"protocol": 5}), "backends.otlp.config.protocol", "expected one of http/protobuf, grpc, found 5", "put it in quotes"),
        # structure of backends
        (backend("file", config={"enabled": True}), "backends.file.config.enabled", "one level too deep", "move it up"),
        (backend("file", file_path="a", config={"file_path": "b"}), "backends.file.file_path", "given twice", "remove one"),
        (backend("x", **{"class": "a:B", "type": "file"}), "backends.x", "both class: and type:", "keep the one"),
        (backend("x", **{"class": "a.B"}), "backends.x.class", 'expected a class, found "a.B" (text)', "package.module:Name"),
        (backend("x", **{"class": 5}), "backends.x.class", "expected text, found 5", "put it in quotes"),
        # what does not fit together
        ({"agent": {"linger": -1}}, "agent.linger", "expected a number from 0", "write"),
        ({"agent": {"cpus": ["one"]}}, "agent.cpus[0]", "expected a whole number", "without quotes"),
        ({"lanes": {"foldr": "x"}}, "lanes.foldr", "unknown key", "did you mean folder?"),
        ({"isolation": "threads"}, "isolation", 'unknown value "threads"', "did you mean thread?"),
        (backend("datadog"), "backends.datadog", "no otlp backend is enabled", "otlp: {enabled: true}"),
        (backend("file", via="collector"), "backends.file", "no otlp backend is enabled", "otlp: {enabled: true}"),
        ({"backends": {"datadog": {}, "otlp": {"enabled": False}}}, "backends.datadog", "no otlp backend", "enable one"),
        (backend("datadog", via="sdk"), "backends.datadog.config.via", "through the Collector only", "write via: collector"),
        (backend("elasticsearch", config={"via": "sdk"}), "backends.elasticsearch.config.via", "through the Collector only", "via: collector"),
        (backend("slack", via="collector"), "backends.slack.config.via", "by this process only", "leave via out"),
        (backend("slack"), "backends.slack.config.webhook_url", "is missing", "set webhook_url, or enabled: false"),
        (backend("webhook", url="ftp://x"), "backends.webhook.config.url", "expected a URL, found ***", "http://"),
        (backend("webhook", url="http://h:port/"), "backends.webhook.config.url", "expected a URL", "http://"),
        (backend("otlp", endpoint="collector:4318"), "backends.otlp.config.endpoint", "expected a URL", "http://"),
        (backend("otlp", endpoint=""), "backends.otlp.config.endpoint", "is missing", "set endpoint"),
        ({"backends": {"otlp": {}, "elasticsearch": {"endpoint": "es"}}}, "backends.elasticsearch.config.endpoint", "expected a URL", "http"),
        (backend("file", file_path=" "), "backends.file.config.file_path", "is empty", "name the file"),
        ({"backends": {"file": {"file_path": "a/x"}, "f": {"type": "file", "file_path": "a/./x"}}}, "backends.f.config.file_path", 'backends file and f write to the same file "a/x"', "a file of its own"),
        # rules
        (rule(backend=["x"]), "routing_rules[0].backend", "unknown key", "did you mean backends?"),
        (rule(backends=["fle"]), "routing_rules[0].backends[0]", 'unknown backend "fle"', "did you mean file?"),
        (rule(backends="fle"), "routing_rules[0].backends", 'unknown backend "fle"', "did you mean file?"),
        (rule(backends=[]), "routing_rules[0].backends", "is empty", "final: true"),
        (rule(backends=[1]), "routing_rules[0].backends[0]", "expected text or a list of texts, found 1", "quotes"),
        ({"routing_rules": [{"name": "x"}], "backends": {"file": {}}}, "routing_rules[0]", "names no backends", "of file"),
        (rule(log_types="LATENCY"), "routing_rules[0].log_types", 'unknown log type "LATENCY"', "latency and counter calls are METRIC"),
        (rule(log_types=["METRICS"]), "routing_rules[0].log_types[0]", "unknown log type", "did you mean METRIC?"),
        (rule(log_types=[]), "routing_rules[0].log_types", "is empty", "leave the key out"),
        (rule(environments=[True]), "routing_rules[0].environments[0]", "found true", "quotes"),
        (rule(loggers={"a": 1}), "routing_rules[0].loggers", "found a mapping", "quotes"),
        (rule(context=["a"]), "routing_rules[0].context", "expected a mapping", "write keys"),
        (rule(context={"a": {"b": 1}}), "routing_rules[0].context.a", "expected a value or a list of values, found a mapping", "write"),
        (rule(final="yes"), "routing_rules[0].final", "expected true or false", "without quotes"),
        (rule(name=5), "routing_rules[0].name", "expected text, found 5", "quotes"),
        ({"routing_rules": [{"backends": ["file"]}]}, "routing_rules[0].backends[0]", "unknown backend", "none to choose from"),
        # components
        ({"components": {"p": {"backends": {"file": {"config": {"max_size_mb": "x"}}}}}, "backends": {"file": {}}}, "components.p.backends.file.config.max_size_mb", "expected a number", "write a number"),
        ({"components": {"p": {"backends": {"file": {"path": "x"}}}}, "backends": {"file": {}}}, "components.p.backends.file.config.path", "unknown key", "did you mean file_path?"),
        ({"components": {"p": {"backends": {"file": {"file_path": "x", "config": {"file_path": "x"}}}}}, "backends": {"file": {}}}, "components.p.backends.file.file_path", "given twice", "remove"),
        ({"components": {"p": {"backends": {"slack": {"enabled": True}}}}, "backends": {"slack": {"enabled": False}}}, "components.p.backends.slack.config.webhook_url", "is missing", "set webhook_url"),
        ({"components": {"p": {"routing_rules": [{"backends": ["x"]}]}}, "backends": {"file": {}}}, "components.p.routing_rules[0].backends[0]", "unknown backend", "valid are file"),
        ({"components": {"p": {"min_level": "x"}}}, "components.p.min_level", "unknown level", "valid are"),
        ({"components": {"p": {"backends": {"file": 1}}}}, "components.p.backends.file", "expected a mapping, found 1", "write"),
        ({"components": {"p": 5}}, "components.p", "expected a mapping, found 5", "write keys"),
    ],
)  # fmt: skip
def test_an_error_says_where_why_and_the_cure(data: dict[str, Any], path: str, cause: str, cure: str) -> None:
    error = error_of(data)
    assert error.path == f"logging.{path}"
    assert cause in error.cause
    assert cure in error.cure
    assert str(error) == f"app.yaml: {error.path}\n  cause: {error.cause}\n  cure: {error.cure}"


@pytest.mark.parametrize("data", [None, 5, ["logging"], "logging"])
def test_what_is_no_mapping_is_refused(data: Any) -> None:
    with pytest.raises(ConfigError, match="logging"):
        LogConfig.from_dict(data)


@pytest.mark.parametrize(
    "data",
    [
        backend("slack", config={"webhook_url": "hunter2"}),
        backend("datadog", config={"api_key": ["hunter2"]}),
        backend("datadog", config={"api_key": 77712}),
        backend("otlp", config={"headers": {"x": {"y": "hunter2"}}}),
        backend("otlp", config={"headers": {"x": 77712}}),
        backend("otlp", config={"headers": "hunter2"}),
        backend("webhook", config={"url": "ftp://u:hunter2@h"}),
        backend("webhook", config={"timeout": "api_key=hunter2"}),
        {"redact": ["exit_timeout"], "exit_timeout": "hunter2"},
    ],
)
def test_an_error_never_shows_a_secret(data: dict[str, Any]) -> None:
    error = error_of(data)
    assert "hunter2" not in str(error)
    assert "77712" not in str(error)


def test_a_long_or_unprintable_value_is_cut_to_one_line() -> None:
    error = error_of(backend("file", config={"max_size_mb": "a\nb\x1b[31m" + "x" * 500}))
    assert len(str(error).splitlines()) == 3
    assert "\x1b" not in str(error)
    assert len(error.cause) < 200


def file_error(tmp_path: Path, text: str | bytes) -> ConfigError:
    file = tmp_path / "logging.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        LogConfig.from_yaml(file)
    error = caught.value
    assert error.file == str(file)
    assert error.cure
    assert len(str(error).splitlines()) <= 3
    assert error.__suppress_context__ or error.__context__ is None
    return error


@pytest.mark.parametrize(
    ("text", "place", "cause", "cure"),
    [
        ("logging:\n  a: [1,\n", (3, 1), "broken YAML", "indentation"),
        ("logging:\n\ta: 1\n", (2, 1), "broken YAML", "spaces"),
        ("logging:\n  a: 'x\n", (3, 1), "broken YAML", "quotes"),
        (
            "logging:\n  min_level: INFO\n  min_level: DEBUG\n",
            (3, 3),
            "the key 'min_level' is given twice",
            "remove one",
        ),
        (
            "logging:\n  backends:\n    file: {}\n    file: {}\n",
            (4, 5),
            "'file' is given twice",
            "remove one",
        ),
        ("logging:\n  x: *hunter2\n", (2, 6), "is an alias in YAML", "quotes"),
        ("logging:\n  x: !hunter2 y\n", (2, 6), "is a tag in YAML", "quotes"),
        ("logging:\n  ? [a]\n  : b\n", (2, 5), "unhashable key", "indentation"),
        (
            "logging:\n  backends: {file: {config: {file_path: ${X}}}}\n",
            (2, 42),
            "a { where none can be",
            "${VAR} in quotes",
        ),
        ("logging:\n  ? {a: b}\n  : b\n", (2, 5), "broken YAML", "indentation"),
        ("a: 1\n---\nb: 2\n", (2, 1), "broken YAML", "indentation"),
        ("logging:\n  global_context: {day: 2024-99-99}\n", None, "is no YAML that can be read", "quotes"),
        ("logging: \x07\n", None, "is no YAML", "plain text"),
        (b"logging: \xff\n", None, "is not text in UTF-8", "UTF-8"),
        ("", None, "has no `logging:` key", "begin with `logging:`"),
        ("- logging\n", None, "is no mapping", "begin with `logging:`"),
        ("backends: {}\nmin_level: INFO\n", None, "has no `logging:` key", "put backends, min_level below"),
        ("{}", None, "has no `logging:` key", "put everything below"),
        ("root:$y$j9T$hunter2:19:0:::\n", None, "has no `logging:` key", "put everything below"),
        ("hunter2 and more: {}\nlanes: {}\n", None, "has no `logging:` key", "put lanes below"),
        ("logging: &a\n  global_context: {x: *a}\n", (2, None), "nested too deep", "alias"),
    ],
)
def test_a_broken_file_says_where(
    tmp_path: Path, text: str | bytes, place: tuple[int, int | None] | None, cause: str, cure: str
) -> None:
    error = file_error(tmp_path, text)
    if place is not None:
        assert (error.line, error.column) == place
        where = f"{error.file}:{place[0]}" + (f":{place[1]}" if place[1] else "")
        assert str(error).startswith(where)
    assert cause in error.cause
    assert cure in error.cure
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        ("logging:\n  backends:\n    file:\n      config:\n        max_size_mb: big\n", 5, "backends.file.config.max_size_mb"),
        ("logging:\n  backends:\n    slack:\n      webhook_url: x\n", 4, "backends.slack.config.webhook_url"),
        ("logging:\n  backends:\n    slack:\n      enabled: true\n", 3, "backends.slack.config.webhook_url"),
        ("logging:\n  backends: {file: }\n  routing_rules:\n    - backends: [file]\n    - backends: [file,\n        x]\n", 6, "routing_rules[1].backends[1]"),
        ("logging:\n  backends: {slack: {enabled: false}}\n  components:\n    p:\n      backends:\n        slack:\n          enabled: true\n", 6, "components.p.backends.slack.config.webhook_url"),
        ("# x\nlogging:\n  global_context:\n    a: ${NOT_SET_ANYWHERE}\n", 4, "global_context.a"),
    ],
)  # fmt: skip
def test_an_error_names_the_line_in_the_file(tmp_path: Path, text: str, line: int, path: str) -> None:
    error = file_error(tmp_path, text)
    assert (error.line, error.path) == (line, f"logging.{path}")
    assert str(error).startswith(f"{error.file}:{line}: logging.{path}\n")


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such file") as caught:
        LogConfig.from_yaml("nowhere.yaml")
    assert str(tmp_path) in caught.value.cure
    with pytest.raises(ConfigError, match="no such file") as caught:
        LogConfig.from_yaml(tmp_path / "nowhere.yaml")
    assert caught.value.cure
    for path in (tmp_path, "nul\0byte"):
        with pytest.raises(ConfigError, match="cannot be read"):
            LogConfig.from_yaml(path)


def test_merge_keys_and_anchors_work(tmp_path: Path) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text(
        "base: &base {max_size_mb: 5, backup_count: 1}\n"
        "logging:\n  backends:\n"
        "    file: {config: {<<: *base, backup_count: 2}}\n"
        "    f2: {type: file, config: {<<: *base, file_path: x}}\n"
    )
    config = LogConfig.from_yaml(file)
    assert config.backends["file"] == FileConfig(max_size_mb=5, backup_count=2)
    assert config.backends["f2"] == FileConfig(max_size_mb=5, backup_count=1, file_path="x")


class Strange(BackendConfig):
    pass


@pytest.mark.parametrize(
    ("config", "path", "cause"),
    [
        (LogConfig(environment=5), "environment", "expected text"),  # type: ignore[arg-type]
        (LogConfig(backends={"file": {"file_path": "x"}}), "backends.file", "expected a BackendConfig"),  # type: ignore[dict-item]
        (LogConfig(backends={"x": BackendConfig()}), "backends.x", "unknown backend"),
        (LogConfig(backends={"x": CustomConfig()}), "backends.x.class", "expected a class"),
        (
            LogConfig(backends={"f": FileConfig(max_size_mb="x")}),
            "backends.f.config.max_size_mb",
            "expected a number",
        ),  # type: ignore[arg-type]
        (LogConfig(backends={"f": FileConfig(enabled=1)}), "backends.f.enabled", "expected true or false"),  # type: ignore[arg-type]
        (LogConfig(backends={"d": DatadogConfig()}), "backends.d", "no otlp backend is enabled"),
        (
            LogConfig(routing_rules=[{"backends": ["file"]}]),
            "routing_rules[0].backends[0]",
            "unknown backend",
        ),
        (LogConfig(routing_rules="x"), "routing_rules", "expected a list of rules"),  # type: ignore[arg-type]
        (
            LogConfig(components={"p": ComponentConfig(min_level="x")}),
            "components.p.min_level",
            "unknown level",
        ),
        (
            LogConfig(journal=JournalConfig(segment_kb=1)),
            "journal.segment_kb",
            "expected a whole number from 4",
        ),
    ],
)
def test_a_configuration_made_in_python_is_checked_as_well(config: LogConfig, path: str, cause: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert caught.value.path == f"logging.{path}"
    assert cause in caught.value.cause
    config.source = "f.yaml"
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert str(caught.value).startswith("f.yaml: logging.")


def test_none_for_a_field_is_its_default() -> None:
    given = LogConfig(**{entry.name: None for entry in fields(LogConfig)})
    assert given == LogConfig()
    assert given.backends is not LogConfig().backends
    assert validate(given) == validate(LogConfig())


@pytest.mark.parametrize(
    ("field", "value", "cause"),
    [
        ("backends", [], "expected a mapping, found a value of type list"),
        ("global_context", "desk", "expected a mapping, found a value of type str"),
        ("instruments", 5, "expected a mapping, found a value of type int"),
        ("components", True, "expected a mapping, found a value of type bool"),
        ("journal", {"segment_kb": 512}, "expected JournalConfig, found a value of type dict"),
        ("lanes", 5, "expected LanesConfig"),
        ("agent", "x", "expected AgentConfig"),
        ("stdlib", True, "expected StdlibConfig"),
    ],
)
def test_what_cannot_stand_in_a_field_is_refused_when_it_is_handed_in(
    field: str, value: object, cause: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        LogConfig(**{field: value})  # type: ignore[arg-type]
    assert caught.value.path == f"logging.{field}"
    assert cause in caught.value.cause
    assert caught.value.cure


def test_a_component_is_refused_by_its_name_unless_it_is_one() -> None:
    with pytest.raises(ConfigError) as caught:
        LogConfig(components={"md": {"min_level": "INFO"}})  # type: ignore[dict-item]
    assert caught.value.path == "logging.components.md"


@pytest.mark.parametrize("path", [None, 5, b"app.yaml", ["app.yaml"]])
def test_a_path_of_the_wrong_type_is_said_with_its_cure(path: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        LogConfig.from_yaml(path)
    assert repr(path) in caught.value.cause
    assert "environment variable" in caught.value.cure


def test_a_backend_class_of_the_users_own_is_let_through() -> None:
    config = LogConfig(
        backends={"x": Strange(), "file": FileConfig()}, routing_rules=[{"backends": ["x", "file"]}]
    )
    assert validate(config) == []


ALL_TO = {"backends": ["b"]}


@pytest.mark.parametrize(
    ("config", "warnings"),
    [
        (LogConfig(), ["AUDIT goes nowhere: enable a file, elasticsearch or otlp backend"]),
        (LogConfig(backends={"b": FileConfig()}, routing_rules=[ALL_TO]), []),
        (LogConfig(backends={"b": FileConfig()}), ["it gets only AUDIT that no rule names"]),
        (LogConfig(backends={"b": FileConfig(enabled=False)}), ["AUDIT goes nowhere"]),
        (LogConfig(backends={"b": ConsoleConfig()}, routing_rules=[ALL_TO]), ["AUDIT goes nowhere"]),
        (LogConfig(backends={"b": ConsoleConfig()}), ["it gets nothing", "AUDIT goes nowhere"]),
        (LogConfig(backends={"b": WebhookConfig(url="http://h")}, routing_rules=[ALL_TO]), []),
        (LogConfig(backends={"b": CustomConfig(class_path="a:B")}, routing_rules=[ALL_TO]), []),
        (LogConfig(backends={"b": CustomConfig(class_path="a:B")}, routing_rules=[{"min_level": "INFO", **ALL_TO}]), ["AUDIT goes nowhere"]),
        (LogConfig(backends={"b": FileConfig()}, routing_rules=[{"environments": ["prod"], **ALL_TO}]), ["no rule for environment dev names it"]),
        (LogConfig(backends={"b": FileConfig()}, routing_rules=[ALL_TO, {"log_types": ["METRIC"], **ALL_TO}]), ["routing rule 'rule 2' hands METRIC to backend b, which takes only AUDIT, TEXT"]),
        (LogConfig(backends={"b": PrometheusConfig(), "otlp": OtlpConfig()}, routing_rules=[{"name": "n", "min_level": "INFO", "backends": ["b", "otlp"]}]), ["routing rule 'n' hands TEXT to backend b, which takes only METRIC"]),
        (LogConfig(backends={"b": OtlpConfig()}, routing_rules=[{"log_types": "METRIC", "min_level": "INFO", **ALL_TO}]), ["states a level, which has no effect"]),
        (LogConfig(backends={"b": PrometheusConfig(scrape=False), "file": FileConfig()}, routing_rules=[{"backends": ["b", "file"]}]), ["neither scraped nor pushed"]),
        (LogConfig(backends={"b": SlackConfig(enabled=False), "file": FileConfig()}, routing_rules=[{"backends": ["file"]}]), []),
        (LogConfig(backends={"otlp": OtlpConfig(), "b": ElasticsearchConfig()}, routing_rules=[{"backends": ["otlp"]}]), ["it gets only AUDIT"]),
    ],
)  # fmt: skip
def test_what_works_and_does_nothing_is_a_warning(config: LogConfig, warnings: list[str]) -> None:
    found = validate(config)
    assert len(found) == len(warnings), found
    for text, expected in zip(found, warnings, strict=True):
        assert expected in text
