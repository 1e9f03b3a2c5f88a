"""Promise 19: of all sessions that ask for the leadership of one name, one has it, and its state survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import BrokerUnavailable, TopologyMismatch
from runner.pipeline.topology import leadership_queue
from runner.transports.leadership import Leadership, NotLeader
from tests.conformance.harness import KINDS, WAIT_S, Harness, text, to_queue, until
from tests.node import NodeError
from tests.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]

MEMORY, FILE, RABBITMQ = KINDS[:3]
everywhere = pytest.mark.parametrize("harness", [MEMORY, FILE, RABBITMQ], indirect=True, ids=lambda kind: kind.name)
on_rabbitmq = pytest.mark.parametrize("harness", [RABBITMQ], indirect=True, ids=lambda kind: kind.name)
"""For what only a broker with connections can go through. The queue of a leadership is a quorum queue, always."""

LEAD_UNTIL_KILLED = """
import asyncio, sys
from runner.pipeline.model import BrokerSettings
from runner.transports.rabbitmq import RabbitTransport

async def main(url, name):
    transport = RabbitTransport(BrokerSettings(urls=(url,)))
    await transport.connect()
    leadership = await transport.campaign(name)
    await leadership.wait_won()
    for number in range(1, 1_000_000):
        await leadership.save({"number": number})
        print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
"""Says each number after it was saved, so that what was said must be known to the next leader."""


class Rivals:
    """The leaderships of several sessions, on one loop, and whether ever two of them believed to lead at once."""

    def __init__(self, *leaderships: Leadership) -> None:
        self.all = list(leaderships)
        self.most_at_once = 0

    @property
    def leaders(self) -> list[Leadership]:
        """Those who believe to lead now."""
        return [leadership for leadership in self.all if leadership.is_leader]

    async def leader(self, within_s: float = WAIT_S) -> Leadership:
        """Return the one that leads, as soon as one does."""
        waiting = [asyncio.create_task(leadership.wait_won()) for leadership in self.all]
        try:
            async with asyncio.timeout(within_s):
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pytest.fail(f"nobody leads within {within_s:.0f} s")
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        (leader,) = self.leaders
        return leader

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look at all of them again and again meanwhile, and at the end judge."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
        assert self.most_at_once == 1

    async def _watch(self) -> None:
        while True:
            self.most_at_once = max(self.most_at_once, len(self.leaders))
            await asyncio.sleep(0.001)


async def rivals(harness: Harness, count: int = 3) -> Rivals:
    return Rivals(*[await harness.campaign(await harness.session()) for _ in range(count)])


async def lose_connections(harness: Harness) -> None:
    """Let the broker close everybody's connections; ask again where the asking fails over one that is being opened."""

    async def has_asked() -> bool:
        try:
            await asyncio.to_thread(harness.lose_connections)
        except NodeError:
            return False
        return True

    await until(has_asked, True)


async def in_time(awaitable: Any) -> Any:
    """Wait, but not for ever."""
    async with asyncio.timeout(WAIT_S):
        return await awaitable


@everywhere
async def test_19_one_of_three_sessions_leads(harness: Harness) -> None:
    """Whoever asks first leads; the others wait, whatever they try."""
    all_three = await rivals(harness)
    async with all_three.watched():
        leader = await all_three.leader()
        assert leader.state == {}
        await leader.save({"seen": 1})
        for other in all_three.all:
            if other is not leader:
                with pytest.raises(NotLeader):
                    await other.save({"seen": 2})
                with pytest.raises(NotLeader):
                    _ = other.state
                await in_time(other.wait_lost())
        assert all_three.leaders == [leader]
        assert leader.state == {"seen": 1}


@everywhere
async def test_19_two_names_are_led_independently(harness: Harness) -> None:
    """The leader of one name may be a follower in another, and the states do not mix."""
    one, two = await harness.session(), await harness.session()
    first = Rivals(await harness.campaign(one, "first"), await harness.campaign(two, "first"))
    second = Rivals(await harness.campaign(two, "second"), await harness.campaign(one, "second"))
    (await first.leader(), await second.leader())
    await (await first.leader()).save({"name": "first"})
    await (await second.leader()).save({"name": "second"})
    assert (await first.leader()).state == {"name": "first"}
    assert (await second.leader()).state == {"name": "second"}


@everywhere
async def test_19_resigning_hands_over(harness: Harness) -> None:
    """Who resigns leads no more, at once and for good; the next one has its state; resigning twice is harmless."""
    all_three = await rivals(harness)
    async with all_three.watched():
        leader = await all_three.leader()
        await leader.save({"next": [1, {"of": "many"}], "at": None})
        losing = asyncio.create_task(leader.wait_lost())
        resigning = asyncio.gather(leader.resign(), leader.resign())
        await asyncio.sleep(0)
        assert not leader.is_leader
        await in_time(asyncio.gather(losing, resigning, leader.resign()))
        with pytest.raises(NotLeader):
            await leader.save({})
        with pytest.raises(NotLeader):
            await in_time(leader.wait_won())
        all_three.all.remove(leader)
        successor = await all_three.leader()
        assert successor.state == {"next": [1, {"of": "many"}], "at": None}


@everywhere
async def test_19_resigning_ends_the_waiting(harness: Harness) -> None:
    """Who waits and resigns is told so, and is skipped when its turn comes."""
    all_three = await rivals(harness)
    leader = await all_three.leader()
    second, third = (other for other in all_three.all if other is not leader)
    waiting = asyncio.create_task(second.wait_won())
    await asyncio.sleep(0)
    await second.resign()
    with pytest.raises(NotLeader):
        await in_time(waiting)
    await leader.resign()
    await in_time(third.wait_won())
    assert third.is_leader


@everywhere
async def test_19_closing_a_session_hands_over(harness: Harness) -> None:
    """A session that is closed, leading or not, is out; the state is there for the next one, and after all others."""
    sessions = [await harness.session() for _ in range(3)]
    everybody = Rivals(*[await harness.campaign(session) for session in sessions])
    async with everybody.watched():
        for number, session in enumerate(sessions):
            leader = await everybody.leader()
            assert leader is everybody.all[0]
            assert leader.state == ({"number": number - 1} if number else {})
            await leader.save({"number": number})
            await in_time(session.close())
            assert not leader.is_leader
            everybody.all.remove(leader)
        latecomer = await harness.campaign(await harness.session())
        await in_time(latecomer.wait_won())
        assert latecomer.state == {"number": 2}


@everywhere
async def test_19_what_json_cannot_say_is_refused(harness: Harness) -> None:
    """A state that would come back different, or not at all, is an error of the caller's and changes nothing."""
    leader = await harness.campaign(await harness.session())
    await in_time(leader.wait_won())
    await leader.save({"kept": True})
    for wrong in ({"a": float("nan")}, {"a": object()}, {"a": {1, 2}}, {"a": b"bytes"}):
        with pytest.raises((TypeError, ValueError)):
            await leader.save(wrong)
    assert leader.state == {"kept": True}


@everywhere
async def test_19_the_state_is_a_copy(harness: Harness) -> None:
    """What anybody does to a state after saving or reading it changes nothing."""
    all_three = await rivals(harness)
    leader, saved = await all_three.leader(), {"list": [1]}
    await leader.save(saved)
    saved["list"].append(2)
    leader.state["list"].append(3)
    assert leader.state == {"list": [1]}
    await leader.resign()
    all_three.all.remove(leader)
    assert (await all_three.leader()).state == {"list": [1]}


@everywhere
async def test_19_states_never_go_back_in_a_hundred_hand_overs(harness: Harness) -> None:
    """Each of a hundred leaders finds exactly what the one before has saved last."""
    sessions = [await harness.session() for _ in range(3)]
    everybody = Rivals(*[await harness.campaign(session) for session in sessions])
    async with everybody.watched():
        last = 0
        for _ in range(100):
            leader = await everybody.leader()
            assert leader.state.get("number", 0) == last
            for _ in range(2):
                last += 1
                await leader.save({"number": last})
            place = everybody.all.index(leader)
            await leader.resign()
            everybody.all[place] = await harness.campaign(sessions[place])


@everywhere
async def test_19_saves_at_the_same_time_are_one_after_the_other(harness: Harness) -> None:
    """Many saves at once all succeed, and the state is that of the last one, for the next leader too."""
    both = await rivals(harness, 2)
    leader = await both.leader()
    await in_time(asyncio.gather(*(leader.save({"number": number}) for number in range(50))))
    assert leader.state == {"number": 49}
    cancelled = asyncio.create_task(leader.save({"number": 50}))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait((cancelled,))
    await leader.save({"number": 51})
    await leader.resign()
    both.all.remove(leader)
    assert (await both.leader()).state == {"number": 51}


@on_rabbitmq
async def test_19_who_resigns_has_lost_nothing(harness: Harness) -> None:
    """A clean stop is no loss, and is not logged as one."""
    leader = await harness.campaign(await harness.session())
    await in_time(leader.wait_won())
    await leader.resign()
    events = [change.event for change in harness.changes]
    assert (events.count("leadership.won"), events.count("leadership.lost")) == (1, 0)


@on_rabbitmq
async def test_19_a_leader_whose_connection_is_closed_notices(harness: Harness) -> None:
    """The broker closes everybody's connections: nobody leads, then somebody does again, never two, with the state."""
    all_three = await rivals(harness)
    async with all_three.watched():
        leader = await all_three.leader()
        await leader.save({"kept": 1})
        losing = asyncio.create_task(leader.wait_lost())
        await lose_connections(harness)
        await in_time(losing)
        assert (await all_three.leader()).state == {"kept": 1}
    events = [change.event for change in harness.changes]
    assert events.count("leadership.won") == events.count("leadership.lost") + 1


@on_rabbitmq
async def test_19_leadership_won_again_must_be_looked_at_again(harness: Harness) -> None:
    """A save that was prepared before a loss is refused after it: somebody else may have led in between."""
    leader = await harness.campaign(await harness.session())
    await in_time(leader.wait_won())
    await leader.save({"number": 1})
    losing = asyncio.create_task(leader.wait_lost())
    await lose_connections(harness)
    await in_time(losing)

    async def leads() -> bool:
        return leader.is_leader

    await until(leads, True)
    with pytest.raises(NotLeader, match="again"):
        await leader.save({"number": 2})
    await in_time(leader.wait_lost())
    await in_time(leader.wait_won())
    await leader.save({"number": leader.state["number"] + 2})
    assert leader.state == {"number": 3}


@on_rabbitmq
async def test_19_no_acknowledged_save_is_lost_or_undone_while_connections_are(harness: Harness) -> None:
    """Leaders count on and on while the broker closes all connections: no number is given twice, none is forgotten."""
    all_three = await rivals(harness)
    given: list[int] = []
    terms = 0

    async def count(leadership: Leadership) -> None:
        nonlocal terms
        while True:
            await leadership.wait_won()
            terms += 1
            with contextlib.suppress(NotLeader):
                number = leadership.state.get("number", 0)
                assert number >= max(given, default=0)
                while True:
                    number += 1
                    await leadership.save({"number": number})
                    given.append(number)

    counting = [asyncio.create_task(count(leadership)) for leadership in all_three.all]
    async with all_three.watched():
        for losses in range(1, 5):
            before = len(given)
            await lose_connections(harness)

            async def goes_on(losses: int = losses, before: int = before) -> bool:
                return terms > losses and len(given) > before + 20

            await until(goes_on, True)
    assert not any(task.done() for task in counting)
    for task in counting:
        task.cancel()
    await asyncio.gather(*counting, return_exceptions=True)
    assert given == sorted(set(given))


@on_rabbitmq
async def test_19_a_purged_queue_changes_nothing_for_the_leader(
    harness: Harness, request: pytest.FixtureRequest
) -> None:
    """While somebody leads the token is with them: purging the queue takes nothing, and the next one has the state."""
    node: Any = request.getfixturevalue("rabbitmq")
    both = await rivals(harness, 2)
    leader = await both.leader()
    await leader.save({"kept": 1})
    await asyncio.to_thread(node.ctl, "purge_queue", leadership_queue(f"{harness.unique}.producers").name)
    assert both.leaders == [leader]
    await leader.resign()
    both.all.remove(leader)
    assert (await both.leader()).state == {"kept": 1}


@on_rabbitmq
async def test_19_a_leadership_without_its_token_begins_anew(harness: Harness, request: pytest.FixtureRequest) -> None:
    """Purged while nobody leads, or deleted with its queue: the state is gone, and leadership comes back by itself."""
    node: Any = request.getfixturevalue("rabbitmq")
    queue = leadership_queue(f"{harness.unique}.producers").name
    first = await harness.campaign(await harness.session())
    await in_time(first.wait_won())
    await first.save({"gone": 1})
    await first.resign()
    await asyncio.to_thread(node.ctl, "purge_queue", queue)
    both = await rivals(harness, 2)
    async with both.watched():
        leader = await both.leader()
        assert leader.state == {}
        await leader.save({"gone": 2})
        losing = asyncio.create_task(leader.wait_lost())
        await asyncio.to_thread(node.ctl, "delete_queue", queue)
        await in_time(losing)
        assert (await both.leader()).state == {}


@on_rabbitmq
async def test_19_foreign_messages_in_the_queue_are_no_states(harness: Harness) -> None:
    """Garbage and tokens of an earlier term are taken out of the queue, and neither end nor change a leadership."""
    queue = leadership_queue(f"{harness.unique}.producers")
    everybody = await rivals(harness, 2)
    leader = await everybody.leader()
    await leader.save({"kept": 1})
    old = json.dumps({"term": 0, "version": 99, "state": {"kept": 0}})
    session = await harness.session()
    for body in ("", "{", "[]", "{}", '{"term": "2", "version": 1, "state": {}}', "[" * 5000, old):
        await session.publish(to_queue(queue), text(body, type="leadership.token"))
        await session.publish(to_queue(queue), text(body))
    await leader.save({"kept": 2})
    assert everybody.leaders == [leader]
    await leader.resign()
    for body in ("{", old):
        await session.publish(to_queue(queue), text(body, type="leadership.token"))
    everybody.all.remove(leader)
    successor = await everybody.leader()
    assert successor.state == {"kept": 2}
    await successor.resign()
    inbox = await harness.collect(session, queue)
    await harness.settle_all(session, [await inbox.next()])
    await harness.until_pending(session, harness.options(queue), 0)
    assert len(inbox.seen) == 1


@on_rabbitmq
async def test_19_a_token_of_a_later_term_ends_this_one(harness: Harness) -> None:
    """Whoever finds that somebody has led after it goes to the end of the line, and what is newer counts."""
    queue = leadership_queue(f"{harness.unique}.producers")
    leader = await harness.campaign(await harness.session())
    await in_time(leader.wait_won())
    session = await harness.session()
    later = json.dumps({"term": 1000, "version": 1, "state": {"later": True}})
    await session.publish(to_queue(queue), text(later, type="leadership.token"))
    await in_time(leader.wait_lost())
    await in_time(leader.wait_won())
    assert leader.state == {"later": True}


@contextlib.contextmanager
def process(url: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run a leader in a process of its own."""
    command = [sys.executable, "-c", LEAD_UNTIL_KILLED, url, name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


@on_rabbitmq
async def test_19_a_leader_that_is_killed_is_replaced(harness: Harness, request: pytest.FixtureRequest) -> None:
    """SIGKILL in the middle of saving: another process leads, and knows all that the dead one knew to be saved."""
    node: Any = request.getfixturevalue("rabbitmq")
    with process(node.url, f"{harness.unique}.producers") as child:
        assert child.stdout is not None
        said = [int(await in_time(asyncio.to_thread(child.stdout.readline))) for _ in range(20)]
        both = await rivals(harness, 2)
        assert both.leaders == []
        child.send_signal(signal.SIGKILL)
        said += [int(line) for line in await asyncio.to_thread(child.stdout.readlines)]
        leader = await both.leader()
    assert said == list(range(1, len(said) + 1))
    assert leader.state["number"] in (len(said), len(said) + 1)


@contextlib.asynccontextmanager
async def session_at(url: str, **settings: Any) -> AsyncIterator[Any]:
    """A session with a broker of the test's own."""
    from runner.pipeline.model import BrokerSettings
    from runner.transports.rabbitmq import RabbitTransport

    transport = RabbitTransport(BrokerSettings(urls=(url,), **settings))
    await transport.connect()
    try:
        yield transport
    finally:
        await transport.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_19_a_broker_that_is_killed_keeps_the_state(own_node: Any) -> None:
    """After a hard restart of the broker somebody leads again, and has the state."""
    async with session_at(own_node.url) as one, session_at(own_node.url) as two:
        both = Rivals(await one.campaign("producers"), await two.campaign("producers"))
        async with both.watched():
            leader = await both.leader()
            await leader.save({"kept": 1})
            await asyncio.to_thread(own_node.wait_until_kept, "producers")
            losing = asyncio.create_task(leader.wait_lost())
            await asyncio.to_thread(own_node.kill)
            await in_time(losing)
            assert both.leaders == []
            await asyncio.to_thread(own_node.start)
            assert (await both.leader(60.0)).state == {"kept": 1}  # connections come back with growing pauses


async def test_19_a_frozen_broker_has_no_leader_and_holds_nobody_up(own_node: Any) -> None:
    """The lease runs out while the broker says nothing; a save ends, and so does closing; afterwards it goes on."""
    async with session_at(own_node.url, heartbeat_s=4) as one, session_at(own_node.url, heartbeat_s=4) as two:
        leader, other = await one.campaign("producers"), await two.campaign("producers")
        await in_time(leader.wait_won())
        await leader.save({"kept": 1})
        own_node.freeze()
        with pytest.raises(NotLeader):
            await in_time(leader.save({"kept": 2}))
        assert not leader.is_leader
        await in_time(one.close())
        own_node.thaw()
        await in_time(other.wait_won())
        assert other.state in ({"kept": 1}, {"kept": 2})


async def test_19_a_broker_without_memory_has_no_leader(own_node: Any) -> None:
    """While the broker takes no messages nobody can prove to lead, so nobody does; afterwards it goes on."""
    async with session_at(own_node.url, heartbeat_s=2) as one, session_at(own_node.url, heartbeat_s=2) as two:
        both = Rivals(await one.campaign("producers"), await two.campaign("producers"))
        leader = await both.leader()
        await leader.save({"kept": 1})
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.000001")

        async def nobody_leads() -> bool:
            return not both.leaders

        await until(nobody_leads, True)
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.9")
        assert (await both.leader()).state == {"kept": 1}


@on_rabbitmq
async def test_19_a_leader_that_is_cut_off_stops_before_another_one_starts(
    harness: Harness, request: pytest.FixtureRequest
) -> None:
    """In a silent network the old leader gives up by its own clock, earlier than the broker gives up on it."""
    node: Any = request.getfixturevalue("rabbitmq")
    async with Proxy(node.port) as proxy, session_at(proxy.url, heartbeat_s=4) as there:
        cut_off = await harness.campaign(there)
        await in_time(cut_off.wait_won())
        await cut_off.save({"number": 1})
        both = Rivals(cut_off, await harness.campaign(await harness.session()))
        async with both.watched():
            proxy.blackhole()
            with pytest.raises(NotLeader):
                await in_time(cut_off.save({"number": 2}))
            assert both.leaders == []
            successor = await both.leader()
            assert successor is not cut_off
            assert successor.state == {"number": 1}
            await successor.save({"number": 3})
            proxy.pass_through()
            await successor.save({"number": successor.state["number"]})
            await successor.resign()
            both.all.remove(successor)
            await in_time(cut_off.wait_won())
            assert cut_off.state == {"number": 3}


@on_rabbitmq
async def test_19_who_may_not_declare_or_read_is_told(harness: Harness, request: pytest.FixtureRequest) -> None:
    """A user without the rights cannot compete: the error says so, with a hint; with the queue there, it may."""
    node: Any = request.getfixturevalue("rabbitmq")
    user, queue = harness.unique, leadership_queue(f"{harness.unique}.producers").name
    url = node.url.replace("guest:guest", f"{user}:secret")
    await asyncio.to_thread(node.ctl, "add_user", user, "secret")
    try:
        await asyncio.to_thread(node.ctl, "set_permissions", user, "^$", ".*", "^$")
        async with session_at(url) as modest:
            with pytest.raises(BrokerUnavailable, match="permit") as caught:
                await modest.campaign(queue)
            assert caught.value.hint
            leader = await harness.campaign(await harness.session())
            await in_time(leader.wait_won())
            with pytest.raises(BrokerUnavailable, match=f'has no right to (configure )?queue "{queue}"'):
                await modest.campaign(queue)
            await asyncio.to_thread(node.ctl, "set_permissions", user, "^$", ".*", ".*")
        async with session_at(url, topology="ignore") as modest:
            follower = await modest.campaign(queue)
            await leader.resign()
            await in_time(follower.wait_won())
    finally:
        await asyncio.to_thread(node.ctl, "delete_user", user)


@pytest.mark.parametrize("topology", ["verify", "ignore"])
@on_rabbitmq
async def test_19_a_queue_that_must_not_be_made_must_exist(
    harness: Harness, request: pytest.FixtureRequest, topology: str
) -> None:
    """Where we may not make anything, a missing queue is an error that names it, and an existing one is used."""
    node: Any = request.getfixturevalue("rabbitmq")
    name = f"{harness.unique}.producers"
    async with session_at(node.url, topology=topology) as strict:
        with pytest.raises((TopologyMismatch, BrokerUnavailable), match=name):
            await strict.campaign(name)
        leader = await harness.campaign(await harness.session())
        await in_time(leader.wait_won())
        follower = await strict.campaign(name)
        await leader.resign()
        await in_time(follower.wait_won())
