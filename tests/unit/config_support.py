"""Configuration from text, as a file would have it."""

from __future__ import annotations

from pathlib import Path

from hft_otel import LogConfig


def load(tmp_path: Path, text: str) -> LogConfig:
    file = tmp_path / "logging.yaml"
    file.write_text(text, encoding="utf-8")
    return LogConfig.from_yaml(file)
