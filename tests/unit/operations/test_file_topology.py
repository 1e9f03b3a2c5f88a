"""`plan` and `apply` on a broker in a file: what differs, and what may change while there are messages or an owner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import BrokerUnavailable
from runner.message import Address, Envelope
from runner.operations.file_topology import apply_to_file, compare_with_file, open_file
from runner.operations.plan import ApplyResult
from runner.operations.rabbitmq.queue_recreation import CannotRecreate
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.file import FileBroker, FileTransport

pytestmark = pytest.mark.usefixtures("no_file_left_open")

SHOP, PAID = Exchange("shop"), Binding("shop", "work", "paid")


def topology(*bindings: Binding, name: str = "work", **arguments: Any) -> Topology:
    keyed = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return Topology((SHOP,), (Queue(name, arguments={"x-queue-type": "quorum", **keyed}),), bindings)


async def apply(path: Path, wanted: Topology, *recreate: str, prunes: bool = False) -> ApplyResult:
    return await apply_to_file(path, wanted, recreate, prunes=prunes, on_step=lambda _: None)


async def publish(path: Path, *bodies: str) -> None:
    async with open_file(path) as (_, transport):
        for body in bodies:
            await transport.publish(Address("", "work"), Envelope(body.encode()))


async def waiting(path: Path) -> list[str]:
    """Return what is in the queue, in the order in which its owner would deliver it."""
    async with open_file(path, is_owner=True) as (broker, _):
        broker.read_topology()
        queue = broker.queue("work")
        assert queue is not None
        return [message.envelope.body.decode() for message in queue.buffer]


async def test_a_file_that_does_not_exist_is_compared_and_not_made(tmp_path: Path) -> None:
    """Everything is to be created, as in an empty broker."""
    found = await compare_with_file(tmp_path / "q", topology(PAID))
    assert found.summary() == "plan: 3 to create"
    assert found.product.endswith("which does not exist yet")
    assert [*tmp_path.iterdir()] == []


async def test_what_is_missing_is_declared_once(tmp_path: Path) -> None:
    """The second time nothing differs."""
    done = (await apply(tmp_path / "q", topology(PAID))).done
    assert done == (
        'created exchange "shop": topic, durable',
        'created queue "work": quorum, durable',
        "created binding shop --paid--> work",
    )
    again = await apply(tmp_path / "q", topology(PAID))
    assert (again.done, again.left.summary()) == ((), "plan: 3 match")


async def test_a_difference_is_said_as_on_rabbitmq(tmp_path: Path) -> None:
    """With what is in the queue. Without being asked for, it is not changed."""
    await apply(tmp_path / "q", topology(PAID, max_length=5))
    await publish(tmp_path / "q", "1", "2")
    left = (await apply(tmp_path / "q", topology(max_length=9))).left
    assert [(item.action, item.text) for item in left.of("recreate", "extra")] == [
        ("recreate", 'queue "work": x-max-length is 5 on the broker, the pipeline says 9'),
        ("extra", "binding shop --paid--> work is not in the pipeline"),
    ]
    assert left.of("recreate")[0].messages == 2
    assert left.of("recreate")[0].details[-1] == "it must be recreated; it holds 2 messages and has 0 consumers"


async def test_a_queue_that_is_not_declared_is_not_compared(tmp_path: Path) -> None:
    """`declare: false`: its owner decides; one that is missing is foreign."""
    await apply(tmp_path / "q", topology(max_length=5))
    theirs = Topology(queues=(Queue("work", declare=False), Queue("other", declare=False)))
    found = await compare_with_file(tmp_path / "q", theirs)
    assert [(item.name, item.action) for item in found.items] == [("work", "match"), ("other", "foreign")]


async def test_a_queue_that_lives_in_the_process_is_not_in_the_plan(tmp_path: Path) -> None:
    """One that is not durable would be missing for ever."""
    found = await compare_with_file(tmp_path / "q", topology())
    wanted = Topology((SHOP,), (*topology().queues, Queue("mine", durable=False)), (Binding("shop", "mine", "x"),))
    await apply(tmp_path / "q", wanted)
    assert (await compare_with_file(tmp_path / "q", wanted)).summary() == "plan: 2 match"
    assert found.summary() == "plan: 2 to create"


async def test_limits_change_while_messages_wait_and_their_order_stays(tmp_path: Path) -> None:
    """Those that an owner has put into the queue, those in its inbox, and those of other priorities."""
    await apply(tmp_path / "q", topology(max_length=5))
    await publish(tmp_path / "q", "1", "2")
    async with open_file(tmp_path / "q", is_owner=True) as (broker, transport):
        broker.read_topology()
        await transport.publish(Address("", "work"), Envelope(b"first", priority=9))
    await publish(tmp_path / "q", "3")
    result = await apply(tmp_path / "q", topology(max_length=9, message_ttl=600_000), "work")
    assert result.done == ('changed queue "work"; it keeps 4 messages',)
    assert not result.left.has_changes
    assert await waiting(tmp_path / "q") == ["first", "1", "2", "3"]
    assert not (await compare_with_file(tmp_path / "q", topology(max_length=9, message_ttl=600_000))).has_changes


async def test_a_type_changes_only_while_the_queue_is_empty(tmp_path: Path) -> None:
    """The place of a message in the file is that of its priority, which is another one in a classic queue."""
    await apply(tmp_path / "q", topology())
    await publish(tmp_path / "q", "1")
    with pytest.raises(CannotRecreate, match='"work" has 1 message, whose order'):
        await apply(tmp_path / "q", topology(queue_type="classic"), "work")
    assert await waiting(tmp_path / "q") == ["1"]
    async with open_file(tmp_path / "q", is_owner=True) as (broker, _):
        queue = broker.queue("work")
        assert queue is not None
        message = queue.take_head()
        assert message is not None
        queue.forget(message)
    changed = topology(queue_type="classic", max_priority=5)
    assert not (await apply(tmp_path / "q", changed, "work")).left.has_changes
    await publish(tmp_path / "q", "2")
    assert await waiting(tmp_path / "q") == ["2"]


async def test_the_number_of_partitions_changes_only_while_they_are_empty(tmp_path: Path) -> None:
    """It is the length limit of a queue that has no messages itself."""
    before, after = topology(name="work.partitions", max_length=2), topology(name="work.partitions", max_length=3)
    await apply(tmp_path / "q", before)
    await apply(tmp_path / "q", topology(name="work.1"))
    async with open_file(tmp_path / "q") as (_, transport):
        await transport.publish(Address("", "work.1"), Envelope(b"x"))
    with pytest.raises(CannotRecreate, match='"work" has 1 message'):
        await apply(tmp_path / "q", after, "work.partitions")
    assert (await compare_with_file(tmp_path / "q", before)).summary() == "plan: 2 match"


async def test_beside_an_owner_things_are_added_and_nothing_else(tmp_path: Path) -> None:
    """What is added is there for the owner too; for a change it has to stop first."""
    await apply(tmp_path / "q", topology(PAID))
    broker = FileBroker(tmp_path / "q", who="runner up (shop)")
    owner = FileTransport(broker)
    await owner.connect()
    try:
        found = await compare_with_file(tmp_path / "q", topology(PAID))
        assert (found.summary(), found.product) == ("plan: 3 match", f"file {tmp_path / 'q'}")
        await apply(tmp_path / "q", topology(PAID, name="more"))
        broker.read_topology()  # which it does every `POLL_S`
        await owner.publish(Address("", "more"), Envelope(b"x"))
        for options in ({"prunes": True}, {}):
            with pytest.raises(BrokerUnavailable, match=r"belongs to runner up \(shop\)"):
                await apply(tmp_path / "q", topology(max_length=5), *(["work"] if not options else []), **options)
    finally:
        await owner.close()


async def test_a_binding_is_removed_for_every_process(tmp_path: Path) -> None:
    """Also for a program that has published by it."""
    await apply(tmp_path / "q", topology(PAID))
    async with open_file(tmp_path / "q") as (broker, transport):
        await transport.publish(Address("shop", "paid"), Envelope(b"x"))
        result = await apply(tmp_path / "q", topology(), prunes=True)
        assert result.done == ("removed binding shop --paid--> work",)
        assert not result.left.has_changes
        assert broker.read_topology().bindings == ()
    assert await waiting(tmp_path / "q") == ["x"]
