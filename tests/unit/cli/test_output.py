"""What verbs write to stderr, and the exit codes they end with."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli.output import BadValue, echo_error, errors_as_exit_codes, wants_color, write_file
from runner.errors import BrokerUnavailable, PipelineInvalid, Problem


@pytest.mark.parametrize(
    ("variables", "is_terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_colours_follow_the_variables_and_the_terminal(
    variables: dict[str, str], is_terminal: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_color(is_terminal) is expected


def test_an_error_has_its_lines_its_hint_and_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    echo_error("cannot reach amqp://u:secret@h\nsecond line", "look at amqps://u:secret@h")
    assert capsys.readouterr().err == (
        "error: cannot reach amqp://u:***@h\n       second line\n  = help: look at amqps://u:***@h\n"
    )


def test_an_error_ends_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_as_exit_codes():
        raise BrokerUnavailable("the broker is away", "start it")
    assert ended.value.code == 69
    assert capsys.readouterr().err == "error: the broker is away\n  = help: start it\n"


def test_problems_are_written_in_full_with_their_count(capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem(code="bad-name", message="a name is missing", file="shop.yaml", line=1, column=1)
    with pytest.raises(SystemExit) as ended, errors_as_exit_codes():
        raise PipelineInvalid([problem])
    assert ended.value.code == 78
    written = capsys.readouterr().err
    assert "error[bad-name]: a name is missing" in written
    assert written.endswith("1 error in shop.yaml\n`runner explain bad-name` says more\n")


@pytest.mark.parametrize(
    ("present", "text", "is_replaced"),
    [
        ("", "[Unit]\n", True),
        ("# one\n\n[Unit]\nold", "# another\n[Unit]\nnew", True),
        ('{\n  "$schema": 1}', '{"$schema": 2}', True),
        ("version: 1\n", "[Unit]\n", False),
        ('{"id": 7}', '{"$schema": 2}', False),
        ("pipelines: pipeline.yaml\n", '<?xml version="1.0"?>', False),
        ("version: 1\n", "services:\n", False),
        ("import json\n", '{"$schema": 2}', False),
    ],
)
def test_a_file_with_something_else_is_not_replaced(present: str, text: str, is_replaced: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(present)
    if is_replaced:
        write_file(file, text, "--output")
    else:
        with pytest.raises(BadValue, match="is there already, with something else in it"):
            write_file(file, text, "--output")
    assert file.read_text() == (text if is_replaced else present)


def test_a_file_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadValue) as refused:
        write_file(tmp_path / "no such" / "file", "text", "--output")
    assert refused.value.hint == f"make its folder: mkdir -p '{tmp_path}/no such'"
