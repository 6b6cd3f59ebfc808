"""Grafana dashboards and Prometheus rules as code: `python -m tools.dashboards` writes what is checked in."""
