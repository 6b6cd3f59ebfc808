"""`hft-otel audit reconcile`: did everything arrive, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..audit.elasticsearch import NoAddressError, read_ids
from ..audit.outside import NotJsonLines, read_seen
from ..audit.reconcile import Reconciled, reconcile
from .audit import say_nothing_is_here

__all__ = ["run_reconcile"]

_ELASTICSEARCH = "elasticsearch:"
_SHOWN = 20


def run_reconcile(
    folder: Path, fallback: Path | None, against: tuple[str, ...], field: str, *, as_json: bool
) -> int:
    """Print per stream what became of its events; 0 where there are some, and none is missing."""
    arrived = count()
    ids = chain.from_iterable(_ids(each, field) for each in against)
    try:
        found = reconcile(folder, (identity for identity, _ in zip(ids, arrived, strict=False)), fallback)
    except (FileNotFoundError, NoAddressError, NotJsonLines, UnicodeError) as error:
        raise click.UsageError(f"--against: {error}") from error
    except OSError as error:
        raise click.ClickException(f"--against: {error}") from error
    if not any(each.events or each.beyond for each in found):
        say_nothing_is_here(folder, f" {next(arrived):,} events arrived, and none of them is of it")
        return 1
    if as_json:
        for each in found:
            click.echo(msgspec.json.encode(each))
    else:
        _print(found)
    return 1 if any(each.missing for each in found) else 0


def _ids(source: str, field: str) -> Iterator[str]:
    if source.startswith(_ELASTICSEARCH):
        return read_ids(source.removeprefix(_ELASTICSEARCH), field)
    return (seen.audit_id for seen in read_seen(Path(source)) if seen.audit_id)


def _print(found: list[Reconciled]) -> None:
    out = Console()
    grid = Table(header_style="bold")
    grid.add_column("stream", overflow="fold")
    for heading in ("events", "arrived", "waiting", "missing", "repeated", "not here"):
        grid.add_column(heading, justify="right")
    for each in found:
        numbers = (
            each.events,
            each.delivered,
            each.waiting,
            len(each.missing),
            len(each.duplicates),
            each.beyond,
        )
        grid.add_row(escape(each.stream), *(f"{number:,}" for number in numbers))
    out.print(grid)
    for each in found:
        if each.missing:
            more = f" and {len(each.missing) - _SHOWN:,} more" if len(each.missing) > _SHOWN else ""
            names = ", ".join(each.missing[:_SHOWN])
            out.print(f"[red]missing:[/red] {escape(names)}{more}", soft_wrap=True)
