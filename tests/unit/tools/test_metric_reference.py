"""docs/reference/metrics.md and docs/how-to/monitor.md say what the code does."""

from __future__ import annotations

import re
import tomllib

from runner.metrics import METRICS
from tests.process import ROOT
from tools.reference.metrics import metric_reference

HOW_TO = (ROOT / "docs/how-to/monitor.md").read_text("utf-8")


def test_the_reference_is_that_of_the_table() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs/reference/metrics.md").read_text("utf-8") == metric_reference()


def test_the_how_to_names_metrics_that_there_are() -> None:
    names = {name.removesuffix("_bucket") for name in re.findall(r"\brunner_\w+", HOW_TO)}
    assert names
    assert names <= {each.name for each in METRICS}


def test_the_how_to_names_every_alert() -> None:
    rules = tomllib.loads((ROOT / "runner/operations/export/alerts.toml").read_text("utf-8"))
    assert set(re.findall(r"`(Runner\w+)` \|", HOW_TO)) == set(rules)
