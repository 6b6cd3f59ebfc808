"""A batch on its way to an exporter: halved where it is refused, until the record to blame stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..record import LogRecord, LogType
from .base import Rejected

if TYPE_CHECKING:  # the SDK loads when a destination is opened
    from ..otel.transport import Outcome

__all__ = ["Delivery", "Interrupted"]

PROBES = 8
"""Single records to try before a batch of which nothing was taken is given up as a whole."""


class Interrupted(Exception):
    """The rest of a batch has to wait; says what became of the records that were dealt with."""

    def __init__(self, outcome: Outcome, delivered: list[LogRecord], rejected: list[Rejected]) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome
        self.delivered = delivered
        self.rejected = rejected


class Delivery:
    """One batch on its way: halved where it is refused, until the refused records stand alone.

    So is one of which some are refused and nobody says which, as far as it holds audit events: those that were taken
    come a second time then, with the same identity. OTLP would have nothing sent again after a partial success; but
    an audit event must be known to be delivered, or known to be refused.
    """

    def __init__(self, send: Callable[[Sequence[LogRecord]], Outcome]) -> None:
        self._send = send
        self._delivered: list[LogRecord] = []
        self._rejected: list[Rejected] = []
        self._raised: list[LogRecord] = []
        self._texts: list[tuple[LogRecord, Outcome]] = []
        self._in_doubt = 0
        """How many of `_texts`, and of the audit events that are asked for again, were refused."""
        self._asked_again = 0
        """How many parts are left once all of those events are asked for."""

    def run(self, records: Sequence[LogRecord]) -> list[Rejected]:
        """Deliver the records in order; return the rejected ones or raise Interrupted."""
        from ..otel.transport import Verdict

        parts = [records] if records else []
        last: Outcome | None = None
        while parts:
            if len(parts) <= self._asked_again:
                self._settle_texts()
            part = parts.pop()
            outcome = self._send(part)
            if outcome.verdict is Verdict.DELIVERED:
                parts += self._take(part, outcome, len(parts))
            elif outcome.verdict is Verdict.RETRY:
                self._settle_texts()
                raise Interrupted(outcome, self._delivered, self._rejected)
            elif len(part) > 1:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            else:
                last = outcome
                if self._refuse(part[0], outcome):
                    break
        self._settle_texts()
        if last is not None and not self._delivered:
            self._nothing_taken(last, [record for part in reversed(parts) for record in part])
        return self._rejected

    def _take(self, part: Sequence[LogRecord], outcome: Outcome, others: int) -> list[Sequence[LogRecord]]:
        """Note what was taken; return the halves to ask for again where an audit event may have been refused."""
        kept = max(len(part) - outcome.rejected, 0)
        audits = [record for record in part if record.log_type is LogType.AUDIT]
        if not audits or kept in (0, len(part)):
            # A partial success says how many were rejected and not which: the sums count that many of the texts.
            self._delivered += part[:kept]
            self._rejected += [Rejected(record, outcome.reason, outcome.detail) for record in part[kept:]]
            self._in_doubt -= len(part) - kept if audits and self._in_doubt else 0
            return []
        texts = [(record, outcome) for record in part if record.log_type is not LogType.AUDIT]
        if texts:  # which the parts do not have that are asked for again
            self._texts, self._in_doubt, self._asked_again = texts, outcome.rejected, others
        half = (len(audits) + 1) // 2
        return [each for each in (audits[half:], audits[:half]) if each]

    def _settle_texts(self) -> None:
        """Count as refused as many texts as were, once it is known which audit events were."""
        refused = min(max(self._in_doubt, 0), len(self._texts))
        kept = len(self._texts) - refused
        self._delivered += [record for record, _ in self._texts[:kept]]
        self._rejected += [
            Rejected(record, outcome.reason, outcome.detail) for record, outcome in self._texts[kept:]
        ]
        self._texts, self._in_doubt = [], 0

    def _refuse(self, record: LogRecord, outcome: Outcome) -> bool:
        """Note a record that was refused alone; say whether all of the batch looks refused."""
        from ..otel.transport import Verdict

        self._rejected.append(Rejected(record, outcome.reason, outcome.detail))
        if outcome.verdict is Verdict.RAISED:
            self._raised.append(record)
        if record.log_type is LogType.AUDIT and self._in_doubt:
            self._in_doubt -= 1
        return len(self._rejected) >= PROBES and not self._delivered

    def _nothing_taken(self, last: Outcome, rest: list[LogRecord]) -> None:
        """Judge a batch of which nothing was taken: no record of it is to blame where the exporter itself raises."""
        if self._raised:
            raise Interrupted(last, [], [])
        self._rejected += [Rejected(record, last.reason, last.detail) for record in rest]
