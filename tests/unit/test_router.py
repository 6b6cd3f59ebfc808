"""Routing, sentence by sentence as the design states it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel import router as module
from hft_otel.config import PRODUCTION_ROUTING_RULES
from hft_otel.interfaces import LogBackend
from hft_otel.record import LogLevel, LogRecord, LogType
from hft_otel.router import BackendInfo, LogRouter, RouteTable, level_number

TEXT, METRIC, AUDIT = LogType.TEXT, LogType.METRIC, LogType.AUDIT
BACKENDS = (
    BackendInfo("console", frozenset({TEXT})),
    BackendInfo("file", frozenset({TEXT, AUDIT}), keeps_audit=True),
    BackendInfo("prometheus", frozenset({METRIC})),
    BackendInfo("otlp", keeps_audit=True),
    BackendInfo("elasticsearch", frozenset({TEXT, AUDIT}), keeps_audit=True),
    BackendInfo("datadog"),
)


def record(
    log_type: LogType = TEXT, level: int = 20, name: str = "exchange.mexc", **context: Any
) -> LogRecord:
    return LogRecord(1.0, LogLevel(level), log_type, name, "m", context)


def names(
    rules: list[dict[str, Any]], wanted: LogRecord, environment: str = "dev", backends: Any = BACKENDS
) -> set[str]:
    found = RouteTable(rules, backends, environment).names(wanted)
    assert len(set(found)) == len(found)
    return set(found)


def test_a_record_goes_to_the_union_of_the_backends_of_all_matching_rules() -> None:
    rules = [
        {"min_level": "INFO", "backends": ["console"]},
        {"min_level": "INFO", "backends": ["console", "file"]},
        {"min_level": "ERROR", "backends": ["datadog"]},
    ]
    assert names(rules, record()) == {"console", "file"}


def test_final_stops_after_the_rule_that_matches() -> None:
    rules = [
        {"min_level": "ERROR", "backends": ["file"], "final": True},
        {"min_level": "DEBUG", "backends": ["console"]},
    ]
    assert names(rules, record(level=40)) == {"file"}
    assert names(rules, record(level=20)) == {"console"}


def test_final_keeps_what_earlier_rules_gave() -> None:
    rules = [
        {"min_level": "DEBUG", "backends": ["console"]},
        {"min_level": "ERROR", "backends": ["file"], "final": True},
        {"min_level": "DEBUG", "backends": ["datadog"]},
    ]
    assert names(rules, record(level=40)) == {"console", "file"}


def test_no_matching_rule_means_no_backend() -> None:
    assert names([{"min_level": "ERROR", "backends": ["file"]}], record()) == set()
    assert names([], record()) == set()


@pytest.mark.parametrize("level", [{"min_level": "DEBUG"}, {"max_level": "CRITICAL"}])
def test_a_rule_with_a_level_and_no_log_types_speaks_of_text(level: dict[str, str]) -> None:
    rules = [{**level, "backends": ["otlp", "datadog"]}]
    assert names(rules, record()) == {"otlp", "datadog"}
    assert names(rules, record(METRIC)) == set()


def test_a_rule_with_neither_level_nor_log_types_speaks_of_all_types() -> None:
    rules = [{"backends": ["datadog"]}]
    expected = {log_type: {"datadog"} for log_type in LogType}
    assert {log_type: names(rules, record(log_type)) for log_type in LogType} == expected


def test_levels_of_a_rule_apply_to_text_only() -> None:
    rules = [{"log_types": ["TEXT", "METRIC", "AUDIT"], "min_level": "CRITICAL", "backends": ["datadog"]}]
    assert names(rules, record(METRIC)) == names(rules, record(AUDIT)) == {"datadog"}
    assert names(rules, record(TEXT)) == set()


def test_levels_of_a_backend_apply_to_text_only() -> None:
    backends = [BackendInfo("datadog", min_level=40)]
    rules = [{"backends": ["datadog"]}]
    assert names(rules, record(METRIC), backends=backends) == {"datadog"}
    assert names(rules, record(AUDIT), backends=backends) == {"datadog"}
    assert names(rules, record(TEXT, 30), backends=backends) == set()
    assert names(rules, record(TEXT, 40), backends=backends) == {"datadog"}


def test_min_and_max_level_are_both_inclusive() -> None:
    rules = [{"min_level": "INFO", "max_level": "WARNING", "backends": ["console"]}]
    taken = {level for level in (10, 20, 25, 30, 40) if names(rules, record(level=level))}
    assert taken == {20, 25, 30}


def test_a_backend_gets_only_what_it_can_take() -> None:
    everybody = [info.name for info in BACKENDS]
    rules = [{"backends": everybody}]
    assert names(rules, record(TEXT)) == {"console", "file", "otlp", "elasticsearch", "datadog"}
    assert names(rules, record(METRIC)) == {"prometheus", "otlp", "datadog"}
    assert names(rules, record(AUDIT)) == {"file", "otlp", "elasticsearch", "datadog"}


def test_audit_that_no_rule_names_goes_to_every_file_elasticsearch_and_otlp_backend() -> None:
    rules = [
        {"min_level": "ERROR", "backends": ["console"]},
        {"log_types": ["METRIC"], "backends": ["datadog"]},
    ]
    assert names(rules, record(AUDIT)) == {"file", "elasticsearch", "otlp"}


def test_audit_that_a_rule_names_goes_where_it_says() -> None:
    rules = [{"log_types": ["AUDIT"], "backends": ["datadog"]}]
    assert names(rules, record(AUDIT)) == {"datadog"}


@pytest.mark.parametrize("names_only", [["console"], ["prometheus"], ["gone"]])
def test_audit_named_only_for_backends_that_cannot_take_it_is_kept_all_the_same(
    names_only: list[str],
) -> None:
    rules = [{"backends": names_only}]
    assert {"file", "elasticsearch", "otlp"} <= names(rules, record(AUDIT))


def test_audit_is_kept_where_the_rule_that_names_it_does_not_match() -> None:
    rules = [{"log_types": ["AUDIT"], "backends": ["datadog"], "environments": ["prod"]}]
    assert names(rules, record(AUDIT)) == {"file", "elasticsearch", "otlp"}
    assert names(rules, record(AUDIT), "prod") == {"datadog"}


def test_audit_is_kept_past_the_min_level_of_a_backend() -> None:
    backends = [BackendInfo("file", frozenset({TEXT, AUDIT}), 50, keeps_audit=True)]
    assert names([], record(AUDIT), backends=backends) == {"file"}


def test_a_backend_that_no_rule_names_gets_nothing_else() -> None:
    rules = [{"backends": ["console"]}]
    assert "file" not in names(rules, record(TEXT))
    assert "otlp" not in names(rules, record(METRIC))


def test_a_rule_counts_only_in_its_environments() -> None:
    rules = [{"backends": ["console"], "environments": ["dev", "test"]}]
    assert names(rules, record(), "dev") == names(rules, record(), "test") == {"console"}
    assert names(rules, record(), "prod") == set()


def test_the_production_rules_of_the_plan() -> None:
    rules = PRODUCTION_ROUTING_RULES
    assert names(rules, record(METRIC), "prod") == {"prometheus", "datadog"}
    assert names(rules, record(level=30), "prod") == {"file", "datadog"}
    assert names(rules, record(level=20), "prod") == set()


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("exchange.*", "exchange.mexc", True),
        ("exchange.*", "exchange.mexc.public", True),
        ("exchange.*", "exchange", False),
        ("*.mexc", "parser.mexc", True),
        ("exchange.mexc", "exchange.mexc", True),
        ("exchange.mexc", "exchange.mexc2", False),
        ("Exchange.*", "exchange.mexc", False),
        ("exchange.[gm]*", "exchange.gateio", True),
    ],
)
def test_a_rule_may_name_loggers_by_pattern(pattern: str, name: str, covered: bool) -> None:
    rules = [{"loggers": pattern, "backends": ["console"]}, {"loggers": ["never"], "backends": ["file"]}]
    assert names(rules, record(name=name)) == ({"console"} if covered else set())


@pytest.mark.parametrize(("name", "covered"), [(None, True), (5, False), (b"N", False), (["N"], False)])
def test_a_logger_s_name_that_is_no_text_counts_as_what_it_prints(name: Any, covered: bool) -> None:
    table = RouteTable([{"loggers": "N*", "min_level": "INFO", "backends": ["console"]}], BACKENDS)
    assert table.rules[0].covers(name) is covered
    assert (table.threshold(name) == 20) is table.wants(TEXT, name) is covered
    assert any(decision.wanted for decision in table.explain(record(name=name))) is covered


def test_a_rule_may_ask_for_context_values() -> None:
    rules = [{"context": {"exchange": ["mexc", "gateio"], "live": True, "shard": 3}, "backends": ["console"]}]
    assert names(rules, record(exchange="mexc", live=True, shard=3)) == {"console"}
    assert names(rules, record(exchange="gateio", live="True", shard="3")) == {"console"}
    assert names(rules, record(exchange="binance", live=True, shard=3)) == set()
    assert names(rules, record(exchange="mexc", live=True)) == set()


def test_a_rule_that_asks_for_context_sees_the_tags_of_a_measurement_first() -> None:
    rules = [{"context": {"exchange": "mexc"}, "backends": ["prometheus"]}]
    tagged, other = record(METRIC, exchange="gateio"), record(METRIC, exchange="mexc")
    tagged.metric_tags, other.metric_tags = {"exchange": "mexc"}, {"exchange": "gateio"}
    assert names(rules, tagged) == {"prometheus"}
    assert names(rules, other) == set()
    assert names(rules, record(METRIC, exchange="mexc")) == {"prometheus"}


def test_a_missing_context_key_is_not_the_value_none() -> None:
    rules = [{"context": {"order": "None"}, "backends": ["console"]}]
    assert names(rules, record()) == set()
    assert names(rules, record(order=None)) == {"console"}


def test_answers_are_cached_by_what_they_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [
        {"context": {"exchange": "mexc"}, "backends": ["console"]},
        {"loggers": "a.*", "backends": ["file"]},
    ]
    table = RouteTable(rules, BACKENDS)
    explained = 0
    explain = table.explain

    def counting(wanted: LogRecord) -> Any:
        nonlocal explained
        explained += 1
        return explain(wanted)

    monkeypatch.setattr(table, "explain", counting)
    for order in range(50):
        assert table.names(record(name="a.b", exchange="mexc", order=order)) == ("console", "file")
        assert table.names(record(name="a.b", exchange="gateio", order=order)) == ("file",)
        assert table.names(record(name="b", exchange="mexc", order=order)) == ("console",)
        assert table.names(record(name="b", order=order)) == ()
    assert explained == 4


def test_the_cache_is_bounded_when_context_values_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE_LIMIT", 10)
    table = RouteTable([{"context": {"order": "7"}, "backends": ["console"]}], BACKENDS)
    found = [order for order in range(100) if table.names(record(order=order))]
    assert found == [7]
    assert len(table._cache) <= 10


def test_levels_are_names_in_any_case_or_numbers() -> None:
    assert level_number("warning", 0) == level_number("WARNING", 0) == level_number(30, 0) == 30
    assert level_number(None, 5) == 5
    with pytest.raises(ValueError, match=r"unknown level 'LOUD'; valid are .*INFO"):
        level_number("LOUD", 0)


class TestExplain:
    def why(self, rules: list[dict[str, Any]], wanted: LogRecord, name: str) -> tuple[bool, str]:
        [decision] = [each for each in RouteTable(rules, BACKENDS).explain(wanted) if each.backend == name]
        return decision.wanted, decision.why

    def test_names_the_rule_that_gives(self) -> None:
        assert self.why([{"name": "r", "backends": ["file"]}], record(), "file") == (True, "rule 'r'")
        assert self.why([{"backends": ["file"]}], record(), "file") == (True, "rule 'rule 1'")

    @pytest.mark.parametrize(
        ("rule", "why"),
        [
            ({"environments": ["prod"]}, "rule 'r' applies only in prod, this is dev"),
            ({"log_types": ["METRIC"]}, "rule 'r' takes only METRIC"),
            ({"min_level": "ERROR"}, "rule 'r' takes only ERROR and above"),
            ({"max_level": "DEBUG"}, "rule 'r' takes only up to DEBUG"),
            ({"loggers": ["a.*", "b"]}, "rule 'r' takes only loggers a.*, b"),
            ({"context": {"k": ["2", "1"]}}, "rule 'r' takes only where k is 1 or 2"),
        ],
    )
    def test_says_why_a_rule_does_not_match(self, rule: dict[str, Any], why: str) -> None:
        assert self.why([{"name": "r", **rule, "backends": ["file"]}], record(), "file") == (False, why)

    def test_says_what_stopped_it(self) -> None:
        rules = [
            {"name": "stop", "final": True, "backends": ["file"]},
            {"name": "r", "backends": ["console"]},
        ]
        assert self.why(rules, record(), "console") == (False, "rule 'r' comes after the final rule 'stop'")

    def test_says_what_the_backend_refuses(self) -> None:
        rules = [{"name": "r", "backends": ["prometheus"]}]
        assert self.why(rules, record(), "prometheus") == (False, "rule 'r', but it takes only METRIC")
        table = RouteTable(rules, [BackendInfo("prometheus", min_level=40)])
        assert table.explain(record())[0].why == "rule 'r', but its min_level is ERROR"

    def test_says_that_no_rule_names_it(self) -> None:
        assert self.why([], record(), "file") == (False, "no rule names it")

    def test_says_that_audit_is_kept_by_default(self) -> None:
        assert self.why([], record(AUDIT), "file") == (True, "audit that no rule names is kept here")


RULES = st.lists(
    st.fixed_dictionaries(
        {"backends": st.lists(st.sampled_from([info.name for info in BACKENDS]), max_size=3)},
        optional={
            "log_types": st.lists(st.sampled_from(["TEXT", "METRIC", "AUDIT"]), max_size=2),
            "min_level": st.sampled_from(["DEBUG", "INFO", "WARNING", "CRITICAL"]),
            "max_level": st.sampled_from(["DEBUG", "INFO", "ERROR"]),
            "environments": st.lists(st.sampled_from(["dev", "prod"]), max_size=1),
            "loggers": st.lists(st.sampled_from(["a.*", "*.b", "c"]), max_size=2),
            "context": st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2"]), max_size=1),
            "final": st.booleans(),
        },
    ),
    max_size=5,
)
RECORDS = st.builds(
    lambda log_type, level, name, context: record(log_type, level, name, **context),
    st.sampled_from(list(LogType)),
    st.sampled_from([0, 5, 10, 20, 25, 30, 40, 50, 1000]),
    st.sampled_from(["a.b", "a", "c", "x.b"]),
    st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from([1, "1", "2", None]), max_size=2),
)
INFOS = st.lists(
    st.builds(
        BackendInfo,
        st.sampled_from([info.name for info in BACKENDS]),
        st.frozensets(st.sampled_from(list(LogType))),
        st.sampled_from([0, 10, 30, 50]),
        st.booleans(),
    ),
    max_size=5,
    unique_by=lambda info: info.name,
)


@given(RULES, RECORDS, INFOS)
def test_the_gates_never_hold_back_what_would_be_routed(
    rules: list[dict[str, Any]], wanted: LogRecord, infos: list[BackendInfo]
) -> None:
    table = RouteTable(rules, infos)
    routed = [decision.backend for decision in table.explain(wanted) if decision.wanted]
    assert list(table.names(wanted)) == routed == list(table.names(wanted))
    if routed:
        assert table.wants(wanted.log_type, wanted.logger_name)
        if wanted.log_type is TEXT:
            assert table.threshold(wanted.logger_name) <= wanted.level


def test_the_gates_hold_back_what_no_rule_can_want() -> None:
    rules = [
        {"min_level": "WARNING", "backends": ["console"]},
        {"loggers": "a.*", "min_level": "DEBUG", "backends": ["file"]},
    ]
    table = RouteTable(rules, BACKENDS)
    assert (table.threshold("b"), table.threshold("a.x")) == (30, 10)
    assert not table.wants(METRIC, "a.x")
    assert RouteTable([], BACKENDS).threshold("b") > 1000
    assert (
        RouteTable([{"min_level": "ERROR", "max_level": "INFO", "backends": ["file"]}], BACKENDS).threshold(
            "b"
        )
        > 1000
    )


class Plain(LogBackend):
    def __init__(self, wants: bool = True) -> None:
        self.wants = wants

    def should_handle(self, record: LogRecord) -> bool:
        return self.wants

    async def write(self, record: LogRecord) -> None:
        raise NotImplementedError


class TestLogRouter:
    def test_get_backends_returns_live_backends_as_in_the_plan(self) -> None:
        a, b = Plain(), Plain()
        router = LogRouter([{"backends": ["a"]}, {"min_level": "ERROR", "backends": ["b"]}], {"a": a, "b": b})
        assert router.get_backends(record()) == [a]
        assert router.get_backends(record(level=40)) == [a, b]

    def test_should_handle_has_the_last_word(self) -> None:
        router = LogRouter([{"backends": ["a"]}], {"a": Plain(False)})
        assert router.get_backends(record()) == []

    def test_min_level_and_types_of_live_backends_count(self) -> None:
        backend = Plain()
        backend.min_level = 40  # type: ignore[attr-defined]
        backend.accepts = frozenset({TEXT})  # type: ignore[attr-defined]
        router = LogRouter([{"backends": ["a"]}], {"a": backend})
        assert router.get_backends(record(level=30)) == router.get_backends(record(METRIC)) == []
        assert router.get_backends(record(level=40)) == [backend]
        assert router.threshold("x") == 40
        assert not router.wants(METRIC, "x")
