"""Names of any script stand in columns below each other."""

from __future__ import annotations

import pytest

from runner.log_renderers import ConsoleRenderer
from runner.text_width import display_width, pad


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("shop", 4), ("订单", 4), ("ünï", 3), ("e\u0301", 1), ("\uff21", 2)]
)
def test_a_text_takes_the_columns_that_a_terminal_gives_it(text: str, columns: int) -> None:
    """Wide letters take two, marks none."""
    assert display_width(text) == columns
    assert display_width(pad(text, 9)) == 9


def test_a_text_that_is_too_wide_stays_whole() -> None:
    """Nothing is cut."""
    assert pad("订单", 3) == "订单"


def test_log_lines_stand_below_each_other() -> None:
    """The line behind the names is straight, whatever script they are of."""
    render = ConsoleRenderer(is_colored=False, width=4)
    event = {"timestamp": "2026-11-30T07:16:03", "level": "info", "event": "message.handled"}
    lines = [render(None, "", {**event, "subscriber": name}) for name in ("商店", "批", "a", "")]
    assert {display_width(line.partition("│")[0]) for line in lines} == {22}
