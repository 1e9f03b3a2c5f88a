"""The figures in the documents are those of the results that are kept beside the benchmarks, to the last digit."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quotes import pieces

ROOT = Path(__file__).resolve().parents[3]
QUOTED = {
    "README.md": ("throughput",),
    "docs/explanation/performance.md": ("two processes", "in-process", "latency", "start-up"),
    "docs/explanation/scaling.md": (
        "scaling, processes",
        "scaling, subscribers",
        "scaling, body",
        "scaling, prefetch",
        "scaling, wait queues",
        "profile, RabbitMQ",
        "profile, in-process",
    ),
}


@pytest.mark.parametrize(("document", "name"), [(document, name) for document in QUOTED for name in QUOTED[document]])
def test_a_document_quotes_what_was_measured(document: str, name: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    assert pieces()[name] in text, f"python -m benchmarks.quotes prints what {document} should say: {name}"
