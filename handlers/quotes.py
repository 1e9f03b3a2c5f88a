"""Handlers of `pipelines/quotes.yaml`: what a parcel costs, and a reminder of it."""

import structlog
from pydantic import BaseModel, Field

from runner import Reject

log = structlog.get_logger()

ORDERED = {"Bob"}
"""The customers who have ordered: a table in a real shop."""


class Parcel(BaseModel):
    """A parcel, and who asks what it costs."""

    kg: float = Field(gt=0)
    customer: str


class Quote(BaseModel):
    """What a parcel costs."""

    customer: str
    cents: int


def quote(parcel: Parcel) -> Quote:
    """Return the price, which is the answer and, later, the reminder."""
    if parcel.kg > 30:
        raise Reject("parcels of more than 30 kg go by truck")
    return Quote(customer=parcel.customer, cents=round(400 + 150 * parcel.kg))


def remind(quote: Quote) -> None:
    """Remind a customer who has not ordered yet."""
    if quote.customer not in ORDERED:
        log.info("reminder sent", customer=quote.customer, cents=quote.cents)
