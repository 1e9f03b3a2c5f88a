"""Options that several verbs share: what they accept."""

from __future__ import annotations

import click
import pytest

from runner.cli.options import rate


def _parsed(text: str | None) -> float | None:
    command = click.Command("publish")
    return rate(click.Context(command), click.Option(["--rate"]), text)


@pytest.mark.parametrize(("text", "per_second"), [(None, None), ("100/s", 100.0), ("30/m", 0.5)])
def test_a_rate_is_a_number_per_second(text: str | None, per_second: float | None) -> None:
    assert _parsed(text) == per_second


@pytest.mark.parametrize("text", ["100", "0/s", "fast", "-1/s"])
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a rate"):
        _parsed(text)
