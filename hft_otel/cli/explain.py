"""`hft-otel explain`: why a call goes where it goes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from ..collector import hops, way_out
from ..config import LogConfig, OtlpConfig
from ..record import LogType
from ..router import level_number
from .routes import load, route_table, sample

__all__ = ["run"]


def run(
    file: Path, component: str | None, log_type: str, level: str, logger: str, context: Iterable[str]
) -> int:
    """Print the decisions and return the exit status."""
    config = load(file, component)
    table = route_table(config)
    record = sample(LogType(log_type), _level(level), logger, dict(map(_pair, context)))
    out = Console(highlight=False, soft_wrap=True)
    kind = f"{log_type} {record.level.name}" if record.log_type is LogType.TEXT else log_type
    where = "".join(f" {key}={value}" for key, value in record.context.items())
    out.print(
        f"[bold]{escape(f'{kind} from {logger}{where}')}[/bold] in environment {escape(config.environment)}\n"
    )
    for rule in table.rules:
        objection = rule.objection(record, table.environment)
        verdict = "matches" if objection is None else f"does not match: {objection}"
        out.print(f"  rule '{escape(rule.name)}' {escape(verdict)}")
    out.print()
    decisions = table.explain(record)
    for decision in decisions:
        behind = getattr(config.backends[decision.backend], "via", "sdk") == "collector"
        hop = ", over otlp and the Collector" if behind and decision.wanted else ""
        mark = "[green]gets it[/green]" if decision.wanted else "[dim]does not[/dim]"
        out.print(f"  {escape(decision.backend)} {mark}: {escape(decision.why)}{hop}")
        backend = config.backends[decision.backend]
        if isinstance(backend, OtlpConfig) and not behind and decision.wanted and log_type == LogType.AUDIT:
            out.print(f"    leaves as  {escape(_forms(decision.backend, backend))}")
        if behind and decision.wanted:
            _print_hops(out, config, decision.backend, record.log_type)
    if record.log_type is LogType.TEXT and record.level < level_number(config.min_level, 0):
        out.print(
            f"\n[yellow]never captured:[/yellow] the loggers' own min_level is {escape(config.min_level)}"
        )
        return 1
    return 0 if any(decision.wanted for decision in decisions) else 1


def _print_hops(out: Console, config: LogConfig, backend: str, log_type: LogType) -> None:
    """Print the way to a backend behind the Collector, one line per hop."""
    out.print(f"    from here  {escape(way_out(config, backend, log_type))}")
    for hop in hops(config, backend, log_type):
        out.print(f"    {hop.profile:<9}  {escape(hop.pipeline)} -> {escape(', '.join(hop.exporters))}")


def _forms(name: str, backend: OtlpConfig) -> str:
    """Say as what audit events leave, by which destinations."""
    logs = f"{name}.audit" if backend.audit_endpoint else f"{name}.logs"
    forms = {"logs": f"log record ({logs})", "traces": f"span event ({name}.traces)"}
    left_out = [signal for signal in forms if signal not in backend.audit_signals]
    said = " and ".join(forms[signal] for signal in backend.audit_signals)
    return f"{said}; {left_out[0]} is left out" if left_out else said


def _level(text: str) -> int:
    try:
        return int(text) if text.isascii() and text.isdecimal() else level_number(text, 0)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.UsageError(f"--context wants KEY=VALUE, not {text!r}")
    return key, value
