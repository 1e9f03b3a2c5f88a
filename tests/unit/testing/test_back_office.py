"""The back office of `pipelines/back_office.yaml`, as its own team would test it: by what its resources hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.back_office.books import open_books
from handlers.back_office.desk import Desk
from handlers.back_office.fakes import Mailbox
from runner import PublishFailed
from runner.testing import Replacement, running, running_sync
from tests.process import ROOT

BACK_OFFICE = ROOT / "pipelines/back_office.yaml"
SUBSCRIBERS = ("reserve_stock", "send_mail", "book_payments", "send_report")


def order(number: int, customer: str = "ada", **changes: Any) -> dict[str, Any]:
    email = f"{customer}@example.com"
    usual = {"number": number, "customer": customer, "email": email, "article": "lamp", "quantity": 1, "cents": 4900}
    return usual | changes


def resources(mailbox: Mailbox, **stock: int) -> dict[str, Any]:
    return {"mailbox": mailbox, "books": lambda: open_books(":memory:", stock)}


def test_the_stock_goes_down_until_it_is_empty() -> None:
    mailbox = Mailbox()
    with running_sync(BACK_OFFICE, only=SUBSCRIBERS, replace={"resources": resources(mailbox, lamp=3)}) as office:
        for number in (1, 2):
            office.publish("orders", order(number, quantity=2))
        office.until_idle()
        assert [record.payload["number"] for record in office.published("stock.reserved")] == [1]
        assert [record.payload["reason"] for record in office.published("stock.short")] == ["1 lamp left"]
        assert mailbox.sent == [
            ("ada@example.com", "Your order 1 is on its way"),
            ("ada@example.com", "Your order 2: we are sorry"),
        ]


async def test_an_order_that_fails_holds_back_its_customer_and_no_other() -> None:
    locked = Replacement(raises="sqlite3:OperationalError", times=1)
    stock = resources(Mailbox(), lamp=9)
    async with running(BACK_OFFICE, only=SUBSCRIBERS, replace={"reserve_stock": locked, "resources": stock}) as office:
        for number, customer in ((1, "ada"), (2, "ada"), (3, "bob")):
            await office.publish("orders", order(number, customer))
        await office.until_idle()
        assert [record.after for record in office.retried("reserve_stock")] == [1]
        assert [record.payload["number"] for record in office.handled("reserve_stock")] == [3, 1, 2]


def test_payments_are_booked_in_batches_of_fifty() -> None:
    with running_sync(BACK_OFFICE, only=SUBSCRIBERS, replace={"resources": resources(Mailbox(), lamp=1000)}) as office:
        for number in range(120):
            office.publish("orders", order(number, f"customer {number}"))
        office.until_idle()
        batches = [record.payload for record in office.published("erp.bookings")]
        assert [len(batch["orders"]) for batch in batches] == [50, 50, 20]
        assert sorted(number for batch in batches for number in batch["orders"]) == list(range(120))


def test_the_report_is_about_the_day_before_in_its_time_zone() -> None:
    mailbox = Mailbox()
    start = datetime(2026, 3, 28, 22, 30, tzinfo=UTC)  # 23:30 in Berlin, in the night in which summer time begins
    replace = {"resources": resources(mailbox, lamp=9)}
    with running_sync(BACK_OFFICE, only=("report", *SUBSCRIBERS), replace=replace, now=start) as office:
        office.publish("orders", order(1, cents=4900))
        office.run_for("1h")
        office.publish("orders", order(2, cents=100))
        office.run_for("1d")
        reports = [subject for to, subject in mailbox.sent if to == "office@example.com"]
        assert reports == ["2026-03-28: 1 payment, 49.00 EUR"]
        assert [record.at for record in office.published("report.due")] == [datetime(2026, 3, 29, 4, tzinfo=UTC)]


def test_an_order_by_telephone_goes_the_same_way() -> None:
    mailbox = Mailbox()
    replace = {"resources": resources(mailbox, lamp=9)}
    with running_sync(BACK_OFFICE, only=SUBSCRIBERS, replace=replace) as office:
        desk = Desk(office.publisher())
        assert desk.take_order("ada", "ada@example.com", "lamp", 1, 4900, number=7) == "order-7"
        desk.take_order("ada", "ada@example.com", "lamp", 1, 4900, number=7)  # the line was bad: once more
        with pytest.raises(PublishFailed, match="quantity"):
            desk.take_order("ada", "ada@example.com", "lamp", 0, 4900, number=8)
        office.until_idle()
        assert mailbox.sent == [("ada@example.com", "Your order 7 is on its way")]
