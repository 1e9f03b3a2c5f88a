"""The worked examples run as they stand, on the embedded broker and on RabbitMQ, and do what they say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.foreign import Foreign
from tests.process import ROOT, LogLine, RunnerProcess
from tests.project import MEMORY, Place


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest) -> Place:
    """A broker with nothing on it: the examples' queues have names that are not ours to choose."""
    if request.param == "memory":
        return MEMORY
    empty: Place = request.getfixturevalue("vhost")
    return empty


async def run_example(name: str, place: Place) -> RunnerProcess:
    async with RunnerProcess("up", f"pipelines/{name}", "--until-idle", *place.arguments, cwd=ROOT) as runner:
        assert await runner.wait(50) == 0, runner.stderr
    return runner


def lines(runner: RunnerProcess, event: str, **fields: Any) -> list[LogLine]:
    return [line for line in runner.logs if fields.items() <= line.items() and line["event"] == event]


def most_at_once(logs: list[LogLine], begun: str, ended: str) -> int:
    running = most = 0
    for line in logs:
        running += (line["event"] == begun) - (line["event"] == ended)
        most = max(most, running)
    return most


async def test_orders_wait_in_a_queue_and_several_are_worked_on_at_a_time(place: Place) -> None:
    """Six orders, plain text, are published at once and handled four at a time."""
    runner = await run_example("orders.yaml", place)

    expected = {f"订单编号: {number}" for number in range(12345, 12351)}
    assert {line["order"] for line in lines(runner, "processing")} == expected
    published = {line["message_id"] for line in lines(runner, "message.published", to="order_queue")}
    handled = [line["message_id"] for line in lines(runner, "message.handled", subscriber="process_orders")]
    assert len(published) == 6
    assert sorted(handled) == sorted(published)
    assert most_at_once(runner.logs, "processing", "message.handled") == 4
    assert "stopped: 6 published · 6 handled · 0 retried · 0 dead-lettered" in runner.stderr


async def test_every_listener_hears_the_one_order(place: Place) -> None:
    """One event reaches both listeners; the quick one does not wait for the slow one."""
    runner = await run_example("order_placed.yaml", place)

    said = [line for line in runner.logs if line["event"] in ("confirmation sent", "inventory updated")]
    assert [line["event"] for line in said] == ["inventory updated", "confirmation sent"]
    assert {line["order"] for line in said} == {"订单编号: 54321"}
    published = lines(runner, "message.published", to="orderPlaced")
    assert len(published) == 1
    assert {line["message_id"] for line in said} == {published[0]["message_id"]}
    assert {line["subscriber"] for line in lines(runner, "message.handled")} == {
        "send_confirmation",
        "update_inventory",
    }


async def test_orders_are_fulfilled_and_what_cannot_be_is_kept_with_its_reason(place: Place) -> None:
    """Seven of eight paid orders are shipped, two of them at the second attempt; the eighth is a dead letter."""
    runner = await run_example("fulfilment.yaml", place)

    shipped = {line["order"] for line in lines(runner, "audited", event_name="order.shipped")}
    assert shipped == set(range(1001, 1008))
    retried = lines(runner, "message.retry")
    assert {(line["subscriber"], line["error_type"]) for line in retried} == {("ship_order", "CarrierUnavailable")}
    assert len(retried) == 2
    (dead,) = lines(runner, "message.dead_lettered")
    assert (dead["subscriber"], dead["reason"], dead["attempt"]) == ("reserve_stock", "rejected", 1)
    assert "unobtainium" in dead["error"]
    paid = {line["message_id"] for line in lines(runner, "message.published")}
    shipments = lines(runner, "message.handled", subscriber="ship_order")
    assert {line["correlation_id"] for line in shipments} == paid - {dead["message_id"]}
    if place.url:
        with Foreign(place.url) as foreign:
            (kept,) = foreign.take("fulfilment.reserve_stock.dead")
        assert kept.headers["x-runner-reason"] == "rejected"
        assert b"unobtainium" in kept.body
