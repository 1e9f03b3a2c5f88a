"""What a worker and its master say to each other: JSON lines over a pair of sockets that only the two have.

A worker tells `stage` (a line of the checklist; the one called `running` means that it runs), `error` and `report`, and
asks `others?` for a probe. The master tells `go` (the topology is there: connect) and `stop` (drain), asks `trouble?`,
and answers with `others`; a worker answers with `trouble`. The end of the stream is the end of the other side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runner.metrics import Totals
from runner.runtime.supervisor import Report

MARGIN_S = 8.0
"""How much longer than the grace a worker may take to end. Service managers are told to wait ten seconds longer."""

Words = dict[str, Any]


@dataclass(frozen=True)
class Role:
    """What a worker has to know of itself, and of the terminal that it does not have."""

    number: int
    size: int
    descriptor: int
    is_terminal: bool
    is_colored: bool
    start: str
    """Names the start of the pipelines that all workers of one master have in common."""
    broker: str | None = None
    """What `--broker` says. It may have a password in it, and everybody on the machine can read a command line."""

    def as_text(self) -> str:
        """Return it as the value of an environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Role:
        """Return what `as_text` was called on."""
        return cls(**json.loads(text))


def as_line(kind: str, words: Mapping[str, Any]) -> bytes:
    """Return one message as it travels."""
    return json.dumps({"kind": kind, **words}).encode() + b"\n"


def from_line(line: bytes) -> Words:
    """Return a message that has arrived."""
    words: Words = json.loads(line)
    return words


def report_as_words(report: Report | None) -> Words:
    """Return how a run ended, to be told; None: it was stopped before anything ran."""
    return {"report": None if report is None else asdict(report)}


def report_from_words(words: Words) -> Report | None:
    """Return what `report_as_words` was called with."""
    if (told := words["report"]) is None:
        return None
    told["totals"] = Totals(**told["totals"])
    told["failed_producers"] = tuple(told["failed_producers"])
    return Report(**told)


def summed(reports: Iterable[Report]) -> Report:
    """Return one report for all: what was counted is added up, a producer that failed is named once."""
    whole = Report(Totals())
    failed: dict[str, None] = {}
    for report in reports:
        whole.totals += report.totals
        whole.forgotten += report.forgotten
        for name, count in report.unfinished.items():
            whole.unfinished[name] = whole.unfinished.get(name, 0) + count
        failed |= dict.fromkeys(report.failed_producers)
    whole.failed_producers = tuple(failed)
    return whole
