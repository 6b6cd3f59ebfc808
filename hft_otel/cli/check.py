"""`hft-otel check`: is the configuration valid, what does it mean, what goes where."""

from __future__ import annotations

from pathlib import Path

import yaml
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from .._validation import validate
from .._yaml import effective
from ..collector import limits
from ..config import LogConfig
from ..record import LogLevel, LogType
from ..router import RouteTable, Rule
from .routes import load, route_table, sample

__all__ = ["run"]


def run(file: Path, component: str | None, logger: str, *, strict: bool) -> int:
    """Print what the configuration means and return the exit status."""
    config = load(file, component)
    warnings = [*validate(config), *limits(config)]
    table = route_table(config)
    out = Console()
    out.print(
        f"[bold]{escape(str(file))}[/bold] is valid; environment [bold]{escape(config.environment)}[/bold]\n"
    )
    text = yaml.safe_dump({"logging": effective(config)}, sort_keys=False, allow_unicode=True)
    out.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    out.print(_rules(table))
    out.print(_routes(table, config, logger))
    for warning in warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")
    return 1 if strict and warnings else 0


def _rules(table: RouteTable) -> Table:
    grid = Table(title="Rules, in order", title_justify="left", header_style="bold")
    for heading in ("rule", "types", "levels of TEXT", "only where", "backends", "here"):
        grid.add_column(heading)
    for rule in table.rules:
        here = "yes" if rule in table.active else "no"
        types = ", ".join(kind.value for kind in LogType if kind in rule.log_types)
        levels = rule.level_range if LogType.TEXT in rule.log_types else ""
        backends = ", ".join(rule.backends) + (", final" if rule.final else "")
        grid.add_row(*map(escape, (rule.name, types, levels, _conditions(rule), backends, here)))
    return grid


def _conditions(rule: Rule) -> str:
    parts = [f"{key} is {' or '.join(sorted(values))}" for key, values in rule.context]
    if rule.environments:
        parts.append(f"environment is {' or '.join(sorted(rule.environments))}")
    if rule.loggers:
        parts.append(f"logger is {' or '.join(rule.loggers)}")
    return ", ".join(parts)


def _routes(table: RouteTable, config: LogConfig, logger: str) -> Table:
    """One row per kind of call, one column per enabled backend."""
    grid = Table(title=f"Where a call of logger '{logger}' goes", title_justify="left", header_style="bold")
    grid.add_column("call")
    for name in table.backends:
        behind = getattr(config.backends[name], "via", "sdk") == "collector"
        grid.add_column(f"{name}\n(via the Collector)" if behind else name, justify="center")
    kinds: list[tuple[str, LogType, LogLevel]] = [(level.name, LogType.TEXT, level) for level in LogLevel]
    kinds += [("METRIC", LogType.METRIC, LogLevel.INFO), ("AUDIT", LogType.AUDIT, LogLevel.INFO)]
    for title, log_type, level in kinds:
        wanted = set(table.names(sample(log_type, level, logger)))
        grid.add_row(title, *("x" if name in wanted else "" for name in table.backends))
    return grid
