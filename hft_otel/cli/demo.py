"""`hft-otel demo`: the example trading system over replayed messages, and an account of every log call."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..config import ConfigError, FileConfig, LogConfig, OtlpConfig, PrometheusConfig
from ..ledger import FlushReport
from ..lifecycle import end_now
from .demo_collector import DemoCollector, find_binary
from .demo_report import findings, print_tables

__all__ = ["Options", "run"]

_TEXT_KINDS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Options(NamedTuple):
    """What the command line said."""

    messages: Path | None
    rate: float
    seconds: float
    config: Path | None
    seed: int
    collector: bool | None


def run(options: Options) -> int:
    """Run the demo and return the exit status."""
    out = Console(highlight=False)
    folder = _import_examples()
    replay = import_module("trading_system.replay")
    try:
        source = replay.open_source(options.messages, options.seed)
    except import_module("trading_system.errors").SourceError as error:
        raise ConfigError(str(error)) from None
    config = LogConfig.from_yaml(options.config or folder / "logging.yaml")
    with _collector(options, config, out) as collector:
        what = options.messages or "generated messages"
        out.print(f"Replaying {what} at {options.rate:g} messages/s for {options.seconds:g} s\n")
        result = asyncio.run(_session(out, config, source, options))
        report: FlushReport = result.logger.force_flush(15.0)
        end_now()  # before the Collector goes, or the metrics' last export would find nobody
    counts = collector.counts() if collector else None
    print_tables(out, result, report, counts)
    _where_to_look(out, config, collector)
    problems = findings(result, report, counts)
    for problem in problems:
        out.print(f"[red]wrong:[/red] {escape(problem)}")
    if not problems:
        out.print("[green]Both sums add up, and nothing was dropped.[/green]")
    return 1 if problems else 0


def _import_examples() -> Path:
    """Make the example system importable, from a checkout or a wheel; return the folder that it is in."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "examples", package / "_examples"):
        if (folder / "trading_system").is_dir():
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            return folder
    raise ConfigError(
        "the example system is neither in this checkout nor in this installation; run `make demo` in a clone"
    )


@contextmanager
def _collector(options: Options, config: LogConfig, out: Console) -> Iterator[DemoCollector | None]:
    """Run a Collector, where there is one and the configuration has no OTLP of its own, and route everything to it."""
    binary = find_binary() if options.collector is not False else None
    has_otlp = any(
        isinstance(backend, OtlpConfig) and backend.enabled for backend in config.backends.values()
    )
    if binary is None or has_otlp:
        if options.collector:
            raise ConfigError("no Collector is here; `make collector` builds one, or HFT_OTELCOL names one")
        if not has_otlp:
            out.print("No Collector beside it: `make collector` builds one, and then the demo uses it.")
        yield None
        return
    collector = DemoCollector(binary, Path("logs") / "collector")
    try:
        collector.start()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{error}; or run with --no-collector") from None
    config.backends["otlp"] = OtlpConfig(endpoint=collector.endpoint, metric_interval=1.0)
    config.routing_rules.append({"name": "everything_to_collector", "backends": ["otlp"]})
    try:
        yield collector
    finally:
        collector.stop()


async def _session(out: Console, config: LogConfig, source: Any, options: Options) -> Any:
    session = import_module("trading_system.session")
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, redirect_stderr=out.is_terminal) as bar:
        task = bar.add_task("starting", total=options.seconds)
        last_line = -5.0

        def on_progress(now: Any) -> None:
            nonlocal last_line
            text = sum(now.calls.get(kind, 0) for kind in _TEXT_KINDS)
            line = (
                f"{now.messages} messages, {sum(now.calls.values())} log calls ({text} text, "
                f"{now.calls.get('AUDIT', 0)} audit), {now.opportunities} opportunities, {now.reconnects} reconnects"
            )
            bar.update(task, completed=now.elapsed, description=f"{line}\n{escape(now.last_event[:100])}")
            if not out.is_terminal and now.elapsed - last_line >= 5.0:
                last_line = now.elapsed
                out.print(f"{now.elapsed:4.0f} s  {line}")

        return await session.run_session(
            config, source, seconds=options.seconds, rate=options.rate, on_progress=on_progress
        )


def _where_to_look(out: Console, config: LogConfig, collector: DemoCollector | None) -> None:
    for backend in config.backends.values():
        path = backend.file_path if isinstance(backend, FileConfig) else backend.config.get("file_path")
        if backend.enabled and path:
            out.print(f"look at   {path}")
        if (
            isinstance(backend, PrometheusConfig)
            and backend.enabled
            and backend.scrape
            and backend.via == "sdk"
        ):
            out.print(f"scraped   http://{backend.host}:{backend.port}/metrics while it ran")
    if collector is not None:
        out.print(f"look at   {collector.folder}/logs.jsonl, metrics.jsonl, traces.jsonl")
