"""The worked examples run as they stand, on the embedded broker and on RabbitMQ, and do what they say."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.foreign import Foreign
from tests.process import ROOT, LogLine, RunnerProcess
from tests.project import MEMORY, Place, stop, until


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


async def test_the_back_office_takes_orders_over_http_and_its_mail_waits_for_the_mail_server(place: Place) -> None:
    """An order of 2 lamps is mailed and booked, after the mail server has refused the first connection."""
    order = {
        "number": 1,
        "customer": "ada",
        "email": "ada@example.com",
        "article": "lamp",
        "quantity": 2,
        "cents": 9800,
    }
    quick = ["subscribers.send_mail.retry.delay=100ms", "subscribers.book_payments.batch.wait=50ms"]
    options = ["--http", "127.0.0.1:0", "--except", "old_orders", *(word for each in quick for word in ("--set", each))]
    async with mail_server(refusals=1) as (port, mails):
        env = {"MAIL_PORT": str(port)}
        command = ["up", "pipelines/back_office.yaml", *options, *place.arguments]
        async with RunnerProcess(*command, cwd=ROOT, env=env) as runner:
            address = (await runner.wait_for(lambda line: line["event"] == "http.listening"))["address"]
            await runner.wait_for(lambda line: line["event"] == "pipeline.started")
            status, answer = await asyncio.to_thread(post, f"http://{address}/orders", json.dumps(order).encode())
            assert (status, len(answer["ids"])) == (202, 1)
            await until(lambda: mails and lines(runner, "message.handled", subscriber="book_payments"), "all is done")
            await stop(runner)
    assert mails == [["To: ada@example.com", "Subject: Your order 1 is on its way"]]
    assert [line["subscriber"] for line in lines(runner, "message.retry")] == ["send_mail"]
    if place.url:
        with Foreign(place.url) as foreign:
            (booking,) = foreign.take("erp.bookings")
        assert json.loads(booking.body) == {"orders": [1], "cents": 9800}


def post(url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=20) as response:
        return response.status, json.loads(response.read())


@asynccontextmanager
async def mail_server(*, refusals: int) -> AsyncIterator[tuple[int, Sequence[list[str]]]]:
    """Serve SMTP on a free port; turn the first connections away. Yields the port, and each mail: To and Subject."""
    mails: list[list[str]] = []
    connections = itertools.count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_open = next(connections) >= refusals
        writer.write(b"220 ready\r\n" if is_open else b"421 come back later\r\n")
        while is_open and (command := (await reader.readline())[:4].upper()):
            if command == b"DATA":
                writer.write(b"354 go on\r\n")
                text = (await reader.readuntil(b"\r\n.\r\n")).decode()
                mails.append([line for line in text.splitlines() if line.startswith(("To: ", "Subject: "))])
            is_open = command != b"QUIT"
            writer.write(b"250 ok\r\n" if is_open else b"221 bye\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], mails
