"""From a logging configuration to the text of a Collector's configuration."""

from __future__ import annotations

from ..config import DEVELOPMENT_ENVIRONMENTS, LogConfig
from .document import to_text
from .profiles import PROFILES, plan
from .source import Source

__all__ = ["default_profile", "render"]


def default_profile(config: LogConfig) -> str:
    """Return the profile of the configuration's environment: dev, or the agent of a production host."""
    return "dev" if config.environment in DEVELOPMENT_ENVIRONMENTS else "agent"


def render(source: Source, profile: str, *, every_type: bool = False) -> str:
    """Return the YAML for a profile; raises ConfigError where it serves nothing. Warnings are left in the source.

    A pipeline is made for what some rule can send through it; with `every_type`, for all that a backend takes, as a
    router made in Python may need it.
    """
    made = plan(source, profile, every_type=every_type)
    head = (
        f"OpenTelemetry Collector, {profile}: {PROFILES[profile]}.\n"
        f"Generated: edit {source.file or 'the logging.yaml'}, then\n"
        f"    hft-otel collector render {source.file or 'logging.yaml'} --profile {profile} -o {profile}.yaml\n"
        "\n"
        "A filter lists what it drops: what is marked for other backends, and what comes without a mark, from other\n"
        "senders, and the routing rules do not want. error_mode propagate: an error is an error, never a decision."
    )
    return to_text(made.document(), head, made.comments)
