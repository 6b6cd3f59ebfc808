"""Write the dashboards and the rules into docker/; with --check only say whether what is there is current."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import yaml

from .health import HEALTH
from .rules import RULES
from .trading import TRADING

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = {"trading-overview": TRADING, "telemetry-health": HEALTH}
NOTICE = "# Written by `make dashboards` from tools/dashboards/rules.py: change it there.\n"


def files() -> dict[Path, str]:
    """Return what belongs into each file."""
    grafana = ROOT / "docker" / "grafana" / "dashboards"
    made = {
        grafana / f"{name}.json": json.dumps(dashboard.model(), indent=2, ensure_ascii=False) + "\n"
        for name, dashboard in DASHBOARDS.items()
    }
    rules = yaml.safe_dump(RULES, sort_keys=False, width=110, allow_unicode=True)
    return made | {ROOT / "docker" / "prometheus" / "rules" / "hft-otel.yml": NOTICE + rules}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 where a file is not current"
    )
    options = parser.parse_args(arguments)
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path])
        print(f"{'not current' if options.check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
