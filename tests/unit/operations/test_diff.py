"""Two versions of pipelines: what breaks, where it stands in the new one, and how the command ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.operations.diff import differences, read_version

OLD = """version: 1
name: shop
queues:
  orders: {schema: order.json}
  bills: {type: classic}
events:
  order.paid: models:Paid
  order.sent:
exchanges: {erp: topic}
producers:
  web: {http: /orders, to: orders}
subscribers:
  ship: {from: orders, handler: missing:ship, timeout: 5s, retry: {attempts: 3, delay: 1s}}
  bill: {from: bills, handler: missing:ship}
  hear: {from: [order.paid, order.sent], handler: missing:ship}
"""
SCHEMA = '{"type": "object", "properties": {"id": {"type": "integer"}}}'
MODELS = "from pydantic import BaseModel\nclass Paid(BaseModel):\n    number: int\n"

Diff = Callable[..., list[str]]


@pytest.fixture
def diff(tmp_path: Path) -> Diff:
    """Compare `OLD` with itself after replacements; return each difference as `code line: message`."""

    def compared(*replacements: tuple[str, str], schema: str = SCHEMA, models: str = MODELS) -> list[str]:
        new = OLD
        for old, text in replacements:
            assert old in new
            new = new.replace(old, text)
        contents = {"old": (OLD, SCHEMA, MODELS), "new": (new, schema, models)}
        versions = []
        for name, (text, order, types) in contents.items():
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / "shop.yaml").write_text(text)
            (folder / "order.json").write_text(order)
            (folder / "models.py").write_text(types)
            versions.append(read_version(folder / "shop.yaml", {}, (), folder))
        found = differences(*versions)
        return [f"{each.code.removesuffix('-change')} {each.line}: {each.message}" for each in found]

    return compared


def test_nothing_differs_from_itself(diff: Diff) -> None:
    """Handlers are not imported: their module is not here."""
    assert diff() == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("{type: classic}", "{type: classic, max_length: 5}", ['breaking 5: queue "bills" must be recreated: x-max-length is 5, not none, x-overflow is reject-publish, not none: this breaks the running system']),
        ("{erp: topic}", "{erp: direct}", ['breaking 9: exchange "erp" must be recreated: type is direct, not topic: this breaks the running system']),
        ("  order.sent:\n", "  order.sent: {key: sent}\n", ["breaking 15: the binding events --order.sent--> shop.hear is removed: this breaks the running system", 'breaking 8: event "order.sent" has the address events:sent, not events:order.sent: this breaks other programs']),
        ("  bill: {from: bills, handler: missing:ship}\n", "", ['breaking 12: subscriber "bill" is removed: this breaks the running system']),
        ("/orders", "/order", ["breaking 11: the path /orders is removed: this breaks HTTP clients", 'safe 11: producer "web" has other options: http']),
        ("timeout: 5s, retry: {attempts: 3, delay: 1s}", "timeout: 9s, retry: {attempts: 9, delay: 2s}", ['safe 13: subscriber "ship" has other options: timeout, retry']),
        ("handler: missing:ship, timeout", "handler: other:ship, timeout", ['safe 13: subscriber "ship" has other options: handler']),
        ("[order.paid, order.sent]", "[order.paid]", ["breaking 15: the binding events --order.sent--> shop.hear is removed: this breaks the running system", 'safe 15: subscriber "hear" has other options: from']),
        ("  order.sent:\n", "  order.sent:\n  order.lost:\n", ['safe 9: event "order.lost" is new']),
        ("{schema: order.json}", "{schema: order.json, partitions: 4, partition_by: id}", ['breaking 4: queue "orders" has partitions 4, not none: this breaks the running system', 'breaking 4: queue "orders" has partition by id, not none: this breaks the running system']),
        ("from: bills", "from: orders", ['breaking 14: subscriber "bill" no longer reads queue "bills": this breaks the running system', 'safe 14: subscriber "bill" has other options: from']),
    ],
)  # fmt: skip
def test_each_change_says_what_it_breaks(diff: Diff, old: str, new: str, found: list[str]) -> None:
    assert diff((old, new)) == found


def test_a_queue_or_event_that_is_gone_breaks_other_programs(diff: Diff) -> None:
    found = diff(("  bills: {type: classic}\n", "  bill: {type: classic}\n"), ("from: bills", "from: bill"))
    assert 'breaking 3: queue "bills" is removed: this breaks other programs' in found
    assert 'safe 5: queue "bill" is new' in found


def test_what_a_renamed_pipeline_had_is_named_with_it(diff: Diff) -> None:
    """Queues and events are the same for all pipelines; subscribers belong to theirs."""
    found = diff(("name: shop", "name: store"))
    assert 'safe 11: producer "web" of the pipeline "shop" is removed' in found
    assert 'safe 13: subscriber "ship" is new' in found
    assert not any("queue" in each.partition("is removed")[0] or "event" in each for each in found)


def test_schemas_of_files_and_of_modules_are_compared(diff: Diff) -> None:
    """Both versions have a module of the same name; who reads a queue in the same file is no other program."""
    schema = SCHEMA.replace("integer", "string")
    models = MODELS.replace("number: int", "number: int | None = None")
    assert diff(schema=schema, models=models) == [
        'breaking 4: payload of "orders": id must no longer be integer: this breaks publishers',
        'safe 4: payload of "orders": id may be string now',
        'breaking 7: payload of "order.paid": number may be missing now: this breaks consumers',
        'breaking 7: payload of "order.paid": number may be null now: this breaks consumers',
    ]
    assert "models" not in sys.modules


def test_the_command_ends_with_what_ci_needs(diff: Diff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a second working copy: the old version is read from its own folder. JSON and annotations have the place."""
    monkeypatch.chdir(tmp_path / ".")
    diff(("timeout: 5s", "timeout: 6s"))
    run = CliRunner().invoke
    os.chdir(tmp_path / "new")
    both = ["../old/shop.yaml", "shop.yaml"]
    assert run(cli, ["diff", "shop.yaml", "shop.yaml"]).exit_code == 0
    assert run(cli, ["diff", *both]).exit_code == 1
    assert run(cli, ["diff", *both, "--breaking"]).exit_code == 0
    (tmp_path / "new" / "order.json").write_text(SCHEMA.replace("integer", "string"))
    told = run(cli, ["diff", *both, "--breaking", "--format", "json"])
    assert told.exit_code == 1
    assert {(each["file"], each["line"], each["severity"]) for each in json.loads(told.stdout)} == {
        ("shop.yaml", 4, "error"),
        ("shop.yaml", 4, "notice"),
        ("shop.yaml", 13, "notice"),
    }
    annotations = run(cli, ["diff", *both, "--format", "github"]).stdout
    assert annotations.startswith("::error file=shop.yaml,line=4,")
    assert "::notice file=shop.yaml,line=13," in annotations
    missing = run(cli, ["diff", "../older/shop.yaml", "shop.yaml"])
    assert (missing.exit_code, "no-such-file" in missing.output) == (78, True)
    (tmp_path / "old" / "shop.yaml").write_text("version: 2\n")
    assert run(cli, ["diff", *both]).exit_code == 78
