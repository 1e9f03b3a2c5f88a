"""Tests of files, run: where their virtual time starts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.testing.runs import run_case
from runner.testing.suites import load_suite

PIPELINE = """
version: 1
events: {report.due: {unheard: ignore}}
producers: {report: {handler: "reports:report", cron: "0 6 * * *", to: report.due}}
"""
SUITE = """
version: 1
pipelines: [shop.yaml]
tests:
  a day:
    run_for: 1d
    expect: {published: [{to: report.due, at: "2026-01-01T06:00:00Z"}]}
"""


def test_virtual_time_starts_at_new_year_without_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, what a cron line does in a test depends on when the test is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "reports.py").write_text("def report() -> dict:\n    return {}\n")
    file = tmp_path / "a.test.yaml"
    file.write_text(SUITE)
    result = run_case(load_suite(file), "a day")
    assert (result.outcome, result.failures) == ("passed", ())
    assert result.start == datetime(2026, 1, 1, tzinfo=UTC)
