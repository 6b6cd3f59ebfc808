"""The command `hft-otel`: demo, check and explain."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit status 0 is success, 1 a finding, 2 a wrong call or configuration."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"hft-otel: the command line needs {error.name}: pip install 'hft-otel[cli]'")
    app()
