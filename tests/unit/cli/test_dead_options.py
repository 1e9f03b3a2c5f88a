"""The ids of dead letters on the command line."""

from __future__ import annotations

import pytest

from runner.cli.dead_options import AmbiguousId, whole_id

IDS = {"595a80e9", "595b", "order-1", "order-12"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("595a", "595a80e9"),
        ("order-1", "order-1"),
        ("order-12", "order-12"),
        ("77", "77"),
        ("59", "59"),
        ("order", "order"),
    ],
)
def test_the_beginning_of_an_id_is_enough(given: str, meant: str) -> None:
    """A whole id is never taken for the beginning of another one."""
    assert whole_id(given, IDS) == meant


def test_a_beginning_of_several_ids_is_refused() -> None:
    with pytest.raises(AmbiguousId, match='the ids of 2 dead letters begin with "595a"') as refused:
        whole_id("595a", {*IDS, "595ab"})
    assert refused.value.hint == "write more of one: 595a80e9, 595ab"
