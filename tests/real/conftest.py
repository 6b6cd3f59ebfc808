"""Fixtures that start the real parts and stop them; whatever stands in this folder is marked `real`.

A part that is not there skips the test with the way to get it, and fails it where CI=true.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real.running import Collector, Program, Prometheus, Pushgateway
from tools import parts

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("real")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a proof that has failed stay failed, where make runs once more what has."""
    if os.environ.get("HFT_TEST_AGAIN") and item.get_closest_marker("proof"):
        pytest.fail(
            "it has failed a moment ago; a proof has one try: HFT_TEST_SEED repeats it", pytrace=False
        )


def binary(name: str) -> Path:
    """The program, or the end of the test."""
    path = parts.locate(name)
    if path is not None:
        return path
    reason = f"{name} is not here: {parts.cure(name)}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def running() -> Iterator[Callable[[Program], None]]:
    """Starts a program; at the end of the test whatever still runs is ended."""
    with ExitStack() as stack:

        def start(program: Program) -> None:
            stack.callback(lambda: program.stop() if program.running else None)
            program.start()

        yield start


@pytest.fixture
def collector(tmp_path: Path, running: Callable[[Program], None]) -> Callable[..., Collector]:
    """collector(config=None, env=None) -> a running Collector; config is a dict or YAML text."""

    def make(*args: object, **options: object) -> Collector:
        program = Collector(binary("otelcol-hft-test"), _folder(tmp_path, "collector"), *args, **options)  # type: ignore[arg-type]
        running(program)
        return program

    return make


@pytest.fixture
def prometheus(tmp_path: Path, running: Callable[[Program], None]) -> Callable[..., Prometheus]:
    """prometheus(["127.0.0.1:9464"], scrape_interval="200ms", config=None) -> a running Prometheus."""

    def make(*args: object, **options: object) -> Prometheus:
        program = Prometheus(binary("prometheus"), _folder(tmp_path, "prometheus"), *args, **options)  # type: ignore[arg-type]
        running(program)
        return program

    return make


@pytest.fixture
def pushgateway(tmp_path: Path, running: Callable[[Program], None]) -> Callable[[], Pushgateway]:
    """pushgateway() -> a running Pushgateway."""

    def make() -> Pushgateway:
        program = Pushgateway(binary("pushgateway"), _folder(tmp_path, "pushgateway"))
        running(program)
        return program

    return make


@pytest.fixture
def promtool() -> Path:
    """The path of promtool."""
    return binary("promtool")


def _folder(tmp_path: Path, name: str) -> Path:
    return tmp_path / f"{name}-{sum(1 for _ in tmp_path.glob(f'{name}-*'))}"
