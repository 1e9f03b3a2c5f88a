"""The ids of dead letters on the command line."""

from __future__ import annotations

import asyncio

import pytest

from runner.cli.dead_options import AmbiguousId, whole_id, with_whole_ids
from runner.clock import utc_now
from runner.message import Address, Envelope
from runner.operations.dead_letter_ops import DeadLetterOps
from runner.operations.dead_letters import DeadLetterFilter, DeadLetterMessage, DeadLetterQueue, SelectedQueue
from runner.operations.memory_access import MemoryAccess
from runner.pipeline.topology import Queue, Topology
from runner.transports.memory import MemoryTransport

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


async def test_a_whole_id_is_found_over_the_connection_that_uses_it() -> None:
    """It is looked for among all dead letters, however few are to be worked on, and the progress of that is no step."""
    transport = MemoryTransport()
    await transport.connect()
    await transport.declare(Topology(queues=(Queue("orders.dead"),)))
    for number in (1, 2, 3):
        await transport.publish(Address("", "orders.dead"), Envelope(b"1", message_id=f"595a{number}0"))
    steps: list[int] = []
    found: list[DeadLetterMessage] = []
    filters, access = DeadLetterFilter(ids=frozenset({"595a3"})), MemoryAccess(transport)
    chosen = DeadLetterOps(access, filters, 1, utc_now, asyncio.Event(), lambda summary: steps.append(summary.looked))
    selected = [SelectedQueue(DeadLetterQueue("orders.dead", frozenset({"orders"})))]
    whole = await with_whole_ids(chosen, selected)
    assert (whole.browser, steps) == (access, [])
    await whole.find(selected, found.append)
    assert [letter.id for letter in found] == ["595a30"]
    await transport.close()
