"""`runner call`: what is said when no answer comes, on a broker in a file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from runner import cli as package

SUBSCRIBERS = {
    "ship: {from: orders, handler: json:dumps, to: done}": (
        'subscriber "ship" does not answer: write `reply: true` under it'
    ),
    "ship: {from: orders, handler: json:dumps, to: done, reply: true}": "the message may be handled all the same",
    "ship: {from: orders, handler: json:dumps}": "the message may be handled all the same",
}


@pytest.mark.parametrize(("subscriber", "help_"), SUBSCRIBERS.items())
def test_a_subscriber_that_does_not_answer_is_named(
    subscriber: str, help_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Results of a subscriber with `to` are published, and are an answer only if it says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNNER_BROKER", raising=False)
    head = "version: 1\nbroker: file:shop.queue\nqueues: {orders: , done: {unread: ignore}}\n"
    Path("shop.yaml").write_text(f"{head}subscribers:\n  {subscriber}\n")
    codes = []
    try:
        for words in (
            ["publish", "shop.yaml", "orders", "1"],
            ["call", "shop.yaml", "orders", "1", "--timeout", "20ms"],
        ):
            monkeypatch.setattr(sys, "argv", ["runner", *words])
            codes.append(package._run())
    except SystemExit as end:
        codes.append(end.code)  # type: ignore[arg-type]  # a number
    finally:
        logging.disable(logging.NOTSET)
    assert codes == [0, 75]
    assert capfd.readouterr().err.endswith(f"has not answered within 20ms\n  = help: {help_}\n")
