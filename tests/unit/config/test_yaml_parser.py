"""Reading a file: its text, its nodes and their places."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from runner.config import yaml_parser
from runner.config.document import KeyPath, plain_data
from runner.config.yaml_parser import parse_yaml, read_text
from runner.errors import PipelineInvalid, Problem


def data(text: str) -> object:
    document, problems = parse_yaml(text)
    assert problems == []
    return plain_data(document.root)


def problems_of(text: str) -> list[Problem]:
    try:
        return parse_yaml(text)[1]
    except PipelineInvalid as error:
        return list(error.problems)


def only(text: str) -> Problem:
    (problem,) = problems_of(text)
    return problem


# Files


def refused(path: Path) -> Problem:
    with pytest.raises(PipelineInvalid) as caught:
        read_text(path)
    (problem,) = caught.value.problems
    return problem


def test_a_missing_file_a_folder_and_a_pipe_are_three_problems(tmp_path: Path) -> None:
    """What is not a regular file is never opened: a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "none.yaml").code == "no-such-file"
    assert refused(tmp_path).message == "this is a folder, not a file"
    assert refused(tmp_path / "pipe").code == "not-a-file"
    assert refused(Path("a\0b")).code in ("unreadable-file", "no-such-file")


def test_text_that_is_not_utf_8_is_refused_at_its_place(tmp_path: Path) -> None:
    """Latin-1 and UTF-16 are found at the first byte that is wrong."""
    (tmp_path / "a.yaml").write_bytes(b"version: 1\nname: caf\xe9\n")
    problem = refused(tmp_path / "a.yaml")
    assert (problem.code, problem.line, problem.column) == ("not-utf-8", 2, 10)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfversion: 1\n")
    assert read_text(tmp_path / "a.yaml") == "version: 1\n"


def test_a_file_over_one_mebibyte_is_refused(tmp_path: Path) -> None:
    """It is not even read to its end."""
    (tmp_path / "a.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    assert refused(tmp_path / "a.yaml").code == "too-large"


# What YAML is allowed


def test_scalars_are_those_of_yaml_1_2() -> None:
    """Quoted scalars stay text."""
    text = "on: yes\nb: true\nc: 010\nd: 12:30\ne: 0x1f\nf: '16'\ng: 1.5\nh:\ni: 2026-01-31\n"
    assert data(text) == {
        "on": "yes",
        "b": True,
        "c": "010",
        "d": "12:30",
        "e": 31,
        "f": "16",
        "g": 1.5,
        "h": None,
        "i": "2026-01-31",
    }


def test_anchors_aliases_and_merge_keys_work() -> None:
    """A map's own keys win; of several merged maps, the first."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\nd: *a\ne: {'<<': 1}\n"
    assert data(text) == {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2, "z": 2},
        "c": {"x": 3, "y": 1, "z": 2},
        "d": {"x": 1, "y": 1},
        "e": {"<<": 1},
    }


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("", "empty-file", 1, 1),
        ("# nothing\n", "empty-file", 1, 1),
        ("---\n...\n", "empty-file", 1, 1),
        ("- a\n", "wrong-type", 1, 1),
        ("hello\n", "wrong-type", 1, 1),
        ("a: 1\n---\nb: 1\n", "multiple-documents", 2, 1),
        ("a: 1\nb: 2\n\na: 3\n", "duplicate-key", 4, 1),
        ("a: {b: 1, b: 2}\n", "duplicate-key", 1, 11),
        ("a: &a {}\nb:\n  <<: *a\n  <<: *a\n", "duplicate-key", 4, 3),
        ("a: !!int 5\n", "yaml-tag", 1, 4),
        ("a: &x !thing 5\n", "yaml-tag", 1, 7),
        ("a: !!python/object/apply:os.system [ls]\n", "yaml-tag", 1, 4),
        ("1: a\n", "bad-key", 1, 1),
        ("a:\n  true: b\n", "bad-key", 2, 3),
        ("? [a, b]\n: c\n", "bad-key", 1, 3),
        ("? \n: a\n", "bad-key", 1, 2),
        ("{a: b}: c\n", "bad-key", 1, 1),
        ("a: *b\n", "unknown-alias", 1, 4),
        ("a: &b [*b]\n", "recursive-alias", 1, 8),
        ("a: &b {c: {d: *b}}\n", "recursive-alias", 1, 15),
        ("a: {<<: 5}\n", "bad-merge", 1, 5),
        ("a: \x01\n", "yaml-syntax", 1, 4),
    ],
)
def test_what_a_pipeline_may_not_have_is_one_problem_at_its_place(text: str, code: str, line: int, column: int) -> None:
    """Each has its own code."""
    problem = only(text)
    assert (problem.code, problem.line, problem.column) == (code, line, column)


def test_a_duplicate_key_names_the_line_of_the_first() -> None:
    """Both places are known, so both are said."""
    assert only("a: 1\nb:\na: 2\n").message == 'the key "a" is already written in line 1'


def test_problems_that_do_not_hinder_reading_are_reported_together() -> None:
    """Two duplicates and a tag are three problems."""
    assert [problem.code for problem in problems_of("a: 1\na: 2\nb: !x 1\nb: 2\n")] == [
        "duplicate-key",
        "yaml-tag",
        "duplicate-key",
    ]


# Limits


def test_an_alias_bomb_is_refused() -> None:
    """Ten aliases of ten aliases: counted, never written out."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert only("\n".join(lines)).code == "too-large"


def test_a_merge_bomb_is_refused() -> None:
    """Merge keys count like aliases."""
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
    assert only("\n".join(lines)).code == "too-large"


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "a: " + "[" * 100_000, "- " * 5000])
def test_depth_is_refused_before_python_recurses(text: str) -> None:
    """Fifty levels are enough for any pipeline."""
    assert only(text).code == "too-deep"


def test_depth_counts_through_aliases() -> None:
    """Aliases of aliases cannot nest deeper than the file could."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]
    assert only("\n".join(lines)).code == "too-deep"


def test_too_many_nodes_are_refused() -> None:
    """Ten thousand keys and values are enough for any pipeline."""
    assert only("a: [" + "x," * 10_001 + "]").code == "too-large"


def test_fifty_levels_and_many_nodes_are_fine() -> None:
    """The limits themselves are allowed."""
    assert problems_of("a: " + "[" * 49 + "]" * 49) == []
    assert problems_of("a: [" + "x," * 9_996 + "]") == []


# Places


PLACES = """\
version: 1
queues:
  order_queue:
  "quoted": {max_length: 5, events: [a, 'b c']}
anchor: &x
  deep: value
copy: *x
merged:
  <<: *x
  own: &y  text
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("version",), (1, 1, 7), (1, 10, 1)),
        (("queues",), (2, 1, 6), (2, 1, 6)),
        (("queues", "order_queue"), (3, 3, 11), (3, 3, 11)),
        (("queues", "quoted"), (4, 3, 8), (4, 13, 35)),
        (("queues", "quoted", "max_length"), (4, 14, 10), (4, 26, 1)),
        (("queues", "quoted", "events", 1), (4, 41, 5), (4, 41, 5)),
        (("copy", "deep"), (6, 3, 4), (6, 9, 5)),
        (("merged", "deep"), (6, 3, 4), (6, 9, 5)),
        (("merged", "own"), (10, 3, 3), (10, 12, 4)),
        (("queues", "absent", "x"), (2, 1, 6), (2, 1, 6)),
        (("version", 0), (1, 1, 7), (1, 10, 1)),
        ((), (1, 1, 1), (1, 1, 1)),
    ],
)
def test_keys_and_values_know_where_they_are_written(
    path: KeyPath, key: tuple[int, int, int], value: tuple[int, int, int]
) -> None:
    """Merged and aliased values point at where they are written; what is absent, at its nearest parent."""
    document, _ = parse_yaml(PLACES)
    for on, expected in (("key", key), ("value", value)):
        span = document.span(path, on)  # type: ignore[arg-type]
        if on == "key" and path and path[-1] == 0:
            continue  # a place inside a scalar: only its value is asked for
        assert (span.line, span.column, span.length) == expected


def test_places_count_characters_and_every_line_break_of_yaml() -> None:
    """Wide characters, emoji, CRLF and the breaks that YAML knows and editors do not."""
    document, _ = parse_yaml('名前: "値 🎉"\r\nb: "x\u2028 y"\r\nc: 3')
    assert document.span(("名前",)).column == 5
    assert document.span(("名前",)).length == 5
    assert (document.span(("c",)).line, document.span(("c",)).column) == (4, 4)


# Syntax errors

SYNTAX = [
    ("a:\n\t- b\n", "a tab cannot indent or separate here", 2, 1),
    ("\ta: b\n", "a tab cannot indent or separate here", 1, 1),
    ("a: [1, 2\nb: 3\n", 'this "[" is not closed', 1, 4),
    ("a: {b: 1\n", 'this "{" is not closed', 1, 4),
    ('a: ["b" c]\n', 'a "," or "]" is missing here', 1, 9),
    ("a: 'x\nb: 3\n", "this quote is not closed", 1, 4),
    ('a: "x\nb: 3\n', "this quote is not closed", 1, 4),
    ("a:b\nc: d\n", 'a space is missing after the ":"', 1, 2),
    ("queues\n  orders:\n", 'a ":" is missing after this key', 1, 1),
    ("a: 1\nb\nc: 2\n", 'a ":" is missing after this key', 2, 1),
    ("a: b\n c: d\n", "this line is indented deeper than its map", 2, 2),
    ("a: b: c\n", 'a second ":" in one line', 1, 5),
    ("a:\n  b: 1\n c: 2\n", "this line does not line up with the lines above", 3, 2),
    ("- a\nb: c\n", "this line is not part of the list above", 2, 1),
    ("a: - b\n", 'a list with "-" cannot start here', 1, 4),
    ("a: %x\n", 'a value cannot start with "%"', 1, 4),
    ("a: @x\n", 'a value cannot start with "@"', 1, 4),
    ("a: `x`\n", 'a value cannot start with "`"', 1, 4),
    ("a: ]\n", 'there is no value before this "]"', 1, 4),
    ("a: {b: ${X}}\n", '"${…}" inside [ ] or { } needs quotes', 1, 8),
    ('a: "b" c\n', "nothing can follow the value here", 1, 8),
    ('a: "\\q"\n', 'this "\\" does not start an escape that YAML knows', 1, 5),
    ("a: *\n", '"*" has a meaning of its own in YAML', 1, 4),
    ("a: *.x\n", '"*" has a meaning of its own in YAML', 1, 4),
    ("a: & b\n", '"&" has a meaning of its own in YAML', 1, 4),
    ("a: |3x\n  k\n", 'only a line break can follow "|" or ">"', 1, 4),
    ("a: !<x\n", "YAML tags (!…) are not allowed", 1, 4),
    ("%YAML 3.0\n---\na: 1\n", "YAML directives (%…) are not supported", 1, 1),
    ("a: b\n...\nx: y\n", None, 2, 1),
    ("a: {\n", "the file ends in the middle of a value, as if it was cut off", None, None),
]

PYYAML_WORDS = (
    "while ",
    "expected",
    "found",
    "could not",
    "context",
    "token",
    "scanning",
    "parsing",
    "<block",
    "simple",
)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize(("text", "message", "line", "column"), SYNTAX)
def test_a_syntax_error_is_told_in_our_words(
    text: str, message: str | None, line: int | None, column: int | None, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both parsers of PyYAML lead to the same words at the same place, and none of theirs."""
    if not hasattr(yaml, loader):
        pytest.skip("PyYAML without libyaml")
    monkeypatch.setattr(yaml_parser, "_LOADER", getattr(yaml, loader))
    problem = only(text)
    assert problem.code == "yaml-syntax"
    assert message is None or problem.message == message
    assert line is None or problem.line == line
    assert column is None or problem.column == column
    assert problem.help
    assert not any(word in problem.message + problem.help for word in PYYAML_WORDS)


def test_the_characters_of_yaml_are_those_of_its_library() -> None:
    """But for the byte order mark in the middle of a text, which cannot be seen."""
    everything = "".join(map(chr, range(0x110000)))
    refused = yaml.reader.Reader.NON_PRINTABLE.findall(everything)
    assert set(yaml_parser._UNPRINTABLE.findall(everything)) == {*refused, "\ufeff"}
