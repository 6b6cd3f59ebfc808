"""From the worker to the outboxes: waits for those that are full as long as that is bearable, then drops for them alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from .outbox import Outbox
from .record import LogRecord

__all__ = ["hand_over"]

_NAP = 0.002
_PATIENCE = 1.0
"""Seconds for which a full destination is waited for after it last made progress, while the lanes have space."""
_OPENING = 5.0
"""The same for one that is being opened, since loading an exporter takes a slow machine seconds."""
_SLOWEST = 3000.0
"""Records per second; a destination that takes fewer is waited for at that rate, so that the others keep theirs."""


def hand_over(batches: Mapping[Outbox, list[LogRecord]], may_wait: Callable[[], bool]) -> None:
    """Queue a batch for each outbox; `may_wait` says whether callers have space while one is waited for."""
    late: dict[Outbox, list[LogRecord]] = {}
    for outbox, batch in batches.items():
        for record in batch:
            outbox.tallies.accepted[record.log_type] += 1
        outbox.credit = min(outbox.credit + len(batch) / _SLOWEST, _PATIENCE)
        taken = outbox.offer(batch)
        if taken < len(batch):
            late[outbox] = batch[taken:]
    while late:
        for outbox in list(late):
            del late[outbox][: outbox.offer(late[outbox])]
            if not late[outbox] or not (_moves(outbox) and may_wait()):
                for record in late.pop(outbox):
                    outbox.tallies.refused[record.log_type, "queue_full"] += 1
            elif not outbox.opening:
                outbox.credit -= _NAP
        if late:
            time.sleep(_NAP)


def _moves(outbox: Outbox) -> bool:
    """Say whether it is worth waiting for: it makes progress, and was not waited for too long."""
    still = time.monotonic() - outbox.last_progress
    return still < _OPENING if outbox.opening else outbox.credit > 0 and still < _PATIENCE
