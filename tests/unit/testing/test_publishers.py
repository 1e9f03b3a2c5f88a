"""An application under test publishes with the publishers that it has, to the pipelines of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import AsyncPublisher, Publisher, PublisherClosed, PublishFailed
from runner.testing import running, running_sync

SHOP = """
version: 1
name: shop
queues: {work: {schema: shop_models_in_test:Order}}
events: {order.placed: , nobody.hears: }
subscribers:
  do: {from: work, handler: shop_models_in_test:handle}
  ship: {from: "order.*", handler: shop_models_in_test:handle}
"""
MODELS = """
from pydantic import BaseModel
class Order(BaseModel):
    order: int
def handle(order: Order) -> None: pass
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop_models_in_test.py").write_text(MODELS)
    (tmp_path / "shop.yaml").write_text(SHOP)
    return tmp_path / "shop.yaml"


def place(publisher: Publisher, number: int) -> str:
    """Stand for a view of the application."""
    return publisher.publish("order.placed", {"order": number}, id=f"o-{number}", headers={"tenant": "a"}, timeout="1s")


def test_what_the_application_publishes_is_handled(shop: Path) -> None:
    with running_sync(shop) as pipelines:
        publisher = pipelines.publisher()
        assert place(publisher, 1) == "o-1"
        publisher.publish("order.placed", {"order": 2}, key="order.special")
        publisher.publish("work", {"order": 3})
        pipelines.until_idle()
        handled = sorted(pipelines.handled("ship"), key=lambda record: record.payload["order"])  # two threads
        assert [record.payload for record in handled] == [{"order": 1}, {"order": 2}]
        assert (handled[0].message_id, handled[0].headers["tenant"]) == ("o-1", "a")
        assert [record.payload for record in pipelines.handled("do")] == [{"order": 3}]
        assert publisher.pending() == 0


def test_errors_are_those_of_a_publisher(shop: Path) -> None:
    with running_sync(shop) as pipelines, pipelines.publisher() as publisher:
        with pytest.raises(PublishFailed, match="is called") as caught:
            publisher.publish("order.place", {})
        assert caught.value.hint == 'did you mean "order.placed"?'
        with pytest.raises(PublishFailed, match="does not fit the schema"):
            publisher.publish("work", {"order": "x"})
        with pytest.raises(PublishFailed, match="no queue takes a message") as caught:
            publisher.publish("nobody.hears", {})
        assert caught.value.reason == "unroutable"
        publisher.close()
        with pytest.raises(PublisherClosed):
            place(publisher, 1)


async def test_an_application_on_an_event_loop(shop: Path) -> None:
    async def place(publisher: AsyncPublisher) -> str:
        async with publisher:
            return await publisher.publish("order.placed", {"order": 1}, id="o-1")

    async with running(shop) as pipelines:
        assert await place(pipelines.async_publisher()) == "o-1"
        await pipelines.until_idle()
        assert [record.message_id for record in pipelines.handled("ship")] == ["o-1"]
