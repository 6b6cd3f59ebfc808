"""kill -9 of anything on the whole path of an audit event: for the tests (a few rounds) and `make torture` (many).

Each round kills one or several of trading process, agent, Collector and Elasticsearch, at random, and starts them again.
After some rounds everything is up, all is delivered, and `hft-otel audit verify` and `audit reconcile` say what became
of it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hft_otel.audit.outside import read_seen
from hft_otel.audit.reading import read_events
from tests.real.path_scene import Scene

__all__ = ["PLACES", "PathOutcome", "play"]

PLACES = ("file", "Collector's file", "Elasticsearch")


@dataclass
class PathOutcome:
    """What became of some rounds in one scene."""

    isolation: str
    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    confirmed: int = 0
    """Calls that had returned."""
    unwritten: int = 0
    """Of them, those that are not in the trail exactly once."""
    events: int = 0
    """Events in the trail."""
    missing: Counter[str] = field(default_factory=Counter)
    """Events of the trail that a place lacks."""
    repeats: Counter[str] = field(default_factory=Counter)
    """Deliveries beyond the first; Elasticsearch keeps none."""
    unrecognised: int = 0
    """Deliveries with an identity that is not the one of that event in the trail."""
    problems: list[str] = field(default_factory=list)
    """What `verify` found, and what did not work as it should."""
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Events that are not where they should be."""
        return self.unwritten + sum(self.missing.values())

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, every repeat is recognised, and nothing else is wrong."""
        return not (self.lost or self.unrecognised or self.problems)


def play(isolation: str, count: int, rng: random.Random, folder: Path) -> PathOutcome:
    """Play so many rounds in one scene, and judge it."""
    scene = Scene(folder, isolation)
    outcome = PathOutcome(isolation)
    begun = time.monotonic()
    with scene.running():
        for _ in range(count):
            outcome.kills.update(_round(scene, rng))
            outcome.rounds += 1
        outcome.problems += scene.settle()
        _judge(scene, outcome)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _round(scene: Scene, rng: random.Random) -> list[str]:
    victims = rng.sample(scene.victims, rng.choice((1, 1, 2, 2, 3, len(scene.victims))))
    killed = []
    for victim in victims:
        time.sleep(rng.choice((0, rng.uniform(0, 0.005), rng.uniform(0, 0.3))))
        killed += [victim] if scene.kill(victim, rng) else []
    for victim in rng.sample(scene.victims, len(scene.victims)):
        if rng.random() < 0.7:  # else it stays down for a round or more, while the others are killed
            time.sleep(rng.choice((0, rng.uniform(0, 0.4))))
            scene.start(victim)
    patience = rng.random()
    if patience < 0.8:  # else the next kill may come before anything is up
        scene.await_trader()
    if patience < 0.6:  # so that it comes while events are on their way, and not only while all of it starts
        scene.await_flow()
    time.sleep(rng.uniform(0, 0.6))
    return killed


def _judge(scene: Scene, outcome: PathOutcome) -> None:
    trail = {str(event.audit_id): event.context["number"] for event in read_events(scene.journal)}
    written = Counter(trail.values())
    confirmed = scene.confirmed()
    outcome.confirmed, outcome.events = len(confirmed), len(trail)
    outcome.unwritten = sum(1 for number in confirmed if written[number] != 1)
    scene.await_elasticsearch(len(trail))
    against: dict[str, list[str | Path]] = {
        "file": [scene.own_file],
        "Collector's file": [*scene.kept_files],
        "Elasticsearch": [f"elasticsearch:{scene.elastic.url}/logs-audit*"],
    }
    for place, sources in against.items():
        _reconcile(scene, outcome, place, sources)
    seen = [*_seen([scene.own_file]), *_seen(scene.kept_files), *_indexed(scene)]
    outcome.unrecognised += sum(1 for identity, number in seen if trail.get(identity) != number)
    anchors = (part for file in (scene.own_file, *scene.kept_files) for part in ("--anchors", file))
    for verdict in scene.audit("verify", scene.journal, *anchors):
        outcome.problems += [f"verify: {verdict['stream']}: {problem}" for problem in verdict["problems"]]
    outcome.problems += [f"Elasticsearch: {line}" for line in scene.elastic.violations()]


def _reconcile(scene: Scene, outcome: PathOutcome, place: str, sources: Iterable[str | Path]) -> None:
    options = (part for source in sources for part in ("--against", source))
    for held in scene.audit("reconcile", scene.journal, *options):
        outcome.missing[place] += len(held["missing"]) + held["waiting"]
        outcome.repeats[place] += sum(held["duplicates"].values()) - len(held["duplicates"])
        outcome.unrecognised += held["beyond"]


def _seen(files: Iterable[Path]) -> Iterator[tuple[str, int]]:
    for file in files:
        for seen in read_seen(file):
            if seen.audit_id:
                yield seen.audit_id, int(seen.attributes["number"])


def _indexed(scene: Scene) -> Iterator[tuple[str, int]]:
    for identity, document in scene.elastic.documents().items():
        if str(document.get("event_name", "")).startswith("audit."):
            yield identity, document["attributes"]["number"]
