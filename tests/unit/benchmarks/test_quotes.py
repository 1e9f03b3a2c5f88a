"""The figures in the documents are those of the results that are kept beside the benchmarks, to the last digit."""

from __future__ import annotations

import pytest

from benchmarks.quotes import DOCUMENTS, ROOT, pieces, quoted, rewritten

NAMES = {
    *("throughput, 3.10", "throughput, 4.3", "each row, 3.10", "each row, 4.3", "latency, 3.10", "latency, 4.3"),
    *("two processes, 3.10", "two processes, 4.3", "conditions, 3.10", "conditions, 4.3", "lines of RabbitMQ"),
    *("uvloop, 3.10", "uvloop, 4.3"),
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
