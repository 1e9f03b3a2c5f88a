"""Problems as text, to the character."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runner.config import diagnostics
from runner.config.loader import load
from runner.errors import Problem

ORDERS = """\
version: 1

queues:
  order_queue:

producers:
  place_orders:
    handler: handlers.orders:place_orders
    to: order_queue

subscribers:
  process_orders:
    from: order_queue
    handlr: handlers.orders:process_order
"""


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """The problems of the contract's own example, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").mkdir()
    path = tmp_path / "pipelines" / "orders.yaml"
    path.write_text(ORDERS)
    return load(path, {}).problems


def test_full_is_as_the_contract_shows_it(problems: list[Problem]) -> None:
    """Section 9 of the language."""
    assert diagnostics.full(problems) == (
        'error[unknown-key]: subscribers.process_orders: unknown key "handlr"\n'
        "  --> pipelines/orders.yaml:14:5\n"
        "   |\n"
        "14 |     handlr: handlers.orders:process_order\n"
        "   |     ^^^^^^\n"
        '   = help: did you mean "handler"?\n'
    )


def test_concise_is_as_the_contract_shows_it(problems: list[Problem]) -> None:
    """One line, as grep and editors like it."""
    assert diagnostics.concise(problems) == (
        "pipelines/orders.yaml:14:5: error[unknown-key] subscribers.process_orders: "
        'unknown key "handlr"; did you mean "handler"?\n'
    )


def test_json_is_a_list_with_every_field(problems: list[Problem]) -> None:
    """For programs."""
    assert json.loads(diagnostics.as_json(problems)) == [
        {
            "file": "pipelines/orders.yaml",
            "line": 14,
            "column": 5,
            "end_line": 14,
            "end_column": 11,
            "code": "unknown-key",
            "severity": "error",
            "path": "subscribers.process_orders",
            "message": 'unknown key "handlr"',
            "help": 'did you mean "handler"?',
            "page": "errors.md#unknown-key",
            "fix": {"start": {"line": 14, "column": 5}, "end": {"line": 14, "column": 11}, "text": "handler"},
        }
    ]
    (shown,) = json.loads(diagnostics.as_json([replace(problems[0], fix=None)]))
    assert shown["fix"] is None
    assert diagnostics.as_json([]) == "[]\n"


def test_github_is_a_workflow_command(problems: list[Problem]) -> None:
    """Beside the line of a pull request."""
    assert diagnostics.github(problems) == (
        "::error file=pipelines/orders.yaml,line=14,col=5,endLine=14,endColumn=11,title=unknown-key::"
        'subscribers.process_orders: unknown key "handlr"; did you mean "handler"?\n'
    )


def test_github_escapes_what_has_a_meaning_there() -> None:
    """Percent signs in the text; colons and commas in the properties."""
    problem = Problem(code="x", message="100%", file="a,b:c.yaml", line=1, column=1)
    assert (
        diagnostics.github([problem])
        == "::error file=a%2Cb%3Ac.yaml,line=1,col=1,endLine=1,endColumn=2,title=x::100%25\n"
    )


def test_colour_changes_nothing_but_colour(problems: list[Problem]) -> None:
    """Without the escapes it is the same text."""
    coloured = diagnostics.full(problems, colour=True)
    assert "\x1b[1;31merror[unknown-key]\x1b[0m" in coloured
    for code in ("\x1b[1m", "\x1b[1;31m", "\x1b[1;34m", "\x1b[1;36m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == diagnostics.full(problems)


def test_render_chooses_the_style(problems: list[Problem]) -> None:
    """By the name that `--format` takes."""
    assert diagnostics.render(problems, "full") == diagnostics.full(problems)
    assert diagnostics.render(problems, "concise") == diagnostics.concise(problems)
    assert diagnostics.render(problems, "json") == diagnostics.as_json(problems)
    assert diagnostics.render(problems, "github") == diagnostics.github(problems)


def test_the_next_steps_name_commands(problems: list[Problem]) -> None:
    """The code to explain is that of the first problem; how many can be mended is said only if there are any."""
    unfixable = replace(problems[0], fix=None)
    assert diagnostics.next_steps([unfixable]) == "`runner explain unknown-key` says more"
    assert diagnostics.next_steps([*problems, replace(unfixable, line=20)]) == (
        "`runner validate --fix` mends 1 of 2; `runner explain unknown-key` says more"
    )


def test_a_problem_without_a_line_or_a_file_has_no_excerpt(tmp_path: Path) -> None:
    """A missing file has neither line nor text."""
    problem = Problem(code="no-such-file", message="there is no such file", help="check the name", file="nowhere.yaml")
    assert diagnostics.full([problem]) == (
        "error[no-such-file]: there is no such file\n --> nowhere.yaml\n  = help: check the name\n"
    )
    assert diagnostics.concise([problem]) == (
        "nowhere.yaml: error[no-such-file] there is no such file; check the name\n"
    )
    nameless = Problem(code="x", message="y", severity="warning")
    assert diagnostics.full([nameless]) == "warning[x]: y\n"
    assert diagnostics.concise([nameless]) == "warning[x] y\n"


def test_problems_are_sorted_by_file_line_and_column() -> None:
    """Whoever found them, and when."""
    places = [("b", 1, 1), ("a", 2, 1), ("a", 1, 9), ("a", 1, 2)]
    found = [Problem(code="c", message="m", file=file, line=line, column=column) for file, line, column in places]
    assert [line.split(": ")[0] for line in diagnostics.concise(found).splitlines()] == [
        "a:1:2",
        "a:1:9",
        "a:2:1",
        "b:1:1",
    ]


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Neither from messages nor from the file."""
    path = tmp_path / "a.yaml"
    path.write_text('a: "\u202e"\n')
    problem = Problem(code="x", message="a\x1b]0;b\nc", help="\x07", path="p\r", file=str(path), line=1, column=4)
    for text in (diagnostics.full([problem]), diagnostics.concise([problem])):
        assert not set("\x1b\x07\r\u202e") & set(text)


def test_a_password_in_the_file_is_not_shown(tmp_path: Path) -> None:
    """Not in the excerpt, and not in the message."""
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\nbroker: amqp://u:S3CR3T@host:x\n")
    problems = load(path, {}).problems
    assert len(problems) == 1
    for style in ("full", "concise", "json", "github"):
        assert "S3CR3T" not in diagnostics.render(problems, style)
    assert "amqp://u:***@host:x" in diagnostics.full(problems)


@pytest.mark.parametrize(
    ("severities", "text"),
    [
        (["error"], "1 error in a.yaml"),
        (["error", "warning", "error"], "2 errors, 1 warning in a.yaml"),
        (["warning", "warning"], "2 warnings in a.yaml"),
    ],
)
def test_the_count_names_errors_and_warnings(severities: list[str], text: str) -> None:
    """Of one file by its name."""
    found = [Problem(code="c", message="m", file="a.yaml", severity=item) for item in severities]  # type: ignore[arg-type]
    assert diagnostics.count(found) == text


def test_the_count_of_several_files_says_how_many() -> None:
    """And of none, nothing."""
    found = [Problem(code="c", message="m", file=file) for file in ("a", "b", "b")]
    assert diagnostics.count(found) == "3 errors in 2 files"
    assert diagnostics.count([]) == "0 errors"
    assert diagnostics.count([Problem(code="c", message="m")]) == "1 error"
