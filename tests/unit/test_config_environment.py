"""`${VAR}` in configurations, and the standard OTEL_* variables."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel._environment import Unquoted, substitute, with_environment
from hft_otel._validation import Place, literal
from hft_otel._yaml import load_default, load_file, load_mapping
from hft_otel.config import (
    BackendConfig,
    ConfigError,
    ConsoleConfig,
    CustomConfig,
    FileConfig,
    LogConfig,
    OtlpConfig,
)

PLACE = Place("f.yaml")


def text(value: str, **environ: str) -> Any:
    return literal(substitute(value, environ, PLACE))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${A}", "1"),
        ("${env:A}", "1"),
        ("x${A}y${B}z", "x1y2z"),
        ("${A}${A}", "11"),
        ("${NO:-default}", "default"),
        ("${NO:-}", ""),
        ("${NO:-a:-b c}", "a:-b c"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY}", ""),
        ("${A:-default}", "1"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$1"),
        ("$A $ {A} a$", "$A $ {A} a$"),
        ("${NESTED}", "${A}"),
        ("${NO:-$$}", "$$"),
        ("plain", "plain"),
    ],
)
def test_variables_are_replaced(template: str, expected: str) -> None:
    assert text(template, A="1", B="2", EMPTY="", NESTED="${A}") == expected


@pytest.mark.parametrize("template", ["${", "x ${A", "${}", "${1A}", "${A-b}", "${A:-${B}}", "${ A }"])
def test_a_malformed_variable_is_an_error(template: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml: logging\n.*no variable\n.*\$\$ for a dollar sign"):
        text(template, A="1", B="2")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["raw", "variable", "default", "dollar"]),
            st.text(st.characters(exclude_characters="${}")),
        ),
        max_size=8,
    )
)
def test_text_is_the_sum_of_its_parts(parts: list[tuple[str, str]]) -> None:
    environ = {f"V{number}": value for number, (kind, value) in enumerate(parts) if kind == "variable"}
    shapes = {"raw": "{}", "variable": "${{V{number}}}", "default": "${{NO:-{}}}", "dollar": "$${}"}
    template = "".join(
        shapes[kind].format(value, number=number) for number, (kind, value) in enumerate(parts)
    )
    assert text(template, **environ) == "".join("$" * (kind == "dollar") + value for kind, value in parts)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_what_a_variable_holds_is_text_and_never_structure(value: str) -> None:
    for template in ("${V}", Unquoted("${V}")):
        config = load_mapping({"global_context": {"a": template}}, "x", {"V": value})
        found = config.global_context["a"]
        assert type(found) in (str, int, float, bool, type(None))
        if isinstance(found, str):
            assert found == value
    path = load_mapping({"backends": {"file": {"file_path": f"x{'${V}'}"}}}, "x", {"V": value}).backends[
        "file"
    ]
    assert isinstance(path, FileConfig)
    assert path.file_path == f"x{value}"
    assert type(path.file_path) is str


def dollars_doubled(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: dollars_doubled(value) for key, value in data.items()}
    if isinstance(data, list):
        return [dollars_doubled(value) for value in data]
    return data.replace("$", "$$") if isinstance(data, str) else data


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_data_without_variables_stays_as_it_is(data: Any) -> None:
    escaped = dollars_doubled(data)
    before = deepcopy(escaped)
    assert literal(substitute(escaped, {}, PLACE)) == data
    assert escaped == before


def load(tmp_path: Path, body: str, **environ: str) -> LogConfig:
    file = tmp_path / "logging.yaml"
    file.write_text("logging:\n" + body)
    return load_file(file, environ)


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_replaced_text_becomes_the_type_of_its_field(tmp_path: Path, quote: str) -> None:
    def value(name: str) -> str:
        return f"{quote}${{{name}}}{quote}"

    config = load(
        tmp_path,
        f"""
  exit_timeout: {value("FLOAT")}
  backends:
    console:
      enabled: {value("NO")}
      config:
        color: {value("YES")}
        stream: {value("STREAM")}
    file:
      config:
        backup_count: {value("INT")}
        max_size_mb: {value("INT")}
        file_path: {value("INT")}
        rotation: {value("ZERO")}
    datadog:
      enabled: {value("OFF")}
      config:
        api_key: {value("INT")}
        tags:
          - {value("INT")}
""",
        FLOAT="1.5", NO="false", YES="TRUE", INT="7", ZERO="0", OFF="off", STREAM="stdout",
    )  # fmt: skip
    assert config.exit_timeout == 1.5
    assert config.backends["console"] == ConsoleConfig(enabled=False, color=True, stream="stdout")
    assert config.backends["file"] == FileConfig(backup_count=7, max_size_mb=7, file_path="7", rotation=False)
    assert config.backends["datadog"].tags == ["7"]  # type: ignore[attr-defined]
    assert config.backends["datadog"].api_key == "7"  # type: ignore[attr-defined]
    assert config.backends["datadog"].enabled is False


def test_replaced_text_that_is_no_such_type_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r'expected a whole number from 0 to 100,000, found "many" \(text\)'
    ):
        load(tmp_path, "  backends: {file: {config: {backup_count: '${N}'}}}", N="many")
    with pytest.raises(ConfigError, match=r"unknown value .jsn.\n.*did you mean json"):
        load(tmp_path, "  backends: {file: {config: {format: '${F}'}}}", F="jsn")


def test_where_any_type_will_do_quotes_decide_as_in_yaml(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
  global_context:
    quoted: "${N}"
    unquoted: ${N}
    flag: ${FLAG}
    nothing: ${NO:-}
    list: ${LIST}
    odd: ${ODD}
  backends:
    mine: {class: "${MODULE}:X", config: {port: "${N}"}}
""",
        N="8080", FLAG="true", LIST="[1, 2]", ODD="0b_", MODULE="a.b",
    )  # fmt: skip
    assert config.global_context == {
        "quoted": "8080", "unquoted": 8080, "flag": True, "nothing": None, "list": "[1, 2]", "odd": "0b_",
    }  # fmt: skip
    assert config.backends["mine"] == CustomConfig(class_path="a.b:X", config={"port": "8080"})


def test_an_empty_default_without_quotes_is_no_value(tmp_path: Path) -> None:
    body = "  backends:\n    otlp:\n    datadog:\n      config:\n        api_key: ${KEY:-}\n"
    assert load(tmp_path, body).backends["datadog"].api_key is None  # type: ignore[attr-defined]


def test_a_variable_in_a_rule(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
  backends: {file: {}}
  routing_rules:
    - {backends: ["${B}"], final: "${F:-false}", min_level: "${L:-info}", context: {shard: "${S}"}}
""",
        B="file", S="3",
    )  # fmt: skip
    assert config.routing_rules == [
        {"backends": ["file"], "final": False, "min_level": "info", "context": {"shard": "3"}}
    ]
    assert all(type(value) is not object for value in config.routing_rules[0].values())
    assert type(config.routing_rules[0]["min_level"]) is str


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("  backends: {datadog: {config: {api_key: '${NO}'}}, otlp: }", "backends.datadog.config.api_key"),
        ("  backends: {datadog: {enabled: '${ON:-true}', config: {api_key: '${NO}'}}, otlp: }", "backends.datadog.config.api_key"),
        ("  backends: {slack: {enabled: '${NO}'}}", "backends.slack.enabled"),
        ("  backends: {slack: {enabled: false, config: {webhook_url: '${NO}'}}}\n  components: {p: {backends: {slack: {enabled: true}}}}", "backends.slack.config.webhook_url"),
        ("  global_context: {a: '${NO}'}", "global_context.a"),
        ("  routing_rules: [{backends: ['${NO}']}]", "routing_rules[0].backends[0]"),
        ("  components: {p: {context: {a: 'x${NO}'}}}", "components.p.context.a"),
    ],
)  # fmt: skip
def test_a_variable_that_is_not_set_is_an_error_where_it_is_needed(
    tmp_path: Path, body: str, path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, body)
    assert caught.value.path == f"logging.{path}"
    assert caught.value.cause == "the environment variable NO is not set"
    assert "${NO:-default}" in caught.value.cure


def test_a_variable_that_is_not_set_leaves_the_default_where_it_is_not_needed(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
  backends:
    otlp: {enabled: false, config: {timeout: "${NO}", headers: {a: "${NO}", b: c}, signals: [logs, "${NO}"]}}
    slack: {enabled: "${ON:-false}", config: {webhook_url: "https://x/${NO}"}}
    mine: {class: "a:B", enabled: false, config: {key: "${NO}"}}
  components:
    p: {backends: {slack: {min_level: ERROR}}}
""",
    )
    otlp = config.backends["otlp"]
    assert isinstance(otlp, OtlpConfig)
    assert (otlp.timeout, otlp.headers, otlp.signals) == (10.0, {"b": "c"}, ["logs"])
    assert config.backends["slack"].webhook_url is None  # type: ignore[attr-defined]
    assert config.backends["mine"].config == {}


def test_no_error_about_a_variable_shows_its_value(tmp_path: Path) -> None:
    for body in (
        "  backends: {slack: {config: {webhook_url: '${S}'}}}",
        "  backends: {otlp: {config: {headers: {a: {b: '${S}'}}}}}",
        "  backends: {webhook: {config: {url: 'http://u:${S}@[x'}}}",
    ):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, body, S="hunter2")
        assert "hunter2" not in str(caught.value)


OTEL = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    "OTEL_EXPORTER_OTLP_HEADERS": "api-key=k%2C1, x = y%20z,,a=b=c",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "c.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "k.pem",
    "OTEL_METRIC_EXPORT_INTERVAL": "1500",
    "OTEL_SERVICE_NAME": "svc",
    "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,service.version=2%2E0,broken,x=y",
    "OTEL_SDK_DISABLED": "true",
}
FILLED = OtlpConfig(
    endpoint="http://c:4318", protocol="grpc", headers={"api-key": "k,1", "x": "y z", "a": "b=c"}, timeout=2.5,
    compression="gzip", certificate="ca.pem", client_certificate="c.pem", client_key="k.pem", metric_interval=1.5,
)  # fmt: skip


def test_standard_variables_fill_what_is_left_open() -> None:
    config = LogConfig(backends={"o": OtlpConfig(), "file": FileConfig()}, source="s")
    before = deepcopy(config)
    filled = with_environment(config, OTEL)
    assert filled.backends == {"o": FILLED, "file": FileConfig()}
    assert filled.global_context == {"service": "svc", "version": "2.0"}
    assert filled.source == "s"
    assert config == before
    assert with_environment(filled, OTEL) == filled
    assert with_environment(filled, {}) == filled


def test_standard_variables_change_nothing_that_is_given() -> None:
    given_config = LogConfig(
        backends={
            "o": OtlpConfig(
                endpoint="http://mine", protocol="http/protobuf", headers={"a": "1"}, timeout=1, certificate="mine",
                client_certificate="mine", client_key="mine", metric_interval=9, compression="gzip",
            )
        },
        global_context={"service": "mine", "service.version": "1"},
    )  # fmt: skip
    environ = OTEL | {"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
    assert with_environment(given_config, environ) == given_config


def test_empty_standard_variables_count_as_not_set() -> None:
    config = LogConfig(backends={"o": OtlpConfig()})
    assert with_environment(config, dict.fromkeys(OTEL, "")) == with_environment(config, {})


@pytest.mark.parametrize(("protocol", "port"), [(None, 4318), ("http/protobuf", 4318), ("grpc", 4317)])
def test_the_endpoint_has_the_protocols_default(protocol: str | None, port: int) -> None:
    filled = with_environment(LogConfig(backends={"o": OtlpConfig(protocol=protocol)}), {}).backends["o"]
    assert filled == OtlpConfig(endpoint=f"http://127.0.0.1:{port}", protocol=protocol or "http/protobuf")


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "unknown value 'http/json'"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "unknown value 'zstd'"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "expected a positive number of seconds, found 'soon'"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "expected a positive number of seconds"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan", "expected a positive number of milliseconds"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "holds an entry without ="),
    ],
)
def test_a_standard_variable_that_cannot_be_used_is_an_error_only_for_those_who_use_it(
    variable: str, value: str, cause: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        with_environment(LogConfig(backends={"o": OtlpConfig()}), {variable: value})
    assert (caught.value.file, caught.value.path) == ("environment", variable)
    assert cause in caught.value.cause
    assert caught.value.cure
    assert "hunter2" not in str(caught.value)
    with_environment(
        LogConfig(backends={"o": OtlpConfig(enabled=False), "file": FileConfig()}), {variable: value}
    )


def test_a_plain_backend_config_becomes_the_class_of_its_kind() -> None:
    config = LogConfig(backends={"otlp": BackendConfig(min_level="ERROR", config={"timeout": 3})})
    filled = with_environment(config, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"})
    expected = OtlpConfig(min_level="ERROR", timeout=3, endpoint="http://c:1", protocol="http/protobuf")
    assert filled.backends == {"otlp": expected}


def test_files_and_defaults_take_the_standard_variables(tmp_path: Path) -> None:
    config = load(tmp_path, "  backends: {otlp: {config: {timeout: 7}}}\n", **OTEL)
    assert config.backends["otlp"].timeout == 7  # type: ignore[attr-defined]
    assert config.backends["otlp"].endpoint == "http://c:4318"  # type: ignore[attr-defined]
    assert config.global_context == {"service": "svc", "version": "2.0"}
    assert load_default({"OTEL_SERVICE_NAME": "svc"}).global_context == {"service": "svc"}
    assert load_default({"HFT_OTEL_CONFIG": str(tmp_path / "logging.yaml"), **OTEL}) == config


def test_an_endpoint_variable_that_is_no_url_names_what_it_would_fill(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"otlp\.config\.endpoint"):
        load(tmp_path, "  backends: {otlp: }\n", OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318")
    grpc = {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert load(tmp_path, "  backends: {otlp: }\n", **grpc).backends["otlp"].endpoint == "collector:4317"  # type: ignore[attr-defined]
