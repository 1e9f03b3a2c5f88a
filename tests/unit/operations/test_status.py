"""Which queues `status` asks about."""

from __future__ import annotations

from runner.operations.status import status_query
from runner.pipeline.model import Pipeline


def test_status_asks_for_work_queues_and_what_belongs_to_them(shop: Pipeline) -> None:
    """Dead-letter queues are columns, except those with a subscriber; wait queues are a sum."""
    asked = status_query(shop)
    assert dict(asked.queues) == {
        "orders": "orders.dead",
        "plain": "plain.dead",
        "pdf": "pdf.dead",
        "shop.hear": "shop.hear.dead",
        "shop.bury": "plain",
    }
    assert "shop.retry.2000" in asked.waits
