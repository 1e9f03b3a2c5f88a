"""Handlers as authors write them, good and bad."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Literal

from runner import Message

if TYPE_CHECKING:
    from decimal import Decimal


class Busy(Exception):
    """To be tried again."""


@dataclasses.dataclass
class Order:
    """One order."""

    id: int


@dataclasses.dataclass
class Bill:
    """Something else."""

    id: int


@dataclasses.dataclass
class Item:
    """One line of an order."""

    count: int
    price: float


class Shop:
    """An object that can be called, but takes nothing."""

    def __call__(self):
        """Take no payload."""

    def ship(self, order):
        """Ship an order."""


class Ship:
    """A class in place of a function."""

    def __init__(self, order, carrier):
        self.order = order


a_number = 5
a_text = "ship"
an_instance = Shop()
nothing = None
builtin = dict.update


def place():
    """Place orders."""


def place_some(number):
    """Place a number of orders."""


def ship(order):
    """Ship an order."""


def ship_order(order: Order):
    """Ship an order of this type."""


def ship_bill(bill: Bill):
    """Ship something else."""


def ship_thread(thread: threading.Thread):
    """Ship what nothing can be converted to."""


def ship_unknown(order: Decimal):
    """Ship what is imported for type checkers only."""


def no_parameters():
    """Take nothing."""


def two(order, carrier):
    """Want something that nothing provides."""


def keyword_only(order, *, carrier):
    """Want a keyword."""


def only_keywords(*, order):
    """Take the payload by name only."""


def only_message(message: Message):
    """Take the envelope only."""


def two_messages(order, message: Message, other: Message):
    """Take the envelope twice."""


def message_or_order(order: Message | Order):
    """Take the envelope or the payload."""


def charge(order, dry_run: bool, limit: int = 1, mode: Literal["card", "cash"] = "card", items: list[Item] = ()):
    """Want values of these types."""


def many(orders: list[Order]):
    """Ship a batch."""


def many_messages(orders: list, messages: list[Message]):
    """Ship a batch with its envelopes."""


def with_db(order, db):
    """Ship with a resource."""


def connect(url):
    """Open a resource."""


def pool(size: int):
    """Open a resource of some size."""


async def ship_async(order):
    """Ship on the loop."""


def yield_db():
    """Open a resource and close it, without a decorator."""
    yield 1


async def yield_cache():
    """Do the same on the loop."""
    yield 1
