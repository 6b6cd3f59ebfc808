"""What stands beside the backends: instruments, journal, lanes, agent, bridge, components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from .._guarded import Guarded
from ..record import InstrumentKind
from .fields import Level, Megabytes, OneOf, Seconds

__all__ = [
    "AgentConfig",
    "ComponentConfig",
    "InstrumentConfig",
    "JournalConfig",
    "LanesConfig",
    "StdlibConfig",
]


@dataclass(repr=False)
class InstrumentConfig(Guarded):
    """What metrics of one name, or of the names that a pattern matches, are recorded on."""

    kind: Annotated[str, OneOf(tuple(kind.value for kind in InstrumentKind))] | None = None
    """None means a gauge for `metric()`, and a histogram for the name `latency`; `counter()` is always a counter."""
    unit: str = ""
    """In UCUM, such as `ms`, `By`, `1` or `{order}`; Prometheus gets it as the end of the name."""
    buckets: list[float] = field(default_factory=list)
    """Upper bounds of a histogram, rising; none means OpenTelemetry's own, and for `latency` 1 us to 10 s."""
    description: str = ""


@dataclass(repr=False)
class JournalConfig(Guarded):
    """Where audit events are kept until they are delivered."""

    folder: str = "logs/journal"
    segment_kb: Annotated[int, Meta(ge=4, le=1_048_576)] = 512
    """Size of one preallocated segment, in KiB."""
    spare_segments: Annotated[int, Meta(ge=1, le=1_000)] = 4
    """Segments kept ready, so that no audit call ever allocates one."""
    durability: Annotated[str, OneOf(("process", "group", "sync"))] = "process"
    """When the call returns an event is in file-backed memory; on the disk within an interval; on the disk."""
    group_interval_ms: Annotated[float, Meta(gt=0, le=60_000)] = 10.0
    """The interval of `durability: group`, in milliseconds."""
    keep_days: Annotated[float, Meta(ge=0, le=36_500)] = 30.0
    """Days for which a segment is kept after every destination has it; 0 keeps, chains and anchors nothing."""
    keep_mb: Annotated[float, Meta(gt=0, le=1e9)] = 1024.0
    """How much of that there may be in the folder, in MiB; beyond it the oldest goes."""
    anchor_interval: Seconds = 60.0
    """Seconds between two anchors of the chain, each of which proves all that came before it."""
    fallback_folder: str | None = None
    """Where the next segments go while `folder` is full or cannot be written; best on another disk."""


@dataclass(repr=False)
class StdlibConfig(Guarded):
    """Whether, and how, the calls of `logging.getLogger` are taken too; see `hft_otel.bridge_stdlib`."""

    bridge: bool = False
    level: Level | None = None
    """The lowest level to take; where the root logger would let less through, it is lowered for us alone."""
    exclusive: bool = False
    """Whether the handlers of Python's logging get nothing any more."""
    exclude: list[str] = field(default_factory=list)
    """Loggers that are left alone, with all below them."""


@dataclass(repr=False)
class LanesConfig(Guarded):
    """Where text and measurements wait for whoever delivers them, and how much of each; audits have the journal."""

    folder: str | None = None
    """For `isolation: process`. None means: below /dev/shm where that is memory, else in the system's temporary folder."""
    low_mb: Megabytes = 2.0
    """Of records below WARNING: about 10,000 records of 200 bytes a megabyte (of 1024 * 1024 bytes)."""
    high_mb: Megabytes = 1.0
    """Of records of WARNING and above."""
    metric_mb: Megabytes = 1.5
    """Of measurements."""


@dataclass(repr=False)
class AgentConfig(Guarded):
    """The process that delivers for this one; for `isolation: process`."""

    linger: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    """Seconds that it may go on delivering after the trading process has ended."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    """How much it yields to other processes."""
    cpus: list[Annotated[int, Meta(ge=0, le=100_000)]] = field(default_factory=list)
    """CPUs that it may run on; empty means those of the trading process when that starts it."""


@dataclass(repr=False)
class ComponentConfig(Guarded):
    """What one component has of its own; see `LogConfig.for_component`."""

    min_level: Level | None = None
    context: dict[str, Any] = field(default_factory=dict)
    backends: dict[str, dict[str, Any]] = field(default_factory=dict)
    routing_rules: list[dict[str, Any]] | None = None
