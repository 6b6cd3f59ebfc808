"""Rules as conditions of the Collector: how they are put together, and what each part of a rule becomes."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel import LogConfig, LogType
from hft_otel.collector.expressions import (
    FALSE,
    TRUE,
    all_of,
    any_of,
    call,
    compare,
    equals_text,
    glob_pattern,
    negate,
    quote,
)
from hft_otel.collector.profiles import route_table
from hft_otel.collector.routing import SIGNALS, Kind, drop_conditions, wants

TEXT, AUDIT, METRIC, SPANS, AUDIT_SPANS = SIGNALS
A, B, C = call("A()"), call("B()"), compare("x", "==", "1")


# --- expressions


def test_nothing_to_ask_is_always_or_never() -> None:
    assert all_of([]) == all_of([TRUE, TRUE]) == any_of([A, TRUE]) == negate(FALSE) == TRUE
    assert any_of([]) == any_of([FALSE]) == all_of([A, FALSE]) == negate(TRUE) == FALSE


def test_one_part_stands_alone_and_twice_the_same_is_once() -> None:
    assert all_of([TRUE, A]) == any_of([A, FALSE]) == any_of([A, A]) == A


def test_parts_of_another_word_are_put_in_brackets() -> None:
    assert all_of([A, any_of([B, C])]).text == "A() and (B() or x == 1)"
    assert any_of([all_of([A, B]), C]).text == "(A() and B()) or x == 1"
    assert any_of([A, any_of([B, C])]).text == "A() or B() or x == 1"


def test_opposites_are_short_and_never_doubled() -> None:
    assert negate(A).text == "not A()"
    assert negate(negate(A)).text == "A()"
    assert [negate(compare("x", operator, "1")).text for operator in ("==", "!=", ">=", "<=")] == [
        "x != 1",
        "x == 1",
        "x < 1",
        "x > 1",
    ]
    assert negate(any_of([A, B])).text == "not (A() or B())"
    assert negate(negate(any_of([A, B]))).text == "(A() or B())"


def test_text_is_quoted_for_the_language_and_for_the_collectors_file() -> None:
    assert quote('a"b\\c\n$x') == r'"a\"b\\c\n$$x"'
    assert quote("Ä") == '"Ä"'


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("mexc", 'a == "mexc"'),
        ("True", 'a == "True" or a == true'),
        ("7", 'a == "7" or (IsInt(a) and a == 7)'),
        ("-3", 'a == "-3" or (IsInt(a) and a == -3)'),
        ("007", 'a == "007"'),
        ("-0", 'a == "-0"'),
        (str(2**63), f'a == "{2**63}"'),
        ("0.5", 'a == "0.5" or (IsDouble(a) and a == 0.5)'),
        ("1e+20", 'a == "1e+20" or (IsDouble(a) and a == 1.0e+20)'),
        ("0.50", 'a == "0.50"'),
        ("1-2", 'a == "1-2"'),
        ("nan", 'a == "nan"'),
    ],
)
def test_a_value_is_asked_for_in_every_type_that_python_prints_so(text: str, condition: str) -> None:
    assert equals_text("a", text).text == condition


PATTERNS = st.text(st.sampled_from("*?[]!-^\\.abcz(|)$"), max_size=8)
NAMES = st.text(st.sampled_from("[]!-^\\.abcz(|)$"), max_size=6)


@given(PATTERNS, NAMES)
def test_glob_is_what_pythons_fnmatch_is(pattern: str, name: str) -> None:
    # The same in RE2 and in Python, but for the end of the text and the set that holds nothing.
    python = re.sub(r"\$$", r"\\Z", glob_pattern(pattern)).replace(r"[^\x00-\x{10FFFF}]", "(?!)")
    assert bool(re.match(python, name)) == fnmatchcase(name, pattern), (pattern, python)


@pytest.mark.parametrize("pattern", ["[z-a]", "[!z-a]", "[a-c]x", "[]a]", "[!]a]", "[a", "[a-]", "x[z-ab]"])
@pytest.mark.parametrize("name", ["a", "b", "bx", "]", "-", "[a", "xb", "z", "c"])
def test_sets_of_a_glob_are_pythons(pattern: str, name: str) -> None:
    python = glob_pattern(pattern).replace(r"[^\x00-\x{10FFFF}]", "(?!)")
    assert bool(re.match(python, name)) == fnmatchcase(name, pattern)


def test_glob_reads_well() -> None:
    assert glob_pattern("parser.*") == r"^(?s:parser\..*)$"
    assert glob_pattern("[!ab]x") == "^[^ab]x$"


# --- rules


def table_of(*rules: dict[str, Any], **backends: dict[str, Any]) -> Any:
    known = {
        "file": {"config": {"via": "collector", "format": "json"}},
        "prometheus": {"config": {"via": "collector"}},
    }
    config = LogConfig.from_dict(
        {
            "environment": "dev",
            "backends": {"otlp": {}, **known, "elasticsearch": {}, **backends},
            "routing_rules": list(rules),
        }
    )
    return route_table(config)


def wanted(kind: Kind, name: str, *rules: dict[str, Any], **backends: dict[str, Any]) -> str:
    table = table_of(*rules, **backends)
    return wants(kind, table.backends[name], table).text


def test_levels_become_severities() -> None:
    rule = {"min_level": "WARNING", "max_level": "ERROR", "backends": ["file"]}
    assert wanted(TEXT, "file", rule) == "log.severity_number >= 13 and log.severity_number <= 17"


def test_a_level_says_nothing_of_other_types() -> None:
    rule = {"min_level": "WARNING", "log_types": ["TEXT", "AUDIT"], "backends": ["file"]}
    assert wanted(AUDIT, "file", rule) == "true"
    assert wanted(AUDIT, "file", {"min_level": "WARNING", "backends": ["file"]}) == "true"  # kept by default
    assert wanted(METRIC, "prometheus", {"min_level": "WARNING", "backends": ["prometheus"]}) == "false"


def test_the_backends_own_level_comes_after_the_rules() -> None:
    rule = {"backends": ["file"]}
    assert wanted(TEXT, "file", rule) == "true"  # DEBUG keeps out nothing, also not what has no severity
    strict = {"min_level": "ERROR", "config": {"via": "collector", "format": "json"}}
    assert wanted(TEXT, "file", rule, file=strict) == "log.severity_number >= 17"


def test_environments_are_decided_when_it_is_compiled() -> None:
    assert wanted(TEXT, "file", {"environments": ["dev"], "backends": ["file"]}) == "true"
    assert wanted(TEXT, "file", {"environments": ["prod"], "backends": ["file"]}) == "false"


def test_loggers_are_scopes() -> None:
    exact = {"loggers": ["app"], "backends": ["file"]}
    assert wanted(TEXT, "file", exact) == 'scope.name == "app"'
    globs = {"loggers": ["app", "parser.*"], "backends": ["file"]}
    assert (
        wanted(TEXT, "file", globs) == 'scope.name == "app" or IsMatch(scope.name, "^(?s:parser\\\\..*)$$")'
    )
    assert wanted(TEXT, "file", {"loggers": ["app", "*"], "backends": ["file"]}) == "true"


def test_context_is_attributes_of_what_carries_them() -> None:
    rule = {"context": {"exchange": ["mexc", "gate"], "symbol": "X"}, "backends": ["file", "prometheus"]}
    both = '({0}["exchange"] == "gate" or {0}["exchange"] == "mexc") and {0}["symbol"] == "X"'
    assert wanted(TEXT, "file", rule) == both.format("log.attributes")
    assert wanted(METRIC, "prometheus", rule) == both.format("datapoint.attributes")


def test_several_rules_are_alternatives() -> None:
    rules = (
        {"min_level": "ERROR", "backends": ["file"]},
        {"loggers": ["a"], "log_types": "TEXT", "backends": ["file"]},
    )
    assert wanted(TEXT, "file", *rules) == 'log.severity_number >= 17 or scope.name == "a"'


def test_final_stops_the_rules_behind_it_and_not_itself() -> None:
    rules = (
        {"loggers": ["a"], "log_types": ["TEXT"], "backends": ["elasticsearch"], "final": True},
        {"backends": ["file", "elasticsearch"]},
    )
    assert wanted(TEXT, "file", *rules) == 'scope.name != "a"'
    assert wanted(TEXT, "elasticsearch", *rules) == 'scope.name == "a" or scope.name != "a"'
    assert wanted(AUDIT, "file", *rules) == "true"


def test_audit_that_no_rule_names_is_kept_by_those_that_keep_it() -> None:
    assert wanted(AUDIT, "file") == wanted(AUDIT, "elasticsearch") == "true"
    named = {"log_types": ["AUDIT"], "loggers": ["a"], "backends": ["elasticsearch"]}
    assert wanted(AUDIT, "file", named) == 'scope.name != "a"'
    assert wanted(AUDIT, "elasticsearch", named) == 'scope.name == "a" or scope.name != "a"'


def test_backends_get_only_what_they_take() -> None:
    everything = {"backends": ["file", "prometheus"]}
    assert wanted(METRIC, "file", everything) == "false"
    assert wanted(TEXT, "prometheus", everything) == "false"


# --- filters


def test_filter_of_text_drops_audits_other_backends_records_and_what_no_rule_wants() -> None:
    table = table_of({"min_level": "WARNING", "backends": ["file"]})
    mark = 'scope.attributes["hft.backends"]'
    assert drop_conditions(TEXT, ["file"], table, "hft.telemetry.") == [
        'HasPrefix(log.event_name, "audit.") or log.event_name == "hft.audit.anchor"',
        f'{mark} != nil and not IsMatch({mark}, "(^|,)file(,|$$)")',
        f'{mark} == nil and (resource.attributes["telemetry.distro.name"] == "hft-otel" or log.severity_number < 13)',
    ]


def test_filter_of_several_backends_keeps_what_one_of_them_wants() -> None:
    table = table_of(
        {"loggers": ["a"], "backends": ["file"]}, {"loggers": ["b"], "backends": ["elasticsearch"]}
    )
    marked, unmarked = drop_conditions(TEXT, ["file", "elasticsearch"], table, "")[1:]
    assert '"(^|,)(file|elasticsearch)(,|$$)"' in marked
    assert 'not (scope.name == "a" or scope.name == "b")' in unmarked


def test_telemetrys_own_metrics_pass_every_filter_of_metrics() -> None:
    conditions = drop_conditions(METRIC, ["prometheus"], table_of(), "hft.telemetry.")
    assert 'not HasPrefix(metric.name, "hft.telemetry.")' in conditions[-1]


def test_spans_that_are_no_audit_pass_and_audit_spans_follow_the_rules() -> None:
    table = table_of()
    audit = 'span.attributes["hft.audit"]'
    assert drop_conditions(SPANS, ["file"], table, "") == [f"{audit} != nil"]
    assert drop_conditions(AUDIT_SPANS, ["file"], table, "")[0] == f"{audit} == nil"


def test_names_with_special_characters_are_told_apart() -> None:
    odd = {"type": "file", "config": {"via": "collector", "format": "json", "file_path": "x"}}
    table = table_of(**{"a.b+c": odd})
    marked = drop_conditions(TEXT, ["a.b+c"], table, "")[1]
    assert r'"(^|,)a\\.b\\+c(,|$$)"' in marked


def test_a_backend_that_only_a_component_has_gets_marked_records_only() -> None:
    conditions = drop_conditions(TEXT, ["only_there"], table_of(), "")
    assert conditions[-1] == 'scope.attributes["hft.backends"] == nil'


def test_every_kind_of_record_has_a_kind_of_pipeline() -> None:
    assert {kind.log_type for kind in SIGNALS} == {*LogType, None}
