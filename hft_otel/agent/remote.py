"""A configuration as the trading process sees it whose agent serves it: the gates here, the backends over there."""

from __future__ import annotations

from collections.abc import Mapping

from ..building import backend_infos
from ..config import ConsoleConfig, CustomConfig, LogConfig
from ..interfaces import LogBackend
from ..record import LogRecord
from ..router import LogRouter
from .packing import CannotPack, pack_config

__all__ = ["AgentRouter", "InAgent", "obstacle"]


def obstacle(config: LogConfig) -> str:
    """Say why the agent cannot serve this configuration; empty where it can."""
    for name, backend in config.backends.items():
        if not backend.enabled:
            continue
        if isinstance(backend, CustomConfig) and backend.class_path.partition(":")[0] == "__main__":
            return f"backend {name} is a class of the program itself ({backend.class_path})"
        if isinstance(backend, ConsoleConfig) and backend.through == "stdlib":
            return f"backend {name} hands records to Python's logging of this process (through: stdlib)"
    try:
        pack_config(config)
    except CannotPack as error:
        return f"{error}, which cannot be sent to another process"
    return ""


class InAgent(LogBackend):
    """Stands for a backend that lives in the agent."""

    def __init__(self, name: str) -> None:
        self.name = name

    def should_handle(self, record: LogRecord) -> bool:
        """Leave it to the agent."""
        return True

    async def write(self, record: LogRecord) -> None:
        """Refuse: what the agent delivers goes through the lanes."""
        raise RuntimeError(f"backend {self.name} lives in the agent's process; log through a logger")

    async def flush(self) -> None:
        """Do nothing: a logger's `flush` asks the agent."""

    def __repr__(self) -> str:
        return f"<InAgent {self.name}>"


class AgentRouter(LogRouter):
    """Answers here what a logger's gates ask, and carries the configuration, packed, that the agent is to serve."""

    def __init__(self, config: LogConfig) -> None:
        infos = backend_infos(config)
        backends: Mapping[str, LogBackend] = {info.name: InAgent(info.name) for info in infos}
        super().__init__(config.routing_rules, backends, config.environment, infos)
        self.packed = pack_config(config)
