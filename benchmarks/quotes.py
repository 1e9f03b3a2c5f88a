"""What the documents quote of the results in `benchmarks/results`, as Markdown: a test holds them to it.

python -m benchmarks.quotes            # prints every piece under its name
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

COLUMNS = {
    "mqrunner": "mqrunner",
    "mqrunner + uvloop": "mqrunner, uvloop",
    "aio-pika": "aio-pika",
    "FastStream": "FastStream",
    "Taskiq (uvloop)": "Taskiq",
    "Celery, solo": "Celery",
    "Dramatiq, 1 thread": "Dramatiq",
    "pika": "pika",
    "broker's limit (raw socket)": "broker's limit",
}
"""The entries of the table of throughput, and what they are called there."""

Row = Mapping[str, Any]


def read(name: str) -> Mapping[str, Any]:
    """Return a file of results."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def throughput() -> str:
    """Return messages a second on RabbitMQ, a line for each kind of work, a column for each library."""
    rates: dict[str, dict[str, str]] = {}
    for row in read("throughput")["results"]:
        if row["entry"] in COLUMNS and row["scenario"] != "consume, two processes":
            rates.setdefault(row["scenario"], {})[row["entry"]] = _rate(row)
    rates.pop("in-process", None)
    lines = [(name, *(cells.get(entry, "") for entry in COLUMNS)) for name, cells in rates.items()]
    return _table(("messages a second", *COLUMNS.values()), lines)


def two_processes() -> str:
    """Return the scenario of two processes."""
    rows = _rows("throughput", scenario="consume, two processes")
    return _table(("two processes at one queue", "messages a second"), [(row["entry"], _rate(row)) for row in rows])


def in_process() -> str:
    """Return the in-process brokers."""
    rows = _rows("throughput", scenario="in-process")
    return _table(("in one process", "messages a second"), [(row["entry"], _rate(row)) for row in rows])


def latency() -> str:
    """Return the latencies."""
    lines = [
        (f"{row['entry']}, {row['rate']:,}/s", *(f"{row[name]['median']:.2f}" for name in ("p50", "p99", "worst")))
        for row in read("latency")["results"]
    ]
    return _table(("milliseconds from publish to handler", "p50", "p99", "worst"), lines)


def startup() -> str:
    """Return the start-up times."""
    rows = read("startup")["results"]["commands"]
    return _table(
        ("start-up", "milliseconds"), [(row["command"], f"{row['seconds']['median'] * 1000:.0f}") for row in rows]
    )


def scaling(what: str) -> str:
    """Return how cost grows with one thing."""
    lines = [
        (row["size"], _rate(row), f"{row['cpu_us']['median']:.0f}", f"{row['start_s']['median']:.1f}")
        for row in _rows("scaling", what=what)
    ]
    return _table((what, "messages a second", "CPU µs each", "s until it runs"), lines)


def profile(broker: str) -> str:
    """Return where the time of one message goes."""
    (found,) = _rows("profile", broker=broker)
    lines = [(part, f"{us:.1f}") for part, us in found["parts"].items()]
    return _table((f"{broker}, one message", "CPU µs"), lines)


def pieces() -> dict[str, str]:
    """Return everything that may be quoted, by name."""
    found = {
        "throughput": throughput(),
        "two processes": two_processes(),
        "in-process": in_process(),
        "latency": latency(),
        "start-up": startup(),
        "profile, RabbitMQ": profile("RabbitMQ"),
        "profile, in-process": profile("in-process"),
    }
    whats = dict.fromkeys(row["what"] for row in read("scaling")["results"])
    return found | {f"scaling, {what}": scaling(what) for what in whats}


def _rows(name: str, **wanted: str) -> Sequence[Row]:
    return [row for row in read(name)["results"] if all(row[key] == value for key, value in wanted.items())]


def _rate(row: Row) -> str:
    return "failed" if row["failure"] or not row["rate"] else f"{row['rate']['median']:,.0f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Print every piece."""
    for name, text in pieces().items():
        print(f"{name}\n\n{text}")


if __name__ == "__main__":
    main()
