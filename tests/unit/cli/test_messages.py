"""`runner export messages` and `runner import messages`: wrong usage, and what is said about it."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

import pytest

from runner import cli as package

PIPELINE = "version: 1\nqueues: {orders: }\nsubscribers: {ship: {from: orders, handler: json:dumps}}\n"
IN_FILE = PIPELINE + "broker: file:shop.queue\n"
MEMORY = "the in-process broker forgets its messages with its process"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("import messages shop.yaml m.jsonl", 1, "shop.yaml is not a file of `runner export messages`"),
        ("import messages absent shop.yaml", 1, "absent cannot be used: no such file or directory"),
        ("import messages m.jsonl shop.yaml --broker memory", 2, MEMORY),
        ("import m.jsonl shop.yaml", 2, "write: runner import messages m.jsonl shop.yaml"),
        ("import messages m.jsonl", 2, "runner import messages m.jsonl"),
        ("export messages shop.yaml", 2, "--output"),
        ("export messages shop.yaml --output x --broker memory", 2, MEMORY),
        ("export messages shop.yaml order --output x", 2, 'no queue of the pipeline is called "order"'),
        ("export messages shop.yaml --output x", 69, "there is no file"),
    ],
)
def test_wrong_usage_is_answered_with_what_is_wrong(
    line: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNNER_BROKER", raising=False)
    (tmp_path / "shop.yaml").write_text(IN_FILE)
    (tmp_path / "m.jsonl").write_text('{"runner": "messages", "version": 1}\n')
    monkeypatch.setattr(sys, "argv", ["runner", *shlex.split(line)])
    try:
        ended: int | str | None = package._run()
    except SystemExit as end:
        ended = end.code
    finally:
        logging.disable(logging.NOTSET)  # the command has disabled it
    assert ended == code
    assert said in capfd.readouterr().err
    assert not (tmp_path / "x").exists()
