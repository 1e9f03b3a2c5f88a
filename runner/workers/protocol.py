"""What a worker and its master say to each other: JSON lines over a pair of sockets that only the two have.

A worker tells `step` (a line of the checklist; the one called `running` means that it runs), `error` and `report`, and
asks `others?` for a probe. The master tells `go` (the topology is there: connect) and `stop` (drain), asks `unready?`,
and answers with `others`; a worker answers with `unready_reasons`. For a scrape it is the same: a worker tells its own
samples with `all-metrics?`, the master asks the others `metrics?`, they answer with `metrics`, and it answers with
`all-metrics`. The end of the stream is the end of the other side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runner.metrics import Totals
from runner.runtime.supervisor import RunReport

EXIT_MARGIN_S = 8.0
"""How much longer than the grace a worker may take to end. Service managers are told to wait ten seconds longer."""

ControlMessage = dict[str, Any]


@dataclass(frozen=True)
class WorkerEnv:
    """What a worker has to know of itself, and of the terminal that it does not have."""

    number: int
    size: int
    descriptor: int
    is_terminal: bool
    is_colored: bool
    start_id: str
    """Names the start of the pipelines that all workers of one master have in common."""
    broker: str | None = None
    """What `--broker` says. It may have a password in it, and everybody on the machine can read a command line."""
    token: str | None = None
    """Of the page, if the master has made one: a worker that is started again keeps it."""

    def as_text(self) -> str:
        """Return it as the value of an environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> WorkerEnv:
        """Return what `as_text` was called on."""
        return cls(**json.loads(text))


def encode_message(kind: str, message: Mapping[str, Any]) -> bytes:
    """Return one message as it travels."""
    return json.dumps({"kind": kind, **message}).encode() + b"\n"


def decode_message(line: bytes) -> ControlMessage:
    """Return a message that has arrived."""
    message: ControlMessage = json.loads(line)
    return message


def report_to_message(report: RunReport | None) -> ControlMessage:
    """Return how a run ended, to be told; None: it was stopped before anything ran."""
    return {"report": None if report is None else asdict(report)}


def report_from_message(message: ControlMessage) -> RunReport | None:
    """Return what `report_to_message` was called with."""
    if (report := message["report"]) is None:
        return None
    report["totals"] = Totals(**report["totals"])
    report["failed_producers"] = tuple(report["failed_producers"])
    return RunReport(**report)


def sum_reports(reports: Iterable[RunReport]) -> RunReport:
    """Return one report for all: what was counted is added up, a producer that failed is named once."""
    total = RunReport(Totals())
    failed: dict[str, None] = {}
    for report in reports:
        total.totals += report.totals
        total.left_in_memory += report.left_in_memory
        for name, count in report.unfinished.items():
            total.unfinished[name] = total.unfinished.get(name, 0) + count
        failed |= dict.fromkeys(report.failed_producers)
    total.failed_producers = tuple(failed)
    return total
