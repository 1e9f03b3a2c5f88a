"""`runner test`: exit codes, formats, reports for CI servers, and what no test reaches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from runner.cli.test import command

Run = Callable[..., Result]

PIPELINE = """
version: 1
name: shop
events: {order.paid: , order.shipped: {unheard: ignore}}
subscribers:
  ship: {from: order.paid, handler: "goods:ship", to: order.shipped, retry: {attempts: 2, delay: 4m}}
  bill: {from: order.paid, handler: "goods:bill", retry: none}
producers:
  remind: {handler: "goods:remind", cron: "0 6 * * *", to: order.shipped}
"""
HANDLERS = """
import sys

class CarrierAway(Exception):
    "The carrier does not answer."

def ship(order):
    if order["order"] < 0:
        raise CarrierAway("no \\x1b answer")
    print("shipping", order["order"])
    return {**order, "parcel": 5}

def bill(order): ...
def remind(): return "reminder"
"""
PASSES = """
  an order is shipped:
    publish: [{to: order.paid, payload: {order: 1}, id: o-1}]
    expect: {handled: {ship: 1}, published: [{to: order.shipped, payload: {order: 1}}], dead: none}
"""
FAILS = """
  a parcel has its number:
    publish: [{to: order.paid, payload: {order: 2}, id: o-2}]
    expect: {published: [{to: order.shipped, exactly: {order: 2, parcel: 6}}], dead: none}
"""
SKIPPED = """
  an order is sent back:
    skip: nothing is ever sent back
    expect: {dead: none}
"""
RETRIES = """
  a carrier that is away is asked twice:
    publish: [{to: order.paid, payload: {order: -1}}]
    expect: {retried: {ship: {after: [4m]}}, dead: [{error_type: CarrierAway}]}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on test files with these tests, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "goods.py").write_text(HANDLERS)

    def run(tests: str, *options: str) -> Result:
        (tmp_path / "shop.test.yaml").write_text(f"version: 1\npipelines: [shop.yaml]\ntests:{tests}")
        return CliRunner().invoke(command, [".", *options], catch_exceptions=False)

    return run


def test_tests_pass(run: Run) -> None:
    """A line for each, a summary, exit code 0."""
    done = run(PASSES + RETRIES + SKIPPED)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "shop.test.yaml"
    assert lines[1].startswith("  passed   an order is shipped (")
    assert lines[2].startswith("  passed   a carrier that is away is asked twice (")
    assert lines[2].endswith("· 4m of virtual time)")
    assert lines[3] == "  skipped  an order is sent back (nothing is ever sent back)"
    assert done.stderr == "3 tests: 2 passed, 1 skipped\n"


def test_a_failed_test_shows_the_line_the_difference_and_the_story(run: Run) -> None:
    """Exit code 1. What the handlers print is shown here only."""
    done = run(PASSES + FAILS)
    assert done.exit_code == 1
    assert "shipping 1" not in done.output
    shown = done.stdout.partition("  failed   a parcel has its number")[2].splitlines()
    assert shown[1:8] == [
        "",
        "error[unmet-expectation]: expect.published.0.exactly.parcel: expected 6, got 5",
        "  --> shop.test.yaml:10:74",
        "   |",
        "10 |     expect: {published: [{to: order.shipped, exactly: {order: 2, parcel: 6}}], dead: none}",
        "   |                                                                          ^",
        "  what happened:",
    ]
    assert shown[8].split() == ["+0s", "published", "the", "test", "→", "order.paid", "·", '{"order":', "2}", "o-2"]
    assert sorted(" ".join(line.split()[:3]) for line in shown[9:13]) == [
        "+0s handled bill",
        "+0s handled ship",
        "+0s published ship",
        "+0s unheard ship",
    ]
    assert shown[13:] == ["  what was printed:", "    shipping 2", ""]
    assert done.stderr == "2 tests: 1 failed, 1 passed\n"


def test_nothing_can_write_to_the_terminal(run: Run) -> None:
    """Control characters of errors and payloads are shown as escapes."""
    done = run(RETRIES.replace("after: [4m]", "count: 5"))
    assert "no \\x1b answer" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("shipped", ["an order is shipped"]),
        ("AN ORDER", ["an order is shipped", "an order is sent back"]),
        ("a *", ["a parcel has its number", "a carrier that is away is asked twice"]),
    ],
)
def test_only_runs_the_tests_that_match(run: Run, pattern: str, names: list[str]) -> None:
    """A part of the name, or the whole name with wildcards."""
    done = run(PASSES + FAILS + SKIPPED + RETRIES, "--only", pattern, "--format", "json")
    assert [test["name"] for test in json.loads(done.stdout)["tests"]] == names


def test_a_pattern_that_matches_nothing_is_wrong_usage(run: Run) -> None:
    """So that a misspelt pattern in CI does not pass."""
    done = run(PASSES, "--only", "refund")
    assert done.exit_code == 2
    assert 'no test has "refund" in its name' in done.stderr


@pytest.mark.parametrize("style", ["text", "github", "json"])
def test_a_wrong_file_ends_with_78_and_runs_nothing(run: Run, style: str) -> None:
    """All problems of all files are reported, in the format that was asked for."""
    done = run(PASSES + FAILS.replace("order.paid", "order.pad"), "--format", style)
    assert done.exit_code == 78
    shown = done.stderr if style == "text" else done.stdout
    assert 'no queue or event is called "order.pad"' in shown.replace("\\", "")
    assert "passed" not in done.output


def test_a_stand_in_that_does_not_fit_makes_the_file_wrong(run: Run) -> None:
    """Before anything runs: its parameters are compared as those of the real handler are."""
    done = run(PASSES + "    replace: {ship: 'goods:remind', bill: {handler: 'goods:nothing'}}\n")
    assert done.exit_code == 78
    assert "attribute-not-found" in done.stderr
    done = run(PASSES + "    replace: {ship: {handler: 'goods:remind'}}\n")
    assert done.exit_code == 78
    assert "error[wrong-parameters]" in done.stderr
    assert "shop.test.yaml:7" in done.stderr


def test_a_key_without_a_value_is_a_key_that_is_left_out(run: Run) -> None:
    """In replacements, too."""
    replaced = "    replace: {ship: {raises: , returns: {order: 1}, times: , takes: }}\n"
    assert run(PASSES + replaced).exit_code == 0


def test_json_has_everything(run: Run) -> None:
    """For programs: outcomes, places, differences and stories."""
    done = run(PASSES + FAILS + SKIPPED, "--format", "json", "--coverage")
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert [(test["name"], test["outcome"], test["line"]) for test in data["tests"]] == [
        ("an order is shipped", "passed", 4),
        ("a parcel has its number", "failed", 8),
        ("an order is sent back", "skipped", 12),
    ]
    (failure,) = data["tests"][1]["failures"]
    assert (failure["line"], failure["path"]) == (10, "expect.published.0.exactly.parcel")
    assert failure["message"] == "expected 6, got 5"
    assert len(failure["story"]) == 5
    assert data["coverage"]["unreached"]["shop.yaml"] == [
        "retry ship",
        "dead letter ship",
        "dead letter bill",
        "schedule remind",
    ]


def test_github_gets_annotations(run: Run) -> None:
    """Workflow commands, which appear beside the lines of a pull request."""
    done = run(PASSES + FAILS, "--format", "github")
    place = "file=shop.test.yaml,line=10,col=74,endLine=10,endColumn=75,title=unmet-expectation"
    assert done.stdout == f"::error {place}::expect.published.0.exactly.parcel: expected 6, got 5\n"


def test_junit_is_written_for_ci_servers(run: Run, tmp_path: Path) -> None:
    """A `testsuite` for each file, a `testcase` for each test, with what failed."""
    odd = RETRIES.replace("after: [4m]", "count: 5").replace(
        "a carrier that is away is asked twice", r'"a carrier \a that is away is asked twice"'
    )
    done = run(PASSES + FAILS + SKIPPED + odd, "--junit", "report.xml")
    assert done.exit_code == 1
    root = ET.parse(tmp_path / "report.xml").getroot()
    assert root.tag == "testsuites"
    (suite,) = root
    totals = {key: suite.get(key) for key in ("name", "tests", "failures", "errors", "skipped")}
    assert totals == {"name": "shop.test.yaml", "tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
    cases: Any = list(suite)
    assert {case.tag for case in cases} == {"testcase"}
    assert {case.get("classname") for case in cases} == {"shop.test"}
    assert all(float(case.get("time")) >= 0 for case in cases)
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["skipped"], ["failure"]]
    assert cases[3].get("name") == "a carrier \\x07 that is away is asked twice"
    failure = cases[1][0]
    assert failure.get("message") == "expect.published.0.exactly.parcel: expected 6, got 5"
    assert "shop.test.yaml:10:74" in failure.text


def test_a_report_that_cannot_be_written_is_wrong_usage(run: Run) -> None:
    """No traceback."""
    done = run(PASSES, "--junit", "missing/report.xml")
    assert done.exit_code == 2
    assert "cannot write missing/report.xml" in done.stderr


def test_coverage_lists_what_no_test_reaches(run: Run) -> None:
    """Subscribers, retries, dead letters, events and schedules."""
    done = run(PASSES, "--coverage")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-5:] == [
        "reached: 50 %",
        "  shop.yaml: retry ship",
        "  shop.yaml: dead letter ship",
        "  shop.yaml: dead letter bill",
        "  shop.yaml: schedule remind",
    ]


def test_a_schedule_that_was_not_waited_for_is_named(run: Run) -> None:
    """Without `run_for` no time passes for schedules, and neither the cron line nor its zone is wrong."""
    result = run(
        """
  a reminder comes at six:
    now: 2026-01-15T00:00:00Z
    expect: {published: [{to: order.shipped, at: "2026-01-15T06:00:00Z"}]}
"""
    )
    assert result.exit_code == 1
    assert 'help: "remind" waits for its time: add `run_for:`, as in `run_for: 24h`' in result.output


def test_a_schedule_by_utc_is_named_where_the_time_differs(run: Run) -> None:
    """A test that expects local times; other differences of the message are not about it."""
    case = """
  a reminder comes at six in Madrid:
    now: 2026-01-15T00:00:00Z
    run_for: 12h
    expect: {{published: [{{to: order.shipped, {expected}}}]}}
"""
    result = run(case.format(expected='at: "2026-01-15T06:00:00+01:00"'))
    assert result.exit_code == 1
    said = '"remind" runs by UTC: add `timezone:` to it, as in `timezone: Europe/Berlin`, for local times'
    assert f"help: {said}" in result.output
    assert said not in run(case.format(expected="times: 7")).output


def test_fail_under_compares_the_coverage(run: Run) -> None:
    """What is exactly reached passes."""
    assert run(PASSES, "--fail-under", "50").exit_code == 0
    done = run(PASSES, "--fail-under", "50.1")
    assert done.exit_code == 1
    assert "tests reach less than 50.1 %" in done.stderr
    assert run(PASSES, "--fail-under", "101").exit_code == 2


def test_a_resource_that_cannot_be_opened_fails_its_test_only(run: Run, tmp_path: Path) -> None:
    """The others run."""
    (tmp_path / "shop.yaml").write_text(PIPELINE + "resources: {db: 'goods:db'}\n")
    (tmp_path / "goods.py").write_text(
        HANDLERS.replace("def bill(order)", "def bill(order, db)")
        + "def db(): return 1\ndef away(): raise OSError('no db')\n"
    )
    done = run(PASSES + "  no database:\n    replace: {resources: {db: 'goods:away'}}\n    expect: {dead: none}\n")
    assert done.exit_code == 1
    assert done.stderr == "2 tests: 1 failed, 1 passed\n"
    assert "no db" in done.stdout


def test_variables_are_those_of_the_file(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the real environment, pipelines see only PATH and HOME."""
    monkeypatch.setenv("CARRIER", "ups")
    (tmp_path / "shop.yaml").write_text(PIPELINE.replace("name: shop", "name: shop\ndescription: ${CARRIER} ${HOME}"))
    done = run(PASSES)
    assert done.exit_code == 78
    assert 'the variable "CARRIER" is not set' in done.stderr
    path = tmp_path / "shop.test.yaml"
    path.write_text(path.read_text() + "env: {CARRIER: dhl}\n")
    done = CliRunner().invoke(command, [str(path)])
    assert done.exit_code == 0, done.output


def test_overlays_change_the_pipelines_under_test(run: Run) -> None:
    """As in every command that takes pipelines."""
    assert run(RETRIES, "--set", "subscribers.ship.retry.delay=3m").exit_code == 1
    assert run(RETRIES.replace("4m", "3m"), "--set", "subscribers.ship.retry.delay=3m").exit_code == 0


def test_pipelines_that_run_together_may_have_subscribers_of_one_name(run: Run, tmp_path: Path) -> None:
    """`pipeline.name` tells them apart; the bare name means all of them."""
    other = PIPELINE.replace("name: shop", "name: store").partition("producers:")[0]
    (tmp_path / "store.yaml").write_text(
        other.replace("to: order.shipped, ", "").replace(", order.shipped: {unheard: ignore}", "")
    )
    tests = PASSES.replace("{ship: 1}", "{ship: 2, store.ship: 1}").replace("dead: none", "dead: none")
    tests += """
  one of them fails:
    replace: {store.ship: {raises: TimeoutError}}
    publish: [{to: order.paid, payload: {order: 1}}]
    expect: {retried: {store.ship: 1, shop.ship: 0}, dead: [{subscriber: store.ship}]}
"""
    path = tmp_path / "both.test.yaml"
    path.write_text(f"version: 1\npipelines: [shop.yaml, store.yaml]\ntests:{tests}")
    done = CliRunner().invoke(command, [str(path)])
    assert done.exit_code == 0, done.output


def test_projects_with_modules_of_one_name_are_tested_in_one_run(run: Run, tmp_path: Path) -> None:
    """Each test gets the modules of its own project."""
    for name in ("north", "south"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "shop.yaml").write_text(PIPELINE)
        (folder / "goods.py").write_text(HANDLERS.replace('"parcel": 5', f'"parcel": "{name}"'))
        tests = PASSES.replace("payload: {order: 1}}], dead", f"payload: {{parcel: {name}}}}}], dead")
        (folder / "shop.test.yaml").write_text(f"version: 1\npipelines: [shop.yaml]\ntests:{tests}{RETRIES}")
    done = CliRunner().invoke(command, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stderr == "4 tests: 4 passed\n"
