"""Env files are read as other tools write them, and nothing of a value is lost without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.cli.environment import BadEnvironmentFile, ProcessEnvironment, parse_dotenv, read_environment


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  A = 1  ", "1"),
        ("export A=1", "1"),
        ("export\tA=1", "1"),
        ("A=", ""),
        ("A=1\r", "1"),
        ("A=   # set it in production", ""),
        ("A= #x", ""),
        ("A=#", ""),
        ("A=# note", ""),
        ("A=2\t# two", "2"),
        ("A=2 # two # three", "2"),
        ("A=a#b", "a#b"),
        ("A=a b", "a b"),
        ("A=it's", "it's"),
        ("A=a=b", "a=b"),
        ("A=C:\\new\\", "C:\\new\\"),
        ("A=${B}", "${B}"),
        ("A=a\u2028b\x0cc", "a\u2028b\x0cc"),
        ('A=""', ""),
        ('A="a b"', "a b"),
        ('A=" a "', " a "),
        ('A="#a"', "#a"),
        ('A="a" # note', "a"),
        ('A="a"\t#note', "a"),
        ('A="he said \\"no\\" twice"', 'he said "no" twice'),
        ('A="a\\\\"', "a\\"),
        ('A="a\\nb"', "a\\nb"),
        ("A='a\\\"b\\'", 'a\\"b\\'),
        ("A='\"'", '"'),
    ],
)
def test_a_value(line: str, value: str) -> None:
    """Blanks, comments, quotes and escapes."""
    assert parse_dotenv(line, "env") == {"A": value}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense-secret", "not a NAME=value line"),
        ("1A=secret", "not a NAME=value line"),
        ("Ä=secret", "not a NAME=value line"),
        ("export A", "not a NAME=value line"),
        ('A="secret', "the quote is not closed"),
        ("A='secret", "the quote is not closed"),
        ('A="secret\\"', "the quote is not closed"),
        ('A="secret"y', "after the closing quote"),
        ("A='it's secret'", "after the closing quote"),
        ('A="a"secret"b"', "after the closing quote"),
        ('A="secret"#note', "after the closing quote"),
        ("A=#secret", "needs quotes"),
    ],
)
def test_a_line_that_could_mean_two_things_is_refused(line: str, words: str) -> None:
    """With its number, and without the value."""
    with pytest.raises(BadEnvironmentFile) as caught:
        parse_dotenv(f"# one\n{line}\n", "env")
    assert str(caught.value).startswith("env:2: ")
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, encoding: str) -> None:
    """Editors of Windows write it."""
    (tmp_path / "env").write_bytes("A_IN_FILE=ä\r\nB_IN_FILE=2\r\n".encode(encoding))
    read = read_environment(tmp_path / "env")
    assert (read["A_IN_FILE"], read["B_IN_FILE"]) == ("ä", "2")


@pytest.mark.parametrize(
    "content", ["A=1\n".encode("utf-16"), "A=1\n".encode("utf-16-le"), b"A=M\xfcller\n", b"A=\0\n"]
)
def test_other_encodings_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    """UTF-16 with and without a mark, Latin-1."""
    (tmp_path / "env").write_bytes(content)
    with pytest.raises(BadEnvironmentFile, match="is not UTF-8 text: save it in the encoding UTF-8"):
        read_environment(tmp_path / "env")


def test_a_file_that_is_too_large_or_cannot_be_read(tmp_path: Path) -> None:
    """One sentence each."""
    (tmp_path / "env").write_text("#" * (1024**2 + 1))
    with pytest.raises(BadEnvironmentFile, match="is larger than 1 MiB"):
        read_environment(tmp_path / "env")
    with pytest.raises(BadEnvironmentFile, match="cannot be read: is a directory"):
        read_environment(tmp_path)


def test_the_environment_is_filled_and_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python reads at its start is left out, for it would come too late."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ["IS_SET"] = "here"
    (tmp_path / "env").write_text("IS_SET=file\nIS_NEW=file\nPYTHONPATH=x\nRUNNER_BROKER=memory\n")
    environ = ProcessEnvironment(tmp_path / "env").fill()
    assert (environ["IS_SET"], environ["IS_NEW"]) == ("here", "file")
    assert (os.environ["IS_SET"], os.environ["IS_NEW"], os.environ["RUNNER_BROKER"]) == ("here", "file", "memory")
    assert os.environ.get("PYTHONPATH") != "x"
