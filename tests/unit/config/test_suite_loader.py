"""Test files: which files they are, and that pipelines and tests are not mistaken for each other."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.config.loader import find_pipelines, load
from runner.config.suite_loader import find_suites, read_suite
from runner.errors import PipelineInvalid
from tests.process import ROOT
from tests.unit.operations.examples import yaml_blocks

TESTS = "version: 1\npipelines: [shop.yaml]\ntests: {paid: {expect: {dead: none}}}\n"
PIPELINE = "version: 1\nqueues: {orders: }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a pipeline, tests beside it and below it, and tests that are not its own."""
    for name, text in {
        "shop.yaml": PIPELINE,
        "shop.test.yaml": TESTS,
        "tests/more.test.yml": TESTS,
        ".hidden/a.test.yaml": TESTS,
        "node_modules/b.test.yaml": TESTS,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_folder_has_its_tests_and_its_pipelines(folder: Path) -> None:
    """Each file is one or the other."""
    assert find_suites([folder]) == [folder / "shop.test.yaml", folder / "tests/more.test.yml"]
    assert find_pipelines([folder]) == [folder / "shop.yaml"]


def test_a_file_is_read_once(folder: Path) -> None:
    """Also if it is named, and below a folder that is named."""
    assert len(find_suites([folder / "shop.test.yaml", folder, folder])) == 2


def test_a_folder_without_tests_is_an_error(tmp_path: Path) -> None:
    """So that a misspelt folder in CI does not pass."""
    with pytest.raises(PipelineInvalid) as caught:
        find_suites([tmp_path])
    assert [problem.code for problem in caught.value.problems] == ["no-tests"]


def test_tests_are_no_pipeline(folder: Path) -> None:
    """`runner up shop.test.yaml` says what to run instead."""
    (problem,) = load(folder / "shop.test.yaml", {}).problems
    assert problem.code == "test-file"
    assert problem.help == f"run it with `runner test`; its pipeline is {folder / 'shop.yaml'}"


def test_a_pipeline_is_no_file_of_tests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One problem says so, and names the tests beside it."""
    monkeypatch.chdir(folder)
    [problem] = read_suite(Path("shop.yaml")).file.problems
    assert (problem.code, problem.help) == ("no-tests", "write shop.test.yaml in place of it")
    (folder / "shop.test.yaml").unlink()
    [problem] = read_suite(Path("shop.yaml")).file.problems
    assert problem.help == "`runner init` writes tests, in *.test.yaml"


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Like a pipeline that is not there."""
    assert [problem.code for problem in read_suite(tmp_path / "a.test.yaml").file.problems] == ["no-such-file"]


@pytest.mark.parametrize(
    "text", yaml_blocks((ROOT / "docs/reference/test-files.md").read_text("utf-8")), ids=lambda text: text[-40:]
)
def test_every_example_of_the_reference_is_valid(text: str, tmp_path: Path) -> None:
    """As far as its own keys go; the pipelines are not shown."""
    path = tmp_path / "a.test.yaml"
    path.write_text(text)
    assert read_suite(path).file.problems == []


def test_values_are_converted(tmp_path: Path) -> None:
    """Times to UTC, durations to seconds, short forms to maps; payloads stay as they are."""
    path = tmp_path / "a.test.yaml"
    path.write_text("""
version: 1
pipelines: shop.yaml
tests:
  paid:
    now: 2026-03-28T07:00:00+02:00
    run_for: 2d
    replace: {ship: "fakes:ship", book: {takes: 5s, returns: null}, resources: {db: "fakes:db"}}
    publish: [{to: order.paid, payload: {total: 1.5, note: "${HOME}"}, at: 90s}]
    expect: {retried: {ship: 3}, published: none, dead: [{at: 2026-03-28T05:00:00Z}]}
""")
    spec = read_suite(path).spec
    assert spec is not None
    case = spec.tests["paid"]
    assert (spec.pipelines, case.now, case.run_for) == (("shop.yaml",), datetime(2026, 3, 28, 5, tzinfo=UTC), 172_800.0)
    assert case.publish[0].payload == {"total": 1.5, "note": "${HOME}"}
    assert case.publish[0].at == 90.0
    ship, book = (case.replace.model_extra or {}).values()
    assert (ship.handler, book.takes, book.model_fields_set) == ("fakes:ship", 5.0, {"takes", "returns"})
    assert case.replace.resources == {"db": "fakes:db"}
    assert (case.expect.retried["ship"].count, case.expect.published) == (3, ())
    assert case.expect.dead[0].at == case.now
