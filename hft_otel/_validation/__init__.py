"""What can be wrong with a configuration, said with its place, its cause and the cure; start-up time, no I/O."""

from .components import with_component
from .place import Place
from .typed import build_config, config_mapping, typed_backend
from .values import Substituted, literal, mapping_at
from .whole import KEEPS_AUDIT, TAKES, check, validate

__all__ = [
    "KEEPS_AUDIT",
    "TAKES",
    "Place",
    "Substituted",
    "build_config",
    "check",
    "config_mapping",
    "literal",
    "mapping_at",
    "typed_backend",
    "validate",
    "with_component",
]
