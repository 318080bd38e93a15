"""What became of every row of a replay."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ingest.history.history import History, Survey

_MAX_EXAMPLES = 5


@dataclass
class Report:
    """Rows read are rows in events and rows left out; events are already there, or sent.

    What was sent is accepted, rejected (and kept with the reason), or not delivered.
    """

    format: str
    target: str
    n_rows: int
    skipped: dict[str, int]
    n_events: int
    already_there: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    undelivered: int = 0
    retried: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, history: History, survey: Survey, target: str) -> "Report":
        tally = survey.tally
        skipped = dict(sorted(tally.skipped.items()))
        return cls(history.format.name, target, tally.n_rows, skipped, survey.n_events)

    @property
    def sent(self) -> int:
        return self.accepted + self.rejected.total() + self.undelivered

    @property
    def is_complete(self) -> bool:
        """Whether every event is where it belongs."""
        return not self.undelivered and self.already_there + self.sent == self.n_events

    def note(self, reason: str, message: str) -> None:
        """Keep a few of the reasons in their own words."""
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{reason}: {message}")

    def as_json(self) -> dict[str, Any]:
        """The report as one flat object."""
        return {
            "format": self.format,
            "target": self.target,
            "rows": self.n_rows,
            "skipped": sum(self.skipped.values()),
            "skipped_by_reason": self.skipped,
            "events": self.n_events,
            "already_there": self.already_there,
            "sent": self.sent,
            "accepted": self.accepted,
            "rejected": self.rejected.total(),
            "rejected_by_reason": dict(sorted(self.rejected.items())),
            "undelivered": self.undelivered,
            "retried": self.retried,
            "seconds": round(self.seconds, 3),
            "errors": self.examples,
        }
