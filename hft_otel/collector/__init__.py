"""The Collector's configuration, compiled from the same file as the loggers: backends and rules of a logging.yaml."""

from .hops import hops, limits, way_out
from .profiles import PROFILES
from .rendering import default_profile, render
from .source import Source, from_file

__all__ = ["PROFILES", "Source", "default_profile", "from_file", "hops", "limits", "render", "way_out"]
