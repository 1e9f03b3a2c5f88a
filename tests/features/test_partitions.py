"""A queue with partitions: where messages go, in which order they are handled, and what becomes of dead letters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.foreign import Foreign
from tests.node import Node
from tests.project import Place, Project, lines, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.orders: {partitions: 4, partition_by: customer.id}}
    producers: {send: {handler: work:send, to: UNIQUE.orders}}
    subscribers:
      ship: {from: UNIQUE.orders, handler: work:ship, retry: {attempts: 2, delay: 10ms}}
"""
HANDLERS = """
    import asyncio
    from runner import Message

    def send():
        for number in range(5):
            for customer in range(8):
                yield {"customer": {"id": f"c-{customer}"}, "number": number}

    async def ship(order: dict, message: Message) -> None:
        number = order["number"]
        note(f"{order['customer']['id']}:{number}:{message.queue.rpartition('.')[2]}", message.attempt)
        await asyncio.sleep(0.001 * (5 - number))
        if number == 2 and message.attempt == 1:
            raise ValueError("once more")
"""


async def test_each_key_has_one_partition_and_keeps_its_order(project: Project) -> None:
    """Retries included: they wait in the process, and hold their key."""
    project.write(PIPELINE, HANDLERS)
    await project.up_until_idle()
    handled = [payload.split(":") for payload in project.ledger.payloads()]
    partitions = {(customer, partition) for customer, _, partition in handled}
    assert len(partitions) == 8  # CRC-32 of c-0, …, c-7 modulo 4
    assert {partition for _, partition in partitions} == {"0", "1", "2", "3"}
    for customer in range(8):
        assert [number for name, number, _ in handled if name == f"c-{customer}"] == ["0", "1", "2", "2", "3", "4"]


async def test_what_has_no_key_is_not_published(memory_project: Project) -> None:
    """The producer fails with the path that is missing."""
    memory_project.pipeline(PIPELINE)
    memory_project.handlers(
        """
        def send(): return [{"customer": {}}]
        def ship(order: dict) -> None: note(order)
        """
    )
    runner = await memory_project.do("up", "--until-idle", code=1)
    said = str(lines(runner, "producer.failed")[0])
    assert "the message has no key for a partition of" in said
    assert "`customer.id` must be a text, a whole number, true or false" in said
    assert memory_project.ledger.payloads() == []


async def test_commands_know_partitions_as_one_queue(rabbit_project: Project, foreign: Foreign) -> None:
    """`publish` chooses the partition, `status` adds them up, and `dead` has one queue, from which `replay` chooses.

    `up` refuses another number, with what to write.
    """
    rabbit_project.pipeline(PIPELINE.replace("attempts: 2, delay: 10ms", "attempts: 1"))
    rabbit_project.handlers(
        """
        import os
        def send(): return []
        def ship(order: dict) -> None:
            if not os.path.exists("mended"):
                raise ValueError("broken")
            note(order["customer"]["id"])
        """
    )
    orders, names = rabbit_project.name("orders"), ["c-1", "c-2", "c-3"]
    async with rabbit_project.running("--only", "ship"):
        bodies = "".join(json.dumps({"customer": {"id": name}}) + "\n" for name in names)
        await rabbit_project.do("publish", orders, "--lines", stdin=bodies.encode())
        foreign.publish_confirmed(f"{orders}.0", b"not JSON")  # as a program that knows no key would
        await until(lambda: foreign.count(f"{orders}.dead") == 4, "all four are given up")
        listed = (await rabbit_project.do("dead list", "--json")).stdout.splitlines()
        assert [json.loads(line)["queue"] for line in listed] == 4 * [orders]
        (rabbit_project.folder / "mended").touch()
        await rabbit_project.do("dead replay", orders, "--error", "broken")
        await rabbit_project.ledger.wait_for(3)
        status = json.loads((await rabbit_project.do("status", "--json")).stdout)
        (row,) = [each for each in status[0]["queues"] if each["queue"] == orders]
        assert (row["exists"], row["ready"], row["consumers"], row["dead"]) == (True, 0, 1, 1)
    assert sorted(rabbit_project.ledger.payloads()) == names
    rabbit_project.pipeline(PIPELINE.replace("partitions: 4", "partitions: 2"))
    async with rabbit_project.up("--until-idle") as other:
        assert await other.wait() != 0
    assert "it is the number of partitions: write `partitions: 4` to agree with the broker" in other.stderr


@pytest.mark.slow
async def test_a_consistent_hash_exchange_chooses_the_partition_for_other_programs(
    tmp_path: Path, unique: str, installed: None
) -> None:
    """By a header, with RabbitMQ's plugin for that. For `plan`, bindings of others are no difference."""
    with Node(management=True, plugins=["rabbitmq_consistent_hash_exchange"]) as node, Foreign(node.url) as foreign:
        project = Project(tmp_path, unique, Place.at(node.url))
        project.write(PIPELINE.replace("send: {handler: work:send, to: UNIQUE.orders}", ""), HANDLERS)
        await project.do("apply", "--management", node.management_url)
        channel, exchange = foreign.channel, project.name("by_customer")
        channel.exchange_declare(exchange, "x-consistent-hash", durable=True, arguments={"hash-header": "customer"})
        for partition in range(4):
            channel.queue_bind(project.name(f"orders.{partition}"), exchange, "1")
        for number in range(5):
            for customer in range(8):
                order = {"customer": {"id": f"c-{customer}"}, "number": number}
                headers = {"customer": f"c-{customer}"}
                foreign.publish("", json.dumps(order).encode(), exchange=exchange, headers=headers)
        await project.do("plan", "--management", node.management_url)
        await project.up_until_idle("--workers", "2")
        handled = [payload.split(":") for payload in project.ledger.payloads()]
        assert len({(customer, partition) for customer, _, partition in handled}) == 8
        for customer in range(8):
            assert [number for name, number, _ in handled if name == f"c-{customer}"] == ["0", "1", "2", "2", "3", "4"]
