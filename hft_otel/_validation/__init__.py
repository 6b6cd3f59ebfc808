"""What can be wrong with a configuration, said with its place, its cause and the cure; start-up time, no I/O."""

from .components import with_component
from .place import Place
from .typed import build_config, config_mapping, typed_backend
from .values import Substituted, literal, mapping_at
from .whole import OF_SIGNAL, check, keeps_audit, takes, validate

__all__ = [
    "OF_SIGNAL",
    "Place",
    "Substituted",
    "build_config",
    "check",
    "config_mapping",
    "keeps_audit",
    "literal",
    "mapping_at",
    "takes",
    "typed_backend",
    "validate",
    "with_component",
]
