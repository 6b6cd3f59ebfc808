"""`hft-otel collector`: the Collector's configuration from the same file as the loggers', and is it valid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import click

from ..collector import default_profile, from_file, render
from .otelcol import BUILT, first_of

__all__ = ["find_otelcol", "run_render", "run_validate"]

_NAMES = ("otelcol-contrib", "otelcol")
_BUILT = ("otelcol-hft", "otelcol-hft-es", "otelcol-hft-test")
_SECONDS = 60.0
_SECRET_NAMES = ("DATADOG_API_KEY", "ELASTICSEARCH_API_KEY")


def run_render(file: Path, profile: str | None, output: Path | None, *, every_type: bool) -> int:
    """Write the configuration to a file, or print it, and return the exit status."""
    text = _rendered(file, profile, every_type=every_type)
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{output} cannot be written: {error.strerror}") from None
    click.echo(f"wrote {output}", err=True)
    return 0


def run_validate(file: Path, profile: str | None, otelcol: Path | None, *, every_type: bool) -> int:
    """Ask a Collector whether the configuration is valid and return the exit status."""
    text = _rendered(file, profile, every_type=every_type)
    binary = otelcol or find_otelcol()
    if binary is None:
        raise click.UsageError(
            "there is no Collector here: set HFT_OTELCOL or --otelcol to one, install otelcol-contrib, or run `make "
            "collector` in a clone of hft-otel"
        )
    with tempfile.TemporaryDirectory() as folder:
        found = Path(shutil.which(binary) or binary).absolute()
        rendered = Path(folder) / "collector.yaml"
        rendered.write_text(text, encoding="utf-8")
        # A secret may be set where the Collector runs only; Datadog wants its key to look like one.
        environment = dict.fromkeys(_SECRET_NAMES, "0" * 32) | os.environ
        try:
            done = subprocess.run(
                [found, "validate", f"--config={rendered}"],
                capture_output=True, text=True, check=False, timeout=_SECONDS, env=environment, cwd=folder,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise click.UsageError(f"{binary} cannot be run: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        click.echo(f"{binary} says that it is not valid:\n{said}", err=True)
        if "unknown type" in said:
            click.echo(
                "cure: it was built without that; otelcol-contrib, 0.160 or newer, has everything", err=True
            )
        return 1
    click.echo(f"valid: {file} as {profile or default_profile(from_file(file).config)}, says {binary}")
    return 0


def find_otelcol() -> Path | None:
    """Return a Collector's binary: HFT_OTELCOL, one on the PATH, or the one that `make collector` builds."""
    return first_of((_NAMES, None), (_BUILT, BUILT))


def _rendered(file: Path, profile: str | None, *, every_type: bool) -> str:
    source = from_file(file)
    text = render(source, profile or default_profile(source.config), every_type=every_type)
    for warning in source.warnings:
        click.echo(f"warning: {warning}", err=True)
    return text
