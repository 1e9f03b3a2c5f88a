"""Promise 20: pauses are known to every session, at once and later, and outlive sessions and the broker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from runner.pipeline.topology import Topology, pause_queue
from runner.transports.base import Transport
from runner.transports.pauses import Pause, Pauses
from tests.conformance.harness import Harness, until


@pytest.fixture(autouse=True)
def _not_twice(harness: Harness) -> None:
    if harness.kind.name == "rabbitmq-classic":
        pytest.skip("pauses are the same for every type of queue")


SINCE = datetime(2026, 11, 30, 12, 3, tzinfo=UTC)
AWAY = Pause(SINCE, "carrier is down")


async def follow(harness: Harness, session: Transport, pipeline: str) -> list[Pauses]:
    """Follow the pauses of a pipeline; return the list that grows with each change, the present state first."""
    harness.declared.append(Topology(queues=(pause_queue(pipeline),)))
    seen: list[Pauses] = []
    seen.insert(0, await session.follow_pauses(pipeline, lambda pauses, _: seen.append(pauses)))
    return seen


async def latest(seen: list[Pauses]) -> Pauses:
    return seen[-1]


async def test_20_a_pause_reaches_all_sessions_and_those_that_come_later(harness: Harness) -> None:
    """Also the session that has set it; other pipelines have pauses of their own."""
    first, second = await harness.session(), await harness.session()
    one, other, theirs = (
        await follow(harness, first, harness.unique),
        await follow(harness, second, harness.unique),
        await follow(harness, first, f"{harness.unique}.eu"),
    )
    assert (one[-1], other[-1]) == ({}, {})
    await first.set_pause(harness.unique, "ship", AWAY)
    await second.set_pause(harness.unique, "charge", Pause(SINCE))
    for seen in (one, other):
        await until(lambda seen=seen: latest(seen), {"ship": AWAY, "charge": Pause(SINCE)})
    third = await harness.session()
    assert (await follow(harness, third, harness.unique))[0] == {"ship": AWAY, "charge": Pause(SINCE)}
    await third.set_pause(harness.unique, "ship", None)
    await until(lambda: latest(other), {"charge": Pause(SINCE)})
    assert theirs == [{}]


async def test_20_a_pause_is_there_when_nobody_followed(harness: Harness) -> None:
    """It may be set before any process runs, and outlives the session that set it."""
    session = await harness.session()
    await session.set_pause(harness.unique, "ship", AWAY)
    await session.set_pause(harness.unique, "ship", Pause(SINCE, "and the road is closed"))
    if harness.kind.name != "memory":
        await session.close()
    later = await harness.session()
    assert (await follow(harness, later, harness.unique))[0] == {"ship": Pause(SINCE, "and the road is closed")}


async def test_20_changes_while_a_session_was_cut_off_are_known_afterwards(harness: Harness) -> None:
    """It reads everything again when its connection is back."""
    harness.needs("reconnect")
    session = await harness.session()
    seen = await follow(harness, session, harness.unique)
    await asyncio.to_thread(harness.lose_connections)
    await session.set_pause(harness.unique, "ship", AWAY)
    await until(lambda: latest(seen), {"ship": AWAY})
    await asyncio.to_thread(harness.lose_connections)
    await session.set_pause(harness.unique, "ship", None)
    await until(lambda: latest(seen), {})


async def test_20_sessions_that_start_together_all_know_the_pauses(harness: Harness) -> None:
    """The first ones of an empty stream, and those that read while others do."""
    sessions = [await harness.session() for _ in range(4)]
    found = await asyncio.gather(*(follow(harness, session, harness.unique) for session in sessions))
    assert [seen[0] for seen in found] == [{}] * 4
    await sessions[0].set_pause(harness.unique, "ship", AWAY)
    later = [await harness.session() for _ in range(4)]
    found = await asyncio.gather(*(follow(harness, session, harness.unique) for session in later))
    assert [seen[0] for seen in found] == [{"ship": AWAY}] * 4
