"""The commands and their options; each command's work is in a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config import ConfigError
from .audit_app import audit

__all__ = ["app"]

_FILE = click.argument("file", type=click.Path(path_type=Path))
_COMPONENT = click.option(
    "--component", metavar="NAME", help="Apply the overrides of this entry of `components:`."
)


class _Group(click.Group):
    """Turns a configuration that cannot be used into one clear error and exit status 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ConfigError as error:
            click.echo(f"hft-otel: {error}", err=True)
            context.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hft-otel")
def app() -> None:
    """The OpenTelemetry-native logger for trading systems: look at its configuration, and see it work.

    \b
    hft-otel demo                          an arbitrage system over replayed market data, fully logged
    hft-otel check config/logging.yaml     is it valid, what does it mean, what goes where
    hft-otel explain config/logging.yaml --type TEXT --level ERROR --logger parser.mexc
    hft-otel collector render config/logging.yaml      the Collector's configuration, from the same file
    hft-otel status --watch                what the agents of running trading processes do
    hft-otel audit verify logs/journal     is the audit trail complete and unchanged

    Exit status: 0 fine, 1 the command found something wrong, 2 wrong usage or configuration.
    """  # noqa: D301  (\b is what click takes for "leave the lines as they are")


@app.command()
@_FILE
@_COMPONENT
@click.option("--logger", default="app", show_default=True, help="The logger whose routes are shown.")
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings.")
def check(file: Path, component: str | None, logger: str, strict: bool) -> None:
    """Validate FILE; print the effective configuration (secrets as ***), the route table and warnings."""
    from .check import run

    raise SystemExit(run(file, component, logger, strict=strict))


@app.command()
@_FILE
@_COMPONENT
@click.option(
    "--type", "log_type", default="TEXT", show_default=True,
    type=click.Choice(["TEXT", "METRIC", "AUDIT"], case_sensitive=False), help="What the call is.",
)  # fmt: skip
@click.option("--level", default="INFO", show_default=True, help="Level of a TEXT call, by name or number.")
@click.option("--logger", default="app", show_default=True, help="Name of the logger.")
@click.option("--context", multiple=True, metavar="KEY=VALUE", help="A context value; may be repeated.")
def explain(
    file: Path, component: str | None, log_type: str, level: str, logger: str, context: tuple[str, ...]
) -> None:
    """Say which rules of FILE match a call, which backends get it, and why the others do not.

    Exit status 1 where no backend gets it.
    """
    from .explain import run

    raise SystemExit(run(file, component, log_type.upper(), level, logger, context))


@app.group()
def collector() -> None:
    """Make the Collector's configuration of a logging.yaml: its backends with `via: collector`, and its rules."""


_PROFILE = click.option(
    "--profile",
    type=click.Choice(["dev", "agent", "gateway"]),
    help="One Collector for all, that of a trading host, or the one behind it; by default as the environment is.",
)
_EVERY_TYPE = click.option(
    "--every-type",
    is_flag=True,
    help="Pipelines also for what no rule sends there: for a router made in Python.",
)


@collector.command("render")
@_FILE
@_PROFILE
@_EVERY_TYPE
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file instead.")
def collector_render(file: Path, profile: str | None, every_type: bool, output: Path | None) -> None:
    """Print the Collector's configuration for FILE; secrets stay variables of the environment."""
    from .collector import run_render

    raise SystemExit(run_render(file, profile, output, every_type=every_type))


@collector.command("validate")
@_FILE
@_PROFILE
@_EVERY_TYPE
@click.option("--otelcol", type=click.Path(path_type=Path), metavar="PATH", help="The Collector to ask.")
def collector_validate(file: Path, profile: str | None, every_type: bool, otelcol: Path | None) -> None:
    """Render FILE and let a real Collector validate it.

    HFT_OTELCOL names the Collector; without it, otelcol-contrib or otelcol on the PATH, or what `make collector` built.
    """
    from .collector import run_validate

    raise SystemExit(run_validate(file, profile, otelcol, every_type=every_type))


@app.command()
@click.option(
    "--messages", type=click.Path(path_type=Path), help="Replay this recording instead of generated messages."
)
@click.option(
    "--rate", default=500.0, show_default=True, type=click.FloatRange(1, 50_000), help="Messages per second."
)
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(1, 86_400), help="How long to run."
)
@click.option("--config", type=click.Path(path_type=Path), help="Another logging.yaml than the demo's own.")
@click.option("--seed", default=1, show_default=True, help="Seed of the generated messages.")
@click.option(
    "--collector/--no-collector",
    default=None,
    help="Run a Collector beside it; by default where one is built.",
)
def demo(
    messages: Path | None, rate: float, seconds: float, config: Path | None, seed: int, collector: bool | None
) -> None:
    """Run the example trading system over replayed market data, and account for every log call it makes.

    Exit status 1 where a sum does not add up or a record was dropped.
    """
    from .demo import Options, run

    raise SystemExit(run(Options(messages, rate, seconds, config, seed, collector)))


@app.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the lanes are; by default as in FILE.")
@click.option("--pid", type=int, help="Only the trading process with this number: for a probe of one.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON: a list with an object per process.")
def status(file: Path | None, folder: Path | None, pid: int | None, watch: bool, as_json: bool) -> None:
    """Show the agents of the trading processes with `isolation: process` here: those of FILE, else of the default configuration.

    Per process: rates, how full its lanes are, lag, what waits, what was dropped. Exit status 1 where an agent is
    missing or silent, a destination has a problem, or something was dropped; with --pid also where there is no such
    process.
    """
    from .status import run

    raise SystemExit(run(file, folder, pid, watch=watch, as_json=as_json))


app.add_command(audit)
