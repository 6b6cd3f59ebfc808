"""Runs CPython's own tests of `logging` and prints what became of each, as JSON; see test_cpython_logging.py.

python -m tests.slow.cpython_runner plain | bridge | logger
"""

from __future__ import annotations

import io
import json
import logging
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import test.test_logging as theirs  # the file of the running interpreter

from hft_otel import (
    HFTLogger,
    LogBackend,
    LogConfig,
    LoggerFactory,
    LogRecord,
    bridge_stdlib,
    unbridge_stdlib,
)

taken: list[LogRecord] = []


class Keeping(LogBackend):
    """Keeps what the bridge has taken, to show that there was a bridge."""

    async def write(self, record: LogRecord) -> None:
        taken.append(record)


class Outcomes(unittest.TextTestResult):
    """What became of each test."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.passed: list[str] = []

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802  (unittest's name)
        super().addSuccess(test)
        self.passed.append(_name(test))


def _name(test: Any) -> str:
    return ".".join(test.id().rsplit(".", 2)[-2:])


def run(suite: unittest.TestSuite) -> dict[str, Any]:
    result = unittest.TextTestRunner(io.StringIO(), resultclass=Outcomes, verbosity=0).run(suite)
    assert isinstance(result, Outcomes)
    bad = [*result.failures, *result.errors]
    return {
        "passed": sorted(result.passed),
        "failed": {_name(test): text.strip().splitlines()[-1] for test, text in bad},
        "skipped": {_name(test): why for test, why in result.skipped},
        "taken": len(taken),
    }


def around_every_test(suite: unittest.TestSuite) -> None:
    """Install the bridge before each test's `setUp`, and remove it after its last clean-up."""
    config = LogConfig.from_dict(
        {
            "backends": {"kept": {"class": f"{__name__}:Keeping"}},
            "routing_rules": [{"backends": ["kept"]}],
            "journal": {"folder": tempfile.mkdtemp()},
        }
    )
    log = LoggerFactory.create_logger("start", config)
    log.info("so that the backend's thread and loop are there, about which asyncio logs")
    assert log.force_flush(20)
    taken.clear()
    plain = unittest.TestCase.run

    def bridged(self: unittest.TestCase, result: Any = None) -> Any:
        before = logging.Logger.callHandlers
        with bridge_stdlib(config):
            assert logging.Logger.callHandlers is not before
            done = plain(self, result)
        assert logging.Logger.callHandlers is before
        return done

    unittest.TestCase.run = bridged  # type: ignore[method-assign]


class Ours(HFTLogger):
    """Ours, made as Python's logging makes its own."""

    def __init__(self, name: str, level: int = logging.NOTSET) -> None:
        super().__init__(name, level=level)


def with_our_logger() -> unittest.TestSuite:
    """The Logger and LoggerAdapter classes, with ours wherever they have one of logging's."""
    suite = unittest.TestSuite()
    for case in (theirs.LoggerTest, theirs.LoggerAdapterTest, theirs.BasicFilterTest, theirs.ChildLoggerTest):

        def set_up(self: Any, case: Any = case) -> None:
            logging.setLoggerClass(Ours)
            self.addCleanup(logging.setLoggerClass, logging.Logger)
            plain, logging.Logger = logging.Logger, Ours  # type: ignore[misc]
            try:
                case.setUp(self)
            finally:
                logging.Logger = plain  # type: ignore[misc]
            if case is theirs.LoggerAdapterTest:
                self.logger.removeHandler(self.recording)
                self.logger = Ours("adapted")
                self.logger.addHandler(self.recording)
                self.adapter = logging.LoggerAdapter(logger=self.logger, extra=None)

        ours = type(case.__name__, (case,), {"setUp": set_up})
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(ours))
    return suite


def main() -> None:
    mode = sys.argv[1]
    if mode == "logger":
        suite = with_our_logger()
    else:
        suite = unittest.defaultTestLoader.loadTestsFromModule(theirs)
        if mode == "bridge":
            around_every_test(suite)
    outcome = run(suite)
    unbridge_stdlib()
    Path(sys.argv[2]).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
