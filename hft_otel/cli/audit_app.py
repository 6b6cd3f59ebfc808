"""`hft-otel audit` and its options; each command's work is in audit.py."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["audit"]

_FOLDER = click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
_FALLBACK = click.option(
    "--fallback", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The journal's `fallback_folder`, where events wait that DIR would not take.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="One line of JSON per item instead of a table.")


@click.group()
def audit() -> None:
    """Look at an audit trail, and prove that it is complete. DIR is the journal's folder, or one `.trail` in it.

    \b
    hft-otel audit verify logs/journal --anchors /mnt/collector/audit.jsonl
    hft-otel audit show logs/journal --event 'order_*' --since 15m --context symbol=BTCUSDT
    hft-otel audit reconcile logs/journal --against /mnt/collector/audit.jsonl
    hft-otel audit replay logs/journal --to http://127.0.0.1:4318 --first 4211 --last 4300

    All of them may be used while the trail is being written.
    """  # noqa: D301  (\b is what click takes for "leave the lines as they are")


@audit.command()
@_FOLDER
@_FALLBACK
@click.option(
    "--anchors", multiple=True, metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Anchors that left this machine: what a Collector's file exporter wrote, or a file backend with"
    " `format: json`; may be repeated.",
)  # fmt: skip
@_JSON
def verify(folder: Path, fallback: Path | None, anchors: tuple[Path, ...], as_json: bool) -> None:
    """Prove that no event was changed, left out, added or moved, and none cut off before the last anchor.

    Without --anchors this holds against accidents, and against whoever could not change all of DIR; with them also
    against who could. Exit status 1 where something is wrong, with the place, and where there is nothing to prove.
    """
    from .audit import run_verify

    raise SystemExit(run_verify(folder, fallback, anchors, as_json=as_json))


@audit.command()
@_FOLDER
@_FALLBACK
@click.option(
    "--against", multiple=True, required=True, metavar="FILE|elasticsearch:URL",
    help="What a Collector's file exporter wrote, or a file backend with `format: json`; or"
    " elasticsearch:http://host:9200/INDEX. May be repeated, for the parts of a rotated file.",
)  # fmt: skip
@click.option(
    "--field",
    default="attributes.audit.id",
    show_default=True,
    help="The field of audit.id in Elasticsearch.",
)
@_JSON
def reconcile(
    folder: Path, fallback: Path | None, against: tuple[str, ...], field: str, as_json: bool
) -> None:
    """Say which events have not arrived somewhere, and which arrived more than once.

    An event that a destination has not acknowledged yet is waiting, not missing. Duplicates have the same audit.id: they
    are recognised, and no fault. Exit status 1 where something is missing, or nothing
    is here to compare with.

    Elasticsearch is shown the key in ELASTICSEARCH_API_KEY, or what the URL says as USER:PASSWORD@. What it got within its
    last refresh, a second by default, and what a Collector still holds, is not there yet.
    """
    from .audit_arrived import run_reconcile

    raise SystemExit(run_reconcile(folder, fallback, against, field, as_json=as_json))


@audit.command()
@_FOLDER
@_FALLBACK
@click.option(
    "--event", "events", multiple=True, metavar="GLOB", help="Only events of this name; may be repeated."
)
@click.option("--since", metavar="TIME", help="Only from then on: 2026-03-01T09:30, or 15m, 2h, 3d ago.")
@click.option("--until", metavar="TIME", help="Only before then.")
@click.option(
    "--context", multiple=True, metavar="KEY=VALUE", help="Only with this context; all of them, if repeated."
)
@click.option("--limit", type=click.IntRange(1), help="Only the last so many.")
@click.option(
    "--parked", is_flag=True, help="Only those that a destination refused for good, with its reason."
)
@_JSON
def show(
    folder: Path,
    fallback: Path | None,
    events: tuple[str, ...],
    since: str | None,
    until: str | None,
    context: tuple[str, ...],
    limit: int | None,
    parked: bool,
    as_json: bool,
) -> None:
    """Print the events of a trail by time, delivered ones and those that wait; --json prints as the file backend does."""
    from .audit import picker, run_show, time_of
    from .audit_parked import run_parked

    chosen = (
        None if since is None else time_of(since, "--since"),
        None if until is None else time_of(until, "--until"),
    )
    suits = picker(events, chosen, context)
    if parked:
        raise SystemExit(run_parked(folder, suits, limit, as_json=as_json))
    raise SystemExit(run_show(folder, fallback, suits, limit, as_json=as_json))


@audit.command()
@_FOLDER
@_FALLBACK
@click.option(
    "--to",
    required=True,
    metavar="FILE|URL",
    help="A logging.yaml, or the endpoint of an OTLP receiver over HTTP.",
)
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME",
    help="Only this backend of FILE; by default its otlp backends and those behind the Collector.",
)  # fmt: skip
@click.option("--stream", default="", metavar="NAME", help="Only this stream.")
@click.option("--first", default=0, type=click.IntRange(0), help="From the event of this number on.")
@click.option("--last", type=click.IntRange(0), help="Up to the event of this number.")
@click.option("--parked", is_flag=True, help="Only those that a destination refused for good.")
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 86_400),
    help="Seconds for all of it.",
)
@_JSON
def replay(
    folder: Path,
    fallback: Path | None,
    to: str,
    backends: tuple[str, ...],
    stream: str,
    first: int,
    last: int | None,
    parked: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Send events of a trail again, each with the audit.id it has: who goes by that, keeps them once.

    Exit status 1 where not every event was taken.
    """
    from .audit_replay import Chosen, run_replay, target

    config = target(to, backends)
    chosen = Chosen(folder, fallback, stream, first, last, parked)
    raise SystemExit(run_replay(chosen, config, timeout, as_json=as_json))
