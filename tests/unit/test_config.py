"""Loading configurations: the plan's YAML, defaults, errors as values."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_otel._validation import validate
from hft_otel.config import (
    DEVELOPMENT_ROUTING_RULES,
    PRODUCTION_ROUTING_RULES,
    AgentConfig,
    ComponentConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    FileConfig,
    JournalConfig,
    LanesConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
)
from tests.unit.config_support import load

pytest_plugins = ["tests.unit.config_fixtures"]
pytestmark = pytest.mark.usefixtures("clean_environment")

PLAN = """\
logging:
  environment: "dev"
  
  backends:
    console:
      enabled: true
      min_level: "DEBUG"
      config:
        color: true
    
    file:
      enabled: true
      min_level: "WARNING"
      config:
        file_path: "logs/hft.log"
        format: "text"
        rotation: true
        max_size_mb: 100
    
    prometheus:
      enabled: true
      min_level: "INFO"
      config:
        push_gateway: "localhost:9091"
        job_name: "hft_arbitrage"
        prefix: "hft_"
        batch_size: 50
        flush_interval: 3.0
    
    datadog:
      enabled: false
      config:
        api_key: "${DATADOG_API_KEY}"
        service: "hft-arbitrage"
        tags: ["env:dev", "version:1.0"]
  
  routing_rules:
    - name: "metrics_to_prometheus"
      log_types: ["METRIC"]
      backends: ["prometheus"]
    
    - name: "errors_to_file_and_console"
      min_level: "WARNING"
      backends: ["file", "console"]
    
    - name: "debug_to_console_dev_only"
      max_level: "INFO"
      environments: ["dev"]
      backends: ["console"]
  
  global_context:
    service: "hft-arbitrage"
    version: "1.0.0"
"""  # noqa: W293  (the plan's file, as it is)


def test_the_plans_yaml_loads_unchanged(tmp_path: Path) -> None:
    config = load(tmp_path, PLAN)
    assert config == LogConfig(
        environment="dev",
        backends={
            "console": ConsoleConfig(color=True),
            "file": FileConfig(min_level="WARNING", file_path="logs/hft.log"),
            "prometheus": PrometheusConfig(
                min_level="INFO", push_gateway="localhost:9091", batch_size=50, flush_interval=3.0
            ),
            "datadog": DatadogConfig(enabled=False, tags=["env:dev", "version:1.0"]),
        },
        routing_rules=[
            {"name": "metrics_to_prometheus", "log_types": ["METRIC"], "backends": ["prometheus"]},
            {"name": "errors_to_file_and_console", "min_level": "WARNING", "backends": ["file", "console"]},
            {
                "name": "debug_to_console_dev_only",
                "max_level": "INFO",
                "environments": ["dev"],
                "backends": ["console"],
            },
        ],
        global_context={"service": "hft-arbitrage", "version": "1.0.0"},
        source=str(tmp_path / "logging.yaml"),
    )
    assert validate(config) == []


def test_the_plans_datadog_key_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATADOG_API_KEY", "dd-hunter2")
    backend = load(tmp_path, PLAN).backends["datadog"]
    assert isinstance(backend, DatadogConfig)
    assert backend.api_key == "dd-hunter2"


def test_a_dict_loads_as_the_file_does_with_and_without_its_top_key(tmp_path: Path) -> None:
    data = yaml.safe_load(PLAN)
    before = copy.deepcopy(data)
    with_key, without = (
        LogConfig.from_dict(data, source="x"),
        LogConfig.from_dict(data["logging"], source="x"),
    )
    from_file = load(tmp_path, PLAN)
    from_file.source = "x"
    assert with_key == without == from_file
    assert data == before


def test_other_top_level_keys_of_a_shared_file_are_left_alone(tmp_path: Path) -> None:
    assert load(tmp_path, "exchange: {key: '${NOT_OURS}'}\nlogging:\n  environment: qa\n").environment == "qa"


def test_backends_without_settings_have_their_defaults() -> None:
    config = LogConfig.from_dict({"backends": {"console": None, "file": {}, "prometheus": {"config": None}}})
    assert config.backends == {
        "console": ConsoleConfig(),
        "file": FileConfig(),
        "prometheus": PrometheusConfig(),
    }


def test_options_may_stand_beside_or_below_config() -> None:
    config = LogConfig.from_dict(
        {"backends": {"file": {"file_path": "a.log", "config": {"backup_count": 3}}}}
    )
    assert config.backends == {"file": FileConfig(file_path="a.log", backup_count=3)}


def test_a_second_backend_of_a_kind_and_a_class_of_the_users() -> None:
    config = LogConfig.from_dict(
        {
            "backends": {
                "audit_file": {"type": "file", "config": {"file_path": "audit.log"}},
                "pager": {
                    "class": "my.pager:Pager",
                    "min_level": "error",
                    "config": {"port": 1, "x": {"y": [None]}},
                },
            }
        }
    )
    assert config.backends == {
        "audit_file": FileConfig(file_path="audit.log"),
        "pager": CustomConfig(
            min_level="error", class_path="my.pager:Pager", config={"port": 1, "x": {"y": [None]}}
        ),
    }


def test_every_setting_loads(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        logging:
          environment: prod
          isolation: thread
          min_level: warn
          exit_timeout: 0
          redact: [account_number]
          journal: {folder: /var/j, segment_kb: 64, spare_segments: 2}
          lanes: {folder: /mnt/lanes, low_mb: 16, high_mb: 4, metric_mb: 0.5}
          agent: {linger: 60, nice: 5, cpus: [1, 2]}
          backends:
            otlp: {enabled: true, config: {endpoint: "http://c:4318", protocol: http/protobuf, headers: {a: b}, signals: [logs]}}
            datadog: {via: collector}
            elasticsearch: {config: {endpoint: "https://es:9200", index: hft}}
            slack: {min_level: critical, config: {webhook_url: "https://hooks.slack.com/x", rate_limit_per_minute: 1}}
            webhook: {config: {url: "http://h/x", timeout: 1}}
            file: {config: {via: collector}}
          routing_rules:
            - {name: a, log_types: AUDIT, loggers: "exchange.*", context: {exchange: [mexc, gateio], live: true}, backends: file, final: true}
            - {log_types: [text, Metric], loggers: [a, b], min_level: info, max_level: ERROR, backends: [otlp, slack]}
            - {log_types: TEXT, backends: [], final: true}
          components:
            parser: {min_level: ERROR, context: {component: parser}, backends: {file: {enabled: false}}, routing_rules: []}
            engine:
        """,
    )
    assert config.journal == JournalConfig("/var/j", 64, 2)
    assert config.lanes == LanesConfig("/mnt/lanes", 16, 4, 0.5)
    assert config.agent == AgentConfig(60, 5, [1, 2])
    assert config.components["parser"] == ComponentConfig(
        "ERROR", {"component": "parser"}, {"file": {"enabled": False}}, []
    )
    assert config.components["engine"] == ComponentConfig()
    assert config.backends["otlp"].headers == {"a": "b"}  # type: ignore[attr-defined]
    assert config.routing_rules[0]["context"] == {"exchange": ["mexc", "gateio"], "live": True}
    assert (config.exit_timeout, config.redact, config.min_level) == (0, ["account_number"], "warn")


def test_a_key_without_a_value_leaves_the_default() -> None:
    data: dict[str, Any] = dict.fromkeys(
        (
            "environment",
            "backends",
            "routing_rules",
            "global_context",
            "journal",
            "redact",
            "isolation",
            "lanes",
            "agent",
        )
    )
    assert LogConfig.from_dict(data, source="x") == LogConfig(source="x")


def test_the_environment_variable_counts_only_where_the_file_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "staging")
    assert LogConfig.from_dict({}).environment == "staging"
    assert LogConfig.from_dict({"environment": "prod"}).environment == "prod"
    monkeypatch.setenv("ENVIRONMENT", "")
    assert LogConfig.from_dict({}).environment == "dev"


@pytest.mark.parametrize("environment", [None, "dev", "development", "local", "test"])
def test_the_development_default_needs_nothing_to_run(
    environment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("ENVIRONMENT", environment)
    config = LogConfig.default()
    assert config.environment == (environment or "dev")
    assert {name: backend.enabled for name, backend in config.backends.items()} == {
        "console": True,
        "file": True,
        "prometheus": False,
    }
    assert config.backends["file"] == FileConfig(file_path="logs/dev.log")
    assert config.routing_rules == DEVELOPMENT_ROUTING_RULES
    assert environment in (None, *config.routing_rules[2]["environments"])
    assert validate(config) == []


@pytest.mark.parametrize(
    ("environment", "said", "holds"),
    [
        ("dev", None, "thread"),
        ("test", None, "thread"),
        ("prod", None, "process"),
        ("staging", None, "process"),
        ("dev", "process", "process"),
        ("prod", "thread", "thread"),
    ],
)
def test_who_delivers_follows_the_environment_where_nothing_is_said(
    environment: str, said: str | None, holds: str
) -> None:
    assert LogConfig(environment=environment, isolation=said).effective_isolation == holds


def test_the_production_default_without_and_with_a_datadog_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "prod")
    config = LogConfig.default()
    assert config.backends["file"] == FileConfig(file_path="logs/prod.log")
    assert config.backends["prometheus"] == PrometheusConfig(push_gateway="prometheus-gateway:9091")
    assert not config.backends["datadog"].enabled
    assert not config.backends["otlp"].enabled
    assert config.routing_rules == PRODUCTION_ROUTING_RULES
    assert validate(config) == []
    monkeypatch.setenv("DATADOG_API_KEY", "k")
    config = LogConfig.default()
    assert config.backends["datadog"] == DatadogConfig(api_key="k")
    assert config.backends["otlp"].enabled
    assert validate(config) == []  # otlp, which no rule names, is Datadog's way to the Collector


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_a_standard_endpoint_variable_turns_otlp_on_in_the_default(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    config = LogConfig.default()
    assert config.backends["otlp"] == OtlpConfig(endpoint="http://collector:4318", protocol="http/protobuf")
    assert config.routing_rules[-1]["backends"] == ["otlp"]
    assert validate(config) == []


def test_changing_a_default_does_not_change_the_next_one() -> None:
    LogConfig.default().routing_rules[0]["backends"].append("file")
    assert LogConfig.default().routing_rules == DEVELOPMENT_ROUTING_RULES


def test_the_file_that_the_variable_names_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(PLAN)
    monkeypatch.setenv("HFT_OTEL_CONFIG", str(file))
    assert LogConfig.default() == LogConfig.from_yaml(str(file))
    assert LogConfig.for_component("unknown") == LogConfig.from_yaml(file)
    monkeypatch.setenv("HFT_OTEL_CONFIG", str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match=r"gone\.yaml\n.*no such file\n.*HFT_OTEL_CONFIG"):
        LogConfig.default()


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        LogConfig.from_yaml(tmp_path / "x.yaml")


def test_a_config_error_can_be_pickled() -> None:
    error = ConfigError("c", file="f", path="p", cure="q", line=3)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "f:3: p\n  cause: c\n  cure: q"
    assert (again.file, again.path, again.cause, again.cure, again.line) == ("f", "p", "c", "q", 3)
    assert str(ConfigError("only a cause")) == "only a cause"
