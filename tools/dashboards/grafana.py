"""Grafana's dashboard model, as far as our dashboards use it: panels are laid out from left to right, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
SCHEMA_VERSION = 41  # Grafana 12
WIDTH = 24
PER_ROW = 3  # of a panel that is repeated, which takes whole rows
GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True)
class Query:
    """One PromQL query; `empty` is the sentence that tells why it may have no answer, and goes into the panel's description."""

    expr: str
    legend: str = ""
    empty: str = ""
    instant: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel: `kind` is Grafana's type, `options` and `defaults` are what differs from our defaults."""

    title: str
    description: str
    kind: str
    queries: Sequence[Query]
    unit: str = "short"
    width: int = 8
    height: int = 8
    options: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    repeat: str = ""
    """A variable for each value of which the panel is shown once."""


@dataclass(frozen=True)
class Row:
    """A heading and the panels under it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A drop-down list: of a label's values (`query`), or of `choices`."""

    name: str
    label: str
    description: str
    query: str = ""
    choices: Sequence[str] = ()

    def model(self) -> dict[str, Any]:
        """Return Grafana's JSON of it."""
        model: dict[str, Any] = {"name": self.name, "label": self.label, "description": self.description}
        if self.choices:
            options = [
                {"text": each, "value": each, "selected": each == self.choices[0]} for each in self.choices
            ]
            return model | {
                "type": "custom",
                "query": ",".join(self.choices),
                "options": options,
                "current": options[0],
            }
        return model | {
            "type": "query",
            "datasource": PROMETHEUS,
            "query": {"query": self.query, "refId": self.name},
            "definition": self.query,
            "refresh": 2,  # whenever the time range changes
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",  # also what lacks the label
            "current": {"text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True)
class Dashboard:
    """A whole dashboard; `uid` is its address."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    links: Sequence[tuple[str, str]] = ()

    def panels(self) -> Iterator[Panel]:
        """All panels, from the top."""
        return (panel for row in self.rows for panel in row.panels)

    def model(self) -> dict[str, Any]:
        """Return Grafana's JSON of it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["hft-otel"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,  # the cross hair is shared
            "refresh": "5s",
            "time": {"from": "now-15m", "to": "now"},
            "timezone": "utc",
            "templating": {"list": [variable.model() for variable in self.variables]},
            "annotations": {"list": [_FIRING]},
            "links": [
                {"title": title, "type": "link", "url": f"/d/{uid}", "keepTime": True, "includeVars": True}
                for title, uid in self.links
            ],
            "panels": list(_laid_out(self.rows)),
        }


_FIRING = {
    "name": "Alerts",
    "datasource": PROMETHEUS,
    "enable": True,
    "iconColor": RED,
    "expr": 'ALERTS{alertstate="firing"}',
    "titleFormat": "{{alertname}}",
    "step": "15s",
}


def _laid_out(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in rows:
        number += 1
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top, height = 0, top + height, 0
            number += 1
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left, height = left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel) -> dict[str, Any]:
    model: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(
            [panel.description, *dict.fromkeys(q.empty for q in panel.queries if q.empty)]
        ),
        "datasource": PROMETHEUS,
        "targets": [_target(panel, place, query) for place, query in enumerate(panel.queries)],
        "fieldConfig": {
            "defaults": {"unit": panel.unit} | _DEFAULTS.get(panel.kind, {}) | panel.defaults,
            "overrides": [],
        },
        "options": _OPTIONS.get(panel.kind, {}) | panel.options,
    }
    if panel.repeat:
        model |= {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": PER_ROW}
    return model


def _target(panel: Panel, place: int, query: Query) -> dict[str, Any]:
    formats = {"heatmap": "heatmap", "table": "table"}
    return {
        "refId": chr(ord("A") + place),
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": formats.get(panel.kind, "time_series"),
        "instant": query.instant,
        "range": not query.instant,
    }


_DEFAULTS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "min": 0,
        "custom": {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": 30_000},
    },
    "stat": {
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"color": GREEN}]},
    },
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "area",
    },
    "heatmap": {
        "calculate": False,  # Prometheus has counted into buckets already
        "cellGap": 0,
        "color": {"mode": "scheme", "scheme": "Turbo", "steps": 64},
        "yAxis": {"unit": "s"},
        "tooltip": {"mode": "single", "yHistogram": True},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}


def limits(*steps: tuple[float, str], below: str = GREEN) -> dict[str, Any]:
    """Field defaults with a colour for what reaches each value."""
    first: list[dict[str, Any]] = [{"color": below, "value": None}]
    return {"thresholds": {"mode": "absolute", "steps": first + [{"color": c, "value": v} for v, c in steps]}}
