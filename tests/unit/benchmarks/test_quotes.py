"""The figures in the documents are those of the results that are kept beside the benchmarks, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import quotes
from benchmarks.quotes import DOCUMENTS, ROOT, pieces, quoted, rewritten

NAMES = {
    *("throughput, 3.10", "throughput, 4.3", "each row, 3.10", "each row, 4.3", "latency, 3.10", "latency, 4.3"),
    *("two processes, 3.10", "two processes, 4.3", "conditions, 3.10", "conditions, 4.3", "lines of RabbitMQ"),
    *("uvloop, 3.10", "uvloop, 4.3", "threads, 3.10", "threads, 4.3"),
    *("in-process", "in a file", "start-up", "profile, RabbitMQ", "profile, in-process", "profiles", "pictures"),
    *("scaling, processes", "scaling, subscribers", "scaling, body", "scaling, prefetch", "scaling, wait queues"),
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_quotes_what_was_measured(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    assert quoted(text)
    assert rewritten(text, pieces()) == text, "`make quotes` writes what was measured into the documents"


def test_what_was_measured_is_quoted_somewhere() -> None:
    names = {name for document in DOCUMENTS for name in quoted((ROOT / document).read_text("utf-8"))}
    assert names == NAMES


def test_only_what_stands_between_the_marks_is_rewritten() -> None:
    end = "<!-- end of results -->\n"
    text = f"a\n<!-- results: one -->\n\nold\n\n{end}b\n<!-- results: two -->\n\n{end}"
    new = rewritten(text, {"one": "| 1 |\n", "two": "| 2 |\n"})
    assert new == text.replace("old\n", "| 1 |\n").replace("two -->\n\n", "two -->\n\n| 2 |\n\n")
    assert rewritten(new, {"one": "| 1 |\n", "two": "| 2 |\n"}) == new
    with pytest.raises(KeyError, match="two"):
        rewritten(text, {"one": ""})


def test_rows_that_are_disturbed_failed_or_not_installed_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = {
        **{"scenario": "hop", "entry": "mqrunner", "failure": "", "runs": [{}, {}], "disturbed": "1 of 2, TOO BUSY"},
        "rate": {"median": 2000.0, "min": 1900.0, "max": 2200.0},
    }
    failed = {**good, "entry": "pika", "rate": None, "failure": "pika, hop: bench-7-source has 3 messages\nmore"}
    absent = {**good, "entry": "librabbitmq (C)", "rate": None, "missing": "cc", "disturbed": ""}
    machine = {"at": "2026-01-02T03:04:05", "cores": 2, "load": [0.5], "python": "3.11.7", "rabbitmq": "4.3.6"}
    (tmp_path / "throughput-4.3.json").write_text(json.dumps({"machine": machine, "results": [good, failed, absent]}))
    monkeypatch.setattr(quotes, "RESULTS", tmp_path)
    cells = quotes.throughput("4.3").splitlines()[-1]
    assert cells == "| hop | 2,000 ±10%\\* | failed | not installed |"
    assert quotes.conditions("4.3") == (
        "RabbitMQ 4.3.6, Python 3.11.7, 2 cores, 2026-01-02, load 0.5 before: medians of 2 runs, and ± the"
        " largest deviation of a run from it. \\* Other work disturbed 2 of the 3 rows too much to believe them."
        " Failed in one of them: hop, pika (its queue has 3 messages).\n"
    )
