"""The folders of a configuration: those of the journal must not stand in each other, nor where the lanes are."""

from __future__ import annotations

import os.path

from ..config import LogConfig
from .place import Place, quoted

__all__ = ["check_folders"]


def check_folders(config: LogConfig, place: Place) -> None:
    """Raise ConfigError for a fallback folder that is no other place, or that would be taken for a stream of the first."""
    fallback = config.journal.fallback_folder
    if fallback is None:
        return
    here = place / "journal" / "fallback_folder"
    cure = "name a folder of its own, best on another disk, or leave it out"
    if not fallback.strip():
        raise here.error("is empty", cure)
    others = [("folder", config.journal.folder)]
    if config.lanes.folder is not None:
        others.append(("lanes.folder", config.lanes.folder))
    for name, folder in others:
        one, other = os.path.abspath(fallback), os.path.abspath(folder)  # noqa: PTH100  (also of "..")
        if one == other:
            raise here.error(f"{quoted(fallback)} is the same as {name}", cure)
        if os.path.commonpath((one, other)) in (one, other):
            raise here.error(f"{quoted(fallback)} and {name} {quoted(folder)} stand in each other", cure)
