"""Sending queues of exporters: what may wait, where, and for how long."""

from __future__ import annotations

from typing import Any

__all__ = ["AUDIT_BATCH", "STORAGE", "audit_queue", "bulk_queue"]

STORAGE = "file_storage"
AUDIT_BATCH = 128
"""Few enough that a request of large audits is not refused, and enough for thousands a second."""


def bulk_queue() -> dict[str, Any]:
    """Return a queue in memory that is bounded: what does not fit is refused, and counted by the exporter."""
    return {
        "sizer": "items",
        "queue_size": 100_000,
        "batch": {"flush_timeout": "200ms", "min_size": 512, "max_size": 4096},
    }


def audit_queue() -> dict[str, Any]:
    """Return a queue on disk that makes the sender wait rather than refuse."""
    return {
        "storage": STORAGE,
        "block_on_overflow": True,
        "sizer": "items",
        "queue_size": 1_000_000,
        "batch": {"flush_timeout": "200ms", "min_size": AUDIT_BATCH, "max_size": AUDIT_BATCH},
    }
