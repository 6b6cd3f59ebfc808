"""Profiles: which backends one Collector serves, and the pipelines that lead to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..building import backend_infos
from ..config import BackendConfig, ConfigError, ConsoleConfig, FileConfig, LogConfig, OtlpConfig
from ..record import LogType
from ..router import RouteTable
from .backends import KINDS, Built, Exporter, component_name
from .document import Path
from .expressions import quote
from .queues import STORAGE, audit_queue, bulk_queue
from .routing import AUDIT_SPAN, MARK, SIGNALS, Kind, drop_conditions
from .source import Source

__all__ = ["PROFILES", "Plan", "Served", "plan", "route_table", "served"]

PROFILES = {
    "dev": "one Collector for everything, on the developer's machine",
    "agent": "the Collector beside a trading process: files here, all else on to the gateway",
    "gateway": "the Collector that the agents send to: it reaches Prometheus, Datadog, Elasticsearch and the rest",
}
MAX_REQUEST_MIB = 64
"""Of a request over gRPC: AUDIT_BATCH audits, each as large as a segment of the journal, still fit."""
GATEWAY = "gateway"
REST = "rest"
ATTRIBUTE = MARK.removeprefix('scope.attributes["').removesuffix('"]')


class Served(NamedTuple):
    """One target of a profile: a backend, or the gateway for all that are behind it."""

    name: str
    backends: Mapping[str, tuple[str, ...]]
    """The signals of each."""
    built: Built

    def takers(self, signal: str) -> list[str]:
        """Return the backends that a signal is for."""
        return [name for name, signals in self.backends.items() if signal in signals]


class Plan:
    """A Collector's configuration as data, and the comments for it."""

    def __init__(self) -> None:
        self.receivers: dict[str, Any] = {}
        self.processors: dict[str, Any] = {}
        self.exporters: dict[str, Any] = {}
        self.connectors: dict[str, Any] = {}
        self.extensions: dict[str, Any] = {}
        self.pipelines: dict[str, dict[str, list[str]]] = {}
        self.telemetry: dict[str, Any] = {}
        self.comments: dict[Path, str] = {}

    def add(self, section: str, name: str, options: Mapping[str, Any], comment: str = "") -> None:
        """Add a component; one of that name must be the same."""
        known = getattr(self, section)
        if known.setdefault(name, dict(options)) != dict(options):
            raise ConfigError(
                f"two backends need a component of the Collector called {name}", cure="rename one of them"
            )
        if comment:
            self.comments.setdefault((section, name), comment)

    def document(self) -> dict[str, Any]:
        """Return the whole, empty sections left out."""
        sections = ("extensions", "receivers", "processors", "exporters", "connectors")
        found: dict[str, Any] = {name: part for name in sections if (part := getattr(self, name))}
        found["service"] = {
            "extensions": list(self.extensions),
            "telemetry": self.telemetry,
            "pipelines": self.pipelines,
        }
        return found


def served(source: Source, profile: str) -> list[Served]:
    """Return what the profile serves, in the order of the file."""
    here: list[Served] = []
    onward: dict[str, tuple[str, ...]] = {}
    for name, backend in source.backends().items():
        built = KINDS[type(backend)](source, name, backend)
        where = _profile_of(backend) if profile != "dev" else "dev"
        if where == profile:
            here.append(Served(name, {name: built.signals}, built))
        elif where == "gateway":
            onward[name] = built.signals
        elif where == "dev":
            source.warnings.append(f"backend {name} is in the dev profile only: the {profile} prints nothing")
    if profile == "agent" and onward:
        here.append(Served(GATEWAY, onward, _to_gateway()))
    return here


def _profile_of(backend: BackendConfig) -> str:
    if isinstance(backend, FileConfig):
        return "agent"
    return "dev" if isinstance(backend, ConsoleConfig) else "gateway"


def _to_gateway() -> Built:
    def exporter(suffix: str, port: int, rest: dict[str, Any], comment: str) -> Exporter:
        variable = f"HFT_GATEWAY{'_' + suffix.upper() if suffix else ''}"
        options = {
            "endpoint": f"${{env:{variable}:-gateway:{port}}}",
            "tls": {"insecure": "${env:HFT_GATEWAY_INSECURE:-false}"},
            **rest,
        }
        return Exporter(component_name("otlp_grpc", GATEWAY, suffix), options, comment)

    bulk = {"retry_on_failure": {"max_elapsed_time": "10m"}, "sending_queue": bulk_queue()}
    audit = {"retry_on_failure": {"max_elapsed_time": "0s"}, "sending_queue": audit_queue()}
    return Built(
        ("logs", "metrics", "traces"),
        exporter(
            "", 4317, bulk, "Bounded in memory and in time: what is lost here is counted, and hurts nobody."
        ),
        exporter("audit", 4327, audit, "Retried for ever, from a queue on disk."),
    )


def plan(source: Source, profile: str, *, every_type: bool = False) -> Plan:
    """Return the configuration of a profile's Collector; see `render`."""
    targets = served(source, profile)
    if not targets:
        raise ConfigError(
            f"no enabled backend is served by the profile {profile}",
            file=source.config.source,
            cure="write via: collector in the config: of a backend, or take another profile",
        )
    made = Plan()
    _add_base(made)
    tables = [route_table(view) for view in source.views()]
    self_metrics = _self_metrics(source.config)
    for target in targets:
        for kind in SIGNALS:
            takers = target.takers(kind.signal)
            rules_reach = kind.log_type is None or _can_reach(kind.log_type, takers, tables)
            if takers and (every_type or rules_reach):
                _add_pipeline(made, kind, target, drop_conditions(kind, takers, tables[0], self_metrics))
    if profile == "dev":
        _add_rest(made, self_metrics)
        _shrink_queues(made)
    _add_sinks(made)
    _add_shared_processors(made)
    return made


def route_table(config: LogConfig) -> RouteTable:
    """Return the compiled routes of a configuration."""
    return RouteTable(config.routing_rules, backend_infos(config), config.environment)


def _can_reach(log_type: LogType, names: Iterable[str], tables: Iterable[RouteTable]) -> bool:
    """Say whether a rule, of the file or of a component, may hand such records to one of the backends."""
    for table in tables:
        for info in filter(None, map(table.backends.get, names)):
            by_default = log_type is LogType.AUDIT and info.keeps_audit
            by_rule = any(log_type in rule.log_types and info.name in rule.backends for rule in table.active)
            if log_type in info.accepts and (by_default or by_rule):
                return True
    return False


def _self_metrics(config: LogConfig) -> str:
    prefixes = [
        each.prefix for each in config.backends.values() if isinstance(each, OtlpConfig) and each.enabled
    ]
    prefix = (prefixes or ["hft_"])[0].rstrip("_.")
    return f"{prefix}.telemetry." if prefix else "telemetry."


def _add_base(made: Plan) -> None:
    made.add("extensions", "health_check", {"endpoint": _address("HEALTH", 13133)})
    made.add(
        "receivers",
        "otlp",
        _receiver("", 4317),
        "A batch over max_recv_msg_size_mib is refused for good; the default of 4 is less than an agent may send.",
    )
    made.add(
        "receivers",
        "otlp/audit",
        _receiver("AUDIT_", 4327),
        "For audits only: nothing that is refused on the other port can hold them up. An audit that arrives on the "
        "other port is kept as well.",
    )
    prometheus = {
        "host": "${env:HFT_COLLECTOR_HOST:-127.0.0.1}",
        "port": "${env:HFT_COLLECTOR_METRICS_PORT:-8888}",
    }
    made.telemetry = {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": prometheus}}}]}}


def _receiver(part: str, port: int) -> dict[str, Any]:
    return {
        "protocols": {
            "grpc": {"endpoint": _address(f"{part}GRPC", port), "max_recv_msg_size_mib": MAX_REQUEST_MIB},
            "http": {"endpoint": _address(f"{part}HTTP", port + 1)},
        }
    }


def _address(part: str, port: int) -> str:
    return f"${{env:HFT_COLLECTOR_HOST:-127.0.0.1}}:${{env:HFT_COLLECTOR_{part}_PORT:-{port}}}"


def _add_pipeline(made: Plan, kind: Kind, target: Served, conditions: Sequence[str]) -> None:
    """Add the pipeline of one kind to a target, and the components that it needs."""
    built = target.built
    suffix = "audit" if kind.is_audit else ""
    name = component_name("-", target.name, suffix)[2:]
    exporter = built.audit if kind.is_audit and built.audit is not None else built.bulk
    processors = [] if kind.is_audit else ["memory_limiter"]
    if kind.signal == "traces":
        processors.append("transform/audit_spans")
    filter_name = f"filter/{name}"
    entry = made.processors.setdefault(filter_name, {"error_mode": "propagate"})
    entry[f"{kind.signal.removesuffix('s')}_conditions"] = list(conditions)
    processors.append(filter_name)
    for own, options in exporter.processors.items():
        if f"{kind.signal.removesuffix('s')}_statements" in options:
            made.add("processors", own, options)
            processors.append(own)
    if target.name != GATEWAY:  # there the mark travels on: the gateway routes by it again
        processors.append("transform/unmark")
    made.add("exporters", exporter.name, exporter.options, exporter.comment)
    exporters = [exporter.name]
    if kind.signal == "traces" and built.connector:
        made.add(
            "connectors",
            built.connector,
            {},
            "Counts all spans for the metrics of traces, before any sampling.",
        )
        exporters.append(built.connector)
        made.pipelines[f"metrics/{component_name('-', target.name, 'stats')[2:]}"] = {
            "receivers": [built.connector],
            "processors": ["memory_limiter"],
            "exporters": [exporter.name],
        }
    made.pipelines[f"{kind.signal}/{name}"] = {
        "receivers": ["otlp", "otlp/audit"] if kind.is_audit else ["otlp"],
        "processors": processors,
        "exporters": exporters,
    }


def _add_rest(made: Plan, self_metrics: str) -> None:
    """Show what no backend here is marked for: hft-otel's own `otlp` records, and other senders'."""
    marked = [f"{MARK} != nil"]
    made.processors[f"filter/{REST}"] = {
        "error_mode": "propagate",
        "log_conditions": marked,
        "metric_conditions": [*marked, f"HasPrefix(metric.name, {quote(self_metrics)})"],
        "trace_conditions": marked,
    }
    made.add(
        "exporters",
        f"debug/{REST}",
        {"verbosity": "basic"},
        "One line for what comes without a mark, in dev only.",
    )
    for signal in ("logs", "metrics", "traces"):
        made.pipelines[f"{signal}/{REST}"] = {
            "receivers": ["otlp"],
            "processors": ["memory_limiter", f"filter/{REST}"],
            "exporters": [f"debug/{REST}"],
        }


def _shrink_queues(made: Plan) -> None:
    """Leave the memory of a developer's machine to others; audits keep their queues on disk."""
    for options in made.exporters.values():
        queue = options.get("sending_queue")
        if queue and "storage" not in queue:
            options["sending_queue"] = {**queue, "queue_size": 10_000}


def _add_sinks(made: Plan) -> None:
    """Give every signal a pipeline on every port: what a port does not know is refused, and sent again for ever."""
    for signal, receivers in (
        ("logs", ("otlp", "otlp/audit")),
        ("metrics", ("otlp",)),
        ("traces", ("otlp", "otlp/audit")),
    ):
        known = {
            receiver
            for name, pipeline in made.pipelines.items()
            if name.startswith(f"{signal}/")
            for receiver in pipeline["receivers"]
        }
        if missing := [receiver for receiver in receivers if receiver not in known]:
            made.add(
                "exporters",
                "nop",
                {},
                "Takes what no backend here wants: refused, it would be sent for ever.",
            )
            made.pipelines[f"{signal}/nowhere"] = {
                "receivers": missing,
                "processors": [],
                "exporters": ["nop"],
            }


def _add_shared_processors(made: Plan) -> None:
    """Add what several pipelines share and this profile uses, in front of the filters."""
    limit = {"check_interval": "1s", "limit_mib": "${env:HFT_COLLECTOR_MEMORY_MIB:-512}"}
    delete = f"delete_key(scope.attributes, {quote(ATTRIBUTE)})"
    shared = {
        "memory_limiter": limit,
        "transform/audit_spans": {
            "error_mode": "propagate",
            "trace_statements": [f'set({AUDIT_SPAN}, true) where HasPrefix(spanevent.name, "audit.")'],
        },
        "transform/unmark": {
            "error_mode": "propagate",
            "log_statements": [delete],
            "metric_statements": [delete],
            "trace_statements": [delete, 'delete_key(span.attributes, "hft.audit")'],
        },
    }
    reasons = {
        "memory_limiter": "First in every pipeline but those of audits: it refuses what memory cannot hold, and the "
        "sender keeps and repeats it. Audits wait for the disk instead.",
        "transform/audit_spans": "A span with an audit event in it is an audit.",
        "transform/unmark": "The mark is between hft-otel and the Collector; no backend sees it.",
    }
    used = {name for pipeline in made.pipelines.values() for name in pipeline["processors"]}
    made.processors = {
        **{name: options for name, options in shared.items() if name in used},
        **made.processors,
    }
    made.comments |= {("processors", name): reasons[name] for name in shared if name in used}
    stored = any(
        options.get("sending_queue", {}).get("storage") == STORAGE for options in made.exporters.values()
    )
    if stored:
        directory = "${env:HFT_COLLECTOR_DATA:-./collector-data}"
        made.add(
            "extensions",
            STORAGE,
            {"directory": directory, "create_directory": True, "fsync": True},
            "The audits' queues. fsync is off by default; without it a power cut loses what was acknowledged.",
        )
