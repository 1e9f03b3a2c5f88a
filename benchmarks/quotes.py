"""What the documents quote of the results in `benchmarks/results`, as Markdown: a test holds them to it.

    python -m benchmarks.quotes            # prints every piece under its name
    python -m benchmarks.quotes --write    # writes the pieces into the documents (`make quotes`)

A piece stands in a document between `<!-- results: NAME -->` and `<!-- end of results -->`. The name of a piece that
depends on RabbitMQ ends with its line, as in `throughput, 4.3`.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (
    "README.md",
    "docs/explanation/performance.md",
    "docs/explanation/scaling.md",
    "docs/reference/machines.md",
    "benchmarks/results/README.md",
)
LINES = ("3.10", "4.3")
"""The lines of RabbitMQ that the documents show."""

COLUMNS = {
    "mqrunner": "mqrunner",
    "mqrunner + uvloop": "mqrunner, uvloop",
    "aio-pika": "aio-pika",
    "FastStream": "FastStream",
    "Taskiq (uvloop)": "Taskiq",
    "Celery, solo": "Celery",
    "Dramatiq, 1 thread": "Dramatiq",
    "pika": "pika",
    "amqplib (Node.js)": "amqplib, Node.js",
    "librabbitmq (C)": "librabbitmq, C",
    "broker's limit (raw socket)": "broker's limit",
}
"""The entries of the table of throughput, and what they are called there."""

BASE = "aio-pika"
IN_A_FILE = ("in a file: publish", "in a file: handle")
IN_ONE_PROCESS = ("in-process", *IN_A_FILE)
TWO_PROCESSES = "consume, two processes"
IN_THREADS = "consume, plain functions in 8 threads"
NOT_BESIDE_AIO_PIKA = (*IN_ONE_PROCESS, IN_THREADS)

NOT_MEASURED = "Not measured.\n"

_BLOCK = re.compile(r"(<!-- results: (?P<name>[^>]+) -->\n\n).*?(?=<!-- end of results -->)", re.DOTALL)

Row = Mapping[str, Any]
Document = Mapping[str, Any]


def read(name: str) -> Document:
    """Return a file of results."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def lines(kind: str) -> list[str]:
    """Return the lines of RabbitMQ that a benchmark was run on, the oldest first."""
    found = [file.stem.removeprefix(f"{kind}-") for file in RESULTS.glob(f"{kind}-*.json")]
    return sorted(found, key=lambda line: [int(number) for number in line.split(".")])


def throughput(line: str) -> str:
    """Return messages a second on RabbitMQ, a line for each kind of work, a column for each library."""
    cells: dict[str, dict[str, str]] = {}
    for row in read(f"throughput-{line}")["results"]:
        if row["entry"] in COLUMNS and row["scenario"] not in (*NOT_BESIDE_AIO_PIKA, TWO_PROCESSES):
            cells.setdefault(row["scenario"], {})[row["entry"]] = _rate(row)
    measured = [entry for entry in COLUMNS if any(entry in found for found in cells.values())]
    rows = [(name, *(found.get(entry, "") for entry in measured)) for name, found in cells.items()]
    return _table(("messages a second", *(COLUMNS[entry] for entry in measured)), rows)


def each_row(line: str) -> str:
    """Return everything that was measured on RabbitMQ: median, smallest and largest rate, CPU time, ratios."""
    heads = ("", "messages a second", "from", "to", "CPU µs each", "rate to aio-pika's", "CPU to aio-pika's")
    rows = []
    for row in read(f"throughput-{line}")["results"]:
        if row["scenario"] in NOT_BESIDE_AIO_PIKA or not row["rate"]:
            continue
        rates = (f"{row['rate'][name]:,.0f}" for name in ("median", "min", "max"))
        ratios = ("" if row[name] is None else f"{row[name]:.2f}" for name in ("ratio", "cpu_ratio"))
        name = f"{row['scenario']}: {row['entry']}{_mark(row)}"
        rows.append((name, *rates, f"{row['cpu_us']['median']:.0f}", *ratios))
    return _table(heads, rows)


def conditions(line: str) -> str:
    """Return what the figures of a line depend on, and how far they can be believed."""
    document = read(f"throughput-{line}")
    machine, rows = document["machine"], document["results"]
    runs = max(len(row["runs"]) for row in rows)
    busy = sum(bool(_mark(row)) for row in rows)
    believed = f"\\* Other work disturbed {busy} of the {len(rows)} rows too much to believe them. " if busy else ""
    if not busy and machine.get("too_busy"):
        believed = "Other work disturbed all of them too much to believe them. "
    failed = "; ".join(f"{row['scenario']}, {row['entry']} ({_reason(row)})" for row in rows if row["failure"])
    return (
        f"RabbitMQ {machine.get('rabbitmq') or line}, Python {machine['python']}, {machine['cores']} cores, "
        f"{machine['at'][:10]}, load {machine['load'][0]:.1f} before: medians of {runs} runs, and ± the largest "
        f"deviation of a run from it. {believed}{f'Failed in one of them: {failed}.' if failed else ''}".rstrip()
        + "\n"
    )


def by_line() -> str:
    """Return the ratios to aio-pika on each line of RabbitMQ, of what was measured on all of them."""
    found = {
        line: {(row["scenario"], row["entry"]): row for row in read(f"throughput-{line}")["results"]}
        for line in lines("throughput")
    }
    first, *others = found.values()
    rows = []
    for scenario, entry in first:
        same = [rows_of.get((scenario, entry)) for rows_of in (first, *others)]
        if scenario not in NOT_BESIDE_AIO_PIKA and entry in COLUMNS and entry != BASE and all(same):
            rows.append((f"{scenario}, {entry}", *(_ratios(row) for row in same if row)))
    return _table(("rate and CPU time as a ratio to aio-pika's", *(f"RabbitMQ {line}" for line in found)), rows)


def two_processes(line: str) -> str:
    """Return the scenario of two processes."""
    rows = _rows(f"throughput-{line}", scenario=TWO_PROCESSES)
    return _table(("two processes at one queue", "messages a second"), [(row["entry"], _rate(row)) for row in rows])


def in_threads(line: str) -> str:
    """Return the scenario of plain functions in threads, with ratios to the first library."""
    rows = [row for row in _rows(f"throughput-{line}", scenario=IN_THREADS) if row["rate"]]
    heads = (
        "plain functions in 8 threads",
        "messages a second",
        "CPU µs each",
        f"rate to {rows[0]['entry']}" if rows else "",
    )
    return _table(
        heads, [(row["entry"], _rate(row), f"{row['cpu_us']['median']:.0f}", f"{row['ratio']:.1f}") for row in rows]
    )


def in_one_process(head: str, *scenarios: str) -> str:
    """Return what needs no RabbitMQ, of the newest results that have it, a column for each scenario."""
    documents = [read(f"throughput-{line}") for line in lines("throughput")]
    having = [it for it in documents if any(row["scenario"] == scenarios[0] for row in it["results"])]
    newest = max(having, key=lambda it: str(it["machine"]["at"]), default=None)
    cells: dict[str, list[str]] = {}
    for row in newest["results"] if newest else ():
        if row["scenario"] in scenarios:
            cells.setdefault(row["entry"], []).append(_rate(row))
    heads = [scenario.rpartition(": ")[2] for scenario in scenarios] if len(scenarios) > 1 else ["messages a second"]
    return _table((head, *heads), [(entry, *rates) for entry, rates in cells.items()])


def latency(line: str) -> str:
    """Return the latencies."""
    names = ("p50", "p99", "worst")
    rows = [
        (f"{row['entry']}, {row['rate']:,}/s{_mark(row)}", *(_milliseconds(row, name) for name in names))
        for row in read(f"latency-{line}")["results"]
    ]
    return _table(("milliseconds from publish to handler", *names), rows)


def uvloop(line: str) -> str:
    """Return what uvloop changes: ratios to asyncio's own loop in the same rounds, and the latencies of both."""
    found = {(row["scenario"], row["entry"]): row for row in read(f"throughput-{line}")["results"]}
    rows = []
    for (scenario, entry), row in found.items():
        other = found.get((scenario, f"{entry} + uvloop"))
        if entry == "mqrunner" and other and row["runs"] and other["runs"]:
            pairs = list(zip(row["runs"], other["runs"], strict=False))
            rate, cpu = (
                statistics.median(ours[name] / theirs[name] for theirs, ours in pairs) for name in ("rate", "cpu_us")
            )
            mark = _mark(row) or _mark(other)
            rows.append((f"{scenario}{mark}", f"{rate:.2f}", f"{cpu:.2f}"))
    return _table(("with uvloop, as a ratio to without", "messages a second", "CPU time each"), rows)


def startup() -> str:
    """Return the start-up times."""
    rows = read("startup")["results"]["commands"]
    return _table(
        ("start-up", "milliseconds"),
        [(row["command"] + _mark(row), f"{row['seconds']['median'] * 1000:.0f}") for row in rows],
    )


def scaling(what: str) -> str:
    """Return how cost grows with one thing."""
    rows = [
        (row["size"], _rate(row), f"{row['cpu_us']['median']:.0f}", f"{row['start_s']['median']:.1f}")
        for row in _rows("scaling", what=what)
    ]
    return _table((what, "messages a second", "CPU µs each", "s until it runs"), rows)


def profile(broker: str) -> str:
    """Return where the time of one message goes."""
    (found,) = _rows("profile", broker=broker)
    rows = [(part, f"{us:.1f}") for part, us in found["parts"].items()]
    return _table((f"{broker}, one message", "CPU µs"), rows)


def profiles() -> str:
    """Return where the time of one message goes, a column for each kind of work."""
    found = {row["broker"]: row["parts"] for row in read("profile")["results"]}
    parts = dict.fromkeys(part for its in found.values() for part in its)
    rows = [(part, *(f"{its[part]:.1f}" if part in its else "" for its in found.values())) for part in parts]
    total = ("all", *(f"{sum(its.values()):.1f}" for its in found.values()))
    return _table(("CPU µs of one message", *found), [*rows, total])


def pictures() -> str:
    """Return links to the flame graphs of `make profile`."""
    files = sorted(RESULTS.glob("profile-*.svg"))
    return "".join(f"- [{file.stem}]({file.name})\n" for file in files) or NOT_MEASURED


def pieces() -> dict[str, str]:
    """Return everything that may be quoted, by name."""
    found = {
        "in-process": in_one_process("in one process", "in-process"),
        "in a file": in_one_process("messages a second, in a file", *IN_A_FILE),
        "start-up": startup(),
        "profile, RabbitMQ": profile("RabbitMQ"),
        "profile, in-process": profile("in-process"),
        "profiles": profiles(),
        "pictures": pictures(),
        "lines of RabbitMQ": by_line(),
    }
    for line in LINES:
        for name, kind, piece in (
            ("throughput", "throughput", throughput),
            ("each row", "throughput", each_row),
            ("conditions", "throughput", conditions),
            ("two processes", "throughput", two_processes),
            ("threads", "throughput", in_threads),
            ("uvloop", "throughput", uvloop),
            ("latency", "latency", latency),
        ):
            found[f"{name}, {line}"] = piece(line) if line in lines(kind) else NOT_MEASURED
    whats = dict.fromkeys(row["what"] for row in read("scaling")["results"])
    return found | {f"scaling, {what}": scaling(what) for what in whats}


def quoted(text: str) -> list[str]:
    """Return the names of the pieces that a document quotes."""
    return [match["name"] for match in _BLOCK.finditer(text)]


def rewritten(text: str, known: Mapping[str, str]) -> str:
    """Return a document with the pieces as they are now.

    Raises KeyError for a piece that does not exist.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}{known[match['name']]}\n", text)


def _rows(name: str, **wanted: str) -> Sequence[Row]:
    return [row for row in read(name)["results"] if all(row[key] == value for key, value in wanted.items())]


def _rate(row: Row) -> str:
    if row.get("missing"):
        return "not installed"
    if row["failure"] or not row["rate"]:
        return "failed"
    rate = row["rate"]
    deviation = max(rate["max"] - rate["median"], rate["median"] - rate["min"]) / rate["median"]
    return f"{rate['median']:,.0f} ±{deviation:.0%}{_mark(row)}"


def _reason(row: Row) -> str:
    """Return the last part of the first line of a failure: what was found, without the names before it."""
    said = str(row["failure"]).partition("\n")[0].rpartition(": ")[2]
    return re.sub(r"^bench-\S+ has", "its queue has", said)


def _milliseconds(row: Row, name: str) -> str:
    return "failed" if row["failure"] or not row[name] else f"{row[name]['median']:.2f}"


def _ratios(row: Row) -> str:
    if row.get("missing") or row["ratio"] is None:
        return "not installed" if row.get("missing") else "failed"
    return f"{row['ratio']:.2f} ({row['cpu_ratio']:.2f}){_mark(row)}"


def _mark(row: Row) -> str:
    return "\\*" if "BUSY" in row.get("disturbed", "") else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return NOT_MEASURED
    table = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"


def write() -> None:
    """Write the pieces into the documents, and say which of them changed and what failed."""
    known = pieces()
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text("utf-8")
        if (after := rewritten(before, known)) != before:
            path.write_text(after, "utf-8")
        print(f"{'written' if after != before else 'unchanged'}: {name}")
    for line in lines("throughput"):
        for row in read(f"throughput-{line}")["results"]:
            if row["failure"]:
                print(f"failed on {line}: {row['scenario']}, {row['entry']}: {row['failure'].splitlines()[0]}")


def main() -> None:
    """Print every piece, or write them into the documents."""
    if sys.argv[1:] == ["--write"]:
        write()
        return
    for name, text in pieces().items():
        print(f"{name}\n\n{text}")


if __name__ == "__main__":
    main()
