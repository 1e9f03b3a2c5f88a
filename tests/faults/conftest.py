"""A recorder of what each fault has cost, and a table of it at the end of the run."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.faults.verdict import Fault
from tests.node import Broker
from tests.proxy import Proxy

PROPERTY = "fault"
HEADINGS = ("fault", "what happens", "messages", "lost", "twice", "at most", "recovered after", "")


@pytest.fixture
async def proxy(rabbitmq: Broker) -> AsyncIterator[Proxy]:
    """What can be cut between a project and the shared node."""
    async with Proxy(rabbitmq.port) as proxy:
        yield proxy


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """Judge and record a case: `@pytest.mark.fault("F1", "what happens")` on the test says which it is."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "the test needs a mark: @pytest.mark.fault(number, what)"
    number, what = marker.args
    if hasattr(request.node, "callspec"):
        what = f"{what}: {request.node.callspec.id}"
    found = Fault(number, what)
    request.node.user_properties.append((PROPERTY, found.row))  # travels with the report, also between processes
    return found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line for each fault of this run, in the order of their numbers."""
    rows = sorted(_rows(terminalreporter.stats), key=lambda row: (int(re.sub(r"\D", "", row[0])), row))
    if not rows:
        return
    table = [HEADINGS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    terminalreporter.section("faults")
    for row in table:
        cells = [
            cell.rjust(width) if 2 <= column <= 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        terminalreporter.write_line("  ".join(cells).rstrip())


def _rows(stats: dict[str, list[Any]]) -> Iterator[tuple[str, ...]]:
    for category, reports in stats.items():
        for report in reports:
            row = dict(getattr(report, "user_properties", ())).get(PROPERTY)
            if row is None or (report.when != "call" and not (report.when == "setup" and report.failed)):
                continue
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f} s"
            numbers = ("" if row[key] is None else str(row[key]) for key in ("messages", "lost", "twice", "bound"))
            yield (row["number"], row["what"], *numbers, seconds, "" if category == "passed" else category)
