"""The Collector's configuration as it is rendered: profiles, pipelines, exporters, secrets and comments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_otel import ConfigError, LogConfig
from hft_otel.collector import PROFILES, Source, default_profile, from_file, limits, render
from hft_otel.collector.profiles import plan

ROOT = Path(__file__).resolve().parents[2]
CHECKED_IN = {"dev": "logging-dev.yaml", "agent": "logging-prod.yaml", "gateway": "logging-prod.yaml"}

Json = dict[str, Any]
PORTS = {"otlp": ("4317", "4318"), "otlp/audit": ("4327", "4328")}


def source_of(backends: Json, *rules: Json, **rest: Any) -> Source:
    return Source(
        LogConfig.from_dict(
            {"environment": "dev", "backends": {"otlp": {}, **backends}, "routing_rules": list(rules), **rest}
        )
    )


def collected(**config: Any) -> Json:
    return {"config": {"via": "collector", **config}}


def document(source: Source, profile: str = "dev", **options: Any) -> Json:
    loaded: Json = yaml.safe_load(render(source, profile, **options))
    return loaded


def checked_in(profile: str) -> Json:
    loaded: Json = yaml.safe_load((ROOT / "collector-config" / f"{profile}.yaml").read_text())
    return loaded


# --- what is checked in


@pytest.mark.parametrize("profile", CHECKED_IN)
def test_checked_in_configurations_are_what_is_rendered(profile: str) -> None:
    source = from_file(ROOT / "collector-config" / CHECKED_IN[profile], {})
    assert render(source, profile) == (ROOT / "collector-config" / f"{profile}.yaml").read_text()
    assert source.warnings == []


@pytest.mark.parametrize("profile", CHECKED_IN)
def test_every_component_is_defined_and_used(profile: str) -> None:
    found = checked_in(profile)
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in found["service"]["pipelines"].values():
        for part, names in used.items():
            names.update(pipeline[part])
    connectors = set(found.get("connectors") or {})
    assert used["receivers"] - connectors == set(found["receivers"])
    assert used["processors"] == set(found["processors"])
    assert used["exporters"] - connectors == set(found["exporters"])
    assert found["service"]["extensions"] == list(found["extensions"])


@pytest.mark.parametrize("profile", CHECKED_IN)
def test_what_comes_before_an_audit_never_refuses_or_forgets_it(profile: str) -> None:
    found = checked_in(profile)
    for name, pipeline in found["service"]["pipelines"].items():
        kinds = [processor.partition("/")[0] for processor in pipeline["processors"]]
        assert "batch" not in kinds
        if name.endswith(".audit"):
            assert pipeline["receivers"] == ["otlp", "otlp/audit"]
            assert "memory_limiter" not in kinds
        elif pipeline["processors"]:
            assert kinds[0] == "memory_limiter"
    for name, options in found["processors"].items():
        if name.startswith(("filter", "transform")):
            assert options["error_mode"] == "propagate", name
    for name, options in found["exporters"].items():
        queue = options.get("sending_queue")
        if queue and name.endswith("audit"):
            assert queue["storage"] == "file_storage"
            assert queue["block_on_overflow"] is True
            assert options.get("retry_on_failure", {}).get("max_elapsed_time", "0s") == "0s"
        elif queue:
            assert "storage" not in queue
    storage = found["extensions"].get("file_storage", {"fsync": True, "create_directory": True})
    assert storage["fsync"] is True
    assert storage["create_directory"] is True


@pytest.mark.parametrize("profile", CHECKED_IN)
def test_every_signal_has_a_pipeline_on_every_port(profile: str) -> None:
    found: dict[str, set[str]] = {"logs": set(), "metrics": set(), "traces": set()}
    for name, pipeline in checked_in(profile)["service"]["pipelines"].items():
        found[name.partition("/")[0]].update(pipeline["receivers"])
    assert found["logs"] >= {"otlp", "otlp/audit"}
    assert found["traces"] >= {"otlp", "otlp/audit"}
    assert "otlp" in found["metrics"]


@pytest.mark.parametrize("profile", CHECKED_IN)
def test_all_that_listens_is_local_and_can_be_moved(profile: str) -> None:
    found = checked_in(profile)
    for name, ports in PORTS.items():
        protocols = found["receivers"][name]["protocols"]
        for protocol, port in zip(("grpc", "http"), ports, strict=True):
            host, _, rest = protocols[protocol]["endpoint"].partition("}:")
            assert host == "${env:HFT_COLLECTOR_HOST:-127.0.0.1"
            assert rest.startswith("${env:HFT_COLLECTOR_")
            assert rest.endswith(f"_PORT:-{port}}}")
    assert "13133" in found["extensions"]["health_check"]["endpoint"]
    reader = found["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
    assert reader["port"] == "${env:HFT_COLLECTOR_METRICS_PORT:-8888}"


def test_the_plans_table_is_what_the_profiles_do() -> None:
    dev, agent, gateway = (set(checked_in(profile)["service"]["pipelines"]) for profile in PROFILES)
    assert {"logs/console", "logs/file", "logs/file.audit", "metrics/prometheus"} <= dev
    assert {"logs/file", "logs/file.audit", "logs/gateway", "logs/gateway.audit", "metrics/gateway"} <= agent
    assert {"metrics/prometheus", "logs/datadog", "metrics/datadog", "traces/datadog"} <= gateway
    assert {"logs/elasticsearch.audit", "traces/jaeger", "traces/jaeger.audit"} <= gateway
    assert not any("console" in name for name in agent | gateway)
    assert "traces/elasticsearch" not in gateway


# --- profiles


def test_profile_follows_the_environment() -> None:
    assert default_profile(LogConfig(environment="dev")) == "dev"
    assert default_profile(LogConfig(environment="staging")) == "agent"


def test_agent_keeps_files_and_sends_the_rest_on_with_its_mark() -> None:
    source = source_of(
        {"file": collected(format="json"), "prometheus": collected()},
        {"log_types": ["METRIC"], "backends": ["prometheus"]},
        {"backends": ["file"]},
    )
    pipelines = document(source, "agent")["service"]["pipelines"]
    assert set(pipelines) == {"logs/file", "logs/file.audit", "metrics/gateway", "traces/nowhere"}
    assert "transform/unmark" not in pipelines["metrics/gateway"]["processors"]
    assert pipelines["logs/file"]["processors"][-1] == "transform/unmark"
    assert pipelines["traces/nowhere"] == {
        "receivers": ["otlp", "otlp/audit"],
        "processors": [],
        "exporters": ["nop"],
    }


def test_agents_ways_to_the_gateway_share_no_queue() -> None:
    exporters = checked_in("agent")["exporters"]
    bulk, audit = exporters["otlp_grpc/gateway"], exporters["otlp_grpc/gateway.audit"]
    assert bulk["endpoint"] == "${env:HFT_GATEWAY:-gateway:4317}"
    assert audit["endpoint"] == "${env:HFT_GATEWAY_AUDIT:-gateway:4327}"
    assert bulk["retry_on_failure"] == {"max_elapsed_time": "10m"}
    assert "storage" not in bulk["sending_queue"]


def test_console_is_in_the_dev_profile_only() -> None:
    source = source_of(
        {"console": collected(), "file": collected(format="json")}, {"backends": ["console", "file"]}
    )
    assert "debug/console" in document(source)["exporters"]
    assert source.warnings == []
    assert not any(name.startswith("debug") for name in document(source, "agent")["exporters"])
    assert source.warnings == ["backend console is in the dev profile only: the agent prints nothing"]


def test_a_profile_that_serves_nothing_is_refused() -> None:
    source = source_of({"file": collected(format="json")})
    with pytest.raises(ConfigError, match="no enabled backend is served by the profile gateway") as caught:
        render(source, "gateway")
    assert "via: collector" in caught.value.cure


def test_pipelines_are_those_that_a_rule_can_reach() -> None:
    source = source_of({"elasticsearch": {}}, {"log_types": ["AUDIT"], "backends": ["elasticsearch"]})
    assert "logs/elasticsearch" not in document(source)["service"]["pipelines"]
    assert "logs/elasticsearch" in document(source, every_type=True)["service"]["pipelines"]
    component = source_of(
        {"elasticsearch": {}},
        {"log_types": ["AUDIT"], "backends": ["elasticsearch"]},
        components={"engine": {"routing_rules": [{"backends": ["elasticsearch"]}]}},
    )
    assert "logs/elasticsearch" in document(component)["service"]["pipelines"]


def test_a_backend_of_one_component_is_served_too() -> None:
    source = source_of(
        {},
        components={
            "engine": {
                "backends": {"mine": {"type": "file", **collected(format="json", file_path="mine.jsonl")}},
                "routing_rules": [{"backends": ["mine"]}],
            }
        },
    )
    found = document(source)
    assert found["exporters"]["file/mine"]["path"] == "mine.jsonl"
    assert (
        found["processors"]["filter/mine"]["log_conditions"][-1] == 'scope.attributes["hft.backends"] == nil'
    )


def test_backends_that_would_share_a_component_are_refused() -> None:
    jsons = {name: {"type": "file", **collected(format="json", file_path=name)} for name in ("a b", "a_b")}
    with pytest.raises(ConfigError, match="a component of the Collector called file/a_b"):
        render(source_of(jsons, {"backends": ["a b", "a_b"]}), "dev")


# --- exporters


def exporters_of(name: str, backend: Json, **options: Any) -> Json:
    found: Json = document(source_of({name: backend}, {"backends": [name]}), **options)["exporters"]
    return found


def test_files_rotate_as_the_backend_says_and_never_lose_an_audit() -> None:
    found = exporters_of("file", collected(format="json", file_path="a/b.log", max_size_mb=5, backup_count=3))
    assert found["file"]["rotation"] == {"max_megabytes": 5, "max_backups": 3}
    assert found["file/audit"]["path"] == "a/b.audit.log"
    assert found["file/audit"]["rotation"] == {"max_megabytes": 5, "max_backups": 0}
    still = exporters_of("file", collected(format="json", rotation=False, file_path="log.d/plain"))
    assert still["file"]["rotation"] == {
        "max_megabytes": 1_000_000,
        "max_backups": 0,
    }  # unbuffered all the same
    assert still["file/audit"]["path"] == "log.d/plain.audit"


def test_prometheus_shows_no_mark_and_speaks_openmetrics() -> None:
    found = exporters_of("prometheus", collected(host="0.0.0.0", port=9000))["prometheus"]
    assert found["endpoint"] == "${env:HFT_PROMETHEUS_ENDPOINT:-0.0.0.0:9000}"
    assert found["without_scope_info"] is True
    assert found["enable_open_metrics"] is True


def test_elasticsearch_audits_are_written_once_and_retried_for_ever() -> None:
    found = document(
        source_of(
            {"elasticsearch": {"config": {"endpoint": "http://es:9200"}}}, {"backends": ["elasticsearch"]}
        )
    )
    audit = found["exporters"]["elasticsearch/audit"]
    assert audit["endpoints"] == ["${env:HFT_ELASTICSEARCH_ENDPOINT:-http://es:9200}"]
    assert audit["logs_dynamic_id"] == {"enabled": True}
    assert audit["retry"]["retry_on_document_status"] == [429, 500, 502, 503, 504]
    assert audit["retry"]["max_retries"] >= 1_000_000
    assert audit["timeout"] == "0s"  # the exporter's is one for all these tries, and drops what it ends
    statements = found["processors"]["transform/elasticsearch.audit"]["log_statements"]
    assert statements[0].startswith(
        'set(log.attributes["elasticsearch.document_id"], log.attributes["audit.id"])'
    )
    assert 'log.event_name == "hft.audit.anchor"' in statements[1]
    assert statements[2] == 'set(log.attributes["data_stream.dataset"], "audit")'
    assert found["service"]["pipelines"]["logs/elasticsearch"]["exporters"] == ["elasticsearch"]


def test_elasticsearch_index_is_honoured() -> None:
    found = document(
        source_of({"elasticsearch": {"config": {"index": "trading"}}}, {"backends": ["elasticsearch"]})
    )
    assert found["exporters"]["elasticsearch"]["logs_index"] == "trading"
    assert found["exporters"]["elasticsearch/audit"]["logs_index"] == "trading-audit"
    assert len(found["processors"]["transform/elasticsearch.audit"]["log_statements"]) == 2


def test_datadog_has_its_key_its_tags_and_its_statistics_of_traces() -> None:
    datadog = {"config": {"service": "arb", "site": "datadoghq.eu", "tags": ["env:prod", "bare"]}}
    found = document(source_of({"datadog": datadog}, {"backends": ["datadog"]}))
    exporter = found["exporters"]["datadog"]
    assert exporter["api"] == {"key": "${env:DATADOG_API_KEY}", "site": "datadoghq.eu"}
    assert exporter["metrics"] == {
        "endpoint": "${env:HFT_DATADOG_METRICS_ENDPOINT:-https://api.datadoghq.eu}"
    }
    assert exporter["host_metadata"] == {"enabled": False}
    assert "hostname" not in exporter
    tags = found["processors"]["transform/datadog"]
    assert 'set(log.attributes["ddtags"], "env:prod,bare")' in tags["log_statements"]
    assert 'set(datapoint.attributes["env"], "prod")' in tags["metric_statements"]
    assert '"unknown_service"' in tags["trace_statements"][0]
    pipelines = found["service"]["pipelines"]
    assert pipelines["traces/datadog"]["exporters"] == ["datadog", "datadog/connector"]
    assert pipelines["metrics/datadog.stats"]["receivers"] == ["datadog/connector"]


@pytest.mark.parametrize(("protocol", "kind"), [("grpc", "otlp_grpc"), ("http/protobuf", "otlp_http")])
def test_any_otlp_backend_can_stand_behind_the_collector(protocol: str, kind: str) -> None:
    backend = collected(protocol=protocol, endpoint="https://tempo:1", signals=["traces"], compression="gzip")
    found = document(source_of({"tempo": {"type": "otlp", **backend}}, {"backends": ["tempo"]}))
    exporter = found["exporters"][f"{kind}/tempo"]
    assert exporter["endpoint"] == "${env:HFT_TEMPO_ENDPOINT:-https://tempo:1}"
    assert exporter["compression"] == "gzip"
    assert exporter.get("tls") == (
        {"insecure": "${env:HFT_TEMPO_INSECURE:-false}"} if protocol == "grpc" else None
    )
    pipelines = found["service"]["pipelines"]
    assert {name for name in pipelines if "tempo" in name} == {"traces/tempo", "traces/tempo.audit"}
    assert pipelines["traces/tempo.audit"]["exporters"] == [f"{kind}/tempo.audit"]
    assert found["exporters"][f"{kind}/tempo.audit"]["retry_on_failure"] == {"max_elapsed_time": "0s"}


def test_certificates_of_an_otlp_backend_are_used() -> None:
    backend = collected(protocol="grpc", endpoint="tempo:1", certificate="/ca.pem", signals=["logs"])
    tls = document(source_of({"tempo": {"type": "otlp", **backend}}, {"backends": ["tempo"]}))["exporters"][
        "otlp_grpc/tempo"
    ]["tls"]
    assert tls == {"insecure": "${env:HFT_TEMPO_INSECURE:-false}", "ca_file": "/ca.pem"}


def test_what_no_backend_is_marked_for_shows_in_dev() -> None:
    found = document(source_of({"file": collected(format="json")}, {"backends": ["file"]}))
    assert found["service"]["pipelines"]["logs/rest"]["exporters"] == ["debug/rest"]
    assert found["processors"]["filter/rest"]["trace_conditions"] == [
        'scope.attributes["hft.backends"] != nil'
    ]


def test_queues_in_memory_are_small_in_dev() -> None:
    source = source_of({"elasticsearch": {}}, {"backends": ["elasticsearch"]})
    sizes = {
        profile: [
            document(source, profile)["exporters"][name]["sending_queue"]["queue_size"]
            for name in ("elasticsearch", "elasticsearch/audit")
        ]
        for profile in ("dev", "gateway")
    }
    assert sizes == {"dev": [10_000, 1_000_000], "gateway": [100_000, 1_000_000]}


def test_self_metrics_have_the_prefix_of_the_way_to_the_collector() -> None:
    backends = {"prometheus": collected(), "otlp": {"config": {"prefix": "desk_"}}}
    source = source_of(backends, {"log_types": ["METRIC"], "backends": ["prometheus"]})
    assert '"desk.telemetry."' in document(source)["processors"]["filter/prometheus"]["metric_conditions"][-1]
    source = source_of({**backends, "otlp": {"config": {"prefix": ""}}}, {"backends": ["prometheus"]})
    assert '"telemetry."' in document(source)["processors"]["filter/prometheus"]["metric_conditions"][-1]


# --- variables and secrets

SECRETS = """
logging:
  environment: dev
  backends:
    otlp: {}
    file: {config: {via: collector, format: json, file_path: "${LOGS:-logs}/$$a/hft.jsonl"}}
    prometheus: {config: {via: collector, host: "${PROM_HOST}", port: "${PROM_PORT:-9000}"}}
    datadog: {config: {api_key: "%s", site: "${DD_SITE:-datadoghq.com}", hostname: "${HOST:-h}", service: "${SERVICE:-arb}"}}
    elasticsearch: {config: {api_key: "es-secret", endpoint: "https://me:es-password@es:9200"}}
    tempo:
      type: otlp
      config:
        via: collector
        endpoint: "${TEMPO}"
        headers: {authorization: "Bearer abc", x-scope: "${TENANT}"}
  routing_rules: [{backends: [file, prometheus, datadog, elasticsearch, tempo]}]
"""


@pytest.fixture
def secrets(tmp_path: Path) -> tuple[Source, Json]:
    (tmp_path / "logging.yaml").write_text(SECRETS % "dd-secret")
    source = from_file(tmp_path / "logging.yaml", {})
    return source, document(source)


def test_variables_stay_variables(secrets: tuple[Source, Json]) -> None:
    exporters = secrets[1]["exporters"]
    assert exporters["file"]["path"] == "${env:LOGS:-logs}/$$a/hft.jsonl"
    assert exporters["file/audit"]["path"] == "${env:LOGS:-logs}/$$a/hft.audit.jsonl"
    assert exporters["prometheus"]["endpoint"] == "${env:PROM_HOST}:${env:PROM_PORT:-9000}"
    assert exporters["otlp_http/tempo"]["endpoint"] == "${env:TEMPO}"
    assert exporters["datadog"]["hostname"] == "${env:HOST:-h}"
    assert exporters["datadog"]["logs"] == {
        "endpoint": "https://http-intake.logs.${env:DD_SITE:-datadoghq.com}"
    }
    assert '"${env:SERVICE:-arb}"' in secrets[1]["processors"]["transform/datadog"]["log_statements"][0]


def test_no_secret_is_written_and_each_is_said(secrets: tuple[Source, Json]) -> None:
    source, found = secrets
    text = render(source, "dev")
    assert not [
        secret for secret in ("dd-secret", "es-secret", "es-password", "Bearer abc") if secret in text
    ]
    assert found["exporters"]["datadog"]["api"]["key"] == "${env:DATADOG_API_KEY}"
    assert found["exporters"]["elasticsearch"]["api_key"] == "${env:ELASTICSEARCH_API_KEY}"
    assert found["exporters"]["elasticsearch"]["endpoints"] == ["${env:HFT_ELASTICSEARCH_ENDPOINT}"]
    assert found["exporters"]["otlp_http/tempo"]["headers"] == {
        "authorization": "${env:HFT_TEMPO_HEADERS_AUTHORIZATION}",
        "x-scope": "${env:TENANT}",
    }
    said = " ".join(source.warnings)
    for path in ("datadog.config.api_key", "elasticsearch.config.api_key", "elasticsearch.config.endpoint"):
        assert f"backends.{path} holds a secret" in said
    assert "TENANT" not in said


def test_a_secret_in_a_variable_is_that_variable(tmp_path: Path) -> None:
    (tmp_path / "logging.yaml").write_text(SECRETS % "${MY_KEY:-}")
    source = from_file(tmp_path / "logging.yaml", {})
    assert document(source)["exporters"]["datadog"]["api"]["key"] == "${env:MY_KEY:-}"


def test_variables_need_no_value_where_it_is_rendered_and_flags_take_theirs(tmp_path: Path) -> None:
    text = "logging: {backends: {otlp: {}, file: {enabled: '${ON:-true}', config: {via: collector, format: json, file_path: '${P}'}}}}"
    (tmp_path / "logging.yaml").write_text(text)
    assert (
        document(from_file(tmp_path / "logging.yaml", {}))["exporters"]["file/audit"]["path"]
        == "${env:P}.audit"
    )
    with pytest.raises(ConfigError, match="no enabled backend"):
        render(from_file(tmp_path / "logging.yaml", {"ON": "false"}), "dev")


def test_a_variable_in_a_rule_needs_its_value(tmp_path: Path) -> None:
    text = (
        "logging: {backends: {otlp: {}, file: {config: {via: collector, format: json, file_path: '${P}'}}}, "
        "routing_rules: [{log_types: [TEXT], context: {venue: '${V}'}, backends: [file]}]}"
    )
    (tmp_path / "logging.yaml").write_text(text)
    with pytest.raises(ConfigError, match="the environment variable V is not set"):
        from_file(tmp_path / "logging.yaml", {})
    found = document(from_file(tmp_path / "logging.yaml", {"V": "x"}))
    assert 'log.attributes["venue"] != "x"' in found["processors"]["filter/file"]["log_conditions"][-1]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        from_file(tmp_path / "none.yaml", {})
    (tmp_path / "broken.yaml").write_text("logging: [")
    with pytest.raises(ConfigError, match="broken YAML"):
        from_file(tmp_path / "broken.yaml", {})


def test_the_head_says_where_it_comes_from_and_comments_say_why() -> None:
    text = (ROOT / "collector-config" / "agent.yaml").read_text()
    assert "Generated: edit logging-prod.yaml" in text
    assert "hft-otel collector render logging-prod.yaml --profile agent -o agent.yaml" in text
    assert "  # First in every pipeline but those of audits" in text
    assert max(map(len, (line for line in text.splitlines() if "#" in line))) <= 120


# --- what it cannot do


def test_limits_are_said() -> None:
    config = LogConfig.from_dict(
        {
            "environment": "prod",
            "backends": {
                "otlp": {"config": {"signals": ["logs", "traces"]}},
                "console": collected(),
                "file": collected(),
                "prometheus": collected(),
            },
            "routing_rules": [
                {
                    "name": "by venue",
                    "log_types": ["METRIC"],
                    "context": {"venue": "x"},
                    "backends": ["prometheus"],
                },
                {"backends": ["file", "console"]},
            ],
            "components": {"engine": {"backends": {"file": {"config": {"file_path": "other.log"}}}}},
        }
    )
    assert [warning.partition(":")[0] for warning in limits(config)] == [
        "routing rule 'by venue' looks at venue, which is no attribute of our measurements",
        "backend console",
        "backend file",
        "backend prometheus takes metrics, which the signals of the otlp backend leave out",
        "component engine changes file_path of backend file, which the Collector serves",
    ]
    assert limits(LogConfig.from_dict({"backends": {"file": {}}})) == []


def test_a_level_between_two_of_opentelemetry_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(logging, "getLevelNamesMapping", lambda: {"NOTICE": 25, "DEBUG": 10, "WARNING": 30})
    config = LogConfig.from_dict(
        {
            "environment": "dev",
            "backends": {"otlp": {}, "file": collected(format="json")},
            "routing_rules": [{"min_level": "NOTICE", "backends": ["file"]}],
        }
    )
    assert "states a level between two of OpenTelemetry's" in limits(config)[0]


def test_file_in_text_form_is_said_at_rendering() -> None:
    source = source_of({"file": collected()}, {"backends": ["file"]})
    plan(source, "dev")
    assert source.warnings == ["backends.file: the Collector writes OTLP as JSON lines, not format: text"]
