"""A message as a pydantic model: what the handlers of the `model` scenario ask for."""

from __future__ import annotations

from pydantic import BaseModel


class Order(BaseModel):
    """The fields of `job.body`."""

    number: int
    customer: str
    article: str
    quantity: int
    urgent: bool
