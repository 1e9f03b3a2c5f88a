"""Payloads on the command line: what is refused before anything is published, and what to write instead."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from runner import cli

PIPELINE = """version: 1
name: shop
queues: {orders: }
subscribers: {ship: {from: orders, handler: shop:ship}}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pipeline, its handler and files of payloads, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    (tmp_path / "shop.py").write_text("def ship(order): ...\n")
    (tmp_path / "order.json").write_text('{"id": 7}\n')
    (tmp_path / "orders.jsonl").write_text('{"id": 7}\n{"id": 8}\n')
    (tmp_path / "half.jsonl").write_text('{"id": 7}\n{"id": 8\n')
    (tmp_path / "quotes.json").write_text("{'id': 7}\n")
    (tmp_path / "empty.json").write_text("\n")
    (tmp_path / "two words.jsonl").write_text("[1]\n[2]\n")
    return tmp_path


def run(arguments: list[str], stdin: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `runner publish pipeline.yaml orders` says, which ends with the exit code 2."""
    monkeypatch.setattr(sys, "argv", ["runner", "publish", "pipeline.yaml", "orders", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    assert cli._run() == 2
    return capsys.readouterr().err.removesuffix("\n")


COMMAND = "write: runner publish pipeline.yaml orders"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message", "help_"),
    [
        ([], "", "the payload from standard input is empty", "for an empty message, " + COMMAND + " ''"),
        (["-"], " \n", "the payload from standard input is empty", "for an empty message, " + COMMAND + " ''"),
        (["--lines"], "", "there are no lines in standard input", "look at what should write them"),
        (["@empty.json"], "", "the payload from empty.json is empty", "for an empty message, " + COMMAND + " ''"),
        (["@orders.jsonl"], "", "each line of it is JSON", COMMAND + " --lines < orders.jsonl"),
        (["@two words.jsonl"], "", "each line of it is JSON", COMMAND + " --lines < 'two words.jsonl'"),
        (["--id", "a", "@orders.jsonl"], "", "each line of it is JSON", COMMAND + " --id a --lines < orders.jsonl"),
        ([], "[1]\n[2]\n", "each line of it is JSON", COMMAND + " --lines"),
        (
            ['{"id": 7, "price": 3'],
            "",
            "the payload is not JSON: it ends too early (column 21)",
            "complete it; text comes by standard input",
        ),
        (
            ["{'paid': True, 'by': None, 'at': '12:30, soon'}"],
            "",
            "it is not JSON: other quotes than double quotes (column 2)",
            f"""{COMMAND} '{{"paid": true, "by": null, "at": "12:30, soon"}}'""",
        ),
        (
            ["{order: new item, paid: True, note: 'a, b'}"],
            "",
            "it is not JSON: a name without double quotes (column 2)",
            f"""{COMMAND} '{{"order": "new item", "paid": true, "note": "a, b"}}'""",
        ),
        (
            ["""'{"id": 7}'"""],
            "",
            "it is not JSON: other quotes than double quotes (column 1)",
            f"""{COMMAND} '{{"id": 7}}'""",
        ),
        (
            ["@quotes.json"],
            "",
            "the payload is not JSON: other quotes than double quotes (column 2)",
            'write {"id": 7}; text comes by standard input',
        ),
        (
            ["@half.jsonl", "--lines"],
            "",
            "line 2 is not JSON: it ends too early (column 9)",
            "complete it; text comes by standard input",
        ),
        (
            ["@orders.json"],
            "",
            "cannot read orders.json: no such file or directory",
            f"{COMMAND} @orders.jsonl (or @order.json)",
        ),
    ],
)
def test_what_is_meant_as_json_is_not_published_as_text(
    arguments: list[str],
    stdin: str,
    message: str,
    help_: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(arguments, stdin, monkeypatch, capsys) == f"error: PAYLOAD: {message}\n  = help: {help_}"


@pytest.mark.parametrize(
    ("arguments", "stdin"), [(["[INFO] started"], ""), (["{name} has left"], ""), ([""], ""), (["-"], '{"id": 7')]
)
def test_text_goes_on_to_the_broker(
    arguments: list[str], stdin: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here it ends at the in-process broker, which no other process reaches."""
    assert "the in-process broker exists only inside" in run(arguments, stdin, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("payload", "warning"),
    [
        ("größe=grün", """warning: the payload is text; for JSON, write '{"größe": "grün"}'\n"""),
        ("order: 7", ""),
        ("a = b", ""),
    ],
)
def test_a_name_with_a_value_may_be_meant_as_json(
    payload: str, warning: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As other programs take it. It is published as the text that it is."""
    said = run([payload], "", monkeypatch, capsys)
    assert said.startswith(f"{warning}error: the in-process broker exists only inside")


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ('{"tenant": "north"}', "--header tenant=north"),
        ('{"tenant": "north", "shard": 2}', "--header tenant=north --header shard=2"),
        ('"tenant": "a b"', "--header 'tenant=a b'"),
        ("tenant: a", "--header tenant=a"),
        ("tenant", "--header tenant=VALUE"),
    ],
)
def test_a_header_in_another_form(
    header: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(["1", "--header", header], "", monkeypatch, capsys)
    assert said == f'error: --header: "{header}" is not NAME=VALUE\n  = help: {COMMAND} 1 {meant}'
