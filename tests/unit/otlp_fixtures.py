"""Fixtures of the OTLP tests: receivers, and destinations that are closed after the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from hft_otel.config import OtlpConfig
from hft_otel.destinations.base import Destination
from hft_otel.destinations.otlp import otlp_destinations
from tests.unit.otlp_stand_in import RESOURCE, GrpcReceiver, Receiver, grpc_receiver, http_receiver


@pytest.fixture
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as found:
        yield found


@pytest.fixture
def grpc_side() -> Iterator[GrpcReceiver]:
    with grpc_receiver() as found:
        yield found


@pytest.fixture
def opened(no_otel_variables: None) -> Iterator[Any]:
    """Open the destination of one signal; it is closed after the test."""
    made: list[Destination] = []

    def open_one(signal: str, endpoint: str | None, **options: Any) -> Destination:
        config = OtlpConfig(endpoint=endpoint, signals=[signal], **options)
        [destination] = otlp_destinations(config, RESOURCE)
        made.append(destination)
        destination.open()
        return destination

    yield open_one
    for destination in made:
        destination.close(1.0)
