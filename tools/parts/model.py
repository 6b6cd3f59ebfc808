"""What a part is: its programs, how it is built, where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ROOT / ".parts"
BIN = PARTS / "bin"


class BuildError(Exception):
    """A build step ended with an error; the message says which, and shows the end of its log."""


class UnavailableError(Exception):
    """This machine cannot build the part; the message is the cure."""


@dataclass(frozen=True)
class Program:
    """One executable: the file in .parts/bin, and the names under which a system may already have it."""

    name: str
    on_path: tuple[str, ...] = ()
    variable: str | None = None

    @property
    def built(self) -> Path:
        return BIN / self.name

    @property
    def stamp(self) -> Path:
        return BIN / f".{self.name}.stamp"


@dataclass(frozen=True)
class Part:
    """What is brought together, how it is built, and the text whose change asks for a new build."""

    programs: tuple[Program, ...]
    build: Callable[[Part], None]
    recipe: Callable[[], str]
    need: Callable[[], str]  # looks for the tool that builds it; UnavailableError where there is none
    optional: Callable[[], str | None] | None = None  # for `all`: None to build it, else why it is left out
    may_be_refused: bool = False  # for `all`: not available here is no error; a build that fails still is one
