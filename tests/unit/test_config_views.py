"""Views of a configuration: a component's own, and what may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hft_otel._validation import validate, with_component
from hft_otel._yaml import effective
from hft_otel.config import (
    BackendConfig,
    ComponentConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    WebhookConfig,
)
from hft_otel.record import LogLevel, LogType
from tests.unit.config_support import load

pytest_plugins = ["tests.unit.config_fixtures"]
pytestmark = pytest.mark.usefixtures("clean_environment")


COMPONENTS = """
logging:
  min_level: INFO
  global_context: {service: s, component: none}
  backends:
    file: {min_level: WARNING, config: {file_path: base.log, backup_count: 3}}
    otlp: {config: {headers: {a: "1", b: "2"}}}
    mine: {class: "m:X", config: {deep: {a: 1, b: 2}}}
    slack: {enabled: false}
  routing_rules:
    - {backends: [file, otlp, mine]}
  components:
    parser:
      min_level: ERROR
      context: {component: parser, shard: 3}
      backends:
        file: {min_level: DEBUG, file_path: "${FILE:-parser.log}"}
        otlp: {config: {headers: {b: "3"}, timeout: "${T:-4}"}}
        mine: {config: {deep: {b: 3}}}
        slack: {enabled: "${ON:-true}", config: {webhook_url: "https://h/x"}}
        extra: {type: file, config: {file_path: extra.log}}
        console:
      routing_rules:
        - {backends: [extra], final: "${FINAL:-true}"}
    other: {backends: {mine: {type: file}}}
"""


def test_a_component_has_its_own_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load(tmp_path, COMPONENTS)
    monkeypatch.setenv("HFT_OTEL_CONFIG", str(tmp_path / "logging.yaml"))
    view = LogConfig.for_component("parser")
    assert view == with_component(base, "parser")
    assert view.backends["file"] == FileConfig(min_level="DEBUG", file_path="parser.log", backup_count=3)
    otlp = view.backends["otlp"]
    assert isinstance(otlp, OtlpConfig)
    assert (otlp.headers, otlp.timeout) == ({"a": "1", "b": "3"}, 4.0)
    assert view.backends["mine"] == CustomConfig(class_path="m:X", config={"deep": {"a": 1, "b": 3}})
    assert view.backends["slack"] == SlackConfig(webhook_url="https://h/x")
    assert view.backends["extra"] == FileConfig(file_path="extra.log")
    assert view.backends["console"] == ConsoleConfig()
    assert view.routing_rules == [{"backends": ["extra"], "final": True}]
    assert view.global_context == {"service": "s", "component": "parser", "shard": 3}
    assert view.min_level == "ERROR"
    assert validate(view)
    assert base.backends["file"] == FileConfig(min_level="WARNING", file_path="base.log", backup_count=3)
    other = LogConfig.for_component("other")
    assert (other.backends["mine"], other.min_level, other.routing_rules) == (
        FileConfig(),
        "INFO",
        base.routing_rules,
    )


def test_components_work_for_configurations_made_in_python() -> None:
    config = LogConfig(
        backends={"file": FileConfig(file_path="a"), "f2": FileConfig(file_path="b")},
        routing_rules=[{"backends": ["file", "f2"]}],
        components={"x": ComponentConfig(backends={"f2": {"config": {"file_path": "c"}}})},
    )
    assert validate(config) == []
    assert with_component(config, "x").backends["f2"] == FileConfig(file_path="c")
    assert with_component(config, "y") is config


def test_a_plain_backend_config_is_taken_as_its_kind() -> None:
    config = LogConfig(
        backends={
            "file": BackendConfig(config={"file_path": "x"}),
            "b": FileConfig(config={"backup_count": 2}),
        },
        routing_rules=[{"backends": ["file", "b"]}],
    )
    assert validate(config) == []
    config.backends["file"].config["file_pth"] = "y"
    with pytest.raises(ConfigError, match="did you mean file_path"):
        validate(config)


def test_python_may_give_levels_as_members() -> None:
    rules = [{"min_level": LogLevel.INFO, "max_level": LogLevel.ERROR, "backends": ["file"]}]
    assert validate(LogConfig(backends={"file": FileConfig()}, routing_rules=rules)) == []


def secretive() -> LogConfig:
    return LogConfig(
        backends={
            "datadog": DatadogConfig(api_key="hunter2"),
            "elasticsearch": ElasticsearchConfig(endpoint="https://u:hunter2@es:9200", api_key="hunter2"),
            "slack": SlackConfig(webhook_url="https://hooks.slack.com/hunter2"),
            "webhook": WebhookConfig(url="https://h/x?token=hunter2", headers={"X-Mine": "hunter2"}),
            "otlp": OtlpConfig(endpoint="http://u:hunter2@c:4318", headers={"authorization": "hunter2"}),
            "prometheus": PrometheusConfig(push_gateway="http://u:hunter2@p:9091"),
            "mine": CustomConfig(
                class_path="a:B", config={"deep": [{"password": "hunter2", "headers": {"x": "hunter2"}}]}
            ),
            "console": ConsoleConfig(config={"color": True}),
        },
        routing_rules=[{"backends": ["mine", "console", "datadog"], "context": {"api_key": "hunter2"}}],
        global_context={"secret": "hunter2", "account": "hunter2", "service": "s"},
        components={
            "c": ComponentConfig(
                context={"token": "hunter2"}, backends={"otlp": {"headers": {"q": "hunter2"}}}
            )
        },
        redact=["account"],
    )


def test_no_secret_is_printed() -> None:
    config = secretive()
    shown = effective(config)
    text = (
        yaml.safe_dump(shown)
        + repr(config)
        + "".join(map(repr, config.backends.values()))
        + repr(config.components["c"])
    )
    assert "hunter2" not in text
    assert shown["backends"]["otlp"]["config"]["headers"] == {"authorization": "***"}
    assert shown["backends"]["otlp"]["config"]["endpoint"] == "http://u:***@c:4318"
    assert shown["backends"]["slack"]["config"]["webhook_url"] == "***"
    assert shown["global_context"] == {"secret": "***", "account": "***", "service": "s"}
    assert "DatadogConfig(enabled=True" in repr(config)
    assert "service='s'" not in repr(config)
    assert "'service': 's'" in repr(config)
    assert config == secretive()


def test_what_is_shown_loads_again(tmp_path: Path) -> None:
    config = load(tmp_path, COMPONENTS)
    data = effective(config)
    data["backends"].pop("otlp", None)  # its headers are hidden
    again = LogConfig.from_dict(
        yaml.safe_load(yaml.safe_dump(data)) | {"components": {}, "routing_rules": []}
    )
    for name, backend in again.backends.items():
        assert backend == config.backends[name]


def test_what_python_put_in_is_shown_as_text() -> None:
    rules = [{"min_level": LogLevel.INFO, "loggers": ("a", "b"), "backends": ["mine"]}]
    backend = CustomConfig(
        class_path="a:B", config={"path": Path("x"), "types": {LogType.TEXT}, "n": None, "f": 1.5}
    )
    shown = effective(LogConfig(backends={"mine": backend}, routing_rules=rules))
    assert yaml.safe_load(yaml.safe_dump(shown)) == shown
    assert shown["backends"]["mine"]["config"] == {"path": "x", "types": ["TEXT"], "n": None, "f": 1.5}
    assert shown["routing_rules"] == [{"min_level": "INFO", "loggers": ["a", "b"], "backends": ["mine"]}]


@pytest.mark.parametrize(("environment", "shown"), [("dev", "thread"), ("prod", "process")])
def test_the_effective_configuration_says_who_delivers(environment: str, shown: str) -> None:
    assert effective(LogConfig(environment=environment))["isolation"] == shown


@pytest.mark.parametrize("address", ["user:hunter2@host:9091", "http://user:hunter2@host:9091/x"])
def test_an_address_shows_no_password(address: str) -> None:
    backends: dict[str, BackendConfig] = {
        "prometheus": PrometheusConfig(push_gateway=address),
        "otlp": OtlpConfig(endpoint=address, protocol="grpc"),
    }
    config = LogConfig(backends=backends)
    assert "hunter2" not in str(effective(config)) + repr(config)
    assert effective(config)["backends"]["prometheus"]["config"]["push_gateway"].endswith(
        "host" + address.partition("host")[2]
    )
    assert (
        effective(LogConfig(backends={"p": PrometheusConfig(push_gateway="gateway:9091")}))["backends"]["p"][
            "config"
        ]["push_gateway"]
        == "gateway:9091"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/services/T0/B0/hunter2?key=hunter2", "http://h/***"),
        ("https://h:8080?key=hunter2", "https://h:8080/***"),
        ("https://h#hunter2", "https://h/***"),
        ("https://u:hunter2@h.example:8080/hunter2", "https://***@h.example:8080/***"),
        ("https://hunter2@h", "https://***@h"),
        ("https://[::1]:8080/hunter2\nhunter2", "https://[::1]:8080/***"),
        ("http://h:8080", "http://h:8080"),
        ("http://h/", "http://h"),
        ("http://u:hun/ter2@h", "***"),
        ("hooks/hunter2", "***"),
        ("", ""),
    ],
)
def test_of_a_webhook_only_the_host_is_shown(url: str, shown: str) -> None:
    config = LogConfig(
        backends={"webhook": WebhookConfig(url=url), "otlp": OtlpConfig(endpoint="http://c:4318/v1/x")}
    )
    backends = effective(config)["backends"]
    assert backends["webhook"]["config"]["url"] == shown
    assert backends["otlp"]["config"]["endpoint"] == "http://c:4318/v1/x"
    assert f"url={shown!r}" in repr(config)
    assert "endpoint='http://c:4318/v1/x'" in repr(config)
