"""Promise 19, second half: who joins others is in their start, who takes part alone begins one; no clock decides it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner.pipeline.topology import leadership_queue
from runner.transports.leadership import Candidate, Leadership, NotLeader
from tests.conformance.harness import Harness, text, to_queue, until
from tests.conformance.test_leadership import everywhere, in_time, lose_connections, on_rabbitmq

ROOT = Path(__file__).resolve().parents[2]

LEAD = """
import asyncio, sys
from runner.pipeline.model import BrokerSettings
from runner.transports.leadership import Candidate
from runner.transports.rabbitmq import RabbitTransport

async def main(url, name):
    transport = RabbitTransport(BrokerSettings(urls=(url,)))
    await transport.connect()
    leadership = await transport.campaign(name, Candidate(start="killed"))
    await leadership.wait_won()
    await leadership.save({"kept": 1})
    print(leadership.start, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


async def join(harness: Harness, start: str, **member: str) -> Leadership:
    return await harness.campaign(await harness.session(), member=Candidate(start, **member))


async def start_led(leadership: Leadership) -> str:
    await in_time(leadership.wait_won())
    return leadership.start


async def has_joined(*leaderships: Leadership) -> None:
    """Return when each of these has been answered by the session that leads."""
    for leadership in leaderships:

        async def is_answered(leadership: Leadership = leadership) -> bool:
            return await leadership.ask_leader() is not None

        await until(is_answered, True)


@everywhere
async def test_19_a_session_alone_begins_its_own_start(harness: Harness) -> None:
    """One after the other, each in a start of its own, and each finds the state of the one before."""
    for number, start in enumerate(("one", "two", "three")):
        leader = await join(harness, start)
        assert await start_led(leader) == start
        assert leader.state == ({"number": number} if number else {})
        await leader.save({"number": number + 1})
        await leader.resign()
        with pytest.raises(NotLeader):
            _ = leader.start


@everywhere
async def test_19_sessions_that_join_stay_in_the_start_of_the_first(harness: Harness) -> None:
    """Through every change of the leader, also for one that joins when the first one has gone."""
    everybody = [await join(harness, name) for name in ("first", "second", "third")]
    assert await start_led(everybody[0]) == "first"
    for _ in range(4):
        await has_joined_or_leads(*everybody)
        (leader,) = (each for each in everybody if each.is_leader)
        assert leader.start == "first"
        await leader.resign()
        everybody.remove(leader)
        everybody.append(await join(harness, "replaced"))


async def has_joined_or_leads(*leaderships: Leadership) -> None:
    """Return when one of these leads, and has answered all the others."""
    for leadership in leaderships:

        async def is_in(leadership: Leadership = leadership) -> bool:
            return leadership.is_leader or await leadership.ask_leader() is not None

        await until(is_in, True)


@everywhere
async def test_19_sessions_that_begin_together_are_in_one_start(harness: Harness) -> None:
    """Whichever of three leads first, its start is that of the others as well."""
    sessions = [await harness.session() for _ in range(3)]
    asking = [harness.campaign(session, member=Candidate(f"start {n}")) for n, session in enumerate(sessions)]
    all_three = list(await asyncio.gather(*asking))
    await has_joined_or_leads(*all_three)
    (leader,) = (each for each in all_three if each.is_leader)
    start = leader.start
    await leader.resign()
    all_three.remove(leader)
    await has_joined_or_leads(*all_three)
    assert [each.start for each in all_three if each.is_leader] == [start]


@everywhere
async def test_19_workers_of_one_master_share_a_start(harness: Harness) -> None:
    """All of them crash, and one comes back: it is the same start."""
    first = await join(harness, "of the master")
    await in_time(first.wait_won())
    await first.resign()
    second = await join(harness, "of the master")
    assert await start_led(second) == "of the master"


@everywhere
async def test_19_who_waits_may_ask_the_leader(harness: Harness) -> None:
    """It hears the start and what was saved last; the leader itself, and who has resigned, hear nothing."""
    leader = await join(harness, "first")
    await in_time(leader.wait_won())
    other = await join(harness, "second")
    await leader.save({"done": {"import": "first"}})
    await has_joined(other)
    led = await other.ask_leader()
    assert led is not None
    assert (led.start, led.state) == ("first", {"done": {"import": "first"}})
    assert await leader.ask_leader() is None
    await other.resign()
    assert await other.ask_leader() is None


@everywhere
async def test_19_another_pipeline_of_the_same_name_is_said_on_both_sides(harness: Harness) -> None:
    """Once for each fingerprint, however many sessions have it; who runs the same says nothing."""
    leader = await join(harness, "a", fingerprint="shop", where="shop.yaml on here")
    await in_time(leader.wait_won())
    same = await join(harness, "b", fingerprint="shop", where="shop.yaml on there")
    others = [await join(harness, "c", fingerprint="other", where=f"other.yaml on {n}") for n in (1, 2)]
    await has_joined(same, *others)
    said = [change.fields["other"] for change in harness.changes if change.event == "pipeline.name_shared"]
    assert "shop.yaml on here" in said
    assert "other.yaml on 1" in said
    assert "other.yaml on 2" not in said or said.index("other.yaml on 1") < said.index("other.yaml on 2")
    assert {change.fields["pipeline"] for change in harness.changes if "other" in change.fields} == {harness.unique}
    assert all(change.level == "warning" for change in harness.changes if change.event == "pipeline.name_shared")


@on_rabbitmq
async def test_19_lost_connections_begin_no_start(harness: Harness) -> None:
    """The broker closes all connections at once: whoever leads then goes on in the same start."""
    all_three = [await join(harness, f"start {n}") for n in range(3)]
    await has_joined_or_leads(*all_three)
    (start,) = (each.start for each in all_three if each.is_leader)
    for _ in range(3):
        losing = [asyncio.create_task(each.wait_lost()) for each in all_three if each.is_leader]
        await lose_connections(harness)
        await in_time(asyncio.gather(*losing))
        await has_joined_or_leads(*all_three)
        assert [each.start for each in all_three if each.is_leader] == [start]


@contextmanager
def leading(node: Any, queue: str) -> Iterator[subprocess.Popen[str]]:
    """A process that leads, in the start "killed"."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEAD, node.url, queue], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("when", ["before the kill", "after the kill"])
@on_rabbitmq
async def test_19_kill_of_the_leader(harness: Harness, request: pytest.FixtureRequest, when: str) -> None:
    """Who has joined before goes on in its start, who comes after the last one is gone begins a new one."""
    node: Any = request.getfixturevalue("rabbitmq")
    queue = leadership_queue(f"{harness.unique}.producers").name
    with leading(node, queue) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "killed\n"
        if when == "before the kill":
            other = await join(harness, "of the other")
            await has_joined(other)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if when == "after the kill":
            other = await join(harness, "of the other")
        assert await start_led(other) == ("killed" if when == "before the kill" else "of the other")
        assert other.state == {"kept": 1}


@on_rabbitmq
async def test_19_garbage_for_greetings_is_let_go_of(harness: Harness) -> None:
    """What is no greeting, or asks for no answer, changes nothing; a token without a start is read."""
    queue = leadership_queue(f"{harness.unique}.producers")
    first = await join(harness, "first")
    await in_time(first.wait_won())
    await first.resign()
    session = await harness.session()
    token = json.dumps({"term": 1000, "version": 1, "state": {"old": 1}})
    await session.publish(to_queue(queue), text(token, type="leadership.token"))
    leader = await join(harness, "second")
    assert await start_led(leader) == "second"
    assert leader.state == {"old": 1}
    for body in ("", "{", "[]", "null", '{"start": "x", "fingerprint": "y", "where": "z"}', "[" * 5000):
        await session.publish(to_queue(queue), text(body, type="leadership.greeting"))
        await session.publish(to_queue(queue), text(body, type="leadership.greeting", reply_to="nowhere"))
    await leader.save({"still": 1})
    assert leader.is_leader
