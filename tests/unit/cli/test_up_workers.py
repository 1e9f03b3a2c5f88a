"""The command line that workers get."""

from __future__ import annotations

import pytest

from runner.cli.up_workers import without_broker


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["up", "a.yaml", "--broker", "amqp://u:p@h", "--workers", "2"], ["up", "a.yaml", "--workers", "2"]),
        (["up", "--broker=amqp://u:p@h", "a.yaml"], ["up", "a.yaml"]),
        (["up", "a.yaml", "--broker"], ["up", "a.yaml"]),
        (["up", "--", "--broker", "x"], ["up", "--", "--broker", "x"]),
        (["up", "--brokers.yaml"], ["up", "--brokers.yaml"]),
    ],
)
def test_the_broker_is_taken_out_and_nothing_else(given: list[str], kept: list[str]) -> None:
    """Its URL may contain a password, and everyone on the machine can read a command line."""
    assert without_broker(given) == kept
