"""The protocol between a worker and its master: JSON lines over a pair of sockets.

A worker sends `step` (a step of the start-up; the one named `running` means that it runs), `error` and `report`. To
answer a readiness probe it sends `others?`, which the master answers with `others`. The master sends `go` (the topology
is declared: connect) and `stop` (drain), and asks `unready?`, which the worker answers with `unready_reasons`.

A scrape works alike: a worker sends its own samples with `all-metrics?`, the master asks the others `metrics?`, they
answer with `metrics`, and the master answers with `all-metrics`. When the stream ends, the other process is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runner.metrics import Totals
from runner.runtime.supervisor import RunReport

EXIT_MARGIN_S = 8.0
"""How much longer than the grace period a worker may take to end. Service managers should wait another ten seconds."""

ControlMessage = dict[str, Any]


@dataclass(frozen=True)
class WorkerEnv:
    """The settings of a worker.

    The master passes them in an environment variable, since a worker has no terminal to ask.
    """

    number: int
    size: int
    descriptor: int
    is_terminal: bool
    is_colored: bool
    start_id: str
    """Identifies the start of the pipelines; the same for all workers of a master."""
    broker: str | None = None
    """The value of `--broker`. It is not on the command line, where every user of the machine can read its password."""
    token: str | None = None
    """The token of the page, if the master has made one: a restarted worker keeps it."""

    def as_text(self) -> str:
        """Return the value of the environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> WorkerEnv:
        """Parse what `as_text` returned."""
        return cls(**json.loads(text))


def encode_message(kind: str, message: Mapping[str, Any]) -> bytes:
    """Return a message as a line of JSON."""
    return json.dumps({"kind": kind, **message}).encode() + b"\n"


def decode_message(line: bytes) -> ControlMessage:
    """Parse a line."""
    message: ControlMessage = json.loads(line)
    return message


def report_to_message(report: RunReport | None) -> ControlMessage:
    """Return a report as fields of a message. None: the worker was stopped before anything ran."""
    return {"report": None if report is None else asdict(report)}


def report_from_message(message: ControlMessage) -> RunReport | None:
    """Parse what `report_to_message` returned."""
    if (report := message["report"]) is None:
        return None
    report["totals"] = Totals(**report["totals"])
    report["failed_producers"] = tuple(report["failed_producers"])
    return RunReport(**report)


def sum_reports(reports: Iterable[RunReport]) -> RunReport:
    """Return the sum of all reports. A producer that failed in several workers is listed once."""
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
